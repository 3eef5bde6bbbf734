#!/usr/bin/env bash
# Build the source distribution, and from it a manylinux wheel with the C library.
#
#   tools/build_wheels.sh [FOLDER]    FOLDER gets both; dist by default. Other wheels there are removed.
#
# Needs a C compiler with OpenMP and `pip install '.[release]'`. The wheel is for the machine's processor.
set -euo pipefail

here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=$(cd "${here}" && realpath -m "${1:-dist}")
platform=manylinux_2_17_$(uname -m) # glibc of 2012; older than any that PyTorch runs on
work=$(mktemp -d)
trap 'rm -rf "${work}"' EXIT

python3 -m build --outdir "${work}" . # the wheel is built from the sdist, not from the checkout

wheels=("${work}"/*.whl)
python3 -m zipfile --list "${wheels[0]}" | grep 'scan/_native' || {
    echo "error: ${wheels[0]##*/} has no C library; see the compiler's message above" >&2
    exit 1
}

# torch brings libgomp and is imported first. A second copy would have threads of its own.
python3 -m auditwheel repair --plat "${platform}" --exclude libgomp.so.1 \
    --wheel-dir "${work}/repaired" "${wheels[0]}"

mkdir -p "${out}"
rm -f "${out}"/espnet_mlma-*.whl "${out}"/espnet_mlma-*.tar.gz
mv "${work}"/repaired/*.whl "${work}"/*.tar.gz "${out}"
ls -l "${out}"
