import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet_mlma.data.corpora import mini
from espnet_mlma.data.corpora.espeak import Espeak, SynthesisLine
from espnet_mlma.errors import MlmaError
from espnet_mlma.text import LANGUAGES, alphabet, normalise

SMALL = {"seed": 3, "train": 60, "dev": 4, "test": 6}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mini")
    mini.generate(root, **SMALL)
    return root


def texts(root: Path, lang: str, split: str) -> list[str]:
    return [utterance.text for utterance in mini.prepare(root, lang, split)]


@pytest.mark.parametrize("lang", LANGUAGES)
class TestSentences:
    def test_default_plan_has_the_stated_sizes_and_no_sentence_twice(self, lang):
        plan = mini.plan(lang, 1, mini.SplitSizes())
        assert {split: len(lines) for split, lines in plan.items()} == {
            "train": 400,
            "dev": 20,
            "test": 40,
        }
        found = [line.text for lines in plan.values() for line in lines]
        assert len(set(found)) == len(found)

    def test_dev_and_test_share_words_but_no_voices_with_train(self, lang):
        plan = mini.plan(lang, 1, mini.SplitSizes())
        words = {split: {w for u in plan[split] for w in u.text.split()} for split in plan}
        assert words["dev"] | words["test"] <= words["train"]
        voices = [{line.voice for line in lines} for lines in plan.values()]
        assert sum(map(len, voices)) == len(set.union(*voices)) == 15

    def test_sentences_are_normalised_and_short(self, lang):
        for line in mini.plan(lang, 1, mini.SplitSizes())["train"]:
            assert normalise(line.text, lang) == line.text
            assert 2 <= len(line.text.split()) <= 10

    def test_the_grammar_uses_the_alphabet_and_all_its_rules(self, lang):
        rules = mini.grammar()[lang]
        tokens = {w for alternatives in rules.values() for a in alternatives for w in a.split()}
        assert {w for w in tokens if w.isupper()} == rules.keys() - {"S"}
        letters = {c for w in tokens if not w.isupper() for c in w}
        assert letters <= {*alphabet(lang), "'"}
        assert any(not c.isascii() for c in letters) or lang == "en"

    def test_the_plan_depends_on_the_seed(self, lang):
        size = mini.SplitSizes(30, 2, 2)
        assert mini.plan(lang, 1, size) == mini.plan(lang, 1, size) != mini.plan(lang, 2, size)


def test_a_plan_with_too_many_sentences_is_an_error():
    with pytest.raises(MlmaError, match="it: found .* of 10000"):
        mini.plan("it", 1, mini.SplitSizes(train=10_000))


@pytest.mark.parametrize("lang", LANGUAGES)
def test_audio_is_16_khz_trimmed_level_and_unclipped(corpus, lang):
    for split in mini.SPLITS:
        utterances = list(mini.prepare(corpus, lang, split))
        assert len(utterances) == SMALL[split]
        for utterance in utterances:
            assert utterance.id.startswith(f"{utterance.speaker}-")
            samples, rate = soundfile.read(utterance.audio.path)
            seconds = len(samples) / rate
            assert rate == 16000 and 0.5 < seconds < 6
            assert np.abs(samples).max() < 0.96
            assert 10 * np.log10(np.mean(samples**2)) == pytest.approx(-23, abs=1)
            # speech within 0.3 s of both ends: frames of 20 ms, 10 dB above the noise in the edge
            power = (samples[: len(samples) // 320 * 320].reshape(-1, 320) ** 2).mean(1)
            speech = np.flatnonzero(power > 10 * power[:4].mean()) * 0.02
            assert speech[0] < 0.3 and speech[-1] > seconds - 0.4
            assert len(utterance.text) / seconds < 24  # CTC has 25 frames per second


@pytest.mark.slow
def test_a_corpus_is_made_again_only_if_arguments_change(tmp_path, capsys):
    size = {"train": 12, "dev": 1, "test": 1}
    mini.generate(tmp_path, seed=1, **size)
    clip = next(mini.prepare(tmp_path, "fr", "train")).audio.path
    first, written = clip.read_bytes(), clip.stat().st_mtime_ns
    mini.generate(tmp_path, seed=1, **size)
    assert clip.stat().st_mtime_ns == written
    assert "complete" in capsys.readouterr().out
    before = texts(tmp_path, "fr", "train")
    mini.generate(tmp_path, seed=2, **size)
    assert texts(tmp_path, "fr", "train") != before
    mini.generate(tmp_path, seed=1, nj=1, **size)
    assert clip.read_bytes() == first, "the sound depends on more than the arguments"


def test_a_language_without_its_marker_is_made_again(tmp_path):
    size = {"train": 12, "dev": 1, "test": 1}
    mini.generate(tmp_path, seed=1, **size)
    (tmp_path / "de" / "complete.json").unlink()
    (tmp_path / "de" / "test" / "transcripts.tsv").write_text("id\tspeaker\ttext\n")
    mini.generate(tmp_path, seed=1, **size)
    assert len(texts(tmp_path, "de", "test")) == 1
    assert json.loads((tmp_path / "de" / "complete.json").read_text())["seed"] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(LANGUAGES)


MAIN = """
import sys
from pathlib import Path
from espnet_mlma.data.corpora import mini
from espnet_mlma.errors import run_cli
size = {"train": int(sys.argv[2]), "dev": 1, "test": 1, "languages": ["it", "fr"]}
if __name__ == "__main__":
    run_cli(lambda: mini.generate(Path(sys.argv[1]), **size))
"""


def generate_elsewhere(script: Path, root: Path, train: int) -> subprocess.Popen:
    """Make a corpus in a new process."""
    script.write_text(MAIN)
    command = [sys.executable, script, root, str(train)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_for_clips(process: subprocess.Popen, root: Path) -> None:
    while process.poll() is None and not any(root.glob(".it*/train/audio/*.flac")):
        time.sleep(0.01)
    assert process.poll() is None


def clips(root: Path, lang: str) -> list[str]:
    """List the clips, which must be in a table and not empty."""
    found = [u for split in mini.SPLITS for u in mini.prepare(root, lang, split)]
    assert all(soundfile.info(utterance.audio.path).frames for utterance in found)
    assert {u.audio.path for u in found} == set((root / lang).glob("*/audio/*"))
    return [utterance.id for utterance in found]


def test_a_run_after_a_kill_completes_the_corpus(tmp_path):
    """Kill the process during synthesis, then run the same command immediately."""
    root = tmp_path / "db"
    first = generate_elsewhere(tmp_path / "main.py", root, 40)
    wait_for_clips(first, root)
    first.send_signal(signal.SIGKILL)
    second = generate_elsewhere(tmp_path / "main.py", root, 40)
    assert second.communicate()[1] == "" and second.returncode == 0
    first.communicate()
    for lang in ("it", "fr"):
        assert len(clips(root, lang)) == 42
    assert sorted(p.name for p in root.iterdir()) == ["fr", "it"]


def test_a_concurrent_run_names_the_first_one(tmp_path):
    root = tmp_path / "db"
    first = generate_elsewhere(tmp_path / "main.py", root, 400)
    wait_for_clips(first, root)
    found = f"it: process {first.pid} on {socket.gethostname()} synthesises it already; wait for it"
    with pytest.raises(MlmaError, match=found):
        mini.generate(root, train=400, dev=1, test=1, languages=["it", "fr"])
    first.kill()
    first.communicate()


@pytest.mark.parametrize("damage", [Path.unlink, lambda clip: clip.write_bytes(b"")])
def test_a_missing_or_empty_clip_is_made_again(tmp_path, damage):
    size = {"train": 12, "dev": 1, "test": 1, "languages": ["it"]}
    mini.generate(tmp_path, **size)
    clip = next(mini.prepare(tmp_path, "it", "dev")).audio.path
    whole = clip.read_bytes()
    damage(clip)
    mini.generate(tmp_path, **size)
    assert clip.read_bytes() == whole


def test_a_missing_split_is_an_error(tmp_path):
    with pytest.raises(MlmaError, match=r"es/dev/transcripts\.tsv"):
        next(mini.prepare(tmp_path, "es", "dev"))


@pytest.mark.parametrize("voice", ["fr-fr", "de+nobody", "nobody"])
def test_an_unknown_voice_is_an_error(voice):
    line = SynthesisLine("u", "s", "bonjour", voice, 140, 50, 30)
    with pytest.raises(MlmaError, match="no voice"):
        Espeak().speak(line)
