"""Long audio, with a model that writes a symbol for each tone, so that the text is known."""

import tracemalloc

import numpy as np
import pytest
import torch
from babble import babble
from hypothesis import given, settings
from hypothesis import strategies as st

import espnet_mlma
from espnet_mlma.audio import SAMPLE_RATE, read_audio
from espnet_mlma.decode.acoustic import AcousticModel
from espnet_mlma.decode.best_path import best_path
from espnet_mlma.decode.long_audio import pieces
from espnet_mlma.decode.recogniser import Recogniser
from espnet_mlma.decode.words import timed_tokens, token_groups

LETTERS = "abcdefghij"
SYMBOLS = ["<blank>", "<space>", *LETTERS]
FRAME = 640
FREQUENCIES = 500 + 250 * np.arange(1, len(SYMBOLS))  # whole periods in a frame
WAVES = np.exp(-2j * np.pi * np.outer(np.arange(FRAME), FREQUENCIES) / SAMPLE_RATE)


class ToneModel(AcousticModel):
    """Encode each frame by itself, but miss the edges of audio longer than an utterance."""

    def __init__(self, utterance_seconds=12.0, missed_frames=25):
        module = torch.nn.Module()
        module.ctc = torch.nn.Identity()
        super().__init__(module, SYMBOLS, "char", "cpu")
        self.utterance_seconds = utterance_seconds
        self.missed_frames = missed_frames

    def emissions(self, utterances):
        return [self._of(np.asarray(samples)) for samples in utterances]

    def _of(self, samples):
        frames = np.pad(samples, (0, -len(samples) % FRAME)).reshape(-1, FRAME)
        power = np.abs(frames @ WAVES) / FRAME
        if self.utterance_seconds and len(samples) > self.utterance_seconds * SAMPLE_RATE:
            power[: self.missed_frames] = power[-self.missed_frames :] = 0
        scores = np.concatenate([np.full((len(frames), 1), 0.05), power], axis=1) * 100
        return torch.from_numpy(scores.astype(np.float32)).log_softmax(-1)


def recording(words, pauses, edge_frames=30):
    """Return samples and the first frame of each word; pauses are frames after each word."""
    silent, frames, starts = np.zeros(FRAME, np.float32), [], []
    frames += [silent] * edge_frames
    for i, (word, pause) in enumerate(zip(words, pauses, strict=True)):
        if i:
            frames += [tone("<space>"), silent]
        starts.append(len(frames))
        for letter in word:
            frames += [tone(letter), tone(letter), silent]
        frames += [silent] * pause
    frames += [silent] * edge_frames
    return np.concatenate(frames), starts


def tone(symbol):
    frequency = FREQUENCIES[SYMBOLS.index(symbol) - 1]
    return (0.3 * np.sin(2 * np.pi * frequency * np.arange(FRAME) / SAMPLE_RATE)).astype(np.float32)


def in_blocks(samples, sizes):
    done = i = 0
    while done < len(samples):
        yield samples[done : done + sizes[i % len(sizes)]]
        done += sizes[i % len(sizes)]
        i += 1


def recognised(model, samples, sizes, batch_seconds=60.0):
    """Return words and their first frames; check that the pieces have no gaps."""
    words, starts, end = [], [], 0
    for piece in pieces(model, in_blocks(samples, sizes), batch_seconds):
        assert piece.first == end
        end += len(piece.log_probs)
        tokens = timed_tokens(best_path(piece.log_probs), SYMBOLS, piece.first, 1)
        groups = token_groups(tokens, "char")
        words += ["".join(token.text for token in group) for group in groups]
        starts += [group[0].start for group in groups]
    assert end == -(-len(samples) // FRAME)
    return words, starts


some_words = st.lists(
    st.tuples(st.text(LETTERS, min_size=1, max_size=12), st.integers(0, 60)),
    min_size=30,
    max_size=120,
)


@settings(max_examples=15)
@given(
    spoken=some_words,
    sizes=st.lists(st.integers(1000, 400_000), min_size=1, max_size=4),
    batch_seconds=st.sampled_from([1.0, 25.0, 60.0]),
    utterance_seconds=st.sampled_from([None, 4.0, 12.0]),
)
@pytest.mark.slow
def test_joins_neither_drop_nor_repeat_a_symbol(spoken, sizes, batch_seconds, utterance_seconds):
    words, pauses = zip(*spoken, strict=True)
    samples, starts = recording(words, pauses)
    model = ToneModel(utterance_seconds)
    assert recognised(model, samples, sizes, batch_seconds) == (list(words), starts)


def test_ten_minutes_without_a_pause():
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list(LETTERS), n)) for n in rng.integers(1, 10, 950)]
    samples, starts = recording(words, [0] * len(words))
    assert len(samples) > 600 * SAMPLE_RATE
    assert recognised(ToneModel(), samples, [len(samples)]) == (words, starts)


@pytest.mark.parametrize("pause", [0, 20])
def test_aligning_the_recognised_text_returns_its_times(pause):
    words = ["abc", "de", "fghij"] * 20
    samples, _ = recording(words, [pause] * 60)
    recogniser = Recogniser(ToneModel(), {})
    whole = recogniser.transcribe(samples)
    assert whole.text == " ".join(words)
    found = recogniser.align(samples, whole.text.upper())
    times = [[(token.text, token.start, token.end) for token in t.tokens] for t in (whole, found)]
    assert times[0] == times[1]
    assert found.score == pytest.approx(whole.score, abs=1e-3)


def test_a_word_longer_than_a_window_is_cut_between_symbols():
    samples, _ = recording(["abcdefghij" * 60], [0])
    words, _ = recognised(ToneModel(), samples, [SAMPLE_RATE])
    assert "".join(words) == "abcdefghij" * 60


@pytest.mark.parametrize("utterance_seconds", [None, 12.0])
@pytest.mark.parametrize("noise", [0.0, 0.001])
def test_silence_is_covered_and_has_no_words(utterance_seconds, noise):
    samples = np.random.default_rng(0).normal(0, noise, 150 * SAMPLE_RATE + 17).astype(np.float32)
    assert recognised(ToneModel(utterance_seconds), samples, [SAMPLE_RATE]) == ([], [])


def test_no_audio_has_no_pieces():
    for utterance_seconds in (None, 12.0):
        assert list(pieces(ToneModel(utterance_seconds), [], 60.0)) == []
        assert list(pieces(ToneModel(utterance_seconds), [np.zeros(0, np.float32)], 60.0)) == []


@pytest.mark.parametrize("sound", ["silence", "one endless word", "words and pauses"])
@pytest.mark.slow
def test_memory_does_not_grow(sound):
    if sound == "silence":
        minute = np.zeros(60 * SAMPLE_RATE, np.float32)
    elif sound == "one endless word":
        minute = recording(["abcdefghij" * 50], [0], 0)[0]
    else:
        minute = recording(["abc", "de", "fghij"] * 20, [0, 10, 40] * 20, 0)[0]

    def most(minutes):
        """Return the most bytes in use, and the most frames read but not yet returned."""
        read = 0

        def blocks():
            nonlocal read
            for _ in range(minutes):
                for block in in_blocks(minute, [SAMPLE_RATE]):
                    read += len(block)
                    yield block

        behind, given = 0, 0
        tracemalloc.start()
        for piece in pieces(ToneModel(), blocks(), 20.0):
            behind = max(behind, read - piece.first * FRAME)
            given += len(piece.log_probs)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert given == -(-read // FRAME)
        return np.array([peak, behind])

    short, long = most(3), most(30)
    assert (long <= 1.2 * short).all(), (short, long)


@pytest.fixture(scope="module")
def recogniser(experiment):
    return espnet_mlma.load(experiment, device="cpu")


def test_an_utterance_is_encoded_as_a_whole(recogniser):
    for seconds in (0.1, 3.0, recogniser.acoustic.utterance_seconds):
        samples = babble(round(seconds * SAMPLE_RATE))
        (batch,) = recogniser.transcribe_batch([samples])
        blocks = list(in_blocks(samples, [700]))
        (piece,) = pieces(recogniser.acoustic, blocks, 60.0)
        assert recogniser.transcribe(samples) == batch
        assert torch.equal(piece.log_probs, recogniser.acoustic.emissions([samples])[0])


def test_noise_without_a_pause(recogniser):
    samples = np.random.default_rng(0).normal(0, 0.1, 95 * SAMPLE_RATE + 5).astype(np.float32)
    found = list(pieces(recogniser.acoustic, in_blocks(samples, [SAMPLE_RATE]), 60.0))
    ends = [piece.first + len(piece.log_probs) for piece in found]
    assert [piece.first for piece in found] == [0, *ends[:-1]]
    assert ends[-1] == len(recogniser.acoustic.emissions([samples])[0])


def test_parts_make_the_whole(recogniser):
    samples = babble(50 * SAMPLE_RATE)
    whole, parts = recogniser.transcribe(samples), list(recogniser.iter_transcribe(samples))
    assert len(parts) > 1
    assert " ".join(part.text for part in parts) == whole.text
    assert [word for part in parts for word in part.words] == list(whole.words)
    starts = [word.start for word in whole.words]
    assert starts == sorted(starts)
    assert whole.duration == 50
    assert whole.words[-1].end <= 50


def test_a_model_that_pads_utterances_uses_windows_only(s2t_experiment):
    recogniser = espnet_mlma.load(s2t_experiment, device="cpu")
    samples = np.random.default_rng(0).normal(0, 0.1, 70 * SAMPLE_RATE).astype(np.float32)
    found = list(pieces(recogniser.acoustic, in_blocks(samples, [SAMPLE_RATE]), 60.0))
    assert recogniser.acoustic.utterance_seconds is None
    frames = sum(len(piece.log_probs) for piece in found)
    assert frames == -(-len(samples) // recogniser.acoustic.frame_samples)


def test_times_count_from_the_beginning_of_the_audio_with_vad(recogniser, shared_corpora):
    pytest.importorskip("silero_vad")
    file = next((shared_corpora / "LibriSpeech").rglob("*.flac"))
    clip = read_audio(file)[: 5 * SAMPLE_RATE]
    silence = np.zeros(4 * SAMPLE_RATE, np.float32)
    samples = np.concatenate([silence, clip, silence, clip, silence])
    tokens = recogniser.transcribe(samples, vad=True).tokens
    seconds = len(clip) / SAMPLE_RATE
    spans = [(4 - 0.4, 4 + seconds + 0.9), (8 + seconds - 0.4, 8 + 2 * seconds + 0.9)]
    for start, end in spans:
        assert any(start <= token.start and token.end <= end for token in tokens)
    assert all(any(a <= t.start and t.end <= b for a, b in spans) for t in tokens)


def in_order(words) -> bool:
    """Return whether words neither overlap nor end before they begin."""
    times = [time for word in words for time in (word.start, word.end)]
    return times == sorted(times)


@settings(max_examples=15)
@given(
    words=st.lists(st.text(LETTERS, min_size=1, max_size=8), min_size=10, max_size=60),
    pauses=st.lists(st.integers(0, 12), min_size=1, max_size=7),
    utterance=st.sampled_from([1.0, 3.0, 12.0, None]),
)
def test_words_of_two_pieces_do_not_overlap(words, pauses, utterance):
    model = ToneModel(utterance, missed_frames=1)
    samples, _ = recording(words, [pauses[i % len(pauses)] for i in range(len(words))], 0)
    recogniser = Recogniser(model, {}, batch_seconds=20.0)
    found = recogniser.transcribe(samples).words
    assert len(found) > 1
    assert in_order(found)
    assert found[-1].end <= len(samples) / SAMPLE_RATE
    parts = [part.words for part in recogniser.iter_transcribe(samples)]
    assert [word for part in parts for word in part] == list(found)


def test_a_word_begins_no_earlier_than_its_piece():
    model = ToneModel(1.0, missed_frames=1)
    # Longer than a piece and without a pause, so that it is cut between symbols.
    samples, _ = recording(["abcdefghij" * 3] * 20, [0] * 20, 0)
    found = Recogniser(model, {}, batch_seconds=20.0).transcribe(samples).words
    assert len(found) >= 20
    assert in_order(found)
