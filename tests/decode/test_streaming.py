import itertools

import numpy as np
import pytest
import torch
from espnet2.asr.frontend.default import DefaultFrontend
from espnet2.tasks.asr import ASRTask
from hypothesis import given, settings
from hypothesis import strategies as st

import espnet_mlma
from espnet_mlma.decode.best_path import best_path
from espnet_mlma.decode.options import Decoding
from espnet_mlma.decode.owsm import SpeechToTextModel
from espnet_mlma.decode.recogniser import Recogniser
from espnet_mlma.decode.streaming import StreamingTranscriber, WordStream
from espnet_mlma.decode.words import timed_tokens, timed_words, token_groups
from espnet_mlma.encoder.espnet_streams import FeatureStream
from espnet_mlma.errors import MlmaError
from espnet_mlma.loading import checkpoint

CHARS = ["<blank>", "<unk>", "<space>", *"abcdefghij", "<sos/eos>"]
PIECES = ["<blank>", "<unk>", "▁", "▁a", "b", "▁c", "▁d", "e", "<sos/eos>"]
CONMAMBA = {"output_size": 16, "num_blocks": 2, "linear_units": 32, "cnn_module_kernel": 7}
CONFORMER = {
    "output_size": 16,
    "num_blocks": 2,
    "linear_units": 32,
    "attention_heads": 2,
    "macaron_style": True,
    "use_cnn_module": True,
    "cnn_module_kernel": 7,
    "rel_pos_type": "latest",
    "pos_enc_layer_type": "rel_pos",
    "selfattention_layer_type": "rel_selfattn",
}
FRONTEND = {"fs": "16k", "n_fft": 512, "win_length": 400, "hop_length": 160, "center": False}
# Pieces with a part of a frame, no frame, and many frames.
SIZES = st.lists(st.integers(0, 5000), max_size=6).map(lambda sizes: [*sizes, 4000])
MANY = settings(max_examples=10)


@pytest.fixture(scope="module")
def statistics(tmp_path_factory):
    """Write statistics as stage 10 does."""
    samples = torch.from_numpy(sound(4))
    features, _ = DefaultFrontend(**FRONTEND)(samples[None], torch.tensor([len(samples)]))
    sums = {"sum": features[0].sum(0).numpy(), "sum_square": (features[0] ** 2).sum(0).numpy()}
    file = tmp_path_factory.mktemp("stats") / "feats_stats.npz"
    np.savez(file, count=features.size(1), **sums)
    return str(file)


@pytest.fixture(scope="module")
def build(make_experiment, statistics):
    """Return a function that loads a tiny untrained recogniser, each kind once."""
    built = {}

    def load(encoder_conf=CONMAMBA, encoder="conmamba", tokens=PIECES, **options):
        options = {
            "encoder": encoder,
            "encoder_conf": encoder_conf,
            "frontend_conf": FRONTEND,
            "normalize": "global_mvn",
            "normalize_conf": {"stats_file": statistics},
            "model_conf": {"ctc_weight": 1.0},
            "token_list": tokens,
            "token_type": "char" if tokens is CHARS else "bpe",
        } | options
        key = repr(options)
        if key not in built:
            built[key] = espnet_mlma.load(make_experiment(ASRTask, **options), device="cpu")
        return built[key]

    return load


@pytest.fixture(scope="module")
def causal(build):
    return build(CONMAMBA | {"bimamba": "none"})


@pytest.fixture(scope="module")
def bidirectional(build):
    return build()


@pytest.fixture(scope="module")
def conformer(build):
    return build(CONFORMER, "conformer")


@pytest.fixture(scope="module")
def unsubsampled(build):
    return build(CONFORMER | {"input_layer": "linear"}, "conformer")


@pytest.fixture(scope="module")
def chars(build):
    """Load a model with single letters and frames of 40 ms."""
    return build(tokens=CHARS).acoustic


def sound(seconds: float) -> np.ndarray:
    """Make bursts of coloured noise, for which an untrained model writes different symbols."""
    rng = np.random.default_rng(1)
    bursts = [np.zeros(0)]
    while sum(map(len, bursts)) < 16000 * seconds:
        noise = rng.standard_normal(rng.integers(500, 3000))
        width = rng.integers(1, 20)
        bursts.append(np.convolve(noise, np.ones(width) / width, "same") * rng.uniform(0, 0.5))
    return np.concatenate(bursts)[: round(16000 * seconds)].astype(np.float32)


def cut(samples, sizes):
    """Cut samples into pieces of these sizes, repeatedly."""
    start, turn = 0, 0
    while start < len(samples):
        size = sizes[turn % len(sizes)]
        yield samples[start : start + size]
        start, turn = start + size, turn + 1


def recognise(stream, samples, sizes):
    words = [word for piece in cut(samples, sizes) for word in stream.push(piece).final]
    last = stream.finish()
    assert last.partial == ""
    return [*words, *last.final]


def assert_same_words(words, expected):
    assert [(w.text, w.start, w.end) for w in words] == [(w.text, w.start, w.end) for w in expected]
    confidences = [w.confidence for w in words]
    assert confidences == pytest.approx([w.confidence for w in expected], abs=1e-4)


@pytest.mark.parametrize(
    "shape",
    [
        {"center": False},
        {"center": True},
        {"center": True, "hop_length": 128, "win_length": 512},
        {"center": True, "hop_length": 256},
        {"center": True, "hop_length": 300},
        {"center": False, "hop_length": 512},
    ],
)
@MANY
@given(length=st.integers(1, 9000), sizes=SIZES)
def test_features_equal_those_of_one_pass(build, shape, length, sizes):
    model = build(frontend_conf=FRONTEND | shape).model
    samples = torch.from_numpy(sound(length / 16000))
    if length < (257 if shape["center"] else 512):
        expected = torch.zeros(0, 80)
    else:
        expected, lengths = model._extract_feats(samples[None], torch.tensor([length]))
        expected = model.normalize(expected, lengths)[0][0]
    stream = FeatureStream(model)
    features = [stream.push(piece) for piece in cut(samples, sizes)] + [stream.finish()]
    torch.testing.assert_close(torch.cat(features), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("center", [False, True])
@MANY
@given(length=st.integers(6000, 40000), sizes=SIZES)
@pytest.mark.slow
def test_a_causal_stream_equals_one_pass(build, center, length, sizes):
    recogniser = build(CONMAMBA | {"bimamba": "none"}, frontend_conf=FRONTEND | {"center": center})
    samples = sound(length / 16000)
    expected = recogniser.transcribe_batch([samples])[0].words
    assert len(expected) > 1
    words = recognise(StreamingTranscriber(recogniser), samples, sizes)
    assert_same_words(words, expected)


def test_a_causal_stream_with_self_conditioning(build):
    conditioned = {"interctc_layer_idx": [1], "interctc_use_conditioning": True}
    recogniser = build(
        CONMAMBA | {"bimamba": "none"} | conditioned,
        model_conf={"ctc_weight": 1.0, "interctc_weight": 0.5},
    )
    samples = sound(2)
    words = recognise(StreamingTranscriber(recogniser), samples, [700])
    assert_same_words(words, recogniser.transcribe_batch([samples])[0].words)


@pytest.mark.parametrize(
    "encoder",
    [
        {"encoder_conf": CONMAMBA},
        {"encoder_conf": CONMAMBA | {"input_layer": "conv2d2"}},
        {"encoder": "conformer", "encoder_conf": CONFORMER},
    ],
    ids=["conmamba", "conmamba-conv2d2", "conformer"],
)
@settings(max_examples=5)
@given(sizes=SIZES)
@pytest.mark.slow
def test_words_in_chunks_do_not_depend_on_the_pieces(build, encoder, sizes):
    recogniser, samples = build(**encoder), sound(3)
    stream = StreamingTranscriber(recogniser, chunk=0.2, lookahead=0.1, left_context=0.4)
    expected = recognise(stream, samples, [len(samples)])
    assert sum(len(word.text) for word in expected) > 20
    stream.reset()
    assert_same_words(recognise(stream, samples, sizes), expected)


@pytest.mark.slow
def test_words_around_pauses_do_not_depend_on_the_pieces(build):
    """The encoder resets its state in a pause."""
    recogniser, samples = build(CONMAMBA | {"d_state": 8}), sound(9)
    samples[32000:64000] = samples[96000:120000] = 0
    with torch.no_grad():  # make silence the blank
        silence, _ = recogniser.model.encode(torch.zeros(1, 32000), torch.tensor([32000]))
        typical = silence[0, 10:-10].mean(0)
        recogniser.model.ctc.ctc_lo.weight[0] += 8 * typical / typical.norm() ** 2
    stream = StreamingTranscriber(recogniser, chunk=0.2, lookahead=0.1)
    expected = recognise(stream, samples, [len(samples)])
    pauses = [b.start - a.end for a, b in itertools.pairwise(expected)]
    assert any(pause > 0.8 for pause in pauses)
    for sizes in ([320], [1280], [100, 7000, 333]):
        stream.reset()
        assert_same_words(recognise(stream, samples, sizes), expected)


@pytest.mark.parametrize("input_layer", ["conv2d2", "conv2d", "conv2d6", "conv2d8"])
def test_a_window_over_the_whole_utterance_equals_one_pass(build, input_layer):
    recogniser = build(CONFORMER | {"input_layer": input_layer}, "conformer")
    samples = sound(2.5)
    stream = StreamingTranscriber(recogniser, chunk=0.5, lookahead=2.5, left_context=2.5)
    words = recognise(stream, samples, [1000])
    assert words
    assert_same_words(words, recogniser.transcribe_batch([samples])[0].words)


def test_a_chunk_is_final_as_soon_as_its_lookahead_has_arrived(conformer):
    """Frame t of conv2d reads the features from 4 t to 4 t + 6."""
    stream = StreamingTranscriber(conformer, chunk=0.4, lookahead=0.2, left_context=1.0)
    encoder = stream._encoder
    given = [len(encoder.push(torch.zeros(4, 80))) for _ in range(36)]
    assert given == [0] * 15 + [10] + [0] * 9 + [10] + [0] * 9 + [10]
    assert len(encoder.finish()) == 5


@pytest.mark.parametrize("length", [0, 1, 300, 513, 1500])
@pytest.mark.parametrize("encoder", ["causal", "bidirectional", "conformer", "unsubsampled"])
def test_empty_and_short_audio(request, encoder, length):
    stream = StreamingTranscriber(request.getfixturevalue(encoder))
    words = recognise(stream, sound(length / 16000), [1000])
    assert all(word.end <= 0.2 for word in words)
    assert length >= 512 or words == []


def test_reset_repeats_the_result(bidirectional):
    stream, samples = StreamingTranscriber(bidirectional, chunk=0.32, lookahead=0.16), sound(2)
    first = recognise(stream, samples, [1600])
    stream.reset()
    assert recognise(stream, samples, [1600]) == first
    stream.reset()
    stream.push(samples[:9000])
    stream.reset()
    assert recognise(stream, samples, [1600]) == first


def held(thing):
    """Count the numbers and symbols that an object keeps, without the model."""
    if isinstance(thing, torch.Tensor):
        return thing.untyped_storage().nbytes() // thing.element_size()
    if isinstance(thing, list | tuple):
        return sum(1 + held(item) for item in thing)
    if isinstance(thing, torch.nn.Module) or not hasattr(thing, "__dict__"):
        return 0
    names = ("_features", "_encoder", "_words", "_samples", "_states", "_waiting", "_tokens")
    return sum(held(getattr(thing, name, None)) for name in names)


@pytest.mark.parametrize("encoder", ["causal", "bidirectional", "conformer"])
def test_memory_does_not_grow(request, encoder):
    recogniser = request.getfixturevalue(encoder)
    stream = StreamingTranscriber(recogniser, chunk=0.2, lookahead=0.1, left_context=0.3)
    sizes = []
    for piece in cut(np.tile(sound(2), 5), [1600]):  # turns of 2 s, in equal pieces
        stream.push(piece)
        sizes.append(held(stream))
    first, second, *_, last = np.reshape(sizes, (5, -1)).max(1)
    assert first > 500
    assert last <= second


def emissions(symbols, vocabulary):
    """Make log-probabilities (frame, vocabulary) with this best path, one symbol per frame."""
    log_probs = torch.full((len(symbols), len(vocabulary)), -5.0)
    for row, symbol in zip(log_probs, symbols, strict=True):
        row[vocabulary.index("<blank>" if symbol == "." else symbol)] = -0.1
    return log_probs


def updates(acoustic, symbols):
    """Return final words and partial text after each frame."""
    stream = WordStream(acoustic)
    found = [stream.push(row[None]) for row in emissions(symbols, acoustic.tokens)]
    return [" ".join(w.text for w in u.final) for u in found], [u.partial for u in found]


def test_a_word_is_final_when_a_space_follows_and_its_end_is_known(chars):
    """The next one may begin 50 ms, 1.25 frames, after its last symbol and change its end."""
    final, partial = updates(chars, ["a", "b", "b", "<space>", ".", ".", ".", "c"])
    assert partial == ["a", "ab", "ab", "ab", "", "", "", "c"]
    assert final == ["", "", "", "", "ab", "", "", ""]


def test_a_word_is_final_when_the_next_one_begins(chars, build):
    final, partial = updates(chars, ["a", "<space>", "c"])
    assert (final, partial) == (["", "", "a"], ["a", "a", "c"])
    pieces = build().acoustic
    final, partial = updates(pieces, ["▁a", "b", "▁", "b", "▁c", "▁c"])
    assert final == ["", "", "", "ab", "b", ""]
    assert partial == ["a", "ab", "ab", "b", "c", "c"]


def test_a_word_is_final_after_a_pause(chars):
    """0.6 s are 15 frames."""
    final, partial = updates(chars, ["a", "b", *"." * 15, "c"])
    assert final == [*[""] * 16, "ab", ""]
    assert partial == ["a", *["ab"] * 15, "", "c"]


def test_text_without_spaces_is_cut_after_half_a_minute(chars):
    """30 s are 750 frames."""
    stream = WordStream(chars)
    log_probs = emissions(["a", "b"] * 800, CHARS)
    words = [word for piece in log_probs.split(7) for word in stream.push(piece).final]
    assert [len(word.text) for word in words] == [750, 750]
    assert len(stream.push(log_probs[:0]).partial) == 100


def test_the_last_word_ends_with_the_audio(chars):
    stream = WordStream(chars)
    assert stream.push(emissions(["a"], CHARS)).final == ()
    (word,) = stream.push(emissions(["b", "."], CHARS), 0.09).final
    assert (word.text, word.start, word.end) == ("ab", 0.0, 0.09)


@settings(max_examples=100)
@given(
    symbols=st.lists(st.sampled_from([*"aab", "<space>", *"." * 2, "." * 15]), max_size=40),
    pieces=st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any),
)
def test_words_do_not_depend_on_how_frames_are_cut(chars, symbols, pieces):
    symbols = [s for run in symbols for s in (run if run[0] == "." else [run])]
    log_probs = emissions(symbols, CHARS) - torch.arange(len(symbols))[:, None] * 0.01
    at_once = WordStream(chars).push(log_probs, len(symbols) * 0.04).final
    stream = WordStream(chars)
    words = [word for piece in cut(log_probs, pieces) for word in stream.push(piece).final]
    words += stream.push(log_probs[:0], len(symbols) * 0.04).final
    assert_same_words(words, at_once)
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times)
    if "." * 15 not in "".join(symbols):
        tokens = timed_tokens(best_path(log_probs), CHARS, 0, 0.04)
        groups = token_groups(tokens, "char")
        assert_same_words(words, timed_words(groups, "char", len(symbols) * 0.04))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk": 0.01}, "chunk is 0.01 s.*one frame, 0.04 s"),
        ({"lookahead": -1}, "lookahead -1 s"),
        ({"left_context": -1}, "left_context -1 s"),
    ],
)
def test_numbers_out_of_range_are_refused(bidirectional, options, message):
    with pytest.raises(MlmaError, match=message):
        StreamingTranscriber(bidirectional, **options)


def test_models_that_cannot_stream_are_refused(build, s2t_experiment):
    with pytest.raises(MlmaError, match="UtteranceMVN, which waits for the end"):
        StreamingTranscriber(build(normalize="utterance_mvn", normalize_conf={}))
    model, config = checkpoint.build(s2t_experiment)
    with pytest.raises(MlmaError, match="S2T-CTC model"):
        StreamingTranscriber(Recogniser(SpeechToTextModel(model, config, "cpu"), config))
    sliding = {"frontend": "sliding_window", "frontend_conf": {}}
    with pytest.raises(MlmaError, match="the model has SlidingWindow"):
        StreamingTranscriber(build(normalize=None, normalize_conf={}, **sliding))


def test_a_beam_is_refused(experiment):
    recogniser = espnet_mlma.load(experiment, device="cpu", decoding=Decoding(beam_size=4))
    with pytest.raises(MlmaError, match="beam_size 1"):
        StreamingTranscriber(recogniser)


@pytest.mark.parametrize(
    "samples", [np.zeros((2, 100), np.float32), np.zeros(100, np.uint8), torch.tensor(0.0)]
)
def test_samples_of_a_wrong_shape_or_type_are_refused(causal, samples):
    with pytest.raises(MlmaError, match="one channel"):
        StreamingTranscriber(causal).push(samples)


def test_a_finished_stream_refuses_samples(causal):
    stream = StreamingTranscriber(causal)
    stream.push(sound(1))
    stream.finish()
    with pytest.raises(MlmaError, match="call reset"):
        stream.push(sound(1))
    with pytest.raises(MlmaError, match="call reset"):
        stream.finish()
