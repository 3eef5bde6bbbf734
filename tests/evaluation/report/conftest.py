from collections.abc import Callable

import pytest

from espnet_mlma.evaluation.score.align import align
from espnet_mlma.evaluation.score.utterances import ScoredUtterance, characters


@pytest.fixture(scope="session")
def scored() -> Callable[..., ScoredUtterance]:
    """Return a function that scores two texts."""

    def make(
        reference: str,
        hypothesis: str,
        id_: str = "x",
        lang: str = "en",
        speaker: str = "s",
        seconds: float = 1.0,
        confidence: float | None = None,
        missing: bool = False,
    ) -> ScoredUtterance:
        return ScoredUtterance(
            *(id_, f"test_{lang}", lang, "cv", speaker, reference, hypothesis, missing),
            words=align(reference.split(), hypothesis.split()),
            chars=align(characters(reference), characters(hypothesis)),
            seconds=seconds,
            confidence=confidence,
        )

    return make
