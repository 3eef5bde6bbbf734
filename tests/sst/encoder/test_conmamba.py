import itertools

import numpy as np
import pytest
import torch
from espnet2.tasks.asr import ASRTask

from espnet_mlma.errors import MlmaError
from espnet_mlma.loading import checkpoint
from espnet_mlma.sst.encoder.base import Adapter, SpeechStream
from espnet_mlma.sst.encoder.conmamba import ChunkConMamba, ConMambaConfig, load_conmamba
from espnet_mlma.sst.grid import CHUNK_SAMPLES

TINY = {"output_size": 16, "num_blocks": 2, "linear_units": 32, "bimamba": "none"}
FRONTEND = {"fs": "16k", "hop_length": 160, "win_length": 400, "center": False}
CONDITIONED = {"interctc_layer_idx": [1], "interctc_use_conditioning": True}


def tiny(encoder_conf=(), frontend_conf=(), vocabulary=13):
    torch.manual_seed(0)
    encoder_conf = TINY | {"dropout_rate": 0.0} | dict(encoder_conf)
    config = ConMambaConfig(encoder_conf, FRONTEND | dict(frontend_conf), vocabulary)
    return ChunkConMamba(config).eval()


def speech(chunks, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(chunks * CHUNK_SAMPLES, generator=generator)


def stream(encoder, samples, multipliers):
    state, out, multipliers = encoder.initial_state(), [], itertools.cycle(multipliers)
    while len(samples):
        block = next(multipliers) * CHUNK_SAMPLES
        frames, state = encoder.step(samples[:block], state)
        out.append(frames)
        samples = samples[block:]
    return torch.cat(out)


@torch.no_grad()
def whole(encoder, samples, multiplier=1):
    return encoder(samples[None], multiplier)[0]


@pytest.mark.parametrize("multipliers", [[1], [2], [3], [12], [1, 3, 2]])
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize(
    ("encoder_conf", "chunk_frames"),
    [
        ({}, 24),
        ({"input_layer": "cnn8"}, 12),
        ({"input_layer": "linear"}, 96),
        (CONDITIONED, 24),
    ],
)
def test_stream_equals_one_pass(encoder_conf, chunk_frames, center, multipliers):
    encoder, samples = tiny(encoder_conf, {"center": center}), speech(12)
    assert encoder.chunk_frames == chunk_frames
    expected = whole(encoder, samples)
    assert expected.shape == (12 * chunk_frames, 16)
    streamed = stream(encoder, samples, multipliers)
    torch.testing.assert_close(streamed, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("center", [False, True])
def test_frame_depends_on_no_audio_after_its_40_ms(center):
    encoder, samples = tiny(frontend_conf={"center": center}), speech(3)
    for frame in (0, 23, 24, 50):
        other = samples.clone()
        other[640 * (frame + 1) :] += 0.1
        before, after = whole(encoder, samples), whole(encoder, other)
        torch.testing.assert_close(before[: frame + 1], after[: frame + 1], rtol=0, atol=1e-6)
        assert (before[frame + 1] - after[frame + 1]).abs().max() > 1e-4


@pytest.mark.slow
def test_periodic_audio_converges_to_periodic_frames():
    """The state decays exponentially; after minutes the start is below rounding."""
    encoder, period = tiny(), speech(1)
    state, seen = encoder.initial_state(), []
    for _ in range(300):
        frames, state = encoder.step(period, state)
        seen.append(frames)
    assert (seen[0] - seen[-1]).abs().max() > 1e-3
    for frames in seen[200:]:
        torch.testing.assert_close(frames, seen[-1], rtol=0, atol=1e-5)


def tensors(x):
    if isinstance(x, torch.Tensor):
        yield x
    elif isinstance(x, tuple | list):
        for item in x:
            yield from tensors(item)


def test_state_does_not_grow():
    encoder = tiny()
    state, sizes = encoder.initial_state(), []
    for _ in range(12):
        _, state = encoder.step(speech(1), state)
        kept = tensors([list(vars(part).values()) for part in state])
        sizes.append(sum(x.untyped_storage().nbytes() for x in kept))
    assert sizes[1] > 0 and sizes[1:] == sizes[1:2] * 11


def test_gradients_reach_every_parameter():
    encoder = tiny().train()
    batch = speech(4).view(2, -1)
    encoder(batch, 2).square().sum().backward()
    without = [name for name, p in encoder.named_parameters() if p.grad is None]
    assert not without


@pytest.fixture
def statistics(tmp_path):
    rng = np.random.default_rng(0)
    mean = rng.normal(-5, 1, 80)
    np.savez(tmp_path / "stats.npz", count=10, sum=10 * mean, sum_square=10 * (mean**2 + 4))
    return tmp_path / "stats.npz"


def experiment(make_experiment, **options):
    defaults = {
        "encoder": "conmamba",
        "encoder_conf": TINY,
        "token_list": ["<blank>", "<unk>", *"abcdefghij", "<sos/eos>"],
        "token_type": "char",
        "model_conf": {"ctc_weight": 1.0},
        "frontend_conf": FRONTEND,
        "normalize": None,
    }
    return make_experiment(ASRTask, **defaults | options)


@pytest.mark.parametrize("encoder_conf", [{}, CONDITIONED])
def test_frames_equal_the_recognisers(make_experiment, statistics, encoder_conf):
    """The recogniser gets the same audio after 352 zeros."""
    normalised = {"normalize": "global_mvn", "normalize_conf": {"stats_file": str(statistics)}}
    folder = experiment(make_experiment, encoder_conf=TINY | encoder_conf, **normalised)
    ours, samples = load_conmamba(folder), speech(3)
    model, _ = checkpoint.build(folder)
    padded = torch.nn.functional.pad(samples, (352, 0))
    with torch.no_grad():
        expected, _ = model.encode(padded[None], torch.tensor([len(padded)]))
        expected = expected[0] if isinstance(expected, tuple) else expected
    torch.testing.assert_close(whole(ours, samples), expected[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(stream(ours, samples, [1]), expected[0], rtol=0, atol=1e-5)


def test_configuration_and_parameters_rebuild_the_encoder(make_experiment, statistics):
    """The experiment and its statistics are not needed."""
    normalised = {"normalize": "global_mvn", "normalize_conf": {"stats_file": str(statistics)}}
    folder = experiment(make_experiment, encoder_conf=TINY | CONDITIONED, **normalised)
    ours, samples = load_conmamba(folder), speech(2)
    again = ChunkConMamba(ours.config)
    again.load_state_dict(ours.state_dict())
    assert torch.equal(whole(again.eval(), samples), whole(ours, samples))


def test_stream_of_vectors_equals_one_pass():
    encoder = tiny()
    adapter = Adapter(encoder.output_size, 20, encoder.chunk_frames).eval()
    samples, session = speech(5)[:-99], SpeechStream(encoder, adapter, 2)
    vectors = [v for piece in samples.split(7001) for v in session.push(piece)]
    vectors.append(session.finish())
    padded = torch.nn.functional.pad(samples, (0, CHUNK_SAMPLES + 99))
    with torch.no_grad():
        expected = adapter(encoder(padded[None], 2))[0]
    assert expected.shape == (6 * 12, 20)
    torch.testing.assert_close(torch.cat(vectors), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("encoder_conf", "frontend_conf", "message"),
    [
        ({"bimamba": "shared"}, {}, "train a recogniser with encoder_conf `bimamba: none`"),
        ({"input_layer": "conv2d"}, {}, "needs input_layer cnn4, cnn8 or linear"),
        ({}, {"hop_length": 200}, "960 ms are 19.20 frames"),
        ({}, {"fs": "8k"}, "8000 Hz"),
        ({"layers": 3}, {}, "encoder_conf: .*layers"),
        ({}, {"hops": 3}, "frontend_conf.*hops"),
        ({"interctc_use_conditioning": True}, {}, "needs `vocabulary`"),
    ],
)
def test_encoder_that_cannot_be_streamed_is_refused(encoder_conf, frontend_conf, message):
    with pytest.raises(MlmaError, match=message):
        tiny(encoder_conf, frontend_conf, vocabulary=None)


def test_unsupported_recogniser_is_refused(make_experiment):
    with pytest.raises(MlmaError, match="needs `normalize: global_mvn` or null"):
        load_conmamba(experiment(make_experiment, normalize="utterance_mvn"))
    conformer = {"output_size": 16, "attention_heads": 2, "num_blocks": 1, "linear_units": 16}
    folder = experiment(make_experiment, encoder="conformer", encoder_conf=conformer)
    with pytest.raises(MlmaError, match="encoder is 'conformer'"):
        load_conmamba(folder)
