import io
from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile

from espnet_mlma.audio import SAMPLE_RATE


def noise(seconds: float, rate: int = SAMPLE_RATE, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Make noise, (samples, channels) float64."""
    return np.random.default_rng(seed).normal(0, 0.1, (round(seconds * rate), channels))


@pytest.fixture(scope="session")
def written() -> Callable[..., bytes]:
    """Write files with libsndfile: `written("WAV", samples, subtype="PCM_24")`."""

    def make(
        kind: str, samples: np.ndarray | None = None, rate: int = SAMPLE_RATE, **more
    ) -> bytes:
        file = io.BytesIO()
        samples = noise(2.0, rate) if samples is None else samples
        soundfile.write(file, samples, rate, format=kind, **more)
        return file.getvalue()

    return make


@pytest.fixture(scope="session")
def encoded() -> Callable[..., bytes]:
    """Write files with FFmpeg: `encoded("webm", "libopus", 48000)`."""

    def make(
        container: str, codec: str, rate: int = SAMPLE_RATE, seconds: float = 2.0, **options: str
    ) -> bytes:
        file = io.BytesIO()
        with av.open(file, "w", format=container, container_options=options) as out:
            stream = out.add_stream(codec, rate=rate, layout="mono")
            context = stream.codec_context
            resampler = av.AudioResampler(
                context.format or "s16", "mono", rate, context.frame_size or 1024
            )
            samples = np.ascontiguousarray(noise(seconds, rate).T.astype(np.float32))
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
            for piece in [*resampler.resample(frame), *resampler.resample(None)]:
                out.mux(stream.encode(piece))
            out.mux(stream.encode())
        return file.getvalue()

    return make
