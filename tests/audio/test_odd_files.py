"""Test that a damaged file is one error, whatever its decoder raises."""

import io
import random
import tracemalloc
import warnings
from collections.abc import Callable

import numpy as np
import pytest

from espnet_mlma.audio import audio_blocks, duration_of, probe, read_audio
from espnet_mlma.errors import MlmaError, MlmaWarning

FILES = 200
LIBSNDFILE = [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "MS_ADPCM"), ("WAV", "GSM610")]
LIBSNDFILE += [("RF64", None), ("W64", None), ("AIFF", "PCM_24"), ("AU", "G721_32"), ("CAF", None)]
LIBSNDFILE += [("CAF", "ALAC_16"), ("FLAC", None), ("MP3", None), ("OGG", "VORBIS"), ("SDS", None)]
LIBSNDFILE += [("OGG", "OPUS"), ("NIST", None), ("VOC", None), ("SVX", None), ("PAF", "PCM_24")]
FFMPEG = [("wav", "pcm_s64le"), ("mp4", "aac"), ("webm", "libopus"), ("matroska", "pcm_s16le")]
FFMPEG += [("adts", "aac"), ("avi", "mp3"), ("ogg", "flac"), ("mpegts", "aac"), ("mov", "alac")]
FFMPEG += [("flv", "aac"), ("ac3", "ac3"), ("tta", "tta"), ("wv", "wavpack"), ("caf", "alac")]
FFMPEG_RATES = {"libopus": 48000, "aac": 44100, "mp3": 44100, "ac3": 48000}


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Change, remove or repeat some bytes, mostly in the header."""
    changed = bytearray(data)
    at = rng.randrange(min(len(data), rng.choice((48, 256, 4096))))
    kind = rng.randrange(4)
    if kind < 2:
        for _ in range(rng.choice((1, 4, 16))):
            place = rng.randrange(min(len(data), rng.choice((48, 256, 4096))))
            changed[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    elif kind == 2:
        numbers = (b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80\0\0\0")
        changed[at : at + 4] = rng.choice(numbers)
    elif rng.random() < 0.5:
        del changed[at : at + rng.randrange(2000)]
    else:
        changed[at:at] = changed[: rng.randrange(2000)]
    return bytes(changed)


def test_a_damaged_file_is_one_error(written: Callable, encoded: Callable, capfd) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 4000)
    whole = [written(kind, samples, subtype=subtype) for kind, subtype in LIBSNDFILE]
    whole += [encoded(*one, FFMPEG_RATES.get(one[1], 16000), 0.5) for one in FFMPEG]
    tracemalloc.start()
    read = refused = 0
    for number in range(FILES):
        data = mutated(whole[number % len(whole)], random.Random(number))
        for reading in (
            lambda file: sum(map(len, audio_blocks(file))),
            lambda file: read_audio(file, 0.05, 0.1),
            probe,
            duration_of,
        ):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", MlmaWarning)
                try:
                    reading(io.BytesIO(data))
                    read += 1
                except MlmaError as error:
                    refused += 1
                    assert "\n" not in str(error)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert read > FILES and refused > FILES // 2
    assert peak < 1e8
    captured = capfd.readouterr()
    assert captured.out == "" and "Traceback" not in captured.err


@pytest.mark.parametrize("codec", ["pcm_s64le", "pcm_f64le", "adpcm_ms", "adpcm_ima_wav", "mp3"])
def test_rare_codecs_in_a_wav_are_read(encoded: Callable, codec: str) -> None:
    plain = read_audio(io.BytesIO(encoded("wav", "pcm_s16le", 44100)))
    odd = read_audio(io.BytesIO(encoded("wav", codec, 44100)))
    assert len(odd) == pytest.approx(len(plain), abs=2000)
    if codec.startswith("pcm"):
        assert np.abs(odd - plain).max() < 1e-3


def test_any_exception_of_a_decoder_is_an_error_about_its_file(
    written: Callable, monkeypatch
) -> None:
    import soundfile

    kinds = (
        MemoryError(),
        OverflowError("x"),
        TypeError("a\nb"),
        AssertionError(),
        OSError(22, "y"),
    )
    for kind in kinds:

        def fail(*_, kind=kind, **__):
            raise kind

        with monkeypatch.context() as patched:
            patched.setattr(soundfile.SoundFile, "read", fail)
            with pytest.raises(MlmaError, match="^audio: not readable as audio") as caught:
                read_audio(io.BytesIO(written("WAV")))
        assert "\n" not in str(caught.value)


def test_a_disk_failure_is_an_error_about_its_file(written: Callable) -> None:
    class Failing(io.BytesIO):
        def read(self, *_):
            raise OSError(5, "Input/output error")

    for reading in (lambda file: list(audio_blocks(file)), read_audio, probe, duration_of):
        with pytest.raises(MlmaError, match="^audio: cannot be read .*Input/output error"):
            reading(Failing(written("WAV")))
