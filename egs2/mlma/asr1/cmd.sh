# shellcheck shell=bash
# Prefixes of the recipe's commands. Empty: they run on this machine. A launcher such as
# "srun --gres=gpu:4 --cpus-per-task=16" must return after the command has ended.
# shellcheck disable=SC2034
if [ -e utils/parallel/run.pl ] || [ -e utils/run.pl ]; then
    # ESPnet's asr.sh needs its own launcher.
    export train_cmd=run.pl cuda_cmd=run.pl decode_cmd=run.pl
else
    train_cmd=      # stages 1 to 10, without GPU
    cuda_cmd=       # stage 11, and 12 with --gpu_inference true
    decode_cmd=     # stage 12 without GPU
fi
