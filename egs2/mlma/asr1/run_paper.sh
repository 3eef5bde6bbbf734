#!/usr/bin/env bash
# Train and score the models of a table of the MLMA paper.
#
#   ./run_paper.sh --table 3 --db_root /corpora                  3, 4, 5, 6 or 7
#   ./run_paper.sh --table 7 --db_root /corpora --dry_run true   only check and print the commands
#   ./run_paper.sh --table 5 --db_root /corpora --models "conmamba conformer"
#
# --models replaces the table's models: conmamba, conmamba_42m, conformer.
# --ngpu is 1, 2, 4, 8 or 16 (default: all GPUs). Each GPU computes the batch of the configuration. With
# more GPUs, fewer batches make an update, so an update has the same amount of speech.
# All other options are passed to asr.sh, such as `--stop_stage 5`. After an interruption, the same
# command resumes; models with a RESULTS.md are skipped. When all models are scored, `mlma compare`
# prints them beside the paper's figures.
set -euo pipefail

die() {
    echo "error: $*" >&2
    exit 1
}

# published_names TABLE: print the paper's models as espnet_mlma/evaluation/compare/published.yaml names them.
published_names() {
    case $1 in
        3) echo mlma-conmamba-ls960,mlma-conformer-ls960 ;;
        4) echo mlma-conmamba-3334h,mlma-conformer-3334h ;;
        5) echo mlma-conmamba-11840h ;;
        6) echo mlma-conmamba-31.6m,mlma-conmamba-42m ;;
        7) echo mlma-conmamba-710h,mlma-conmamba-1210h,mlma-conmamba-3334h ;;
    esac
}

# rows TABLE [MODELS]: print name, mixture, configuration and options of each model, one per line.
rows() {
    local mixture name mixtures names
    case $1 in
        3) mixtures="ls960" names="conmamba conformer" ;;
        4) mixtures="bi3334" names="conmamba conformer" ;;
        5) mixtures="mlma11840" names="conmamba" ;;
        # The paper does not name this training set; it calls it bilingual.
        6) mixtures="bi3334" names="conmamba conmamba_42m" ;;
        7) mixtures="bi710 bi1210 bi3334" names="conmamba" ;;
        *) die "--table '$1': not a table of results of the paper; give 3, 4, 5, 6 or 7" ;;
    esac
    for mixture in ${mixtures}; do
        for name in ${2:-${names}}; do
            case ${name} in
                conmamba | conmamba_42m) echo "${name} ${mixture} conf/train_asr_${name}.yaml" ;;
                # It has the paper's size with our front-end; with ESPnet's it is larger.
                conformer) echo "conformer ${mixture} conf/train_asr_conformer.yaml" \
                    "--encoder conformer_cnn4" ;;
                *) die "--models '${name}': unknown; give conmamba, conmamba_42m or conformer" ;;
            esac
        done
    done
}

table=
models=
dry_run=false
ngpu=
asr_args=
sp=
dumpdir=dump
options=()
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help)
            sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
            exit
            ;;
        --mixture | --lang | --asr[_-]config | --asr[_-]tag | --asr[_-]exp | --expdir | \
            --asr[_-]stats[_-]dir | --token[_-]type | --lang[_-]tokens)
            die "$1: set by --table; for your own model use run.sh" ;;
        --*=*) die "$1: give the value after a space: --name value" ;;
        --*) ;;
        *) die "'$1': not an option; options are --name value, see $0 --help" ;;
    esac
    [ $# -ge 2 ] || die "$1 needs a value"
    case $1 in
        --table) table=$2 ;;
        --models) models=$2 ;;
        --dry_run | --dry-run) dry_run=$2 ;;
        --ngpu) ngpu=$2 ;;
        --asr_args | --asr-args) asr_args=" $2" ;;
        --db_root | --db-root) options+=(--db_root "$(realpath -m "$2")") ;;
        --dumpdir) options+=("$1" "$2") && dumpdir=$2 ;;
        --speed_perturb_factors | --speed-perturb-factors) options+=("$1" "$2") && sp=_sp ;;
        *) options+=("$1" "$2") ;;
    esac
    shift 2
done
[ -n "${table}" ] || die "--table is missing; give 3, 4, 5, 6 or 7"
[[ ${dry_run} =~ ^(true|false)$ ]] || die "--dry_run ${dry_run}: not true or false"
models=$(rows "${table}" "${models}")
ngpu=${ngpu:-$( (nvidia-smi -L 2>/dev/null || true) | wc -l)}
[[ ${ngpu} =~ ^(0|1|2|4|8|16)$ ]] || die "--ngpu ${ngpu}: not supported; give 1, 2, 4, 8 or 16, or 0 for the CPU"

cd "$(dirname "${BASH_SOURCE[0]}")"

# batches CONFIG: print the options that give each GPU the batch of a configuration.
batches() {
    local gpus=$((ngpu > 1 ? ngpu : 1)) values bins size accum iterations
    # shellcheck source-path=SCRIPTDIR
    values=$(. ./path.sh && python3 -m espnet_mlma.cli recipe conf "$1" \
        batch_bins max_batch_size accum_grad num_iters_per_epoch) || exit
    { read -r bins && read -r size && read -r accum && read -r iterations; } <<<"${values}"
    echo "--batch_bins $((bins * gpus)) --max_batch_size $((size * gpus))" \
        "--accum_grad $((accum / gpus)) --num_iters_per_epoch $((iterations / gpus))"
}

# run_model NAME MIXTURE CONFIG OPTION...: train and score a model that has no RESULTS.md.
run_model() {
    local config=$3 tag=paper_$1_$2${sp} stats=exp/asr_stats_raw_$2_char${sp} command of_gpus
    echo "$1 on $2: exp/asr_${tag}"
    if [ -e "exp/asr_${tag}/RESULTS.md" ]; then
        # shellcheck source-path=SCRIPTDIR
        (. ./path.sh && python3 -m espnet_mlma.cli recipe trained-on "exp/asr_${tag}")
        echo "  is finished; to train further and score again, remove RESULTS.md"
        return
    fi
    of_gpus=$(batches "${config}")
    command=(./run.sh --mixture "$2" --asr_config "${config}" --asr_tag "${tag}" --ngpu "${ngpu}"
        --asr_args "${of_gpus} ${*:4}${asr_args}")
    # An earlier model of the mixture has made the data and, after it, the statistics.
    if [[ " ${ready} " == *" $2 "* ]] || [ -e "${stats}/valid/text_shape.char" ]; then
        command+=(--stage 11)
    fi
    ready+=" $2"
    command+=("${options[@]}")
    if [ "${dry_run}" = true ]; then
        echo "  ${command[*]@Q}"
        # Without a stage, asr.sh checks its options.
        "${command[@]}" --stage 1 --stop_stage 0 >/dev/null
    else
        "${command[@]}"
    fi
}

# compare_models: compare the newest decoding of each model with the paper's; skip if one is missing.
compare_models() {
    local name mixture experiment folder newest systems=()
    while read -r name mixture _; do
        experiment=exp/asr_paper_${name}_${mixture}${sp} newest=
        [ -e "${experiment}/RESULTS.md" ] || return 0
        for folder in "${experiment}"/*/test_*/text; do
            folder=${folder%/*/text}
            [[ ${folder} -nt ${newest} ]] && newest=${folder}
        done
        systems+=("${name}_${mixture}=${newest}")
    done <<<"${models}"
    # shellcheck source-path=SCRIPTDIR
    . ./path.sh
    python3 -m espnet_mlma.cli compare "${systems[@]}" --dump "${dumpdir}/raw" \
        --published "$(published_names "${table}")"
}

if [ "${ngpu}" = 0 ]; then
    echo "no GPU: each model takes 127,000 updates; benchmarks/gpu_hours.py estimates their time" >&2
fi
ready=
while read -r -a row; do
    run_model "${row[@]}" </dev/null
done <<<"${models}"
[ "${dry_run}" = true ] || compare_models
