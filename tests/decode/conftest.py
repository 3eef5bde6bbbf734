from argparse import Namespace
from pathlib import Path

import pytest
import torch
import yaml
from espnet2.tasks.asr import ASRTask

TOKENS = ["<blank>", "<unk>", "<space>", *"abcdefghij", "<sos/eos>"]


@pytest.fixture(scope="session")
def experiment(tmp_path_factory) -> Path:
    """An experiment folder with a tiny untrained model, as training leaves it."""
    folder = tmp_path_factory.mktemp("exp")
    arguments = vars(ASRTask.get_parser().parse_args(["--output_dir", str(folder)])) | {
        "encoder": "conmamba",
        "encoder_conf": {"output_size": 16, "num_blocks": 2, "linear_units": 32},
        "token_list": TOKENS,
        "token_type": "char",
        "model_conf": {"ctc_weight": 1.0},
        "frontend_conf": {"fs": "16k", "hop_length": 160, "center": False},
        "normalize": None,
    }
    torch.manual_seed(0)
    model = ASRTask.build_model(Namespace(**arguments))
    # Blank must not win every frame, or there is nothing to compare.
    with torch.no_grad():
        model.ctc.ctc_lo.bias[0] -= 0.5
        model.ctc.ctc_lo.weight.mul_(4)
    (folder / "config.yaml").write_text(yaml.safe_dump(arguments))
    torch.save(model.state_dict(), folder / "valid.cer_ctc.ave.pth")
    return folder
