#!/usr/bin/env bash
# Stage 1: make the data folders of a mixture. Options go to `python -m espnet_mlma.data.corpora`.
# db.sh says where corpora lie that are not under --db_root.
set -euo pipefail

# shellcheck source=/dev/null
. ./path.sh
# shellcheck source=/dev/null
. ./db.sh

roots=()
for corpus in librispeech commonvoice voxpopuli mls fleurs synthetic; do
    variable=${corpus^^}
    if [ -n "${!variable:-}" ]; then
        roots+=(--root "${corpus}=${!variable}")
    fi
done

# From run.sh, where it has a blank in it.
[ -z "${MLMA_DB_ROOT:-}" ] || roots+=(--db_root "${MLMA_DB_ROOT}")

python3 -m espnet_mlma.data.corpora --out data "${roots[@]}" "$@"
