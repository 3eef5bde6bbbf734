#!/usr/bin/env bash
# Score every decoding of an experiment by utterance id: local/score.sh EXPERIMENT
# ESPnet's asr.sh calls this at the end of stage 13. Our asr.sh does not: its stage 13 scores itself.
set -euo pipefail

# shellcheck source=/dev/null
. ./path.sh

experiment=${*: -1}
of_config() {
    python3 -c 'import sys, yaml; print(yaml.safe_load(open(sys.argv[1]))[sys.argv[2]])' \
        "${experiment}/config.yaml" "$1"
}

token_type=$(of_config token_type)
# References of stage 1, because ESPnet does not copy utt2category to dump.
options=(--dump data --token_type "${token_type}")
[ "${token_type}" = char ] || options+=(--bpemodel "$(of_config bpemodel)")

for decoding in "${experiment}"/*/; do
    sets=
    for text in "${decoding}"*/text; do
        [ ! -f "${text}" ] || sets+="$(basename "$(dirname "${text}")") "
    done
    if [ -n "${sets}" ]; then
        python3 -m espnet_mlma.cli recipe score "${options[@]}" --decode_dir "${decoding%/}" --sets "${sets}"
    fi
done
