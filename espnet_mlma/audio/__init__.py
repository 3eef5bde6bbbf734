"""Read audio of any format and rate as mono samples at 16 kHz, whole or in blocks.

The whole package reads audio here, so that a file has the same samples everywhere.
"""

from espnet_mlma.audio.blocks import SAMPLE_RATE, audio_blocks, check_level
from espnet_mlma.audio.files import DamagedAudio, UntilDamage
from espnet_mlma.audio.samples import as_samples, pcm_blocks
from espnet_mlma.audio.whole import AudioInfo, duration_of, probe, read_audio

__all__ = [
    "SAMPLE_RATE",
    "AudioInfo",
    "DamagedAudio",
    "UntilDamage",
    "as_samples",
    "audio_blocks",
    "check_level",
    "duration_of",
    "pcm_blocks",
    "probe",
    "read_audio",
]
