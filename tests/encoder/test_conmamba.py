from collections import Counter

import pytest
import torch
from espnet2.asr.ctc import CTC
from espnet2.asr.encoder.conformer_encoder import ConformerEncoder
from espnet2.optimizers.optim_groups import configure_optimizer
from espnet2.torch_utils.initialize import initialize
from torch.utils._python_dispatch import TorchDispatchMode

from espnet_mlma.encoder import ConformerCnn4Encoder, ConMambaEncoder
from espnet_mlma.encoder.frontend import FlatLayerNorm
from espnet_mlma.encoder.linear import Linear

VOCABULARY = 31  # the paper's: 26 letters, apostrophe, word boundary, blank, bos, eos


def tiny(**options):
    torch.manual_seed(0)
    defaults = {"output_size": 16, "num_blocks": 3, "linear_units": 32, "cnn_module_kernel": 7}
    return ConMambaEncoder(40, **defaults | {"dropout_rate": 0.0} | options)


def weighted(frames):
    """A loss whose gradient does not cancel in the last LayerNorm, whatever the padding."""
    generator = torch.Generator().manual_seed(2)
    return (frames * torch.randn(61, 16, generator=generator)[: frames.size(-2)]).sum()


def batch():
    torch.manual_seed(1)
    return torch.randn(3, 61, 40), torch.tensor([61, 40, 29])


@pytest.mark.parametrize(("num_blocks", "expected"), [(18, 31_555_519), (24, 42_007_999)])
def test_parameter_count_of_the_paper(num_blocks, expected):
    model = torch.nn.ModuleDict(
        {
            "encoder": ConMambaEncoder(80, num_blocks=num_blocks),
            "head": torch.nn.Linear(256, VOCABULARY),
        }
    )
    parts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        path = name.split(".")
        part = path[3] if path[1] == "blocks" else path[1] if path[0] == "encoder" else "head"
        parts[part] += parameter.numel()
    for part, count in parts.items():
        print(f"{part:12} {count:>12,}")
    print(f"{'total':12} {parts.total():>12,}")
    assert parts.total() == expected


@pytest.mark.parametrize("bimamba", ["shared", "separate", "none"])
@pytest.mark.parametrize(
    "input_layer",
    ["cnn4", "cnn8", "linear", "conv2d", "conv2d2", "conv2d6", "conv2d8"],
)
def test_alone_equals_in_a_batch_with_garbage(bimamba, input_layer):
    """Frames and gradients, in training mode."""
    encoder = tiny(bimamba=bimamba, input_layer=input_layer).train()
    x, lengths = batch()
    for row, length in zip(x, lengths, strict=True):
        row[length:] = 1e3 * torch.randn_like(row[length:])
    frames, frame_lengths, _ = encoder(x, lengths)
    valid = torch.arange(frames.size(1)) < frame_lengths[:, None]
    weighted(frames * valid[..., None]).backward()
    together = {name: p.grad.clone() for name, p in encoder.named_parameters()}
    encoder.zero_grad()
    for i, length in enumerate(lengths):
        alone, alone_length, _ = encoder(x[i : i + 1, :length], lengths[i : i + 1])
        assert alone_length.item() == frame_lengths[i] == alone.size(1)
        difference = (alone[0] - frames[i, : alone.size(1)]).abs().max()
        assert difference <= 1e-5
        weighted(alone).backward()
    for name, parameter in encoder.named_parameters():
        scale = max(1.0, together[name].abs().max().item())
        assert (parameter.grad - together[name]).abs().max() <= 1e-5 * scale, name


class LayerNormAxes(TorchDispatchMode):
    """Records over how many axes each LayerNorm goes."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.__name__.startswith(("native_layer_norm.", "layer_norm.")):
            self.seen.append(len(args[1]))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("input_layer", ["cnn4", "cnn8", "linear", "conv2d", "conformer_cnn4"])
def test_every_layer_norm_goes_over_one_axis(input_layer):
    """Over two, PyTorch's CUDA backward corrupts memory from 65,537 rows on (pytorch#192016)."""
    if input_layer == "conformer_cnn4":
        encoder = ConformerCnn4Encoder(40, output_size=16, num_blocks=1, linear_units=16)
    else:
        encoder = tiny(input_layer=input_layer)
    with LayerNormAxes() as norms:
        encoder(*batch())
    assert norms.seen and set(norms.seen) == {1}


def test_flat_layer_norm_equals_torch():
    torch.manual_seed(0)
    theirs, ours = torch.nn.LayerNorm((5, 7)), FlatLayerNorm((5, 7))
    torch.nn.init.normal_(theirs.weight)
    torch.nn.init.normal_(theirs.bias)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 5, 7, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    weights = torch.randn(2, 3, 5, 7)
    (theirs(x) * weights).sum().backward()
    (ours(y) * weights).sum().backward()
    torch.testing.assert_close(ours(y), theirs(x))
    torch.testing.assert_close(y.grad, x.grad)
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(getattr(ours, name).grad, parameter.grad)


def test_conformer_cnn4_alone_equals_in_a_batch():
    torch.manual_seed(0)
    encoder = ConformerCnn4Encoder(40, 16, num_blocks=2, linear_units=32, rel_pos_type="latest")
    encoder.eval()
    assert isinstance(encoder, ConformerEncoder)
    x, lengths = batch()
    frames, frame_lengths, _ = encoder(x, lengths)
    assert frame_lengths.tolist() == [16, 10, 8]
    alone, _, _ = encoder(x[2:, :29], lengths[2:])
    torch.testing.assert_close(alone[0], frames[2, :8], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bimamba", ["shared", "separate", "none"])
def test_dtypes(bimamba):
    encoder = tiny(bimamba=bimamba).eval()
    x, lengths = batch()
    single, _, _ = encoder(x, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        low, _, _ = encoder(x, lengths)
    double, _, _ = encoder.double()(x.double(), lengths)
    valid = torch.arange(single.size(1)) < ((lengths + 1) // 2 + 1)[:, None] // 2
    torch.testing.assert_close(single[valid].double(), double[valid], rtol=0, atol=1e-5)
    torch.testing.assert_close(low[valid].double(), double[valid], rtol=0, atol=0.1)


def test_causal_model_never_looks_ahead():
    encoder = tiny(bimamba="none", input_layer="linear").eval()
    x, _ = batch()
    lengths = torch.full((3,), 61)
    before, _, _ = encoder(x, lengths)
    x[:, 30:] += 1
    after, _, _ = encoder(x, lengths)
    assert torch.equal(before[:, :30], after[:, :30])
    assert not torch.equal(before[:, 30], after[:, 30])


def test_bidirectional_model_looks_both_ways():
    encoder = tiny(cnn_module_kernel=1, input_layer="linear").eval()
    x, _ = batch()
    lengths = torch.full((3,), 61)
    before, _, _ = encoder(x, lengths)
    x[:, 30] += 1
    after, _, _ = encoder(x, lengths)
    moved = (before - after).abs().amax(dim=(0, 2))
    assert moved[29] > 0 and moved[31] > 0


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("linear_units", 48),
        ("cnn_module_kernel", 9),
        ("activation_type", "swish"),
        ("bimamba", "separate"),
        ("d_state", 8),
        ("d_conv", 3),
        ("expand", 3),
        ("dt_rank", 5),
        ("output_size", 24),
        ("num_blocks", 2),
        ("input_layer", "cnn8"),
    ],
)
def test_every_option_of_shape_acts(option, value):
    x, lengths = batch()
    plain, changed = tiny().eval(), tiny(**{option: value}).eval()
    if option == "activation_type":
        changed.load_state_dict(plain.state_dict())
    else:
        shapes = [{k: v.shape for k, v in e.state_dict().items()} for e in (plain, changed)]
        assert shapes[0] != shapes[1]
    a, b = plain(x, lengths)[0], changed(x, lengths)[0]
    assert a.shape != b.shape or not torch.equal(a, b)
    assert changed.output_size() == b.size(-1)


@pytest.mark.parametrize("option", ["dropout_rate", "mamba_dropout_rate"])
def test_dropout_acts_in_training_only(option):
    encoder = tiny(**{option: 0.5})
    x, lengths = batch()
    encoder.train()
    assert not torch.equal(encoder(x, lengths)[0], encoder(x, lengths)[0])
    encoder.eval()
    assert torch.equal(encoder(x, lengths)[0], encoder(x, lengths)[0])


@pytest.mark.parametrize("rate", [0.5, [0.0, 0.5, 0.5]])
def test_stochastic_depth_acts(rate):
    encoder = tiny(stochastic_depth_rate=rate)
    x, lengths = batch()
    encoder.train()
    outputs = [encoder(x, lengths)[0] for _ in range(12)]
    assert any(not torch.equal(outputs[0], other) for other in outputs[1:])
    encoder.eval()
    torch.testing.assert_close(encoder(x, lengths)[0], tiny().eval()(x, lengths)[0])


@pytest.mark.parametrize("layers", [[0], [1, 3], [0, 1, 2, 3]])
def test_gradient_checkpointing_recomputes_and_changes_nothing(layers):
    x, lengths = batch()
    gradients, calls = [], []
    for chosen in ([], layers):
        encoder = tiny(gradient_checkpoint_layers=chosen)
        count = Counter()
        for number, module in enumerate([encoder.frontend, *encoder.blocks]):
            module.register_forward_pre_hook(
                lambda _m, _i, number=number, count=count: count.update([number])
            )
        weighted(encoder(x, lengths)[0]).backward()
        gradients.append([p.grad for p in encoder.parameters()])
        calls.append(count)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert {n for n, c in calls[1].items() if c == 2} == set(layers)
    assert set(calls[0].values()) == {1}


def test_intermediate_ctc_and_conditioning():
    x, lengths = batch()
    plain = tiny(interctc_layer_idx=[1, 2]).eval()
    (out, inter), _, _ = plain(x, lengths)
    assert [number for number, _ in inter] == [1, 2]
    assert all(frames.shape == out.shape for _, frames in inter)

    conditioned = tiny(interctc_layer_idx=[1, 2], interctc_use_conditioning=True).eval()
    ctc = CTC(odim=5, encoder_output_size=16)
    conditioned.conditioning_layer = torch.nn.Linear(5, 16)
    (fed_back, _), _, _ = conditioned(x, lengths, ctc=ctc)
    assert not torch.allclose(out, fed_back)


def test_all_hidden_states():
    x, lengths = batch()
    encoder = tiny().eval()
    (out, hidden), _, _ = encoder(x, lengths, return_all_hs=True)
    assert len(hidden) == 3
    torch.testing.assert_close(encoder.after_norm(hidden[-1]), out)


def test_masks_and_prefix():
    x, lengths = batch()
    encoder = tiny().eval()
    frames, frame_lengths, _ = encoder(x, lengths)
    masks = torch.arange(61) >= lengths[:, None]
    by_mask, mask_lengths, _ = encoder(x, torch.full((3,), 61), masks=masks)
    assert torch.equal(frame_lengths, mask_lengths) and torch.equal(frames, by_mask)
    prefix = torch.randn(3, 2, 16)
    longer, longer_lengths, _ = encoder(x, lengths, prefix_embeds=prefix)
    assert torch.equal(longer_lengths, frame_lengths + 2)
    assert longer.size(1) == frames.size(1) + 2


def test_padding_beyond_the_longest_is_cut():
    x, _ = batch()
    frames, lengths, _ = tiny()(x, torch.tensor([40, 40, 29]))
    assert frames.size(1) == lengths.max() == 10


@pytest.mark.parametrize("init", ["xavier_uniform", "kaiming_normal", "normal"])
@pytest.mark.parametrize("bimamba", ["shared", "separate", "none"])
def test_mamba_keeps_its_initialisation(init, bimamba):
    encoder = tiny(bimamba=bimamba)
    initialize(encoder, init)
    for name, parameter in encoder.named_parameters():
        if name.endswith("A_log"):
            ladder = torch.arange(1.0, 17.0).log().expand_as(parameter)
            torch.testing.assert_close(parameter.detach(), ladder)
        if name.endswith("dt_proj.bias"):
            dt = torch.nn.functional.softplus(parameter)
            assert dt.min() >= 0.99e-3 and dt.max() <= 0.101
        if name.endswith("branches.0.conv.weight"):
            assert 0.25 < parameter.std() < 0.33  # uniform in +-1/2; xavier would give 0.08
        if name.endswith("ffn_in.1.weight") and init == "normal":
            assert parameter.std() < 0.03  # the rest is ESPnet's to initialise


def test_no_weight_decay_where_it_harms():
    encoder = tiny()
    optimiser = configure_optimizer(
        encoder, torch.optim.AdamW, {"lr": 1e-3, "weight_decay": 0.1}, {}
    )
    decayed = {id(p) for g in optimiser.param_groups if g["weight_decay"] for p in g["params"]}
    spared = ("A_log", ".D", "bias", "norm.weight")
    for name, parameter in encoder.named_parameters():
        is_norm = "norm" in name or ("ffn" in name and ".0." in name.split("ffn")[1])
        assert (id(parameter) in decayed) != (name.endswith(spared) or is_norm), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bimamba": "both"}, "bimamba is 'both'"),
        ({"input_layer": "conv3d"}, "input_layer is 'conv3d'"),
        ({"cnn_module_kernel": 8}, "cnn_module_kernel is 8"),
        ({"interctc_layer_idx": [3]}, "interctc_layer_idx"),
        ({"gradient_checkpoint_layers": [4]}, "gradient_checkpoint_layers"),
        ({"stochastic_depth_rate": [0.1]}, "stochastic_depth_rate has 1"),
        ({"stochastic_depth_rate": 1.0}, "stochastic_depth_rate must lie"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


@pytest.mark.parametrize("bimamba", ["shared", "none"])
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.slow
def test_blocks_compile_without_a_break(bimamba, train):
    encoder, compiled = (tiny(bimamba=bimamba, num_blocks=1).train(train) for _ in range(2))
    for block in compiled.blocks:
        block.compile(fullgraph=True, dynamic=True, backend="aot_eager")
    results = []
    for x, lengths in (batch(), (torch.randn(2, 50, 40), torch.tensor([50, 33]))):
        for model in (encoder, compiled):
            with torch.set_grad_enabled(train):
                frames, _, _ = model(x, lengths)
            if train:
                weighted(frames).backward()
            results.append(frames.detach())
        torch.testing.assert_close(results[-1], results[-2])
    if train:
        for p, q in zip(encoder.parameters(), compiled.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 70), (2, 5, 70), (1, 70), (0, 70)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("channels", [70, 20])
def test_linear_equals_torch(shape, bias, channels):
    torch.manual_seed(0)
    ours = Linear(channels, 33, bias=bias)
    torchs = torch.nn.Linear(channels, 33, bias=bias)
    torchs.load_state_dict(ours.state_dict())
    x = torch.randn(*shape[:-1], channels)
    results = []
    for layer in (ours, torchs):
        leaf = x.clone().requires_grad_()
        out = layer(leaf)
        out.square().sum().backward()
        results.append([out.detach(), leaf.grad, *(p.grad for p in layer.parameters())])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(ours.gelu(x), torch.nn.functional.gelu(torchs(x)))


def test_linear_under_autocast_and_in_other_types():
    layer = Linear(70, 20)
    x = torch.randn(4, 70)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    assert layer.double()(x.double()).dtype == torch.float64
