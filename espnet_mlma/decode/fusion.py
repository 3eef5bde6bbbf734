"""Add an n-gram model of words and hotwords to CTC's log-probabilities in a search.

A text's total is

    ctc + lm_weight * ln p(words and sentence end) + word_bonus * words + hotwords

where `ctc` is the log-probability of its symbols and `hotwords` is `hotword_weight` for every
letter of every hotword in it.

A prefix has the same sum, except for its last word, which may be incomplete and cannot be looked up
yet. Each of its letters counts `LETTER` until the word ends. If incomplete words were free, texts
without spaces would win. A hotword's letters count at once, so that the search does not prune it
after its first letters; they are taken back if the word continues differently.

The model is read by KenLM's own Python module. PyPI's kenlm 0.3.0 has no wheels and does not
compile for Python 3.13; camel-kenlm 2026.2.7 is the same module, `kenlm`, as wheels. Decoders built
on it cannot be used: the last pyctcdecode (0.5.0, January 2023) needs numpy below 2, and the last
flashlight-text (0.0.7, March 2024), which torchaudio's decoder needs, has no wheels for Python
3.13.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from espnet_mlma.decode.lm_words import check_encoding, complaint
from espnet_mlma.decode.words import space_of
from espnet_mlma.errors import MlmaError, MlmaWarning
from espnet_mlma.text import normalise

if TYPE_CHECKING:
    import kenlm

    from espnet_mlma.decode.options import Decoding

# Average ln p of a letter, and the extra cost of an unknown word. They replace p(<unk>), which
# depends on the tool: KenLM takes 10^-100 where an ARPA file has none, others give it the mass of
# all rare words. Letters count, so that a long unknown word costs more than a short one.
LETTER = -1.5
UNKNOWN_WORD = -8.0
# A language model must know this share of the recognised words. With a weak acoustic model, half of
# the words are known.
_LEAST_KNOWN, _ENOUGH_WORDS = 1 / 3, 6


class NgramModel:
    """An n-gram model of words, read by KenLM.

    Args:
        path: an ARPA or KenLM binary file, of order 2 or more.

    Raises:
        MlmaError: kenlm is not installed, or cannot read the file.
    """

    def __init__(self, path: str | Path):
        try:
            import kenlm
        except ImportError:
            raise MlmaError(
                'a language model needs the kenlm module: pip install "espnet-mlma[lm]"'
            ) from None
        if not Path(path).is_file():
            raise MlmaError(f"{path}: no such file; give an ARPA or KenLM binary file")
        check_encoding(Path(path))
        config = kenlm.Config()
        config.show_progress = False
        config.arpa_complain = kenlm.ARPALoadComplain.NONE
        try:
            self._model = kenlm.Model(os.fsencode(path), config)
        except (OSError, MemoryError, UnicodeDecodeError) as error:  # its message may be no UTF-8
            raise MlmaError(
                f"{path}: KenLM cannot read it: {_reason(error)}; give an ARPA or "
                "KenLM file of order 2 or more"
            ) from None
        self._new_state = kenlm.State
        self.path = path

    def start(self) -> kenlm.State:
        """Return the state before the first word."""
        state = self._new_state()
        self._model.BeginSentenceWrite(state)
        return state

    def __contains__(self, word: str) -> bool:
        return word in self._model

    def word(self, state: kenlm.State, word: str) -> tuple[float, kenlm.State]:
        """Return ln p of a word after `state`, and the next state."""
        after = self._new_state()
        result = self._model.BaseFullScore(state, word, after)
        if result.oov:
            return UNKNOWN_WORD + LETTER * len(word), after
        return result.log_prob * math.log(10), after

    def end(self, state: kenlm.State) -> float:
        """Return ln p of the sentence's end after `state`."""
        return self._model.BaseScore(state, "</s>", self._new_state()) * math.log(10)


def _reason(error: Exception) -> str:
    """Return KenLM's message without its source file, signature and condition."""
    _, _, message = str(error).partition("' (")
    message = re.sub(r"^.*Exception(\. | because `.*?'\. )", "", message, flags=re.DOTALL)
    reason = "".join(c if c.isprintable() else " " for c in message)
    return reason.strip(" .)") or type(error).__name__


class Hotwords:
    """Words and phrases to expect, as a trie of letters; all begin at node 0.

    The matches of a text are the nodes that it has reached: one for each word or sequence of words
    that may still become a hotword.

    Args:
        phrases: words separated by single spaces.
        texts: the text of each symbol, a space where a word begins.
        weight: added for every letter, natural logarithm.
    """

    def __init__(self, phrases: Collection[str], texts: Sequence[str], weight: float):
        self._children: list[dict[str, int]] = [{}]
        self._letters = [0]
        self._final = [False]
        self._texts = texts
        self._weight = weight
        for phrase in phrases:
            self._add(phrase)
        # Unlimited, rows of a large vocabulary and many hotwords would fill the memory.
        self.row = lru_cache(maxsize=1024)(self._row)

    def _add(self, phrase: str) -> None:
        node = 0
        for char in phrase:
            if char not in self._children[node]:
                self._children[node][char] = len(self._letters)
                self._children.append({})
                self._letters.append(self._letters[node] + (char != " "))
                self._final.append(False)
            node = self._children[node][char]
            if char == " ":
                self._children[node][" "] = node  # spaces in a row are one
        self._final[node] = True

    def step(self, matches: tuple[int, ...], text: str) -> tuple[tuple[int, ...], float]:
        """Return the matches after more text, and the score of the hotwords that it completes."""
        completed = 0
        for char in text:
            if char == " ":
                completed += sum(self._letters[node] for node in matches if self._final[node])
            after = [self._children[node].get(char) for node in matches]
            matches = tuple(node for node in after if node is not None)
            if char == " ":
                matches += (0,)
        return matches, self._weight * completed

    def begun(self, matches: tuple[int, ...]) -> float:
        """Return the score of the letters of incomplete hotwords."""
        return self._weight * sum(self._letters[node] for node in matches)

    def _row(self, matches: tuple[int, ...]) -> np.ndarray:
        """Return the score that each symbol (vocabulary,) would add, complete or begun."""
        likely = {char for node in matches for char in self._children[node]} | {" ", ""}
        row = np.zeros(len(self._texts))
        for symbol, text in enumerate(self._texts):
            if text[:1] in likely:
                after, completed = self.step(matches, text)
                row[symbol] = completed + self.begun(after)
        return row


@dataclass(slots=True)
class State:
    """Language model and hotwords of a prefix.

    Attributes:
        closed: score of its finished words and completed hotwords.
        word: the letters of the incomplete word.
        context: the language model's state before that word.
        matches: the incomplete hotwords.
        ended: cache of `closed` and `context` for the case that the word ends here.
    """

    closed: float
    word: str
    context: kenlm.State | None
    matches: tuple[int, ...]
    ended: tuple[float, kenlm.State | None] | None = None


class Fusion:
    """Language model and hotwords for one vocabulary.

    Args:
        texts: the text of each symbol, a space where a word begins.
        hotwords: may be empty.
        ngram: the language model, if any.
        lm_weight: factor of its natural logarithm.
        word_bonus: added for every word, with a language model only, because that prefers few
            words.
    """

    def __init__(
        self,
        texts: Sequence[str],
        hotwords: Hotwords,
        ngram: NgramModel | None = None,
        lm_weight: float = 0.0,
        word_bonus: float = 0.0,
    ):
        self._texts = texts
        self._begins_word = np.array([text.startswith(" ") for text in texts])
        self._letters = np.array([len(text.strip(" ")) for text in texts])
        self._hotwords = hotwords
        self._ngram = ngram
        self._lm_weight = lm_weight
        self._word_bonus = word_bonus
        self._letter = 0.0 if ngram is None else lm_weight * LETTER
        self._words = self._known = 0
        self._has_warned = False

    @classmethod
    def from_options(
        cls,
        tokens: Sequence[str],
        token_type: str,
        decoding: Decoding,
        special_ids: Collection[int] = (),
    ) -> Fusion | None:
        """Load the language model and the hotwords; None: there are neither.

        Warns of a language model whose words the symbols cannot write.

        Args:
            tokens: the token list, blank first.
            token_type: `char` or `bpe`.
            decoding: the options.
            special_ids: symbols that are not text.

        Raises:
            MlmaError: the language model cannot be read, or a hotword cannot be written.
        """
        if decoding.lm is None and not decoding.hotwords:
            return None
        space = space_of(token_type)
        texts = [token.replace(space, " ") for token in tokens]
        for symbol in special_ids:
            texts[symbol] = ""
        phrases = {_spelled(phrase, texts) for phrase in decoding.hotwords}
        hotwords = Hotwords(phrases, texts, decoding.hotword_weight)
        ngram = None if decoding.lm is None else NgramModel(decoding.lm)
        if decoding.lm is not None and (wrong := complaint(Path(decoding.lm), _letters(texts))):
            warnings.warn(wrong, MlmaWarning, stacklevel=2)
        return cls(texts, hotwords, ngram, decoding.lm_weight, decoding.word_bonus)

    def check_known(self, words: Iterable[str]) -> None:
        """Warn once if the language model knows few of the words recognised so far.

        It may be a model of another language, or not of words.
        """
        if self._ngram is None or self._has_warned:
            return
        for word in words:
            self._words += 1
            self._known += word in self._ngram
        if self._words >= _ENOUGH_WORDS and self._known < _LEAST_KNOWN * self._words:
            self._has_warned = True
            warnings.warn(
                f"{self._ngram.path}: the language model knows {self._known} of the {self._words} "
                "words recognised with it; give one of the same language and spelling",
                MlmaWarning,
                stacklevel=2,
            )

    def start(self) -> State:
        """Return the state of the empty prefix."""
        return State(0.0, "", None if self._ngram is None else self._ngram.start(), (0,))

    def extend(self, state: State, symbol: int) -> State:
        """Return the state of a prefix and one more symbol."""
        text = self._texts[symbol]
        closed, word, context = state.closed, state.word, state.context
        if self._begins_word[symbol]:
            closed, context = self._end_word(state)
            word = ""
        matches, completed = self._hotwords.step(state.matches, text)
        return State(closed + completed, word + text.lstrip(" "), context, matches)

    def ahead(self, states: Sequence[State], symbols: np.ndarray) -> np.ndarray:
        """Score prefixes extended by one symbol, without their CTC scores.

        Args:
            states: of the prefixes.
            symbols: (symbols,) to try after each.

        Returns:
            (prefixes, symbols).
        """
        begins = self._begins_word[symbols]
        closed = np.array([[state.closed] for state in states])
        letters = np.array([[len(state.word)] for state in states])
        if begins.any():
            ended = np.array([[self._end_word(state)[0]] for state in states])
            closed = np.where(begins, ended, closed)
            letters = np.where(begins, 0, letters)
        word = self._letter * (letters + self._letters[symbols])
        hotwords = np.stack([self._hotwords.row(state.matches)[symbols] for state in states])
        return closed + word + hotwords

    def finish(self, state: State) -> float:
        """Return the score of a prefix as a whole text."""
        closed, context = self._end_word(state)
        _, completed = self._hotwords.step(state.matches, " ")
        if self._ngram is not None:
            closed += self._lm_weight * self._ngram.end(context)
        return closed + completed

    def _end_word(self, state: State) -> tuple[float, kenlm.State | None]:
        if state.ended is None:
            closed, context = state.closed, state.context
            if self._ngram is not None and state.word:
                log_prob, context = self._ngram.word(context, state.word)
                closed += self._lm_weight * log_prob + self._word_bonus
            state.ended = closed, context
        return state.ended


def _spelled(phrase: str, texts: Sequence[str]) -> str:
    """Spell a hotword as the model can write it: unchanged, normalised, or in capitals.

    Raises:
        MlmaError: it is empty, or has a character that no symbol writes.
    """
    given, plain = " ".join(phrase.split()), normalise(phrase, "en")
    if not plain:
        raise MlmaError(f"hotword {phrase!r} has no letters; leave it out")
    letters = _letters(texts)
    for form in (given, plain, plain.upper()):
        if letters.issuperset(form):
            return form
    unknown = next(char for char in plain if char not in letters)
    raise MlmaError(f"hotword {phrase!r}: the model never writes {unknown!r}; leave it out")


def _letters(texts: Sequence[str]) -> set[str]:
    """Return the letters that symbols write."""
    return {char for text in texts if not _is_tag(text) for char in text}


def _is_tag(text: str) -> bool:
    """Return whether a symbol is one of ESPnet's own, such as `<unk>`."""
    return len(text) > 1 and text.startswith("<") and text.endswith(">")
