from collections.abc import Callable

import pytest

from espnet_mlma.evaluation.report.data import Spoken, paired
from espnet_mlma.evaluation.score.align import count_pairs
from espnet_mlma.evaluation.score.join import Utterance, characters


@pytest.fixture(scope="session")
def spoken() -> Callable[..., Spoken]:
    """Makes an aligned utterance of two texts."""

    def make(
        reference: str,
        hypothesis: str,
        id_: str = "x",
        lang: str = "en",
        speaker: str = "s",
        seconds: float = 1.0,
        confidence: float | None = None,
        missing: bool = False,
    ) -> Spoken:
        words = paired(reference.split(), hypothesis.split())
        chars = paired(characters(reference), characters(hypothesis))
        return Spoken(
            test_set=f"test_{lang}",
            utterance=Utterance(id_, speaker, lang, "cv", reference, hypothesis, missing),
            seconds=seconds,
            confidence=confidence,
            audio=None,
            words=words,
            chars=chars,
            word_errors=count_pairs(words),
            char_errors=count_pairs(chars),
        )

    return make
