"""Alignment of known text to audio."""

import numpy as np
import pytest

import espnet_mlma
from espnet_mlma.audio import SAMPLE_RATE
from espnet_mlma.decode.known_text import known_words
from espnet_mlma.errors import MlmaError

TOKENS = ("<blank>", "<unk>", "<space>", *"abcdefghij", "-", "'", "<sos/eos>")


@pytest.fixture(scope="module")
def recogniser(experiment):
    return espnet_mlma.load(experiment, device="cpu")


@pytest.fixture(scope="module")
def audio():
    return np.random.default_rng(0).normal(0, 0.1, 3 * SAMPLE_RATE).astype(np.float32)


def spelled(text, tokens=TOKENS):
    return [
        (word, [tokens[i] for i in ids]) for word, ids in known_words(text, tokens, "char", None)
    ]


def test_words_keep_their_spelling(recogniser, audio):
    found = recogniser.align(audio, "  «Bad\n Cab», – a DIG? \t")
    assert [word.text for word in found.words] == ["«Bad", "Cab»,", "a", "DIG?"]
    assert found.text == "«Bad Cab», a DIG?"
    assert "".join(token.text for token in found.tokens) == "bad<space>cab<space>a<space>dig"
    assert found.duration == 3.0


def test_times_increase_within_the_audio(recogniser, audio):
    words = recogniser.align(audio, "bad cab a dig a jig bee").words
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] <= 3.0
    assert all(word.start < word.end for word in words)
    assert all(0 <= word.confidence <= 1 for word in words)


def test_a_word_with_a_hyphen_or_an_apostrophe_stays_one(recogniser, audio):
    assert spelled("jig-cab b'a") == [("jig-cab", list("jig-cab")), ("b'a", ["<space>", *"b'a"])]
    (word, last) = recogniser.align(audio, "Jig-cab, a").words
    assert (word.text, last.text) == ("Jig-cab,", "a")


def test_capitals_are_used_if_the_model_has_no_lower_case():
    capitals = ("<blank>", "<space>", *"ABC")
    assert spelled("cab! A.", capitals) == [("cab!", list("CAB")), ("A.", ["<space>", "A"])]


def test_an_unknown_character_is_refused(recogniser, audio):
    with pytest.raises(MlmaError, match=r"the word 'bax': the model has no symbol for 'x'"):
        recogniser.align(audio, "bad bax")


@pytest.mark.parametrize("text", ["", " \n", "- ! …"])
def test_a_text_without_words_is_refused(recogniser, audio, text):
    with pytest.raises(MlmaError, match="no words"):
        recogniser.align(audio, text)


def test_a_text_too_long_for_the_audio_is_refused(recogniser, audio):
    with pytest.raises(MlmaError, match="symbols need .* frames and the audio has"):
        recogniser.align(audio[:8000], "bad cab " * 20)


def test_a_bpe_model_aligns(s2t_experiment, audio):
    recogniser = espnet_mlma.load(s2t_experiment, device="cpu")
    found = recogniser.align(audio, "The book, a CAT")
    assert [word.text for word in found.words] == ["The", "book,", "a", "CAT"]
    written = "".join(token.text for token in found.tokens)
    assert written.replace("▁", " ").split() == ["the", "book", "a", "cat"]


def test_a_bpe_model_needs_its_sentencepiece_model():
    with pytest.raises(MlmaError, match="aligning text to a bpe model needs"):
        known_words("a", ("<blank>", "▁a"), "bpe")
