# shellcheck shell=bash
# Sourced by the recipe's scripts: the Python they use, and what it needs to know.
_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)

# An activated environment stays. Without one, the recipe of a checkout uses the checkout's `.venv`.
if [ -z "${VIRTUAL_ENV:-}" ] && [ -d "${_root}/espnet_mlma" ] && [ -x "${_root}/.venv/bin/python3" ]; then
    export PATH=${_root}/.venv/bin:${PATH}
fi
if ! python3 -c 'import sys; from importlib.util import find_spec as f; sys.exit(not f("espnet_mlma"))'
then
    echo "error: $(command -v python3) has no espnet_mlma; activate the environment that has it, or run 'make venv' in a checkout" >&2
    exit 1
fi
# With ESPnet's asr.sh in the place of ours: its helpers, and sclite where Debian puts it.
export PATH=${PWD}/utils:${PWD}/utils/parallel:${PATH}:${SCTK_ROOT:-/usr/lib/sctk}/bin
export PYTHONIOENCODING=UTF-8
# The order that ESPnet's category sampler draws in hangs on string hashes: a resumed run, or
# another GPU's process, has to draw the same.
export PYTHONHASHSEED=0
# Ids are compared and sorted by bytes.
export LC_ALL=C
unset _root
# How long an OpenMP thread spins before it sleeps: with other work on the machine, spinning threads
# keep the one that all wait for from running.
export GOMP_SPINCOUNT=10000
