# shellcheck shell=bash
# Sourced by run.sh: the same Python as the recogniser's recipe.
# shellcheck source=egs2/mlma/asr1/path.sh
. ../asr1/path.sh
