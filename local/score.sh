#!/usr/bin/env bash
# Score every decoding of an experiment by utterance id: local/score.sh EXPERIMENT
# ESPnet's asr.sh calls this at the end of stage 13. Our asr.sh has its own scoring.
set -euo pipefail

# shellcheck source=/dev/null
. ./path.sh

experiment=${*: -1}
config_value() {
    python3 -c 'import sys, yaml; print(yaml.safe_load(open(sys.argv[1]))[sys.argv[2]])' \
        "${experiment}/config.yaml" "$1"
}

token_type=$(config_value token_type)
# The references are those of stage 1, because ESPnet does not copy utt2category to dump.
options=(--dump data --token_type "${token_type}")
[ "${token_type}" = char ] || options+=(--bpemodel "$(config_value bpemodel)")

for decoding in "${experiment}"/*/; do
    sets=
    for text in "${decoding}"*/text; do
        [ ! -f "${text}" ] || sets+="$(basename "$(dirname "${text}")") "
    done
    if [ -n "${sets}" ]; then
        python3 -m espnet_mlma.cli recipe score "${options[@]}" --decode_dir "${decoding%/}" --sets "${sets}"
    fi
done
