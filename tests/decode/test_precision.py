import pytest
import torch
from torch import nn

from espnet_mlma.decode.precision import count_parameters, prepare_linear_layers
from espnet_mlma.decode.recogniser import load
from espnet_mlma.encoder import ConMambaEncoder
from espnet_mlma.errors import MlmaError


def encoder_of_width_64():
    torch.manual_seed(0)
    return ConMambaEncoder(80, output_size=64, num_blocks=2, linear_units=128).eval()


def test_packed_float32_differs_by_rounding_only():
    encoder = encoder_of_width_64()
    x, lengths = torch.randn(2, 90, 80), torch.tensor([90, 61])
    with torch.inference_mode():
        exact, _, _ = encoder(x, lengths)
        prepare_linear_layers(encoder, "float32")
        packed, _, _ = encoder(x, lengths)
    torch.testing.assert_close(packed, exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("precision", "bound"), [("bfloat16", 0.02), ("int8", 0.05)])
def test_lower_precision_differs_a_little(precision, bound):
    encoder = encoder_of_width_64()
    if precision == "bfloat16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        with pytest.raises(MlmaError, match="no instructions for it"):
            prepare_linear_layers(encoder, precision)
        return
    x, lengths = torch.randn(2, 90, 80), torch.tensor([90, 61])
    with torch.inference_mode():
        exact, _, _ = encoder(x, lengths)
        prepare_linear_layers(encoder, precision)
        rough, _, _ = encoder(x, lengths)
    error = (rough - exact).abs().mean() / exact.abs().mean()
    assert 0 < error < bound


def test_thin_and_sensitive_layers_stay():
    encoder = encoder_of_width_64()
    prepare_linear_layers(encoder, "int8")
    left = {name.split(".")[-1] for name, m in encoder.named_modules() if isinstance(m, nn.Linear)}
    assert left == {"x_proj", "dt_proj"}


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_the_parameters_of_replaced_layers_count(precision):
    encoder = encoder_of_width_64()
    expected = sum(parameter.numel() for parameter in encoder.parameters())
    if precision == "bfloat16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor has no bfloat16")
    prepare_linear_layers(encoder, precision)
    assert count_parameters(encoder) == expected


def test_an_unknown_precision_and_a_gpu_are_refused(experiment):
    with pytest.raises(MlmaError, match="precision is 'int4'; choose float32, bfloat16 or int8"):
        load(experiment, precision="int4", device="cpu")
    with pytest.raises(MlmaError, match="precision int8 is for a CPU; the device is cuda"):
        load(experiment, precision="int8", device="cuda")
