"""The readers of `espnet_mlma.audio` under their former name."""

from espnet_mlma.audio import as_samples, audio_blocks, duration_of, pcm_blocks

__all__ = ["as_samples", "audio_blocks", "duration_of", "pcm_blocks"]
