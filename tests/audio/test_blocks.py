import io
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import soxr

from espnet_mlma.audio import SAMPLE_RATE, audio_blocks, duration_of, pcm_blocks, read_audio
from espnet_mlma.errors import MlmaError


def noise(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    """Make noise, (samples, channels) float64."""
    return np.random.default_rng(0).normal(0, 0.1, (round(seconds * rate), channels))


def tones(seconds: float, rate: int) -> np.ndarray:
    """Make a tone with rising pitch, (samples,) float64, so that no two moments are alike."""
    time = np.arange(round(seconds * rate)) / rate
    return 0.3 * np.sin(2 * np.pi * (300 + 200 * time) * time)


def encode(
    path: Path, codec: str | None, rate: int = 48000, seconds: float = 3.0, video: bool = False
) -> Path:
    """Write `tones`, and optionally video, with FFmpeg; the suffix determines the container."""
    with av.open(path, "w") as container:
        if codec:
            sound = container.add_stream(codec, rate=rate, layout="mono")
        if video:
            pictures = container.add_stream("mpeg4", rate=10, width=64, height=64)
            pictures.pix_fmt = "yuv420p"
            for _ in range(round(seconds * 10)):
                container.mux(pictures.encode(av.VideoFrame(64, 64, "yuv420p")))
            container.mux(pictures.encode())
        if codec:
            samples = (tones(seconds, rate) * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
            frame.sample_rate = rate
            frame.pts = 0  # otherwise the start of the audio is unknown
            container.mux(sound.encode(frame))
            container.mux(sound.encode())
    return path


def as_pipe(data: bytes) -> io.BufferedReader:
    """Open a pipe with at most 64 KiB of data."""
    reader, writer = os.pipe()
    with open(writer, "wb") as end:
        end.write(data)
    return open(reader, "rb")


def read(source, **options) -> np.ndarray:
    return np.concatenate(list(audio_blocks(source, **options)))


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [
        ("wav", "PCM_U8"),
        ("wav", "PCM_16"),
        ("wav", "PCM_24"),
        ("wav", "FLOAT"),
        ("flac", "PCM_16"),
        ("ogg", "VORBIS"),
        ("mp3", "MPEG_LAYER_III"),
    ],
)
def test_blocks_equal_the_samples_of_the_whole_file(
    tmp_path: Path, suffix: str, subtype: str, rate: int
) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, noise(2.3, rate, channels=2), rate, subtype=subtype)
    blocks = list(audio_blocks(path, seconds=0.5))
    assert {block.dtype for block in blocks} == {np.dtype(np.float32)}
    assert {len(block) for block in blocks[:-1]} == {SAMPLE_RATE // 2}
    assert 0 < len(blocks[-1]) <= SAMPLE_RATE // 2
    # soundfile seeks in an mp3, which changes the order of additions.
    tolerance = 1e-6 if suffix == "mp3" else 0
    assert np.abs(np.concatenate(blocks) - read_audio(path)).max() <= tolerance
    assert duration_of(path) == pytest.approx(2.3, abs=0.08)


@pytest.mark.parametrize(
    ("clips", "tolerance"),
    [
        ("commonvoice/*/*/clips/*.mp3", 1e-6),
        ("mls/*/dev/audio/*/*/*.opus", 0),
        ("voxpopuli/**/*.ogg", 0),
    ],
)
def test_blocks_of_real_clips_equal_the_samples_of_the_whole_file(
    shared_corpora: Path, clips: str, tolerance: float
) -> None:
    clip = next(shared_corpora.glob(clips))
    assert np.abs(read(clip, seconds=1.0) - read_audio(clip)).max() <= tolerance


@pytest.mark.parametrize(
    ("name", "codec", "rate", "video"),
    [
        ("a.m4a", "aac", 44100, False),
        ("a.aac", "aac", 16000, False),
        ("a.webm", "libopus", 48000, False),
        ("a.mp4", "aac", 48000, True),
        ("a.mkv", "pcm_s16le", 48000, True),
        ("a.mka", "pcm_u8", 16000, False),
        ("a.avi", "mp3", 44100, True),
    ],
)
def test_formats_that_only_ffmpeg_reads(
    tmp_path: Path, name: str, codec: str, rate: int, video: bool
) -> None:
    path = encode(tmp_path / name, codec, rate, video=video)
    decoded = read(path, seconds=0.7)
    assert decoded.dtype == np.float32
    assert len(decoded) == pytest.approx(3 * SAMPLE_RATE, abs=0.2 * SAMPLE_RATE)
    assert duration_of(path) == pytest.approx(3.0, abs=0.2)
    expected = tones(3.0, SAMPLE_RATE)
    # Raw aac and avi do not declare the silence before the audio.
    lags = range(0, 3000) if name in ("a.aac", "a.avi") else range(1)
    inner = slice(8000, 40000)
    error = min(np.abs(decoded[lag:][inner] - expected[inner]).mean() for lag in lags)
    assert error < 0.02


def test_ffmpeg_does_not_change_uncompressed_audio(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", "pcm_s16le", 44100)
    expected = (tones(3.0, 44100) * 32767).astype(np.int16).astype(np.float32) / 32768
    assert np.array_equal(read(path), soxr.resample(expected, 44100, SAMPLE_RATE))


@pytest.mark.parametrize(("codec", "form"), [("pcm_s16le", "s16"), ("aac", "fltp")])
def test_stereo_from_ffmpeg_is_averaged(tmp_path: Path, codec: str, form: str) -> None:
    path = tmp_path / "a.mka"
    left, right = tones(1.0, 16000), noise(1.0, 16000)[:, 0]
    samples = np.stack([left, right]).astype(np.float32)
    if form == "s16":  # interleaved; fltp is one channel after the other
        samples = (samples.T.reshape(1, -1) * 32767).astype(np.int16)
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=16000, layout="stereo", options={"b": "256000"})
        frame = av.AudioFrame.from_ndarray(samples, format=form, layout="stereo")
        frame.sample_rate, frame.pts = 16000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert np.corrcoef(read(path)[:16000], (left + right) / 2)[0, 1] > 0.99


def test_a_pipe_is_read_like_the_file(tmp_path: Path) -> None:
    wav, mp4 = tmp_path / "a.wav", encode(tmp_path / "a.mp4", "aac")
    soundfile.write(wav, noise(1.0, 22050), 22050)
    for path in (wav, mp4):
        assert np.array_equal(read(as_pipe(path.read_bytes())), read(path))
        assert duration_of(as_pipe(path.read_bytes())) is None
    with open(wav, "rb") as file:
        assert duration_of(file) == 1.0
        assert np.array_equal(read(file), read(wav))


def test_files_without_a_length_are_read_to_the_end(tmp_path: Path) -> None:
    wav = io.BytesIO()
    soundfile.write(wav, noise(1.0, 16000), 16000, format="WAV")
    for length in (0, 0x7FFFF024, 0x80000024, 0xFFFFFFFF):
        data = bytearray(wav.getvalue())
        data[4:8] = length.to_bytes(4, "little")
        data[40:44] = max(0, length - 36).to_bytes(4, "little")
        if length:  # an empty data chunk has no samples
            assert len(read(io.BytesIO(data))) == 16000, hex(length)
    flac = tmp_path / "a.flac"
    soundfile.write(flac, noise(1.0, 16000), 16000)
    whole = read(flac)
    data = bytearray(flac.read_bytes())
    data[21] &= 0xF0  # STREAMINFO's 36 bits for the number of samples
    data[22:26] = bytes(4)
    assert np.array_equal(read(io.BytesIO(data)), whole)


@pytest.mark.parametrize("name", ["a.flac", "a.mka"])
def test_twenty_minutes_are_read_in_constant_memory(tmp_path: Path, name: str) -> None:
    path, rate, seconds = tmp_path / name, 24000, 20 * 60
    second = np.zeros(rate, np.int16)
    if name == "a.flac":
        with soundfile.SoundFile(path, "w", rate, 1) as sound:
            for _ in range(seconds):
                sound.write(second)
    else:
        with av.open(path, "w") as container:
            stream = container.add_stream("pcm_s16le", rate=rate, layout="mono")
            for number in range(seconds):
                frame = av.AudioFrame.from_ndarray(second[None], format="s16", layout="mono")
                frame.sample_rate, frame.pts = rate, number * rate
                container.mux(stream.encode(frame))
    tracemalloc.start()
    try:
        count = sum(map(len, audio_blocks(path, seconds=10.0)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == seconds * SAMPLE_RATE
    assert peak < 4e6  # the samples at 16 kHz are 77 MB, 10 s of them 0.64 MB


@pytest.mark.parametrize("rate", [16000, 44100])
def test_raw_pcm(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(1.0, rate), rate, subtype="PCM_16")
    data = path.read_bytes()[44:]
    blocks = list(pcm_blocks(io.BytesIO(data), rate))
    assert max(map(len, blocks)) <= 0.1 * SAMPLE_RATE + 1000
    assert np.array_equal(np.concatenate(blocks), read_audio(path))


class Dripping(io.RawIOBase):
    """Stream that returns three bytes per read."""

    def __init__(self, data: bytes):
        self.data = data

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        given, self.data = self.data[: min(3, len(buffer))], self.data[3:]
        buffer[: len(given)] = given
        return len(given)


@pytest.mark.parametrize("wrap", [Dripping, lambda data: io.BufferedReader(Dripping(data))])
def test_raw_pcm_is_yielded_as_it_arrives(wrap: Callable) -> None:
    expected = np.arange(-300, 300, dtype="<i2")
    blocks = list(pcm_blocks(wrap(expected.tobytes() + b"\1"), SAMPLE_RATE))
    assert max(map(len, blocks)) <= 2
    assert np.array_equal(np.concatenate(blocks) * 32768, expected)


def test_a_live_stream_is_read_without_waiting() -> None:
    reader, writer = os.pipe()
    with open(reader, "rb") as stream, open(writer, "wb", buffering=0) as end:
        blocks = pcm_blocks(stream, SAMPLE_RATE, seconds=10.0)
        for count in (160, 320):
            end.write(bytes(2 * count))
            assert len(next(blocks)) == count


def junk(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    """Make files without audio; return path and expected error of each."""
    contents = {
        "empty.mp3": (b"", "empty file"),
        "text.txt": (b"This is no sound.\n" * 100, "has no audio"),
        "random.wav": (np.random.default_rng(0).bytes(50000), "not readable as audio"),
        "bare.raw": (bytes(1000), "has no audio"),
    }
    for name, (data, _) in contents.items():
        (tmp_path / name).write_bytes(data)
    soundfile.write(tmp_path / "none.wav", np.zeros(0), SAMPLE_RATE)
    with av.open(tmp_path / "a.jpg", "w", format="image2") as container:
        picture = container.add_stream("mjpeg", rate=1, width=64, height=64)
        picture.pix_fmt = "yuvj420p"
        container.mux(picture.encode(av.VideoFrame(64, 64, "yuvj420p")))
        container.mux(picture.encode())
    encode(tmp_path / "mute.mp4", None, video=True)
    expected = {name: why for name, (_, why) in contents.items()} | {
        "none.wav": "has no samples",
        "a.jpg": "has no audio",
        "mute.mp4": "has no audio",
        "gone.wav": "no such file",
        ".": "cannot be read",
    }
    return {name: (tmp_path / name, why) for name, why in expected.items()}


def test_files_without_audio_are_one_line_errors(tmp_path: Path, capfd) -> None:
    for name, (path, why) in junk(tmp_path).items():
        with pytest.raises(MlmaError, match=why) as caught:
            list(audio_blocks(path))
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
        if name != "none.wav":
            with pytest.raises(MlmaError, match=why):
                duration_of(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("loudest", "expected"),
    [
        (32768.0, "samples reach 32768"),
        (np.nan, "contains NaN or Inf"),
        (-np.inf, "contains NaN or Inf"),
    ],
)
def test_invalid_samples_are_errors(tmp_path: Path, loudest: float, expected: str) -> None:
    path, samples = tmp_path / "loud.wav", noise(1.0, SAMPLE_RATE)
    samples[8000] = loudest
    soundfile.write(path, samples, SAMPLE_RATE, subtype="FLOAT")
    for reading in (read, read_audio):
        with pytest.raises(MlmaError, match=f"loud.wav: {expected}"):
            reading(path)


def test_errors_have_the_name_of_an_open_file() -> None:
    with pytest.raises(MlmaError, match="^audio: empty file$"):
        list(audio_blocks(io.BytesIO()))


def test_a_playlist_does_not_open_other_files(tmp_path: Path, monkeypatch) -> None:
    encode(tmp_path / "secret.aac", "aac")
    (tmp_path / "list.txt").write_text("ffconcat version 1.0\nfile secret.aac\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MlmaError, match=r"list\.txt: not readable as audio"):
        list(audio_blocks("list.txt"))


@pytest.mark.parametrize(
    "name", ["a.wav", "a.aiff", "a.flac", "a.mp3", "a.ogg", "a.webm", "video.mkv", "fragments.mp4"]
)
def test_half_a_file_is_an_error_after_its_samples(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix in (".webm", ".mkv"):
        encode(path, "libopus", video=path.stem == "video", seconds=6.0)
    elif path.suffix == ".mp4":
        encode(tmp_path / "whole.mp4", "aac", seconds=6.0)
        with av.open(tmp_path / "whole.mp4") as whole:
            options = {"movflags": "frag_every_frame+empty_moov"}
            with av.open(path, "w", container_options=options) as copy:
                stream = copy.add_stream_from_template(whole.streams.audio[0])
                for packet in whole.demux(audio=0):
                    if packet.dts is not None:
                        packet.stream = stream
                        copy.mux(packet)
    else:
        soundfile.write(path, noise(6.0, SAMPLE_RATE), SAMPLE_RATE)
    whole = read(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    given = []
    with pytest.raises(MlmaError, match=r"cut off or damaged after [1-5]\.\d s"):
        given.extend(audio_blocks(path, seconds=0.5))
    given = np.concatenate(given)
    assert SAMPLE_RATE < len(given) < 5 * SAMPLE_RATE
    inner = len(given) - 4000
    assert np.allclose(given[:inner], whole[:inner], atol=1e-3)


def test_damage_in_the_middle_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path / "a.flac", encode(tmp_path / "a.m4a", "aac", seconds=6.0)):
        if path.suffix == ".flac":
            soundfile.write(path, noise(6.0, SAMPLE_RATE), SAMPLE_RATE)
        data = bytearray(path.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
        path.write_bytes(data)
        given = []
        with pytest.raises(MlmaError, match=r"cut off or damaged after [1-5]\.\d s"):
            given.extend(audio_blocks(path))
        assert sum(map(len, given)) > SAMPLE_RATE


def test_a_wrong_declared_length_needs_no_memory() -> None:
    wav = io.BytesIO()
    soundfile.write(wav, np.zeros(500), SAMPLE_RATE, format="WAV")
    data = bytearray(wav.getvalue())
    ten_hours = 10 * 3600 * SAMPLE_RATE * 2
    data[4:8] = (ten_hours + 36).to_bytes(4, "little")
    data[40:44] = ten_hours.to_bytes(4, "little")
    flac = io.BytesIO()
    soundfile.write(flac, np.zeros(500), SAMPLE_RATE, format="FLAC")
    short = bytearray(flac.getvalue())
    short[22:26] = (10 * 3600 * SAMPLE_RATE).to_bytes(4, "big")
    for lie in (data, short):
        assert len(lie) < 9000
        tracemalloc.start()
        try:
            with pytest.raises(MlmaError, match=r"cut off or damaged after 0.0 s of 3\d{4}.\d s"):
                list(audio_blocks(io.BytesIO(lie)))
            assert tracemalloc.get_traced_memory()[1] < 2e6
        finally:
            tracemalloc.stop()


def test_reading_can_stop_early(tmp_path: Path, capfd) -> None:
    wav, mp4 = tmp_path / "a.wav", encode(tmp_path / "a.mp4", "aac")
    soundfile.write(wav, noise(3.0, 16000), 16000)
    for path in (wav, mp4):
        blocks = audio_blocks(path, seconds=0.5)
        assert len(next(blocks)) == 8000
        blocks.close()
    assert capfd.readouterr().err == ""
