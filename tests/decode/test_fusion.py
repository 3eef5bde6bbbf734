import math
import os

import numpy as np
import pytest

from espnet_mlma.decode.fusion import LETTER, UNKNOWN_WORD, Fusion, Hotwords, NgramModel
from espnet_mlma.decode.options import Decoding
from espnet_mlma.decode.prefix_beam import prefix_beam
from espnet_mlma.decode.words import text_of
from espnet_mlma.errors import MlmaError

CHARS = ("<blank>", "<unk>", "<space>", *"abcdeknoprtwy", "<sos/eos>")
PIECES = ("<blank>", "<unk>", "▁", "▁a", "▁new", "▁york", "k", "▁ca", "p", "t", "r", "<sos/eos>")
VOCABULARIES = {"char": CHARS, "bpe": PIECES}
EXPECTED = ("cap", "new york", "york", "newt", "a cat")
ARPA = """\
\\data\\
ngram 1=8
ngram 2=3

\\1-grams:
-3.0\t<unk>
-99\t<s>\t-0.3
-1.2\t</s>
-0.9\ta\t-0.2
-1.1\tcat\t-0.1
-1.3\tcap\t-0.4
-1.5\tnew\t-0.2
-1.6\tyork\t-0.1

\\2-grams:
-0.1\ta cat
-2.0\ta cap
-0.3\tcat </s>

\\end\\
"""


@pytest.fixture
def arpa(tmp_path):
    pytest.importorskip("kenlm")
    path = tmp_path / "words.arpa"
    path.write_text(ARPA, encoding="utf-8")
    return str(path)


def emissions(tokens, *frames):
    """Make emissions; a frame is a symbol, or maps symbols to probabilities."""
    log_probs = np.full((len(frames), len(tokens)), -np.inf)
    for row, frame in zip(log_probs, frames, strict=True):
        for token, probability in ({frame: 1.0} if isinstance(frame, str) else frame).items():
            row[tokens.index(token)] = math.log(probability)
    return log_probs


def best(log_probs, tokens, token_type, decoding, width=20):
    fusion = Fusion.from_options(tokens, token_type, decoding)
    hypothesis = prefix_beam(log_probs, width, fusion=fusion)[0]
    return text_of([tokens[i] for i in hypothesis.token_ids], token_type), hypothesis


def formula(text, model, decoding):
    """Compute what a whole text adds, without a search."""
    words = text.split()
    added = 0.0
    if model is not None:
        log10 = model.score(text)
        steps = list(model.full_scores(text))
        unknown = [(word, step[0]) for word, step in zip(words, steps, strict=False) if step[2]]
        log_prob = (log10 - sum(log_prob for _, log_prob in unknown)) * math.log(10)
        log_prob += sum(UNKNOWN_WORD + LETTER * len(word) for word, _ in unknown)
        added += decoding.lm_weight * log_prob + decoding.word_bonus * len(words)
    for hotword in decoding.hotwords:
        parts = hotword.split()
        starts = range(len(words) - len(parts) + 1)
        times = sum(words[i : i + len(parts)] == parts for i in starts)
        added += decoding.hotword_weight * times * len("".join(parts))
    return added


@pytest.mark.parametrize(
    "token_type, frames",
    [
        ("char", ["a", "<space>", "c", "a", {"p": 0.6, "t": 0.4}]),
        ("bpe", ["▁a", "▁ca", {"p": 0.6, "t": 0.4}]),
    ],
)
def test_the_language_model_changes_the_winner(arpa, token_type, frames):
    tokens = VOCABULARIES[token_type]
    log_probs = emissions(tokens, *frames)
    assert best(log_probs, tokens, token_type, Decoding())[0] == "a cap"
    decoding = Decoding(lm=arpa, lm_weight=0.5, word_bonus=1.5)
    text, hypothesis = best(log_probs, tokens, token_type, decoding)
    assert text == "a cat"
    assert hypothesis.score == pytest.approx(math.log(0.4))
    # p(a | <s>) backs off: -0.3 - 0.9; then "a cat" -0.1 and "cat </s>" -0.3.
    added = 0.5 * (-0.3 - 0.9 - 0.1 - 0.3) * math.log(10) + 2 * 1.5
    assert hypothesis.total == pytest.approx(math.log(0.4) + added, abs=1e-5)


def test_words_do_not_run_together(arpa):
    # If incomplete words were free, the beam would keep only texts without spaces.
    doubtful = {"<space>": 0.9, "<blank>": 0.1}
    frames = [*"cat", doubtful, *"new", doubtful, *"cat", doubtful, *"new", doubtful, *"cat"]
    decoding = Decoding(lm=arpa, lm_weight=0.7, word_bonus=0.0)
    narrow, hypothesis = best(emissions(CHARS, *frames), CHARS, "char", decoding, width=2)
    assert narrow == "cat new cat new cat"
    assert hypothesis == best(emissions(CHARS, *frames), CHARS, "char", decoding, width=1000)[1]


@pytest.mark.parametrize("token_type", VOCABULARIES)
@pytest.mark.parametrize(
    "with_lm, hotwords", [(True, ()), (False, EXPECTED), (True, EXPECTED)], ids=str
)
def test_totals_equal_the_formula(arpa, token_type, with_lm, hotwords):
    import kenlm

    model = kenlm.Model(arpa) if with_lm else None
    decoding = Decoding(
        lm=arpa if with_lm else None,
        lm_weight=0.7,
        word_bonus=1.1,
        hotwords=hotwords,
        hotword_weight=0.9,
    )
    tokens = VOCABULARIES[token_type]
    fusion = Fusion.from_options(tokens, token_type, decoding)
    rng = np.random.default_rng(0)
    # The hotwords' words are likely; all symbols are possible.
    spoken = {
        "char": ["<space>", *"cap", "<space>", *"new", "<space>", "<space>", *"york", "<space>"],
        "bpe": ["▁new", "▁york", "▁a", "▁ca", "t", "▁new", "t", "▁", "▁york", "▁ca", "p", "r"],
    }[token_type]
    texts = set()
    for _ in range(4):
        logits = rng.normal(0, 1, (2 * len(spoken), len(tokens)))
        for frame, token in enumerate(spoken):
            logits[2 * frame, tokens.index(token)] += 3
            logits[2 * frame + 1, 0] += 4
        log_probs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        for hypothesis in prefix_beam(log_probs, 150, fusion=fusion, n_best=150):
            text = text_of([tokens[i] for i in hypothesis.token_ids], token_type)
            expected = hypothesis.score + formula(text, model, decoding)
            assert hypothesis.total == pytest.approx(expected, abs=1e-4), text
            texts.add(text)
    assert len(texts) > 50 and any("new york" in text for text in texts)


@pytest.mark.parametrize("token_type", VOCABULARIES)
def test_scores_ahead_equal_the_scores_of_extended_prefixes(arpa, token_type):
    tokens = VOCABULARIES[token_type]
    space = {"char": "<space>", "bpe": "▁"}[token_type]
    texts = [token.replace(space, " ") for token in tokens]
    hotwords = Hotwords(["new york", "cap", "a"], texts, 0.8)
    fusion = Fusion(texts, hotwords, NgramModel(arpa), 0.6, 1.2)
    symbols = np.arange(len(tokens))
    rng = np.random.default_rng(1)
    states = [fusion.start()]
    for _ in range(300):
        ahead = fusion.ahead(states, symbols)
        for state, row in zip(states, ahead, strict=True):
            for symbol in symbols:
                after = fusion.extend(state, symbol)
                unfinished = hotwords.begun(after.matches) + 0.6 * LETTER * len(after.word)
                assert row[symbol] == pytest.approx(after.closed + unfinished, abs=1e-9)
        states = [fusion.extend(states[-1], int(rng.choice(symbols))) for _ in range(2)]
        if len(states[-1].word) > 6:
            states = [fusion.start()]


def test_a_hotword_turns_a_near_miss_into_the_word():
    log_probs = emissions(CHARS, "a", "<space>", {"b": 0.7, "p": 0.3}, *"eter")
    assert best(log_probs, CHARS, "char", Decoding())[0] == "a beter"
    decoding = Decoding(hotwords=("peter",), hotword_weight=1.0)
    # A beam of one keeps the word, because its first letter counts at once.
    for width in (1, 10):
        text, hypothesis = best(log_probs, CHARS, "char", decoding, width)
        assert text == "a peter"
        assert hypothesis.total == pytest.approx(math.log(0.3) + 5.0)


@pytest.mark.parametrize("spoken", ["a cat", "a pet", "peters", "repeter"])
def test_other_words_do_not_become_hotwords(spoken):
    tokens = (*CHARS, "s")
    log_probs = np.full((2 * len(spoken), len(tokens)), math.log(1e-4))
    for frame, char in enumerate(spoken):
        log_probs[2 * frame, tokens.index("<space>" if char == " " else char)] = 0
        log_probs[2 * frame + 1, 0] = 0
    decoding = Decoding(hotwords=("peter",), hotword_weight=1.0)
    text, hypothesis = best(log_probs, tokens, "char", decoding)
    assert text == spoken
    assert hypothesis.total == pytest.approx(hypothesis.score)


def test_a_phrase_counts_only_whole():
    decoding = Decoding(hotwords=("new york", "york"), hotword_weight=1.0)
    for spoken, letters in [("new york", 11), ("new yo", 0), ("newyork", 0), ("york new york", 15)]:
        frames = [frame for char in spoken for frame in (char.replace(" ", "<space>"), "<blank>")]
        text, hypothesis = best(emissions(CHARS, *frames), CHARS, "char", decoding)
        assert (text, hypothesis.total) == (spoken, pytest.approx(letters))


def test_hotwords_do_not_depend_on_the_pieces():
    tokens = ("<blank>", "▁", "▁new", "▁n", "e", "w", "▁york", "york", "▁yor", "k")
    decoding = Decoding(hotwords=("  new  york ",), hotword_weight=1.0)
    for pieces in (["▁new", "▁york"], ["▁n", "e", "w", "▁", "york"], ["▁new", "▁", "▁yor", "k"]):
        text, hypothesis = best(emissions(tokens, *pieces), tokens, "bpe", decoding)
        assert (text, hypothesis.total) == ("new york", pytest.approx(7.0))


def test_special_symbols_are_not_text(arpa):
    tokens = ("<blank>", "<en>", "▁a", "▁c", "at")
    decoding = Decoding(lm=arpa, hotwords=("cat",))
    fusion = Fusion.from_options(tokens, "bpe", decoding, special_ids={1})
    plain = prefix_beam(emissions(tokens, "▁a", "▁c", "at"), 5, fusion=fusion)[0]
    special = prefix_beam(emissions(tokens, "<en>", "▁a", "▁c", "<en>", "at"), 5, fusion=fusion)[0]
    assert special.total == pytest.approx(plain.total)


def test_no_language_model_and_no_hotwords():
    assert Fusion.from_options(CHARS, "char", Decoding(beam_size=10)) is None


@pytest.mark.parametrize("hotword, wrong", [("zoo", "'z'"), ("<unk>", "'u'")])
def test_a_hotword_that_cannot_be_written_is_refused(hotword, wrong):
    with pytest.raises(MlmaError, match=f"hotword '{hotword}': the model never writes {wrong}"):
        Fusion.from_options(CHARS, "char", Decoding(hotwords=(hotword,)))


@pytest.mark.parametrize("hotword", ["peter", " Peter,", "PETER"])
def test_a_hotword_is_spelled_as_the_model_writes(hotword):
    log_probs = emissions(CHARS, "a", "<space>", {"b": 0.7, "p": 0.3}, *"eter")
    decoding = Decoding(hotwords=(hotword,), hotword_weight=1.0)
    assert best(log_probs, CHARS, "char", decoding)[0] == "a peter"


def test_an_empty_hotword_is_refused():
    with pytest.raises(MlmaError, match="hotword ' ' has no letters"):
        Fusion.from_options(CHARS, "char", Decoding(hotwords=("a", " ")))


def test_loading_a_language_model_prints_nothing(arpa, capfd):
    NgramModel(arpa)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello\nworld\n",
        bytes(range(256)) * 10,
        ARPA.encode()[:130],
        ARPA.replace("a cat", "a dog").encode(),
        b"mmap lm http://kheafield.com/code format version 5\n\0" + bytes(100),
        ARPA.replace("cat", "caf\xe9").encode("latin-1")[:190],
    ],
)
def test_a_file_that_is_not_a_language_model_is_refused(tmp_path, content, capfd):
    pytest.importorskip("kenlm")
    path = tmp_path / "a (b).arpa"
    path.write_bytes(content)
    with pytest.raises(MlmaError) as error:
        NgramModel(path)
    message = str(error.value)
    assert message.startswith(f"{path}: KenLM cannot read it: ") and message.isprintable()
    assert len(message) < len(str(path)) + 250 and ".cc:" not in message
    assert capfd.readouterr() == ("", "")


def test_a_missing_language_model_is_an_error(tmp_path):
    pytest.importorskip("kenlm")
    with pytest.raises(MlmaError, match="words.arpa: no such file"):
        Fusion.from_options(CHARS, "char", Decoding(lm=str(tmp_path / "words.arpa")))


def test_without_kenlm_the_error_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "kenlm", None)
    with pytest.raises(MlmaError, match=r'pip install "espnet-mlma\[lm\]"'):
        NgramModel(tmp_path / "words.arpa")


def test_a_model_of_words_may_have_any_name(tmp_path):
    pytest.importorskip("kenlm")
    folder = tmp_path / os.fsdecode(b"mod\xe8le")
    folder.mkdir()
    unigrams = "-1\t<unk>\n-99\t<s>\t-0.3\n-1\t</s>\n-1\ta\t-0.3\n"
    bigrams = "-0.5\t<s> a\n-0.5\ta </s>\n"
    head = "\\data\\\nngram 1=4\nngram 2=2\n\n"
    parts = f"\\1-grams:\n{unigrams}\n\\2-grams:\n{bigrams}\n\\end\\\n"
    (folder / "a.arpa").write_text(head + parts)
    model = NgramModel(folder / "a.arpa")
    assert model.word(model.start(), "a")[0] < 0
