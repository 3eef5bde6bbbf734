#!/usr/bin/env bash
# Stage 1: make the data folders of a mixture. Options are those of `mlma recipe prepare`.
# db.sh has the folders of corpora outside --db_root.
set -euo pipefail

# shellcheck source=/dev/null
. ./path.sh
# shellcheck source=/dev/null
. ./db.sh

roots=()
mapfile -t variables < <(sed -n 's/^\([A-Z_]*\)=.*/\1/p' db.sh)
for variable in "${variables[@]}"; do
    if [ -n "${!variable}" ]; then
        roots+=(--root "${variable,,}=${!variable}")
    fi
done

# run.sh sets this variable if the path has a blank.
[ -z "${MLMA_DB_ROOT:-}" ] || roots+=(--db_root "${MLMA_DB_ROOT}")

python3 -m espnet_mlma.cli recipe prepare --output data "${roots[@]}" "$@"
