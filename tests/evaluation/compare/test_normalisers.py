import sys

import pytest

from espnet_mlma.errors import MlmaError
from espnet_mlma.evaluation.compare import normalisers


def test_ours_is_that_of_training():
    assert normalisers.find_normaliser("ours")("L’été, à 25 %", "fr") == "l'été à 25"


def test_whispers_differs_by_language():
    pytest.importorskip("whisper_normalizer")
    whisper = normalisers.find_normaliser("whisper")
    assert whisper("It's um twenty-five in the café, the colour", "en") == (
        "it is 25 in the cafe the color"
    )
    assert whisper("L’été à l'école (rire)", "fr") == "l été à l école"


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "whisper_normalizer.basic", None)
    with pytest.raises(MlmaError, match=r"pip install 'espnet-mlma\[compare\]'"):
        normalisers.find_normaliser("whisper")
