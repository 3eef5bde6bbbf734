"""What the stages of `asr.sh` run: speed perturbation, audio formatting, filtering, token lists."""
