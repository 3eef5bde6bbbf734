import signal
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

# A shell that starts the tests in the background has them ignore Ctrl-C, and all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

TOKENS = ["<blank>", "<unk>", "<space>", *"abcdefghij", "<sos/eos>"]
SHARED_CORPORA = Path(__file__).resolve().parents[2] / "shared" / "corpora"


@pytest.fixture(scope="session")
def shared_corpora() -> Path:
    """The development corpora beside the checkout; tests that need them skip without."""
    if not SHARED_CORPORA.is_dir():
        pytest.skip(f"no development corpora at {SHARED_CORPORA}")
    return SHARED_CORPORA


@pytest.fixture(scope="session")
def make_experiment(tmp_path_factory) -> Callable[..., Path]:
    """Writes the folder of a tiny untrained model of any of ESPnet's tasks."""

    import torch

    def make(task, **options) -> Path:
        folder = tmp_path_factory.mktemp("exp")
        arguments = vars(task.get_parser().parse_args(["--output_dir", str(folder)])) | options
        torch.manual_seed(0)
        model = task.build_model(Namespace(**arguments))
        # Blank must not win every frame, or there is nothing to compare.
        with torch.no_grad():
            model.ctc.ctc_lo.bias[0] -= 0.5
            model.ctc.ctc_lo.weight.mul_(4)
        (folder / "config.yaml").write_text(yaml.safe_dump(arguments))
        torch.save(model.state_dict(), folder / "valid.cer_ctc.ave.pth")
        return folder

    return make


@pytest.fixture(scope="session")
def experiment(make_experiment) -> Path:
    """An experiment folder with a tiny untrained model, as training leaves it."""
    from espnet2.tasks.asr import ASRTask

    return make_experiment(
        ASRTask,
        encoder="conmamba",
        encoder_conf={"output_size": 16, "num_blocks": 2, "linear_units": 32},
        token_list=TOKENS,
        token_type="char",
        model_conf={"ctc_weight": 1.0},
        frontend_conf={"fs": "16k", "hop_length": 160, "center": False},
        normalize=None,
    )
