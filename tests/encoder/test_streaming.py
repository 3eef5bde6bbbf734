import pytest
import torch
from espnet2.asr.ctc import CTC

from espnet_mlma.encoder import ConMambaEncoder, EncoderStream


def tiny(**options):
    torch.manual_seed(0)
    defaults = {"output_size": 16, "num_blocks": 3, "linear_units": 32, "cnn_module_kernel": 7}
    return ConMambaEncoder(40, **defaults | options).eval()


def encode_whole(encoder, x, **options):
    with torch.no_grad():
        frames = encoder(x[None], torch.tensor([len(x)]), **options)[0]
    return (frames[0] if isinstance(frames, tuple) else frames)[0]


def pieces_of(x, sizes):
    start = 0
    while start < len(x):
        for size in sizes:
            yield x[start : start + size]
            start += size


def stream(encoder, x, sizes, **options):
    session = EncoderStream(encoder, **options)
    out = [session.push(piece) for piece in pieces_of(x, sizes)]
    return torch.cat([*out, session.finish()])


@pytest.mark.parametrize("sizes", [[1], [4], [3, 0, 7, 1], [32], [500]])
@pytest.mark.parametrize("input_layer", ["cnn4", "cnn8", "linear"])
@pytest.mark.parametrize("length", [1, 7, 8, 131])
def test_causal_stream_equals_one_pass(input_layer, sizes, length):
    encoder = tiny(bimamba="none", input_layer=input_layer)
    x = torch.randn(length, 40)
    torch.testing.assert_close(
        stream(encoder, x, sizes), encode_whole(encoder, x), rtol=0, atol=1e-5
    )


def test_causal_stream_gives_frames_as_soon_as_they_are_sure():
    session = EncoderStream(tiny(bimamba="none"))
    given = [len(session.push(torch.randn(1, 40))) for _ in range(12)]
    assert given == [0, 0, 0, 1] * 3


def test_stream_with_self_conditioning():
    encoder = tiny(bimamba="none", interctc_layer_idx=[1, 2], interctc_use_conditioning=True)
    encoder.conditioning_layer = torch.nn.Linear(11, 16)
    ctc = CTC(11, 16)
    x = torch.randn(90, 40)
    torch.testing.assert_close(
        stream(encoder, x, [9], ctc=ctc), encode_whole(encoder, x, ctc=ctc), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("bimamba", ["shared", "separate", "none"])
def test_one_chunk_with_all_the_rest_as_context_equals_one_pass(bimamba):
    """Only of the first chunk: later chunks get the past through the forward direction alone."""
    encoder = tiny(bimamba=bimamba)
    x = torch.randn(120, 40)
    whole = encode_whole(encoder, x)
    session = EncoderStream(encoder, chunk=10, right_context=20)
    assert len(session.push(x)) == 10
    torch.testing.assert_close(
        stream(encoder, x, [50], chunk=10, right_context=20)[:10], whole[:10], rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("bimamba", ["shared", "separate"])
def test_chunks_do_not_depend_on_the_pieces_and_near_one_pass_as_context_grows(bimamba):
    encoder = tiny(bimamba=bimamba)
    x = torch.randn(400, 40)
    whole = encode_whole(encoder, x)
    errors = []
    for right_context in (0, 4, 40):
        options = {"chunk": 8, "right_context": right_context}
        streamed = stream(encoder, x, [1, 13, 100], **options)
        torch.testing.assert_close(streamed, stream(encoder, x, [400], **options))
        assert streamed.shape == whole.shape
        errors.append((streamed - whole).abs().mean().item())
    assert errors[0] > 1.2 * errors[1] > 1.44 * errors[2]


def test_state_of_the_forward_direction_is_exact():
    """The first block's forward state does not depend on how many chunks came before."""
    encoder = tiny(num_blocks=1, input_layer="linear")
    x = torch.randn(64, 40)
    sessions = [EncoderStream(encoder, chunk=chunk, right_context=3) for chunk in (1, 8, 32)]
    for session in sessions:
        session.push(x)
        session.finish()
    states = [session._states[0].mamba.scan for session in sessions]
    torch.testing.assert_close(states[0], states[1])
    torch.testing.assert_close(states[0], states[2])


def test_memory_does_not_grow():
    session = EncoderStream(tiny(), chunk=8, right_context=4)
    sizes = []
    for _ in range(50):
        session.push(torch.randn(37, 40))
        kept = [session._features, session._waiting, *tensors(session._states)]
        sizes.append(sum(x.untyped_storage().nbytes() for x in kept))
    assert max(sizes[25:]) <= max(sizes[:25])


def tensors(x):
    if isinstance(x, torch.Tensor):
        yield x
    elif x is not None:
        for item in x:
            yield from tensors(item)


@pytest.mark.parametrize(
    ("encoder", "options", "message"),
    [
        ({"input_layer": "conv2d"}, {"chunk": 4}, "input_layer cnn4, cnn8 or linear"),
        ({}, {}, "give chunk="),
        ({"bimamba": "none"}, {"right_context": 2}, "give chunk="),
        ({}, {"chunk": 0}, "chunk is 0"),
        ({}, {"chunk": 4, "right_context": -1}, "right_context -1"),
    ],
)
def test_wrong_options_are_named(encoder, options, message):
    with pytest.raises(ValueError, match=message):
        EncoderStream(tiny(**encoder), **options)


def test_a_finished_stream_takes_no_more():
    session = EncoderStream(tiny(bimamba="none"))
    session.push(torch.randn(9, 40))
    session.finish()
    with pytest.raises(ValueError, match="the stream is finished"):
        session.push(torch.randn(9, 40))


def test_the_callers_buffer_may_be_used_again():
    encoder, x = tiny(bimamba="none"), torch.randn(40, 40)
    session, buffer, out = EncoderStream(encoder), torch.empty(2, 40), []
    for piece in x.split(2):
        out.append(session.push(buffer.copy_(piece)))
    out.append(session.finish())
    torch.testing.assert_close(torch.cat(out), encode_whole(encoder, x), rtol=0, atol=1e-5)


def test_finish_before_any_feature():
    with pytest.raises(ValueError, match="before any features"):
        EncoderStream(tiny(bimamba="none")).finish()


def test_after_forget_a_new_utterance_begins():
    """Its frames are those it has by itself."""
    encoder = tiny(input_layer="linear")
    stride = encoder.frontend.stride
    first, second = torch.randn(8 * stride, 40), torch.randn(13 * stride, 40)
    stream, alone = EncoderStream(encoder, chunk=8), EncoderStream(encoder, chunk=8)
    before = stream.push(first)
    stream.forget()
    after = torch.cat([stream.push(second), stream.finish()])
    by_itself = torch.cat([alone.push(second), alone.finish()])
    assert len(before) == 8 and len(after) == len(by_itself) == 13
    torch.testing.assert_close(after, by_itself)
    carried = EncoderStream(encoder, chunk=8)
    carried.push(first)
    assert not torch.allclose(torch.cat([carried.push(second), carried.finish()]), by_itself)
