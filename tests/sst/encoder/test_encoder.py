import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.encoder.base import Adapter, SpeechStream
from espnet_mlma.sst.encoder.wav2vec2 import ChunkWav2Vec2, Wav2Vec2Config
from espnet_mlma.sst.grid import CHUNK_SAMPLES, CHUNK_VECTORS


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    sizes = {"d_model": 16, "num_layers": 2, "num_heads": 2, "linear_units": 24}
    config = Wav2Vec2Config(conv_channels=(8,) * 7, window_chunks=3, **sizes)
    return ChunkWav2Vec2(config).eval()


@pytest.fixture(scope="module")
def adapter():
    torch.manual_seed(1)
    return Adapter(16, 20).eval()


def speech(samples, seed=2):
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def whole(encoder, adapter, samples, multiplier):
    """Return the vectors of one pass over the samples, padded to whole blocks."""
    missing = -len(samples) % (multiplier * CHUNK_SAMPLES)
    padded = torch.nn.functional.pad(samples, (0, missing))
    return adapter(encoder(padded[None], multiplier))[0]


def pushed(stream, samples, sizes):
    """Return all vectors of a stream; the sizes of pushes repeat in a cycle."""
    out = []
    while len(samples):
        for size in sizes:
            out += stream.push(samples[:size])
            samples = samples[size:]
    last = stream.finish()
    return torch.cat(out if last is None else [*out, last])


@settings(max_examples=12)
@given(
    sizes=st.lists(st.integers(0, 40_000), min_size=1, max_size=8).filter(any),
    length=st.integers(1, 13 * CHUNK_SAMPLES),
    multiplier=st.sampled_from([1, 2, 3, 12]),
)
def test_pushes_of_any_size_equal_one_pass(encoder, adapter, sizes, length, multiplier):
    samples = speech(length)
    streamed = pushed(SpeechStream(encoder, adapter, multiplier), samples, sizes)
    expected = whole(encoder, adapter, samples, multiplier)
    assert streamed.shape == expected.shape
    torch.testing.assert_close(streamed, expected, rtol=0, atol=1e-5)


def test_single_samples_equal_one_pass(encoder, adapter):
    samples = speech(CHUNK_SAMPLES + 3)
    streamed = pushed(SpeechStream(encoder, adapter), samples, [1])
    torch.testing.assert_close(streamed, whole(encoder, adapter, samples, 1), rtol=0, atol=1e-5)


def test_block_is_returned_when_complete(encoder, adapter):
    stream = SpeechStream(encoder, adapter, 2)
    assert stream.push(speech(2 * CHUNK_SAMPLES - 1)) == []
    (vectors,) = stream.push(speech(1))
    assert vectors.shape == (2 * CHUNK_VECTORS, 20)
    assert [len(v) for v in stream.push(speech(5 * CHUNK_SAMPLES))] == [24, 24]
    assert stream.finish().shape == (24, 20)


def test_finish_returns_none_after_whole_blocks(encoder, adapter):
    stream = SpeechStream(encoder, adapter)
    stream.push(speech(3 * CHUNK_SAMPLES))
    assert stream.finish() is None
    assert SpeechStream(encoder, adapter).finish() is None


def test_multiplier_can_change_between_blocks(encoder, adapter):
    samples = speech(6 * CHUNK_SAMPLES)
    stream, out, start = SpeechStream(encoder, adapter), [], 0
    for multiplier in (1, 3, 2):
        stream.multiplier = multiplier
        end = start + multiplier * CHUNK_SAMPLES
        out += stream.push(samples[start:end])
        start = end
    assert [len(vectors) for vectors in out] == [12, 36, 24]
    state = encoder.initial_state()
    for block, vectors in zip(samples.split([15360, 46080, 30720]), out, strict=True):
        with torch.no_grad():
            frames, state = encoder.step(block, state)
            torch.testing.assert_close(adapter(frames[None])[0], vectors)
    assert stream.finish() is None


def test_smaller_multiplier_releases_waiting_samples(encoder, adapter):
    stream = SpeechStream(encoder, adapter, 12)
    assert stream.push(speech(5 * CHUNK_SAMPLES + 7)) == []
    stream.multiplier = 2
    assert [len(vectors) for vectors in stream.push(speech(0))] == [24, 24]
    assert len(stream.finish()) == 24


def test_caller_can_reuse_its_buffer(encoder, adapter):
    samples, buffer = speech(CHUNK_SAMPLES), torch.empty(CHUNK_SAMPLES // 4)
    stream = SpeechStream(encoder, adapter)
    *_, (vectors,) = [stream.push(buffer.copy_(piece)) for piece in samples.split(len(buffer))]
    torch.testing.assert_close(vectors, whole(encoder, adapter, samples, 1), rtol=0, atol=1e-5)


def test_only_waiting_samples_are_kept(encoder, adapter):
    stream = SpeechStream(encoder, adapter)
    stream.push(speech(40 * CHUNK_SAMPLES + 100))
    assert sum(piece.untyped_storage().nbytes() for piece in stream._pieces) == 4 * 100


def test_streams_are_independent(encoder, adapter):
    samples = speech(4 * CHUNK_SAMPLES)
    first = pushed(SpeechStream(encoder, adapter), samples, [10_000])
    again = pushed(SpeechStream(encoder, adapter), samples, [10_000])
    assert torch.equal(first, again)


def test_misuse_is_refused(encoder, adapter):
    with pytest.raises(MlmaError, match="multiplier is 0"):
        SpeechStream(encoder, adapter, 0)
    stream = SpeechStream(encoder, adapter)
    with pytest.raises(ValueError, match=r"shape \(1, 5\)"):
        stream.push(torch.zeros(1, 5))
    stream.finish()
    for call in (stream.finish, lambda: stream.push(speech(1))):
        with pytest.raises(ValueError, match="the stream is finished"):
            call()


@pytest.mark.parametrize("chunk_frames", [12, 24, 48, 96])
def test_adapter_gives_12_vectors_per_chunk_from_that_chunk_only(chunk_frames):
    adapter = Adapter(6, 10, chunk_frames)
    frames = torch.randn(2, 3 * chunk_frames, 6)
    vectors = adapter(frames)
    assert vectors.shape == (2, 36, 10)
    frames[:, chunk_frames : 2 * chunk_frames] += 1
    changed = (adapter(frames) != vectors).any(dim=2).any(dim=0)
    assert changed.tolist() == [False] * 12 + [True] * 12 + [False] * 12


def test_adapter_has_the_papers_size():
    """Two convolutions without bias, two LayerNorms, a projection with bias."""
    with torch.device("meta"):
        counted = sum(p.numel() for p in Adapter(1024, 3584).parameters())
    assert counted == 2 * (2 * 1024 * 1024 + 2 * 1024) + 1024 * 3584 + 3584


@pytest.mark.parametrize("chunk_frames", [0, 6, 30, 36, 50])
def test_adapter_refuses_other_frame_counts(chunk_frames):
    with pytest.raises(MlmaError, match=f"gives {chunk_frames} frames in 960 ms"):
        Adapter(4, 4, chunk_frames)
