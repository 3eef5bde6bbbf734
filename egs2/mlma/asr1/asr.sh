#!/usr/bin/env bash
# Train and score a CTC recogniser: ESPnet's stages, option names and folders, in Python alone.
#
#   1 data  2 speed perturbation  3 format audio  4 filter  5 tokens  6-8 (neural LM, not supported)
#   9 n-gram  10 statistics  11 training  12 decoding  13 scoring  14 packing  15 upload
#
# Each stage can be run alone. After an interruption, the same command resumes.
set -euo pipefail

# --- options: `--name value`, with - or _ in names
stage=1                      # first stage to run
stop_stage=15                # last stage to run
skip_stages=                 # stages to leave out, such as "9 14"
skip_data_prep=false         # leave out stages 1 to 5
skip_train=false             # leave out stages 6 to 11
skip_eval=false              # leave out stages 12 and 13
skip_packing=true            # leave out stage 14
skip_upload_hf=true          # leave out stage 15
ngpu=1                       # GPUs of a node; 0 trains on the CPU
num_nodes=1                  # nodes; more than one needs a launcher in cmd.sh, such as srun
nj=4                         # processes of stages 3 and 10
inference_nj=1               # processes of stage 12, which share the test sets
gpu_inference=false          # decode on a GPU
dumpdir=dump                 # formatted audio
expdir=exp                   # experiments
python="python3 -m espnet_mlma.run" # runs ESPnet's programs with the plugin registered
local_data_opts=             # options of local/data.sh
speed_perturb_factors=       # such as "0.9 1.0 1.1"
verify_audio=false           # stage 3 verifies the checksums of all archives, not only of changed ones
feats_type=raw               # only raw is supported
audio_format=flac.ark        # only flac.ark is supported
fs=16k                       # only 16k is supported
min_wav_duration=0.1         # seconds; stage 4 drops shorter clips from training and validation
max_wav_duration=20          # seconds; stage 4 drops longer clips from training and validation
token_type=bpe               # char or bpe
nbpe=30                      # BPE pieces
bpemode=unigram              # unigram or bpe
lang_tokens=false            # train on texts that begin with a language token, such as <it>
bpe_train_text=              # texts for the token list; default: the training set's
lm_train_text=               # texts for the n-gram model; default: the training set's
use_lm=false                 # neural language models are not supported
use_ngram=false              # train an n-gram model in stage 9 with KenLM, and decode with it
ngram_num=3                  # its order
ngram_exp=                   # its folder
asr_tag=                     # name of the experiment; default: made from the other options
asr_exp=                     # folder of the experiment
asr_stats_dir=               # folder of the statistics
asr_config=                  # training configuration
asr_args=                    # more options of training, such as "--max_epoch 10"
feats_normalize=global_mvn   # global_mvn or utterance_mvn
pretrained_model=            # model to fine-tune: experiment folder, packed zip or hub id; or ESPnet's --init_param, FILE.pth[:...]
ignore_init_mismatch=false   # skip initial parameters of another shape
inference_tag=               # name of the decoding folder
inference_config=            # of decoding; default: conf/decode_ctc_best_path.yaml, or ..._beam_ngram with --use_ngram
inference_asr_model=valid.cer_ctc.ave.pth       # checkpoint to decode with
train_set=                   # data folder to train on
valid_set=                   # data folder for validation
test_sets=                   # data folders to score
lang=noinfo                  # part of folder names
hf_repo=                     # Hugging Face repository for stage 15
# --- end of options

start= # folder of what a fine-tuning takes from its model

die() {
    echo "error: $*" >&2
    exit 1
}

options() { sed -n '/^# --- options/,/^# --- end/p' "${BASH_SOURCE[0]}"; }

parse_options() {
    local names name
    names=" $(options | sed -n 's/^\([a-z_]*\)=.*/\1/p' | tr '\n' ' ')"
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) options | sed '1d;$d;s/^/--/' && exit ;;
            --*) name=${1#--} name=${name//-/_} ;;
            *) die "'$1': not an option; options are --name value, see $0 --help" ;;
        esac
        case ${name} in
            lm_* | inference_lm | use_word_lm | word_vocab_size)
                [[ ${names} == *" ${name} "* ]] ||
                    die "--${name}: this recipe trains no neural language model; leave it out" ;;
            *_streaming | use_k2 | k2_* | num_paths | inference_args | download_model)
                die "--${name}: not supported; --inference_config has the options of decoding" ;;
            *_fold_length | num_splits_* | nlsyms_txt | bpe_nlsyms | cleaner | g2p | score_opts)
                die "--${name}: has no effect on this recipe; leave it out" ;;
        esac
        [[ ${names} == *" ${name} "* ]] || die "unknown option $1; see $0 --help"
        [ $# -ge 2 ] || die "$1 needs a value"
        if [[ ${!name} =~ ^(true|false)$ && ! $2 =~ ^(true|false)$ ]]; then
            die "$1 $2: not true or false"
        fi
        printf -v "${name}" %s "$2"
        shift 2
    done
}

# find_start: write what a fine-tuning takes from its model into a folder, unless it is there.
find_start() {
    local name
    [ -n "${pretrained_model}" ] && [[ ! ${pretrained_model} =~ \.pth(:|$) ]] || return 0
    name=$(basename "${pretrained_model}" .zip)
    start=${expdir}/pretrained_${name//[^A-Za-z0-9._-]/_}
    python3 -m espnet_mlma.cli recipe pretrained --model "${pretrained_model}" --output "${start}"
    asr_config=${asr_config:-${start}/fine_tuned.yaml}
}

check_options() {
    local name
    for name in train_set valid_set test_sets asr_config; do
        [ -n "${!name}" ] || die "--${name} is missing; see $0 --help"
    done
    for name in asr_config inference_config; do
        [ -f "${!name}" ] || die "--${name} ${!name}: no such file"
    done
    for name in stage stop_stage ngpu num_nodes nj inference_nj nbpe ngram_num; do
        [[ ${!name} =~ ^[0-9]+$ ]] || die "--${name} ${!name}: not a whole number"
    done
    for name in nj inference_nj; do
        [ "${!name}" -gt 0 ] || die "--${name} 0: give 1 or more"
    done
    [ "${use_lm}" = false ] || die "--use_lm true: this recipe trains no neural language model"
    [ "${feats_type}" = raw ] || die "--feats_type ${feats_type}: not supported; give raw"
    [ "${audio_format}" = flac.ark ] || die "--audio_format ${audio_format}: not supported; give flac.ark"
    [[ ${fs} =~ ^(16k|16000)$ ]] || die "--fs ${fs}: not supported; give 16k"
    [[ ${token_type} =~ ^(char|bpe)$ ]] || die "--token_type ${token_type}: not supported; give char or bpe"
    [[ ${bpemode} =~ ^(unigram|bpe)$ ]] || die "--bpemode ${bpemode}: not supported; give unigram or bpe"
    [[ ${feats_normalize} =~ ^(global_mvn|utterance_mvn)$ ]] ||
        die "--feats_normalize ${feats_normalize}: not supported; give global_mvn or utterance_mvn"
}

# The folders have ESPnet's names.
name_folders() {
    local of_lang="" suffix
    [ "${lang}" = noinfo ] || of_lang=${lang}_
    suffix=${of_lang}${token_type}$([ "${token_type}" = char ] || echo "${nbpe}")
    local sp=${speed_perturb_factors:+_sp} of_text=""
    [ -z "${start}" ] || suffix+=_${start##*/}
    text_file=text nlsyms=none
    if [ "${lang_tokens}" = true ]; then
        of_text=_lang text_file=text_lang suffix+=_lang
    fi
    tokens=data/${of_lang}token_list/${token_type}
    bpemodel=none
    if [ "${token_type}" = bpe ]; then
        tokens=${tokens}_${bpemode}${nbpe}
        bpemodel=${tokens}${of_text}/bpe.model
    fi
    tokens+=${of_text}
    if [ -n "${start}" ]; then
        tokens+=_${start##*/}
        [ "${token_type}" = char ] || bpemodel=${tokens}/bpe.model
    fi
    [ "${lang_tokens}" = false ] || nlsyms=${tokens}/nlsyms.txt
    token_list=${tokens}/tokens.txt
    data_feats=${dumpdir}/raw
    if [ -z "${asr_tag}" ]; then
        asr_tag=$(basename "${asr_config}" .yaml)_raw_${suffix}
        asr_tag+=$(sed -e 's/--/_/g' -e 's/[ |=/]//g' <<<"${asr_args}")${sp}
    fi
    asr_exp=${asr_exp:-${expdir}/asr_${asr_tag}}
    asr_stats_dir=${asr_stats_dir:-${expdir}/asr_stats_raw_${suffix}${sp}}
    ngram_exp=${ngram_exp:-${expdir}/ngram_${of_lang}word}
    if [ -z "${inference_tag}" ]; then
        inference_tag=$(basename "${inference_config}" .yaml)
        [ "${use_ngram}" = false ] || inference_tag+=_${ngram_num}gram
        inference_tag+=_asr_model_$(sed -e 's|/|_|g' -e 's/\.[^.]*$//' <<<"${inference_asr_model}")
    fi
}

# wanted N WHAT: return whether stage N has to run; print it and start its clock.
wanted() {
    [ "${stage}" -le "$1" ] && [ "${stop_stage}" -ge "$1" ] || return 1
    [[ " ${skip_stages} " != *" $1 "* ]] || return 1
    case $1 in
        [1-5]) [ "${skip_data_prep}" = false ] || return 1 ;;
        [6-9] | 10 | 11) [ "${skip_train}" = false ] || return 1 ;;
        12 | 13) [ "${skip_eval}" = false ] || return 1 ;;
        14) [ "${skip_packing}" = false ] || return 1 ;;
        15) [ "${skip_upload_hf}" = false ] || return 1 ;;
    esac
    now=$1
    started=${SECONDS}
    echo "Stage $1: $2"
}

finished() { echo "Stage ${now}: wrote $1, done in $((SECONDS - started)) s"; }

need() { [ -e "$1" ] || die "stage ${now}: $1: no such file; run $2 first"; }

# failed LOG STATUS: exit with the error in the last line of a log, or show the log's end.
failed() {
    local last
    last=$(tail -n 1 "$1")
    [[ ${last} != "error: "* ]] || die "stage ${now}: ${last#error: }; the whole log is in $1"
    tail -n 20 "$1" >&2
    die "stage ${now} failed with exit status $2; the whole log is in $1"
}

# full FILE: exit because a file cannot be written.
full() { die "stage ${now}: cannot write $1: the disk is full or not writable; make room, then run this again"; }

# claim FOLDER: lock a folder until this run ends. Processes that may outlive it are started with 9>&-
# and lock their outputs themselves.
claim() {
    local lock
    lock=$(dirname "$1")/.$(basename "$1").run
    mkdir -p "$(dirname "$1")"
    exec 9>>"${lock}"
    if command -v flock >/dev/null && ! flock -n 9; then
        die "stage ${now}: $1: $(cat "${lock}") writes it already; wait for it or end it, then run this again"
    fi
    echo "process $$ on ${HOSTNAME}" 2>/dev/null >"${lock}" || full "${lock}"
}

# run_jobs COUNT LOG COMMAND...: run copies of a command in parallel; {job} is replaced by their number.
run_jobs() {
    local count=$1 log=$2 job status pids=()
    shift 2
    for job in $(seq "${count}"); do
        "${@//\{job\}/${job}}" >"${log/\{job\}/${job}}" 2>&1 9>&- &
        pids+=($!)
    done
    for job in $(seq "${count}"); do
        wait "${pids[job - 1]}" || { status=$? && end_jobs && failed "${log/\{job\}/${job}}" "${status}"; }
    done
}

# Background jobs do not get Ctrl-C by themselves.
end_jobs() {
    local running
    running=$(jobs -p)
    # shellcheck disable=SC2086
    [ -z "${running}" ] || kill ${running} 2>/dev/null || true
}

interrupted() {
    end_jobs
    echo "error: interrupted; run the same command to resume" >&2
    exit 130
}

# conf_value NAME DEFAULT: print a value of the training configuration, which asr_args may override.
conf_value() {
    local value
    if [[ " ${asr_args} " =~ .*\ --$1[\ =]+([^ ]+) ]]; then
        value=${BASH_REMATCH[1]}
    else
        value=$(python3 -m espnet_mlma.cli recipe conf "${asr_config}" "$1=$2")
    fi
    echo "${value}"
}

# resume_script FOLDER STAGE: write a script into a folder that runs from a stage on.
resume_script() {
    mkdir -p "$1"
    printf '#!/usr/bin/env bash\ncd %q || exit\n./asr.sh %s --stage %s "$@"\n' \
        "${PWD}" "${command_line}" "$2" 2>/dev/null >"$1/run.sh" || full "$1/run.sh"
    chmod +x "$1/run.sh"
}

stage_1() { # shellcheck disable=SC2086
    local/data.sh ${local_data_opts}
}

stage_3() {
    local set verify=()
    [ "${verify_audio}" = false ] || verify=(--verify)
    for set in "${train_set}" "${valid_set}" ${test_sets}; do
        case " ${train_set} ${valid_set} " in
            *" ${set} "*) out=${data_feats}/org/${set} ;;
            *) out=${data_feats}/${set} ;;
        esac
        ${train_cmd} python3 -m espnet_mlma.cli recipe format-audio \
            --data "data/${set}" --output "${out}" --nj "${nj}" "${verify[@]}"
    done
}

stage_4() {
    local set held_out=("${data_feats}/org/${valid_set}")
    # shellcheck disable=SC2206
    for set in ${test_sets}; do held_out+=("${data_feats}/${set}"); done
    for set in "${train_set}" "${valid_set}"; do
        python3 -m espnet_mlma.cli recipe filter --data "${data_feats}/org/${set}" \
            --output "${data_feats}/${set}" \
            --min_seconds "${min_wav_duration}" --max_seconds "${max_wav_duration}" \
            --held_out "${held_out[@]}"
        held_out=() # the validation set may share audio with itself
    done
}

stage_5() { # shellcheck disable=SC2086
    python3 -m espnet_mlma.cli recipe tokens --text ${bpe_train_text:-${data_feats}/${train_set}/${text_file}} \
        --output "${tokens}" --token_type "${token_type}" --nbpe "${nbpe}" --bpemode "${bpemode}" \
        ${start:+--pretrained "${start}"}
}

stage_9() {
    local program text=${lm_train_text:-${data_feats}/${train_set}/text}
    for program in lmplz build_binary; do
        command -v "${program}" >/dev/null ||
            die "--use_ngram true: KenLM's ${program} is not on PATH; build KenLM (kheafield.com/code/kenlm)"
    done
    claim "${ngram_exp}"
    mkdir -p "${ngram_exp}"
    local model=${ngram_exp}/${ngram_num}gram
    # shellcheck disable=SC2086
    cut -s -d ' ' -f 2- ${text} | lmplz --discount_fallback -o "${ngram_num}" >"${model}.arpa.new"
    build_binary "${model}.arpa.new" "${model}.bin.new"
    mv "${model}.bin.new" "${model}.bin"
    mv "${model}.arpa.new" "${model}.arpa"
}

# train_options: options of ESPnet's trainer in both stages 10 and 11.
train_options() {
    model_options=(
        --config "${asr_config}" --frontend_conf "fs=${fs}" --use_preprocessor true
        --token_type "${token_type}" --token_list "${token_list}" --bpemodel "${bpemodel}"
        --non_linguistic_symbols "${nlsyms}" --cleaner none --g2p none
    )
    local part
    for part in train valid; do
        local set=${part}_set
        model_options+=(
            "--${part}_data_path_and_name_and_type" "${data_feats}/${!set}/wav.scp,speech,kaldi_ark"
            "--${part}_data_path_and_name_and_type" "${data_feats}/${!set}/${text_file},text,text"
        )
    done
}

stage_10() {
    # Each run has its own folder, because jobs of a killed run may still write.
    local new=${asr_stats_dir}/new.$$ jobs=${nj} part lines inputs=() job size
    local logs=${new}/logdir
    need "${token_list}" "stage 5"
    for part in train valid; do
        local set=${part}_set
        need "${data_feats}/${!set}/wav.scp" "stage 4"
        lines=$(wc -l <"${data_feats}/${!set}/wav.scp")
        jobs=$((lines < jobs ? lines : jobs))
    done
    claim "${asr_stats_dir}"
    resume_script "${asr_stats_dir}" 10
    rm -rf "${asr_stats_dir}"/new "${asr_stats_dir}"/new.*
    mkdir -p "${logs}"
    for part in train valid; do
        local set=${part}_set
        lines=$(wc -l <"${data_feats}/${!set}/wav.scp")
        awk -v jobs="${jobs}" -v lines="${lines}" -v out="${logs}/${part}" \
            '{ print >(out "." int((NR - 1) * jobs / lines) + 1 ".scp") }' \
            "${data_feats}/${!set}/wav.scp"
    done
    train_options
    echo "  ${jobs} processes, logs in ${logs}/stats.*.log"
    # shellcheck disable=SC2086
    OMP_NUM_THREADS=1 run_jobs "${jobs}" "${logs}/stats.{job}.log" \
        ${train_cmd} ${python} -m espnet2.bin.asr_train --collect_stats true --ngpu 0 \
        "${model_options[@]}" --train_shape_file "${logs}/train.{job}.scp" \
        --valid_shape_file "${logs}/valid.{job}.scp" --output_dir "${logs}/stats.{job}" ${asr_args}
    for job in $(seq "${jobs}"); do
        inputs+=(--input_dir "${logs}/stats.${job}")
    done
    ${python} -m espnet2.bin.aggregate_stats_dirs "${inputs[@]}" --output_dir "${new}"
    size=$(wc -l <"${token_list}")
    for part in train valid; do
        sed "s/\$/,${size}/" "${new}/${part}/text_shape" >"${new}/${part}/text_shape.${token_type}"
    done
    # Stage 11 checks valid, so it is removed first and written last. logdir has the record of the data.
    for part in valid train logdir; do
        rm -rf "${asr_stats_dir:?}/${part}"
    done
    for part in logdir train valid; do
        mv "${new}/${part}" "${asr_stats_dir}/${part}"
    done
    rmdir "${new}"
}

show_mix() {
    local language corpus
    language=$(conf_value dataset_upsampling_factor 0.5)
    corpus=$(conf_value category_upsampling_factor 0.5)
    python3 -m espnet_mlma.cli recipe mix --dump "${data_feats}/${train_set}" \
        --language_exponent "${language}" --corpus_exponent "${corpus}"
}

stage_11() {
    local shapes=("--train_shape_file" "${asr_stats_dir}/train/speech_shape") distributed=()
    local log=${asr_exp}/train.log iterator max_epoch
    iterator=$(conf_value iterator_type sequence)
    max_epoch=$(conf_value max_epoch 40)
    need "${asr_stats_dir}/valid/text_shape.${token_type}" "stage 10"
    if [ "${iterator}" = category ]; then
        # Category samplers need the lengths of the speech only, and ESPnet's accept one shape file.
        echo "  mix of languages and corpora:"
        show_mix
    else
        shapes+=(--train_shape_file "${asr_stats_dir}/train/text_shape.${token_type}")
    fi
    if [ "${num_nodes}" -gt 1 ]; then
        [[ ${cuda_cmd} == srun* ]] || die "--num_nodes ${num_nodes}: cuda_cmd in cmd.sh is not srun; set it"
        distributed=(--dist_launcher slurm --dist_init_method "file://${PWD}/${asr_exp}/.init_$$")
    fi
    if [ "${feats_normalize}" = global_mvn ]; then
        shapes+=(--normalize global_mvn --normalize_conf
            "stats_file=${asr_stats_dir}/train/feats_stats.npz")
    fi
    claim "${asr_exp}"
    if [ -n "${start}" ]; then
        python3 -m espnet_mlma.cli recipe pretrained --model "${pretrained_model}" --output "${start}" \
            --token_list "${token_list}" --config "${asr_config}" --init "${asr_exp}/pretrained.pth"
        shapes+=(--init_param "${asr_exp}/pretrained.pth")
    elif [ -n "${pretrained_model}" ]; then
        shapes+=(--init_param "${pretrained_model}")
    fi
    resume_script "${asr_exp}" 11
    train_options
    echo "  log in ${log}"
    # shellcheck disable=SC2086
    ${cuda_cmd} ${python} -m espnet2.bin.asr_train --resume true --output_dir "${asr_exp}" \
        --ngpu "${ngpu}" --multiprocessing_distributed true "${distributed[@]}" \
        --ignore_init_mismatch "${ignore_init_mismatch}" "${model_options[@]}" "${shapes[@]}" \
        --valid_shape_file "${asr_stats_dir}/valid/speech_shape" \
        --valid_shape_file "${asr_stats_dir}/valid/text_shape.${token_type}" ${asr_args} 2>&1 9>&- |
        tee -a "${log}" | epochs "${max_epoch}" ||
        failed "${log}" "${PIPESTATUS[0]}"
}

# epochs LAST: print one line per epoch of a training log, and the lines that begin with `training: `.
epochs() {
    awk -v last="$1" '
        function value(part, name) {
            return match(part, "[ ]" name "=[^,]*") ? substr(part, RSTART, RLENGTH) : ""
        }
        sub(/^training: /, "  ") { print; fflush() }
        /epoch results: / {
            split($0, parts, /\[valid\]/)
            match($0, /[0-9]+epoch results/)
            printf "  epoch %d of %d: train%s, valid%s%s\n", substr($0, RSTART), last,
                value(parts[1], "loss"), value(parts[2], "loss"), value(parts[2], "cer_ctc")
            fflush()
        }'
}

stage_12() {
    local model=${asr_exp}/${inference_asr_model} folder=${asr_exp}/${inference_tag}
    local prefix=${decode_cmd} gpu=0 set number=0 jobs=0 job lm=()
    need "${model}" "stage 11, or give another of $(cd "${asr_exp}" 2>/dev/null && echo ./*.pth)"
    if [ "${gpu_inference}" = true ]; then
        prefix=${cuda_cmd} gpu=1
    fi
    if [ "${use_ngram}" = true ]; then
        need "${ngram_exp}/${ngram_num}gram.arpa" "stage 9"
        lm=(--lm "${ngram_exp}/${ngram_num}gram.arpa")
    fi
    claim "${folder}"
    resume_script "${folder}" 12
    mkdir -p "${folder}/logdir"
    rm -f "${folder}"/logdir/{sets,decode}.*
    for set in ${test_sets}; do
        need "${data_feats}/${set}/wav.scp" "stage 3"
        job=$((number % inference_nj + 1)) number=$((number + 1))
        jobs=$((job > jobs ? job : jobs))
        echo "${data_feats}/${set}" 2>/dev/null >>"${folder}/logdir/sets.${job}" ||
            full "${folder}/logdir/sets.${job}"
    done
    ${prefix} python3 -m espnet_mlma.cli recipe calibrate --asr_train_config "${asr_exp}/config.yaml" \
        --asr_model_file "${model}" --config conf/decode_ctc_best_path.yaml --ngpu "${gpu}" \
        --data_dir "${data_feats}/${valid_set}" --output "${asr_exp}/calibration.yaml" ||
        echo "  not calibrated: word confidences are the probabilities of their symbols"
    decode() {
        local sets
        mapfile -t sets <"${folder}/logdir/sets.$1"
        ${prefix} python3 -m espnet_mlma.cli recipe decode --asr_train_config "${asr_exp}/config.yaml" \
            --asr_model_file "${model}" --config "${inference_config}" --ngpu "${gpu}" \
            --output_dir "${folder}" --data_dir "${sets[@]}" "${lm[@]}" 9>&-
    }
    if [ "${jobs}" -eq 1 ]; then
        decode 1
    else
        run_jobs "${jobs}" "${folder}/logdir/decode.{job}.log" decode "{job}"
        cat "${folder}"/logdir/decode.*.log
    fi
}

stage_13() {
    local bpe=()
    [ "${token_type}" = char ] || bpe=(--bpemodel "${bpemodel}")
    python3 -m espnet_mlma.cli recipe score --dump "${data_feats}" --decode_dir "${asr_exp}/${inference_tag}" \
        --sets "${test_sets}" --token_type "${token_type}" "${bpe[@]}"
}

stage_14() {
    local more=() file
    need "${asr_exp}/${inference_asr_model}" "stage 11"
    for file in "${asr_stats_dir}/train/feats_stats.npz" "${bpemodel}" "${asr_exp}/RESULTS.md" \
        "${asr_exp}/images" "${asr_exp}/calibration.yaml"; do
        [ ! -e "${file}" ] || more+=(--option "${file}")
    done
    claim "${packed}"
    ${python} -m espnet2.bin.pack asr --asr_train_config "${asr_exp}/config.yaml" \
        --asr_model_file "${asr_exp}/${inference_asr_model}" "${more[@]}" \
        --outpath "${packed%.zip}.new.zip"
    mv "${packed%.zip}.new.zip" "${packed}"
}

cd "$(dirname "${BASH_SOURCE[0]}")"
command_line=$(printf '%q ' "$@")
parse_options "$@"
search=$([ "${use_ngram}" = true ] && echo beam_ngram || echo best_path)
inference_config=${inference_config:-conf/decode_ctc_${search}.yaml}
# shellcheck source-path=SCRIPTDIR
. ./path.sh
find_start
check_options
# shellcheck source-path=SCRIPTDIR
. ./cmd.sh
trap interrupted INT TERM

if [ -n "${speed_perturb_factors}" ]; then
    original_set=${train_set}
    train_set+=_sp
fi
name_folders
packed=${asr_exp}/${asr_exp##*/}_${inference_asr_model%.*}.zip

if wanted 1 "make data folders"; then
    stage_1
    finished data
fi
if [ -n "${speed_perturb_factors}" ] && wanted 2 "copy at speeds ${speed_perturb_factors}"; then
    python3 -m espnet_mlma.cli recipe speed-perturb --data "data/${original_set}" \
        --output "data/${train_set}" --factors "${speed_perturb_factors}"
    finished "data/${train_set}"
fi
if wanted 3 "write audio as 16 kHz FLAC with ${nj} processes"; then
    stage_3
    finished "${data_feats}"
fi
if wanted 4 "drop clips that cannot be trained on"; then
    stage_4
    finished "${data_feats}/${train_set} ${data_feats}/${valid_set}"
fi
if wanted 5 "make a ${token_type} token list"; then
    stage_5
    finished "${tokens}"
fi
if [ "${use_ngram}" = true ] && wanted 9 "train a ${ngram_num}-gram model"; then
    stage_9
    finished "${ngram_exp}"
fi
if wanted 10 "collect lengths and feature statistics"; then
    stage_10
    finished "${asr_stats_dir}"
fi
if wanted 11 "train with ${asr_config} on $([ "${ngpu}" -gt 0 ] && echo "${ngpu} GPU" || echo CPU)"; then
    stage_11
    finished "${asr_exp}"
fi
if wanted 12 "decode ${test_sets}"; then
    stage_12
    finished "${asr_exp}/${inference_tag}"
fi
if wanted 13 "score"; then
    stage_13
    finished "${asr_exp}/RESULTS.md"
fi
if wanted 14 "pack the model"; then
    stage_14
    finished "${packed}"
fi
if wanted 15 "upload to ${hf_repo}"; then
    [ -n "${hf_repo}" ] || die "--hf_repo is missing; name the repository to upload to"
    need "${packed}" "stage 14"
    python3 -m espnet_mlma.cli recipe upload --packed "${packed}" --repository "${hf_repo}"
    finished "https://huggingface.co/${hf_repo}"
fi
