#!/usr/bin/env bash
# ESPnet's asr.sh calls this at the end of stage 13; ours has scored by then and does not.
# Scores every decoding of an experiment by utterance id: local/score.sh EXPERIMENT
set -euo pipefail

# shellcheck source=/dev/null
. ./path.sh

experiment=${*: -1}
of_config() { sed -n "s/^$1: *\(.*\)/\1/p" "${experiment}/config.yaml" | head -n 1; }

token_type=$(of_config token_type)
# The references of stage 1: ESPnet copies no utt2category to dump.
options=(--dump data --token_type "${token_type}")
[ "${token_type}" = char ] || options+=(--bpemodel "$(of_config bpemodel)")

for decoding in "${experiment}"/*/; do
    sets=
    for text in "${decoding}"*/text; do
        [ ! -f "${text}" ] || sets+="$(basename "$(dirname "${text}")") "
    done
    if [ -n "${sets}" ]; then
        python3 -m espnet_mlma.evaluation.score "${options[@]}" --decode_dir "${decoding%/}" --sets "${sets}"
    fi
done
