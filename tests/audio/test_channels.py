"""Test the mix to one channel: the mean, or the loudest channel if channels cancel."""

import io
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from espnet_mlma.audio import SAMPLE_RATE, audio_blocks, read_audio
from espnet_mlma.errors import MlmaError, MlmaWarning

RNG = np.random.default_rng(0)
SPEECH = RNG.normal(0, 0.1, 3 * SAMPLE_RATE) * np.repeat(RNG.random(30), SAMPLE_RATE // 10)
NOTHING = np.zeros_like(SPEECH)
OTHER = RNG.normal(0, 0.03, len(SPEECH))
HUM = 0.1 * np.sin(2 * np.pi * 50 * np.arange(len(SPEECH)) / SAMPLE_RATE)


def read(data: bytes) -> tuple[np.ndarray, list[str]]:
    """Read samples with both readers, which must agree, and collect the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        samples = read_audio(io.BytesIO(data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MlmaWarning)
        blocks = np.concatenate(list(audio_blocks(io.BytesIO(data), seconds=0.5)))
    assert np.array_equal(samples, blocks)
    return samples, [str(one.message) for one in caught if one.category is MlmaWarning]


@pytest.mark.parametrize(
    ("channels", "taken"),
    [
        ((SPEECH, -SPEECH), 0),
        ((-0.8 * SPEECH, SPEECH), 1),
        ((SPEECH, -0.9 * SPEECH + 0.1 * OTHER), 0),
        ((0.5 * SPEECH, -SPEECH, NOTHING), 1),
        ((SPEECH, -SPEECH, NOTHING, NOTHING, NOTHING, NOTHING), 0),
        ((SPEECH, 0.9 * SPEECH, -SPEECH, -0.9 * SPEECH), 0),
        ((0.9 * SPEECH, -SPEECH, -0.9 * SPEECH), 1),
        ((SPEECH + 0.2, -SPEECH + 0.2), 0),  # an offset that both share is no speech
        ((SPEECH + HUM, -0.9 * SPEECH + HUM), 0),
        ((np.concatenate([NOTHING, SPEECH]), np.concatenate([NOTHING, -SPEECH])), 0),
        ((np.concatenate([OTHER / 3, SPEECH]), np.concatenate([OTHER / 3, -SPEECH])), 0),
    ],
)
def test_the_loudest_of_channels_that_cancel_is_used(
    written: Callable, channels: Sequence[np.ndarray], taken: int
) -> None:
    data = written("WAV", np.stack(channels, 1), subtype="FLOAT")
    samples, warned = read(data)
    assert np.allclose(samples, channels[taken], atol=1e-6)
    assert len(warned) == 1 and f"channel {taken + 1}," in warned[0]
    with pytest.warns(MlmaWarning, match="out of phase"):
        span = read_audio(io.BytesIO(data), len(samples) / SAMPLE_RATE - 2.0)
    assert np.allclose(span, channels[taken][-2 * SAMPLE_RATE :], atol=1e-6)


@pytest.mark.parametrize(
    "channels",
    [
        (SPEECH, SPEECH),
        (SPEECH, NOTHING),
        (NOTHING, NOTHING, SPEECH, NOTHING, NOTHING, NOTHING),
        (SPEECH, RNG.permutation(SPEECH)),
        (SPEECH, 0.3 * SPEECH + OTHER, OTHER[::-1]),
        (SPEECH, -0.1 * SPEECH),
        (NOTHING, NOTHING),
        (SPEECH, np.concatenate([NOTHING[:40], SPEECH[:-40]])),
    ],
)
def test_other_channels_are_averaged(written: Callable, channels: Sequence[np.ndarray]) -> None:
    samples, warned = read(written("WAV", np.stack(channels, 1), subtype="FLOAT"))
    assert np.allclose(samples, np.mean(channels, 0), atol=1e-6)
    assert warned == []


@pytest.mark.parametrize("kind", ["FLAC", "MP3", "OGG"])
def test_channels_cancel_in_any_format(written: Callable, kind: str) -> None:
    long = np.tile(SPEECH, 5)
    samples, warned = read(written(kind, np.stack([long, -long], 1), 48000))
    assert len(warned) == 1
    assert np.sqrt(np.mean(samples**2)) > 0.02


def test_joined_files_are_mixed_separately(written: Callable) -> None:
    pair = np.stack([SPEECH, SPEECH], 1)
    joined = written("WAV", pair, subtype="FLOAT") + written("WAV", pair * [1, -1], subtype="FLOAT")
    samples, warned = read(joined)
    assert np.allclose(samples, np.tile(SPEECH, 2), atol=1e-6)
    assert len(warned) == 1


def test_a_channel_of_nan_or_inf_is_an_error(written: Callable) -> None:
    for bad in (np.nan, np.inf):
        data = written("WAV", np.stack([SPEECH, NOTHING + bad], 1), subtype="FLOAT")
        with pytest.raises(MlmaError, match="NaN or Inf"):
            read_audio(io.BytesIO(data))
