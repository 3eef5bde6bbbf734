import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet_mlma.data.corpora import synthetic
from espnet_mlma.data.corpora.espeak import Espeak, SynthesisLine
from espnet_mlma.errors import MlmaError
from espnet_mlma.text import LANGUAGES

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "egs2/mlma/asr1/ablation"))
from free_text import paragraphs  # noqa: E402


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a corpus from six texts of 60 sentences."""
    folder = tmp_path_factory.mktemp("synthetic")
    letters = "abcdefghijklmnopqrstuvwxyz"
    for lang in LANGUAGES:
        lines = [f"La casa {a}{b}a sola." for a in letters for b in "aeiou"][:60]
        (folder / f"{lang}.txt").write_text(" ".join(lines), encoding="utf-8")
    synthetic.generate(folder)
    return folder


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_sentence_is_synthesised_once_and_splits_share_no_voices(root, lang):
    splits = {split: list(synthetic.prepare(root, lang, split)) for split in synthetic.VARIANTS}
    assert {split: len(spoken) for split, spoken in splits.items()} == {
        "train": 56,
        "dev": 2,
        "test": 2,
    }
    spoken = [utterance.text for split in splits.values() for utterance in split]
    assert len(set(spoken)) == 60
    speakers = [{utterance.speaker for utterance in split} for split in splits.values()]
    assert sum(map(len, speakers)) == len(set.union(*speakers))
    assert len(speakers[0]) > 20, "56 sentences should have more than 20 voices"
    for utterance in splits["dev"] + splits["train"][:3]:
        samples, rate = soundfile.read(utterance.audio.path)
        assert rate == 16000 and 0.5 < len(samples) / rate < 4 and np.abs(samples).max() > 0.05


def test_a_language_is_made_again_only_if_its_text_changes(root, capsys):
    clip = next(synthetic.prepare(root, "nl", "train")).audio.path
    written = clip.stat().st_mtime_ns
    synthetic.generate(root)
    assert "complete" in capsys.readouterr().out and clip.stat().st_mtime_ns == written
    with (root / "nl.txt").open("a") as file:
        file.write("\nEen heel nieuwe zin.\n")
    synthetic.generate(root)
    texts = [u.text for split in synthetic.VARIANTS for u in synthetic.prepare(root, "nl", split)]
    assert len(texts) == 61 and "Een heel nieuwe zin." in texts


def test_text_is_split_into_sentences_and_drops_are_counted():
    lines = ["Elle a ri.  Il est\tvenu hier soir ! Oui. Il a 3 chats noirs.", "Elle a ri.", ""]
    lines += ["Le łoś dort ici." + " mot" * 25, "elle a Ri:"]  # the same words
    kept, dropped = synthetic.sentences("\n".join(lines), "fr")
    assert kept == ["Elle a ri.", "Il est venu hier soir !"]
    assert dropped == {
        "too_short": 1,
        "digits": 1,
        "duplicate": 2,
        "out_of_alphabet": 1,
        "too_long": 1,
    }


def test_a_manual_is_read_by_paragraphs(tmp_path):
    page = (
        '<page xmlns="http://projectmallard.org/1.0/" id="x"><title>No</title>'
        "<p>Press the\n  <gui>red <em>big</em></gui> button.</p><list><item><p>Wait.</p></item>"
        "</list></page>"
    )
    (tmp_path / "b.page").write_text(page)
    (tmp_path / "a.page").write_text(page.replace("Press", "Push"))
    (tmp_path / "c.txt").write_text("no page")
    assert list(paragraphs(tmp_path)) == [
        *("Push the red big button.", "Wait."),
        *("Press the red big button.", "Wait."),
    ]


def test_a_missing_or_too_short_text_is_an_error(tmp_path):
    with pytest.raises(MlmaError, match=r"no .*en\.txt; put free text in en"):
        synthetic.generate(tmp_path)
    (tmp_path / "en.txt").write_text("One. Two.\n4 is too few of them here.\n")
    with pytest.raises(MlmaError, match=r"en\.txt: 0 usable sentences .*digits 1, too_short 2"):
        synthetic.plan(tmp_path / "en.txt", "en", 1)
    (tmp_path / "en.txt").write_bytes("Caffè.".encode("latin-1"))
    with pytest.raises(MlmaError, match=r"en\.txt:1: byte 0xe8 is not UTF-8"):
        synthetic.plan(tmp_path / "en.txt", "en", 1)


def test_a_folder_of_the_user_is_not_replaced(root, tmp_path):
    for lang in LANGUAGES:
        (tmp_path / f"{lang}.txt").symlink_to(root / f"{lang}.txt")
    book = tmp_path / "nl" / "book.txt"
    book.parent.mkdir()
    book.write_text("Een boek.")
    with pytest.raises(MlmaError, match=r"nl: .* move it away"):
        synthetic.generate(tmp_path)
    assert book.is_file() and not (tmp_path / "de").exists()


def test_each_voice_has_output_at_all_rates_and_pitches():
    speech = Espeak()
    for voice in sorted(set(sum(synthetic.VARIANTS.values(), ()))):
        for rate, pitch in ((110, 20), (200, 80)):
            spoken = speech.speak(
                SynthesisLine("u", "s", "la casa", f"it+{voice}", rate, pitch, 30)
            )
            assert np.abs(spoken).max() > 0.05, voice
