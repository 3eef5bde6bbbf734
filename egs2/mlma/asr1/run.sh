#!/usr/bin/env bash
# Train and score a CTC recogniser on one of the mixtures of conf/mixtures.yaml.
#
#   ./run.sh                                            six synthetic languages, minutes on a laptop
#   ./run.sh --mixture real --db_root /corpora          five corpora in /corpora, a small model
#   ./run.sh --mixture mlma11840 --db_root /corpora     the six languages of the paper
#
# All other options are passed to asr.sh and override those set here: `--stage 11 --stop_stage 13`.
set -euo pipefail

die() {
    echo "error: $*" >&2
    exit 1
}

mixture=mini
is_fine_tuning=false
db_root=
options=()
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help)
            sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
            exec "$(dirname "${BASH_SOURCE[0]}")/asr.sh" --help
            ;;
        --mixture | --db_root | --db-root)
            [ $# -ge 2 ] || die "$1 needs a value"
            [ "$1" = --mixture ] && mixture=$2 || db_root=$(realpath -m "$2")
            shift 2
            ;;
        --pretrained_model | --pretrained-model)
            [ $# -ge 2 ] || die "$1 needs a value"
            # The configuration is the model's, unless --asr_config names one.
            [[ $2 =~ \.pth(:|$) ]] || is_fine_tuning=true
            options+=("$1" "$2") && shift 2
            ;;
        *) options+=("$1") && shift ;;
    esac
done

cd "$(dirname "${BASH_SOURCE[0]}")"
db_root=${db_root:-db}
# asr.sh, like ESPnet's, splits local_data_opts into words and expands wildcards.
if [[ ${db_root} =~ [[:space:]*?[] ]]; then
    export MLMA_DB_ROOT=${db_root} # for local/data.sh
    of_db_root=
else
    of_db_root=" --db_root ${db_root}"
fi

# shellcheck source-path=SCRIPTDIR
. ./path.sh

# shellcheck disable=SC2086 # two words
sets() { local/data.sh --mixture "${mixture}"${of_db_root} --list "$1"; }
train_set=$(sets train)
valid_set=$(sets valid)
test_sets=$(sets test)

gpus=$( (nvidia-smi -L 2>/dev/null || true) | wc -l)
cores=$(getconf _NPROCESSORS_ONLN)
case ${mixture} in
    mini | mini_en) asr_config=conf/train_asr_conmamba_mini.yaml ngpu=$((gpus > 0)) ;;
    real | synthetic) asr_config=conf/train_asr_conmamba_small.yaml ngpu=$((gpus > 0)) ;;
    *) asr_config=conf/train_asr_conmamba.yaml ngpu=${gpus} ;;
esac
[ "${is_fine_tuning}" = false ] || asr_config=

./asr.sh \
    --python "python3 -m espnet_mlma.run" \
    --lang "${mixture}" \
    --train_set "${train_set}" \
    --valid_set "${valid_set}" \
    --test_sets "${test_sets}" \
    --local_data_opts "--mixture ${mixture}${of_db_root} --nj ${cores}" \
    --asr_config "${asr_config}" \
    --inference_asr_model valid.cer_ctc.ave.pth \
    --token_type char \
    --feats_type raw \
    --audio_format flac.ark \
    --feats_normalize global_mvn \
    --min_wav_duration 0.3 \
    --max_wav_duration 30 \
    --use_lm false \
    --ngpu "${ngpu}" \
    --nj "${cores}" \
    "${options[@]}"
