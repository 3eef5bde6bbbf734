"""Sound that is cut off, joined, or has channels that cancel, on the command line."""

import io

import numpy as np
import pytest
import soundfile
from babble import babble

from espnet_mlma.audio import DamagedAudio
from espnet_mlma.cli import stream
from espnet_mlma.decode import load

SECONDS = 40


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """A folder with recordings cut off at 90 %, and what there is of them as `there.wav`."""
    folder = tmp_path_factory.mktemp("cut")
    samples = babble(SECONDS * 16000)
    for suffix in ("wav", "flac", "mp3"):
        file = folder / f"cut.{suffix}"
        soundfile.write(file, samples, 16000)
        data = file.read_bytes()
        file.write_bytes(data[: int(0.9 * len(data))])
    soundfile.write(folder / "there.wav", samples[: int(0.9 * len(samples)) - 4], 16000)
    return folder


def test_what_is_there_is_printed_and_the_damage_reported(mlma, experiment, cut):
    _, whole, _ = mlma("transcribe", cut / "there.wav", "--model", experiment)
    for suffix in ("wav", "flac", "mp3"):
        code, out, err = mlma("transcribe", cut / f"cut.{suffix}", "--model", experiment)
        assert code == 1
        # An untrained model writes another text for what an MP3 makes of the sound.
        assert len(out) > 0.5 * len(whole) > 20 and out.endswith("\n")
        assert f"cut.{suffix}: cut off or damaged after" in err.splitlines()[0]


def test_what_is_there_is_written_in_every_format(mlma, experiment, cut, tmp_path):
    code, _, err = mlma(
        *("transcribe", cut / "cut.flac", cut / "there.wav", "--format", "all", "-o", tmp_path),
        *("--model", experiment),
    )
    assert code == 1 and err.startswith("error: ")
    for file in sorted(tmp_path.glob("there.*")):
        found = file.with_stem("cut")
        assert found.stat().st_size > 0.5 * file.stat().st_size


def test_the_library_gives_what_is_there_with_the_error(experiment, cut):
    recogniser = load(experiment, device="cpu")
    whole = recogniser.transcribe(cut / "there.wav")
    with pytest.raises(DamagedAudio) as caught:
        recogniser.transcribe(cut / "cut.wav")
    assert caught.value.transcript.text == whole.text != ""
    parts = []
    with pytest.raises(DamagedAudio):
        parts.extend(recogniser.iter_transcribe(cut / "cut.wav"))
    assert " ".join(part.text for part in parts) == whole.text


def test_channels_that_cancel_give_a_warning_of_one_line(mlma, experiment, tmp_path):
    speech = babble(32000)
    soundfile.write(tmp_path / "one.wav", speech, 16000)
    soundfile.write(tmp_path / "two.wav", np.stack([speech, -speech], 1), 16000)
    _, one, _ = mlma("transcribe", tmp_path / "one.wav", "--model", experiment)
    code, two, err = mlma("transcribe", tmp_path / "two.wav", "--model", experiment)
    assert code == 0 and one == two != "\n"
    warnings = [line for line in err.splitlines() if "two.wav" in line]
    assert len(warnings) == 1 and "out of phase" in warnings[0]


@pytest.mark.parametrize("kind", ["WAV", "MP3", "FLAC", "OGG"])
def test_a_file_piped_into_stream_is_named(mlma, experiment, monkeypatch, kind):
    file = io.BytesIO()
    soundfile.write(file, babble(32000), 16000, format=kind)
    file.seek(0)
    file.isatty = lambda: False
    monkeypatch.setattr(stream, "binary_stdin", lambda: file)
    code, out, err = mlma("stream", "--model", experiment)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1 and "ffmpeg" in err and "not raw PCM" in err
