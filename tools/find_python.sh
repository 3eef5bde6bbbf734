#!/usr/bin/env bash
# Print the path of a working Python 3.12 or 3.13 with venv and ensurepip: $PYTHON if it is set, else
# python3.13, python3.12 or python3 on PATH, pyenv's, or uv's.
set -euo pipefail

# Run it: pyenv puts shims of inactive versions on PATH.
works() {
    "$1" -c 'import ensurepip, sys, venv; sys.exit(not (3, 12) <= sys.version_info[:2] <= (3, 13))' \
        >/dev/null 2>&1
}

real_path() { "$1" -c 'import sys; print(sys.executable)'; }

if [ -n "${PYTHON:-}" ]; then
    works "${PYTHON}" && real_path "${PYTHON}" && exit
    echo "error: PYTHON=${PYTHON} is not a working Python 3.12 or 3.13 with venv and ensurepip; name another" >&2
    exit 1
fi

tried=()
try() {
    tried+=("$1")
    if works "$1"; then
        real_path "$1"
        exit
    fi
}

for name in python3.13 python3.12 python3; do
    try "${name}"
done

pyenv_root=${PYENV_ROOT:-${HOME:-/root}/.pyenv}
for version in 3.13 3.12; do
    for python in "${pyenv_root}/versions/${version}".*/bin/python3; do
        try "${python}"
    done
done

for version in 3.13 3.12; do
    if python=$(uv python find "${version}" 2>/dev/null); then
        try "${python}"
    fi
done
tried+=("uv python find")

echo "error: no working Python 3.12 or 3.13; tried: ${tried[*]}; install one, or set PYTHON=" >&2
exit 1
