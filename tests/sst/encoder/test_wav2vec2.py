import copy
import itertools
from dataclasses import replace

import pytest
import torch

from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.encoder.wav2vec2 import ChunkWav2Vec2, Wav2Vec2Config
from espnet_mlma.sst.grid import CHUNK_FRAMES, CHUNK_SAMPLES

TINY = Wav2Vec2Config(
    conv_channels=(8,) * 7, d_model=16, num_layers=3, num_heads=2, linear_units=24, dropout=0.0
)
WINDOWS = {
    "paper": {"window_chunks": 10, "window_unit": "chunk"},
    "code": {"window_chunks": 12, "window_unit": "frame"},
    "short": {"window_chunks": 2, "window_unit": "chunk"},
    "short frames": {"window_chunks": 1, "window_unit": "frame"},
    "block only": {"window_chunks": 1, "window_unit": "chunk"},
}


def tiny(**options):
    torch.manual_seed(0)
    model = ChunkWav2Vec2(replace(TINY, **options)).eval()
    for layer in model.layers:  # sharp attention, so that an error of one frame shows
        torch.nn.init.normal_(layer.attention.query.weight)
        torch.nn.init.normal_(layer.attention.key.weight)
    return model


def speech(chunks, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(chunks * CHUNK_SAMPLES, generator=generator)


@torch.no_grad()
def stream(model, samples, multipliers):
    """Return frames block by block; the multipliers repeat in a cycle."""
    state, out, multipliers = model.initial_state(), [], itertools.cycle(multipliers)
    while len(samples):
        block = next(multipliers) * CHUNK_SAMPLES
        frames, state = model.step(samples[:block], state)
        out.append(frames)
        samples = samples[block:]
    return torch.cat(out)


@torch.no_grad()
def whole(model, samples, multiplier):
    return model(samples[None], multiplier)[0]


@pytest.mark.parametrize("multiplier", [1, 2, 3, 12])
@pytest.mark.parametrize("window", WINDOWS)
def test_stream_equals_the_masked_pass(window, multiplier):
    model, samples = tiny(**WINDOWS[window]), speech(24)
    expected = whole(model, samples, multiplier)
    assert expected.shape == (24 * CHUNK_FRAMES, 16)
    streamed = stream(model, samples, [multiplier])
    torch.testing.assert_close(streamed, expected, rtol=0, atol=1e-5)


def test_blocks_windows_and_positions_matter():
    """Otherwise the test above could not detect errors in them."""
    samples = speech(24)
    reference = whole(tiny(), samples, 2)
    others = [
        whole(tiny(), samples, 1),
        whole(tiny(window_chunks=9), samples, 2),
        whole(tiny(window_unit="frame"), samples, 2),
    ]
    turned = tiny()
    turned.rotation = lambda frames: (torch.ones(frames, 4), torch.zeros(frames, 4))
    for other in [*others, whole(turned, samples, 2)]:
        assert (other - reference).abs().max() > 1e-2


@pytest.mark.parametrize("unit", ["chunk", "frame"])
def test_mask_equals_its_definition(unit):
    """The window has 2 chunks of 48 frames, a block has 3 chunks."""
    model = tiny(window_chunks=2, window_unit=unit)
    mask = model._mask(6 * 48, 6 * 48, 3 * 48)
    for query, key in itertools.product(range(0, 288, 7), range(288)):
        same_or_earlier_block = key // 144 <= query // 144
        first_chunk = query // 144 * 3 - 1
        in_window = key // 48 >= first_chunk if unit == "chunk" else key >= query - 96
        assert mask[query, key] == (same_or_earlier_block and in_window)


@pytest.mark.parametrize("multiplier", [1, 3])
def test_earlier_blocks_do_not_depend_on_later_audio(multiplier):
    model, samples = tiny(), speech(6)
    other = samples.clone()
    other[3 * CHUNK_SAMPLES :] = speech(3, seed=2)
    before, after = whole(model, samples, multiplier), whole(model, other, multiplier)
    boundary = 3 * CHUNK_FRAMES
    assert torch.equal(before[:boundary], after[:boundary])
    assert (before[boundary:] - after[boundary:]).abs().min(dim=0).values.max() > 0


def test_cnn_frame_reads_no_sample_after_its_first():
    model, samples = tiny(), speech(1).requires_grad_()
    frames = model._frames(torch.nn.functional.pad(samples, (399, 0))[None])[0]
    for t in (0, 1, 47):
        (gradient,) = torch.autograd.grad(frames[t].sum(), samples, retain_graph=True)
        read = gradient.nonzero().flatten()
        assert read.max() == 320 * t
        assert read.min() == max(320 * t - 399, 0)


@pytest.mark.slow
def test_periodic_audio_gives_identical_frames():
    """Once all windows are full, the state does not depend on the time, to the bit."""
    model, period = tiny(window_chunks=3), speech(1)
    state, seen = model.initial_state(), []
    with torch.no_grad():
        for _ in range(400):
            frames, state = model.step(period, state)
            seen.append(frames)
    warm = 1 + 2 * len(model.layers)
    assert not torch.equal(seen[0], seen[warm])
    assert all(torch.equal(frames, seen[warm]) for frames in seen[warm:])
    assert all(isinstance(x, torch.Tensor) for layer in state.past for x in layer)


@pytest.mark.parametrize("window", ["paper", "code", "block only"])
def test_state_size_equals_the_window(window):
    model = tiny(**WINDOWS[window])
    state, sizes, kept = model.initial_state(), [], []
    for _ in range(20):
        with torch.no_grad():
            _, state = model.step(speech(1), state)
        tensors = [state.samples, *itertools.chain(*state.past)]
        sizes.append(sum(x.untyped_storage().nbytes() for x in tensors))
        kept.append(state.past[0][0].size(2))
    frames = {"paper": 9 * 48, "code": 12 * 48, "block only": 0}[window]
    assert kept[12:] == [frames] * 8
    assert sizes[12:] == [4 * (399 + 2 * 3 * 16 * frames)] * 8


@torch.no_grad()
def test_multipliers_can_change_within_a_stream():
    """Compare with one pass with a mask of blocks of 2, 1 and 3 chunks in turn."""
    model, samples = tiny(window_chunks=3), speech(12)
    edges = [0, 2, 3, 6, 8, 9, 12]
    start, end = (
        torch.cat([torch.full((48 * (b - a),), 48 * edge) for a, b, edge in each])[:, None]
        for each in (
            [(a, b, a) for a, b in itertools.pairwise(edges)],
            [(a, b, b) for a, b in itertools.pairwise(edges)],
        )
    )
    key = torch.arange(12 * 48)
    mask = (key < end) & (key >= start - 2 * 48)
    x = model._frames(torch.nn.functional.pad(samples, (399, 0))[None])
    for layer in model.layers:
        x, _ = layer(x, model.rotation(12 * 48), mask)
    streamed = stream(model, samples, [2, 1, 3])
    torch.testing.assert_close(streamed, model.norm(x)[0], rtol=0, atol=1e-5)


def test_copied_state_gives_the_same_frames():
    model, samples = tiny(), speech(3)
    with torch.no_grad():
        _, state = model.step(samples[:CHUNK_SAMPLES], model.initial_state())
        before = copy.deepcopy(state)
        first, _ = model.step(samples[CHUNK_SAMPLES:], state)
        again, _ = model.step(samples[CHUNK_SAMPLES:], before)
    assert torch.equal(first, again)


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_gradients_reach_every_parameter(gradient_checkpointing):
    model = tiny(gradient_checkpointing=gradient_checkpointing).train()
    model(speech(4).view(2, -1), 2).square().sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    without = [name for name, gradient in gradients.items() if gradient is None]
    # Without the rotation, a bias of the keys would not change attention.
    assert not without and all(gradient.abs().max() > 0 for gradient in gradients.values())
    plain = tiny().train()
    plain(speech(4).view(2, -1), 2).square().sum().backward()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-5)


def test_dropout_acts_only_in_training():
    model, samples = tiny(dropout=0.5), speech(2)[None]
    assert torch.equal(model(samples, 1), model(samples, 1))
    model.train()
    assert not torch.equal(model(samples, 1), model(samples, 1))


def test_bfloat16_is_close_to_float32():
    model, samples = tiny(), speech(4)
    single = whole(model, samples, 2)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = whole(model, samples, 2)
    low = stream(model.bfloat16(), samples.bfloat16(), [2])
    assert low.dtype == torch.bfloat16
    for other in (mixed, low.float()):
        assert torch.nn.functional.cosine_similarity(single, other).mean() > 0.99


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conv_strides": (5, 2, 2, 2, 2, 2, 7)}, "multiply to 1120"),
        ({"conv_kernels": (10, 3)}, "differ in length"),
        ({"num_heads": 5}, "heads of even size"),
        ({"dropout": -0.1}, "dropout is -0.1; it must be 0 or more and below 1"),
        ({"dropout": 1.0}, "dropout is 1.0; it must be 0 or more and below 1"),
        ({"window_chunks": 0}, "window_chunks must be 1 or more"),
        ({"window_unit": "second"}, "window_unit chunk or frame"),
    ],
)
def test_inconsistent_sizes_are_refused(options, message):
    with pytest.raises(MlmaError, match=message):
        tiny(**options)


def test_partial_blocks_are_refused():
    model = tiny()
    with pytest.raises(ValueError, match="blocks of 2 x 15360"):
        model(speech(3)[None], 2)
    with pytest.raises(ValueError, match="15359 samples"):
        model.step(speech(1)[1:], model.initial_state())
