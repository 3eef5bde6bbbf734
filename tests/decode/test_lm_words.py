"""Warnings of language models whose words the acoustic model cannot write or does not recognise."""

import gzip
import unicodedata
import warnings

import numpy as np
import pytest

from espnet_mlma.decode.fusion import Fusion, NgramModel
from espnet_mlma.decode.lm_words import complaint
from espnet_mlma.decode.options import Decoding
from espnet_mlma.errors import MlmaError, MlmaWarning

LETTERS = "abcdefghijklmnopqrstuvwxyzàèéìòù'"
LOWER = ["<blank>", "<unk>", "<space>", *LETTERS, "<sos/eos>"]
UPPER = [token.upper() if token in LETTERS else token for token in LOWER]
PIECES = ["<blank>", "<unk>", "\u2581", "\u2581il", *LETTERS, "<sos/eos>"]
TEXT = "venerdì c'è vento a cefalù sabato piove sul mare e poi il sole torna"
WORDS = TEXT.split()


def arpa(words, newline="\n"):
    """Write a bigram model; later words are rarer."""
    lines = ["", "\\data\\", f"ngram 1={len(words) + 3}", f"ngram 2={len(words) - 1}", ""]
    lines += ["\\1-grams:", "-4\t<unk>", "-99\t<s>\t-0.3", "-1.2\t</s>"]
    lines += [f"{-1 - place / 10:.1f}\t{word}\t-0.2" for place, word in enumerate(words)]
    lines += ["", "\\2-grams:"]
    lines += [f"-0.3\t{a} {b}" for a, b in zip(words, words[1:], strict=False)]
    return newline.join([*lines, "", "\\end\\", ""])


@pytest.fixture
def warnings_of(tmp_path):
    """Return a function that loads a language model for a vocabulary and returns the warnings."""
    pytest.importorskip("kenlm")

    def load(contents, tokens=LOWER, token_type="char", encoding="utf-8", name="words.arpa"):
        path = tmp_path / name
        data = contents.encode(encoding)
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            Fusion.from_options(tokens, token_type, Decoding(lm=str(path)))
        assert all(issubclass(warning.category, MlmaWarning) for warning in caught)
        return [str(warning.message) for warning in caught]

    return load


@pytest.mark.parametrize("name", ["words.arpa", "words.arpa.gz"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_model_of_the_same_letters_has_no_warning(warnings_of, name, newline):
    assert warnings_of(arpa(WORDS, newline), name=name) == []
    assert warnings_of(arpa(WORDS, newline), PIECES, "bpe", name=name) == []
    assert warnings_of(arpa([w.upper() for w in WORDS], newline), UPPER, name=name) == []


def test_a_few_words_with_other_letters_have_no_warning(warnings_of):
    assert warnings_of(arpa([*WORDS, "3,5", "&c", "\u0142\u00f3d\u017a"])) == []


@pytest.mark.parametrize("form", [str.upper, str.title])
@pytest.mark.parametrize("name", ["words.arpa", "words.arpa.gz"])
def test_a_model_in_the_other_case_has_a_warning(warnings_of, form, name):
    for tokens, words in ((LOWER, map(form, WORDS)), (UPPER, WORDS)):
        (text,) = warnings_of(arpa(list(words)), tokens, name=name)
        assert text.isprintable() and name in text
        assert "% of this language model's words" in text
        assert "change the case" in text


def test_a_model_in_another_encoding_has_a_warning(warnings_of):
    (text,) = warnings_of(arpa(WORDS), encoding="latin-1")
    assert "venerd\\xec is not UTF-8" in text
    (text,) = warnings_of(arpa(WORDS), encoding="cp850", name="words.arpa.gz")
    assert "not UTF-8" in text


def test_a_model_of_other_letters_has_a_warning(warnings_of):
    decomposed = [unicodedata.normalize("NFD", word) for word in WORDS]
    for words in (decomposed, [f"{word}," for word in WORDS], [f"\u2581{word}" for word in WORDS]):
        (text,) = warnings_of(arpa(words))
        assert "normalise" in text


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("utf-8-sig", "byte order mark"), ("utf-16", "UTF-16"), ("utf-16-be", "UTF-16")],
)
def test_a_byte_order_mark_is_an_error(warnings_of, encoding, name):
    contents = arpa(WORDS) if encoding != "utf-16-be" else "\ufeff" + arpa(WORDS)
    with pytest.raises(MlmaError, match=name):
        warnings_of(contents, encoding=encoding)


def test_the_words_of_a_binary_file_are_read(tmp_path):
    head = b"mmap lm http://kheafield.com/code format version 5\n\0" + bytes(64)
    path = tmp_path / "words.bin"
    path.write_bytes(head + b"<unk>\0<s>\0</s>\0" + b"".join(w.encode() + b"\0" for w in WORDS))
    assert complaint(path, set(LETTERS)) is None
    assert "change the case" in complaint(path, set(LETTERS.upper()))
    path.write_bytes(head)  # made without them
    assert complaint(path, set(LETTERS)) is None


def test_a_model_that_knows_no_recognised_word_has_one_warning(tmp_path):
    pytest.importorskip("kenlm")
    path = tmp_path / "other.arpa"
    path.write_text(arpa(["the", "wind", "blows", "on", "friday", "in", "town"]), encoding="utf-8")
    fusion = Fusion.from_options(LOWER, "char", Decoding(lm=str(path)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fusion.check_known(WORDS[:5])  # too few to say
        fusion.check_known([])
    with pytest.warns(MlmaWarning, match="knows 0 of the 6 words"):
        fusion.check_known(WORDS[5:6])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fusion.check_known(WORDS)
        known = Fusion.from_options(LOWER, "char", Decoding(lm=str(path)))
        known.check_known(["the", "wind", "blows", "in", "paris", "and", "in", "rome", "today"])
        Fusion.from_options(LOWER, "char", Decoding(hotwords=("vento",))).check_known(WORDS)
    assert "wind" in NgramModel(path) and "vento" not in NgramModel(path)
    assert np.isfinite(fusion.finish(fusion.start()))
