"""What must not be trained on, by tables alone; and the report on it."""

from pathlib import Path

import pytest

from espnet_mlma.audio.archives import AudioFile
from espnet_mlma.data import exclusions
from espnet_mlma.data.checks import HeldOut
from espnet_mlma.data.utterance import Drop, Utterance

SESSION = "20090112-0900-PLENARY-3"


def utterance(
    speaker: str,
    text: str = "",
    file: str = "",
    span: tuple[float, float] | None = None,
    rest: str = "1",
) -> Utterance:
    lang = speaker.split("_")[1]
    id_ = f"{speaker}-{rest}"
    audio = AudioFile(Path("/corpora") / (file or f"{id_}.flac"))
    start, end = span or (None, None)
    return Utterance(id_, audio, text, speaker, lang, start, end)


def reason(held: Utterance, training: Utterance) -> str | None:
    held_out = HeldOut()
    held_out.add(held)
    drop = held_out.drop(training, training.text.lower())
    return drop and drop.reason


@pytest.mark.parametrize(
    ("speaker", "text", "expected"),
    [
        ("mls_it_7", "Buona sera a tutti.", "sentence_in_test"),
        ("mls_it_7", "Buona notte a tutti.", None),
        ("mls_it_8", "Buona sera a tutti.", None),  # another reader
        ("mls_es_7", "Buona sera a tutti.", None),  # another language
        ("ls_it_7", "Buona sera a tutti.", "sentence_in_test"),  # LibriVox's reader 7 again
        ("vp_it_7", "Buona sera a tutti.", None),  # another numbering
    ],
)
def test_a_sentence_by_the_same_speaker_is_dropped(
    speaker: str, text: str, expected: str | None
) -> None:
    held_out = HeldOut()
    held_out.add(utterance("mls_it_7", "Buona sera, a tutti!", rest="held"))
    drop = held_out.drop(utterance(speaker, text), text.lower().rstrip("."))
    assert (drop and drop.reason) == expected


def test_sentences_without_words_are_not_the_same_sentence() -> None:
    assert reason(utterance("mls_it_7", "!?", rest="held"), utterance("mls_it_7", "")) is None


@pytest.mark.parametrize("speaker", ["ls_en_1089", "mls_en_1089"])
def test_a_test_reader_of_librispeech_is_dropped_under_both_corpora(speaker: str) -> None:
    held = utterance("ls_en_1089", "HE HOPED", rest="held")
    assert reason(held, utterance(speaker, "another sentence")) == "speaker_in_test"


def test_a_test_reader_of_mls_stays_in_training() -> None:
    """The splits of MLS share no readers, but those of other corpora may have them."""
    held = utterance("mls_en_1089", "he hoped", rest="held")
    assert reason(held, utterance("ls_en_1089", "another sentence")) is None


@pytest.mark.parametrize(
    ("speaker", "file", "span", "expected"),
    [
        # A channel of the same session, in a corpus with spans of its own.
        ("gr_en_x", f"en/2009/{SESSION}_en.ogg", (12.0, 30.0), "span_in_test"),
        ("gr_en_x", f"en/2009/{SESSION}_en.ogg", (0.0, 10.05), None),
        ("gr_en_x", f"en/2009/{SESSION}_en.ogg", (20.0, 30.0), None),
        ("gr_en_x", f"en/2009/{SESSION}4_en.ogg", (12.0, 30.0), None),  # another session
        # The interpreter's channel has other speech at that time.
        ("gr_de_x", f"de/2009/{SESSION}_de.ogg", (12.0, 30.0), None),
        ("vp_en_x", f"original/2009/{SESSION}_original.ogg", (19.0, 20.5), "span_in_test"),
        # A file without a span has no time in the session.
        ("vp_en_x", f"en/2009/{SESSION}-20090112-17:17:22_1.ogg", None, None),
    ],
)
def test_an_overlap_in_a_session_is_dropped(speaker, file, span, expected) -> None:
    held = utterance("vp_en_a", "x", f"original/2009/{SESSION}_original.ogg", (10.0, 20.0), "h")
    assert reason(held, utterance(speaker, "y", file, span)) == expected


@pytest.mark.parametrize("span", [None, (1.0, 2.0)])
def test_the_same_file_in_another_corpus_is_dropped(span: tuple[float, float] | None) -> None:
    held = utterance("own_en_a", "x", "a.flac")
    assert reason(held, utterance("mine_en_b", "y", "a.flac", span)) == "span_in_test"


def test_shared_sentences_are_counted_by_set() -> None:
    held_out = HeldOut()
    for number, text in enumerate(("Good day.", "Good day!", "Good night.")):
        held_out.add(utterance(f"cv_en_{number}", text), "test_cv_en")
    held_out.add(utterance("cv_de_1", "Good day."), "test_cv_de")
    held_out.add(Drop("train.tsv:3", "bad_row", ""), "test_cv_de")
    held_out.hear("en", "good day")
    held_out.hear("en", "good morning")
    assert held_out.shared_sentences() == {"test_cv_en": 2, "test_cv_de": 0}


def test_the_table_of_exclusions() -> None:
    counts = {("too_long", "mls", "it"): 2, ("id_in_test", "cv", "de"): 1}
    hours = {("too_long", "mls", "it"): 0.5, ("id_in_test", "cv", "de"): 0.25}
    assert exclusions.counts_table(counts, hours).splitlines() == [
        "| reason | corpus | language | utterances | hours |",
        "| :-- | :-- | :-- | --: | --: |",
        "| id_in_test | cv | de | 1 | 0.250 |",
        "| too_long | mls | it | 2 | 0.500 |",
        "| all |  |  | 3 | 0.750 |",
        "",
        "- `id_in_test`: has the id of a dev or test utterance",
    ]
    assert exclusions.counts_table({}).splitlines()[-1] == "| all |  |  | 0 |"
