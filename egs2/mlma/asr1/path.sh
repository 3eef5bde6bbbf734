# shellcheck shell=bash
# Sourced by the recipe's scripts: choose the Python, and set its environment.
_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)

# An active environment is used. Without one, a checkout uses its own `.venv`.
if [ -z "${VIRTUAL_ENV:-}" ] && [ -d "${_root}/espnet_mlma" ] && [ -x "${_root}/.venv/bin/python3" ]; then
    export PATH=${_root}/.venv/bin:${PATH}
fi
if ! python3 -c 'import sys; from importlib.util import find_spec as f; sys.exit(not f("espnet_mlma"))'
then
    echo "error: $(command -v python3) cannot import espnet_mlma; activate its environment, or run 'make venv' in a checkout" >&2
    exit 1
fi
# For ESPnet's asr.sh instead of ours: its helpers, and sclite of Debian.
export PATH=${PWD}/utils:${PWD}/utils/parallel:${PATH}:${SCTK_ROOT:-/usr/lib/sctk}/bin
export PYTHONIOENCODING=UTF-8
# ESPnet's own category samplers draw in the order of string hashes, which must be the same in a resumed
# run and in the processes of all GPUs. Ours does not depend on it.
export PYTHONHASHSEED=0
# Compare and sort ids by bytes.
export LC_ALL=C
unset _root
# Let OpenMP threads sleep after a short wait. On a busy machine, spinning threads delay the thread that
# they wait for.
export GOMP_SPINCOUNT=10000
