# shellcheck shell=bash
# How the recipe's commands are started. Empty: on this machine. A prefix such as
# "srun --gres=gpu:4 --cpus-per-task=16" starts them elsewhere; it has to wait for their end.
# shellcheck disable=SC2034
if [ -e utils/parallel/run.pl ] || [ -e utils/run.pl ]; then
    # ESPnet's asr.sh in the place of ours: it wants its own starter.
    export train_cmd=run.pl cuda_cmd=run.pl decode_cmd=run.pl
else
    train_cmd=      # stages 1 to 10, without GPU
    cuda_cmd=       # stage 11, and 12 with --gpu_inference true
    decode_cmd=     # stage 12 without GPU
fi
