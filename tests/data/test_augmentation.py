"""Test the options for noise and rooms in the recipe's README."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile
from espnet2.tasks.asr import ASRTask

README = Path(__file__).resolve().parents[2] / "egs2" / "mlma" / "asr1" / "README.md"
RATE = 16000


@pytest.fixture(scope="module")
def options() -> list[str]:
    row = next(line for line in README.read_text().splitlines() if line.startswith("| noise"))
    return shlex.split(re.search(r'--asr_args "([^"]+)"', row)[1])


@pytest.fixture
def lists(tmp_path, monkeypatch) -> None:
    """Write half a second of noise and a room with two echoes, named as in the README."""
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "hiss.wav", 0.1 * rng.normal(size=RATE // 2), RATE)
    room = np.zeros(3200)
    room[[0, 1600, 3000]] = 1.0, 0.5, 0.2
    soundfile.write(tmp_path / "hall.wav", room, RATE)
    (tmp_path / "noise.scp").write_text("hiss hiss.wav\n")
    (tmp_path / "rooms.scp").write_text("hall hall.wav\n")
    monkeypatch.chdir(tmp_path)


def prepared(options: list[str], speech: np.ndarray, train: bool) -> np.ndarray:
    """Preprocess a clip as the trainer does."""
    words = ["--output_dir", "unused", "--token_type", "char", *options]
    args = ASRTask.get_parser().parse_args(words)
    args.token_list = ["<blank>", "<unk>", "<space>", "a", "<sos/eos>"]
    read = ASRTask.build_preprocess_fn(args, train)
    return read("utterance", {"speech": speech, "text": "a"})["speech"]


def test_noise_and_rooms_are_applied_in_training_only(options, lists):
    np.random.seed(0)
    speech = 0.1 * np.sin(2 * np.pi * 220 * np.arange(2 * RATE) / RATE).astype(np.float32)
    np.testing.assert_array_equal(prepared(options, speech, train=False), speech)

    def with_probability(noise: float, room: float) -> list[np.ndarray]:
        words = [*options, "--noise_apply_prob", str(noise), "--rir_apply_prob", str(room)]
        return [prepared(words, speech, train=True).squeeze() for _ in range(10)]

    for augmented in with_probability(noise=1, room=0):
        snr = 10 * np.log10(np.mean(speech**2) / np.mean((augmented - speech) ** 2))
        assert 4.5 < snr < 20.5
    for augmented in with_probability(noise=0, room=1):
        before, after = slice(0, 1500), slice(1600, 2900)
        gain = augmented[before] @ speech[before] / (speech[before] @ speech[before])
        np.testing.assert_allclose(augmented[before], gain * speech[before], atol=1e-4)
        echo = gain * (speech[after] + 0.5 * speech[: 2900 - 1600])
        np.testing.assert_allclose(augmented[after], echo, atol=1e-4)
    several = [prepared(options, speech, train=True).squeeze() for _ in range(40)]
    assert 5 < sum(np.array_equal(augmented, speech) for augmented in several) < 28
