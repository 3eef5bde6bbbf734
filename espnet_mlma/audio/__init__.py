"""Read sound: any format and rate as mono samples at 16 kHz, whole or in blocks.

Every reader of the package is here, so that a file gives the same samples everywhere.
"""

from espnet_mlma.audio.blocks import as_samples, audio_blocks, duration_of, pcm_blocks
from espnet_mlma.audio.whole import SAMPLE_RATE, AudioInfo, check_level, probe, read_audio

__all__ = [
    "SAMPLE_RATE",
    "AudioInfo",
    "as_samples",
    "audio_blocks",
    "check_level",
    "duration_of",
    "pcm_blocks",
    "probe",
    "read_audio",
]
