import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from espnet_mlma.audio import SAMPLE_RATE, read_audio
from espnet_mlma.data.corpora.espeak import Espeak, SynthesisLine
from espnet_mlma.decode.vad import speech_spans
from espnet_mlma.errors import MlmaError

SENTENCES = [
    "the old captain looked at the sea and said nothing at all",
    "every morning we walked along the river to the little market",
    "please open the window and tell me what you can see outside",
]
SILENCE = 5 * SAMPLE_RATE


@pytest.fixture(scope="module")
def spoken() -> list[np.ndarray]:
    """Speak sentences with eSpeak, each (samples,) float32 at 16 kHz, without silence around."""
    pytest.importorskip("silero_vad")
    espeak = Espeak()
    clips = []
    for text in SENTENCES:
        sound = espeak.speak(SynthesisLine("a", "a", text, "en-us+m3", 140, 50, 30.0)).astype(
            np.float32
        )
        loud = np.flatnonzero(np.abs(sound) > 0.02 * np.abs(sound).max())
        clips.append(sound[loud[0] : loud[-1] + 1])
    return clips


def room(samples: int) -> np.ndarray:
    """Make the noise of an empty room."""
    return np.random.default_rng(0).normal(0, 1e-4, samples).astype(np.float32)


def with_silences(clips: list[np.ndarray], silence: int) -> tuple[np.ndarray, list[slice]]:
    """Join clips with silence around each; return the samples and the place of each clip."""
    places, parts, position = [], [room(silence)], silence
    for clip in clips:
        places.append(slice(position, position + len(clip)))
        parts += [clip, room(silence)]
        position += len(clip) + silence
    return np.concatenate(parts), places


def blocks_of(samples: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (samples[start : start + size] for start in range(0, len(samples), size))


def spans(samples: np.ndarray, size: int = SAMPLE_RATE) -> list[tuple[int, np.ndarray]]:
    """Return the first sample and the samples of each span."""
    return [
        (round(start * SAMPLE_RATE), np.concatenate(list(pieces)))
        for start, pieces in speech_spans(blocks_of(samples, size))
    ]


def test_each_sentence_between_silences_is_a_span(spoken) -> None:
    samples, places = with_silences(spoken, SILENCE)
    found = spans(samples)
    assert len(found) == len(places)
    for (start, span), place in zip(found, places, strict=True):
        assert np.array_equal(span, samples[start : start + len(span)])
        assert start <= place.start and place.stop <= start + len(span)
        assert len(span) < place.stop - place.start + 1.5 * SAMPLE_RATE


def test_real_speech_is_kept(shared_corpora: Path) -> None:
    pytest.importorskip("silero_vad")
    clips = [
        read_audio(path) for path in sorted(shared_corpora.glob("LibriSpeech/*/*/*/*.flac"))[:3]
    ]
    samples, places = with_silences(clips, SILENCE)
    kept = np.zeros(len(samples), bool)
    for start, span in spans(samples):
        assert not kept[start : start + len(span)].any()
        kept[start : start + len(span)] = True
    speech = np.zeros(len(samples), bool)
    for place in places:
        speech[place] = True
    energy = samples.astype(np.float64) ** 2
    assert energy[kept & speech].sum() > 0.999 * energy[speech].sum()
    assert kept[~speech].mean() < 0.15


def test_a_short_pause_does_not_end_a_span(spoken) -> None:
    samples, places = with_silences(spoken, SAMPLE_RATE // 2)
    ((start, span),) = spans(samples)
    assert start <= places[0].start and start + len(span) >= places[-1].stop


def test_speech_up_to_the_edges_is_kept(spoken) -> None:
    clip = spoken[0][:30001]  # not a whole number of the detector's frames
    ((start, span),) = spans(clip)
    assert start <= 0.1 * SAMPLE_RATE
    assert start + len(span) == len(clip)


@pytest.mark.parametrize("size", [160, 511, 7 * SAMPLE_RATE])
def test_blocks_of_any_size_give_the_same_spans(spoken, size: int) -> None:
    samples, _ = with_silences(spoken[:2], 2 * SAMPLE_RATE)
    for (start, span), (other_start, other) in zip(
        spans(samples), spans(samples, size), strict=True
    ):
        assert start == other_start and np.array_equal(span, other)


def test_silence_has_no_spans() -> None:
    pytest.importorskip("silero_vad")
    assert spans(np.zeros(10 * SAMPLE_RATE, np.float32)) == []
    assert spans(room(10 * SAMPLE_RATE)) == []
    assert spans(np.empty(0, np.float32)) == []


def test_an_unread_span_is_skipped(spoken) -> None:
    samples, places = with_silences(spoken, SILENCE)
    starts = [start for start, _ in speech_spans(blocks_of(samples, SAMPLE_RATE))]
    assert len(starts) == len(places)


def test_long_speech_comes_in_pieces(spoken) -> None:
    """Memory does not grow with the length of a span."""
    turn = np.concatenate(spoken)
    turns = 10
    tracemalloc.start()
    try:
        ((_, pieces),) = (
            (s, list(map(len, p))) for s, p in speech_spans(turn for _ in range(turns))
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(pieces) >= 0.98 * turns * len(turn)
    assert max(pieces) <= 2 * SAMPLE_RATE
    assert peak < 3 * turn.nbytes < turns * turn.nbytes / 3


def test_the_number_of_threads_stays(monkeypatch) -> None:
    pytest.importorskip("silero_vad")
    for module in [name for name in sys.modules if name.startswith("silero_vad")]:
        monkeypatch.delitem(sys.modules, module)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        speech_spans(iter([]))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_without_the_package_the_error_names_the_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    with pytest.raises(MlmaError, match=r'pip install "espnet-mlma\[vad\]"'):
        speech_spans(iter([]))
