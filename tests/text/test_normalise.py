import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from espnet_mlma.errors import MlmaError
from espnet_mlma.text import (
    LANGUAGES,
    alphabet,
    check_code,
    normalise,
    order_languages,
    training_problem,
)

# Half of the texts use characters of the rules, which random Unicode rarely contains.
TRICKY = st.text("abéßŒœĳﬁİΣ'’‘-–«»¿¡…%&5½\u0301\u00ad\u200b가 \t\n", max_size=30)
TEXTS = st.one_of(st.text(max_size=60), TRICKY)


@pytest.mark.parametrize(
    ("lang", "text", "words"),
    [
        ("en", "HE'S GOIN' HOME", "he's goin' home"),
        ("en", "‘Well-known,’ he said…", "well known he said"),
        ("en", "'Tis “so”!", "'tis so"),
        ("en", "the boys' room", "the boys' room"),
        ("en", "n ' m", "n m"),
        ("fr", "L’Œuf, c'est-à-dire «peut-être»", "l'œuf c'est à dire peut être"),
        ("es", "¿Qué? ¡Mañana, AÑO!", "qué mañana año"),
        ("de", "Die STRAẞE – groß.", "die straße groß"),
        ("it", "Un po' d’acqua: È perché", "un po' d'acqua è perché"),
        ("nl", "’s Avonds zo'n Ĳs, foto's", "'s avonds zo'n ijs foto's"),
        ("nl", "bi\u0301j\u0301na e\u0301e\u0301n", "bíjna één"),
        ("de", "I\u0307stanbul", "istanbul"),
        ("en", "soft\u00adhyphen zero\u200bwidth", "softhyphen zerowidth"),
        ("en", "a/b 3.5 km", "a b 3 5 km"),
        ("it", "?!... — «»", ""),
    ],
)
def test_normalise(lang: str, text: str, words: str) -> None:
    assert normalise(text, lang) == words


@settings(max_examples=400)
@given(TEXTS, st.sampled_from(LANGUAGES))
@example("'a 'b' c'", "en")
@example("ᄀ\u0301ᅡ", "en")
@example("''a'''", "en")
def test_normalise_is_idempotent(text: str, lang: str) -> None:
    once = normalise(text, lang)
    assert normalise(once, lang) == once


@settings(max_examples=400)
@given(TEXTS, st.sampled_from(LANGUAGES))
def test_output_is_lower_case_words(text: str, lang: str) -> None:
    words = normalise(text, lang)
    assert words == words.lower().strip() and "  " not in words
    assert unicodedata.is_normalized("NFC", words)
    for word in words.split():
        assert all(char.isalnum() or char == "'" for char in word)
        assert any(char.isalnum() for char in word)


@settings(max_examples=200)
@given(TEXTS, st.sampled_from(LANGUAGES))
def test_text_without_a_problem_is_in_the_alphabet(text: str, lang: str) -> None:
    words = normalise(text, lang)
    if training_problem(text, words, lang) is None:
        assert set(words) <= alphabet(lang) | {"'", " "}


@settings(max_examples=100)
@given(TEXTS, st.sampled_from(LANGUAGES))
def test_decomposed_and_composed_text_agree(text: str, lang: str) -> None:
    assert normalise(unicodedata.normalize("NFD", text), lang) == normalise(text, lang)


@pytest.mark.parametrize(
    ("lang", "text", "reason"),
    [
        ("en", "Café, naïve!", None),
        ("de", "Garçon", None),
        ("es", "pingüino", None),
        ("es", "Łódź", "out_of_alphabet"),
        ("en", "Привет", "out_of_alphabet"),
        ("en", "fifty %", "out_of_alphabet"),
        ("it", "bianco/nero e/o grigio", None),
        ("fr", "en 1984", "digits"),
        ("it", "m²", "digits"),
        ("nl", "...", "empty_text"),
    ],
)
def test_training_problem(lang: str, text: str, reason: str | None) -> None:
    assert training_problem(text, normalise(text, lang), lang) == reason


def test_an_unknown_language_and_one_without_letters_are_errors() -> None:
    with pytest.raises(MlmaError, match="'pl'"):
        alphabet("pl")
    with pytest.raises(MlmaError, match="'polish'"):
        normalise("słowo", "polish")
    with pytest.raises(MlmaError, match="'zh'"):
        normalise("a", "zh")


def test_languages_are_ordered_as_in_the_table():
    assert order_languages(["pl", "nl", "en", "br", "en"]) == ["en", "nl", "br", "pl"]


@pytest.mark.parametrize("code", ["EN", "polish", "p", "", "p1", "../x"])
def test_a_language_code_has_two_or_three_letters(code):
    with pytest.raises(MlmaError):
        check_code(code)
    for known in ("it", "pl", "fil"):
        check_code(known)
