import signal
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import soundfile
import yaml
from hypothesis import settings

from espnet_mlma.audio.archives import AudioFile
from espnet_mlma.data.utterance import Utterance
from espnet_mlma.data.writer import write_set

# A shell that starts the tests in the background has them ignore Ctrl-C, and all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No test depends on time: a busy machine takes longer than hypothesis's deadline.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

TOKENS = ["<blank>", "<unk>", "<space>", *"abcdefghij", "<sos/eos>"]
# Of OWSM-CTC.
S2T_SYMBOLS = ["<na>", "<nolang>", "<deu>", "<eng>", "<fra>", "<ita>", "<nld>", "<spa>", "<yue>"]
S2T_SYMBOLS += ["<asr>", "<st_eng>", "<notimestamps>", "<0.00>", "<0.02>", "<30.00>"]
WORDS = ["good morning", "buona sera", "guten tag", "hasta luego", "goede nacht", "bonne nuit"]
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


@pytest.fixture(scope="session")
def s2t_experiment(make_experiment, tmp_path_factory) -> Path:
    """A tiny S2T-CTC model with the symbols, the window and the input layer of OWSM-CTC."""
    from espnet2.tasks.s2t_ctc import S2TTask

    prefix = tmp_path_factory.mktemp("bpe") / "bpe"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["what we read is in a book", "the book is red", "a cat and a hat"]),
        model_prefix=str(prefix),
        vocab_size=len(S2T_SYMBOLS) + 40,
        user_defined_symbols=S2T_SYMBOLS,
        bos_id=-1,
        eos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    pieces = Path(f"{prefix}.vocab").read_text().splitlines()
    pieces = [line.split("\t")[0] for line in pieces]
    return make_experiment(
        S2TTask,
        encoder="e_branchformer_ctc",
        encoder_conf={
            "output_size": 16,
            "attention_heads": 2,
            "attention_layer_type": "selfattn",
            "pos_enc_layer_type": "abs_pos",
            "linear_units": 16,
            "cgmlp_linear_units": 16,
            "num_blocks": 3,
            "use_ffn": True,
            "macaron_ffn": True,
            "interctc_layer_idx": [1],
            "interctc_use_conditioning": True,
            "use_cross_attention": [False, True, False],
            "use_flash_attn": True,
        },
        promptencoder_conf={
            "output_size": 8,
            "attention_heads": 2,
            "linear_units": 16,
            "num_blocks": 1,
        },
        model_conf={"interctc_weight": 0.5, "ctc_asr_only": [True, False]},
        preprocessor_conf={"speech_length": 30, "nolang_symbol": "<nolang>"},
        frontend_conf={"fs": "16k", "n_fft": 512, "win_length": 400, "hop_length": 160},
        token_list=["<blank>", *pieces, "<sop>", "<sos>", "<eos>"],
        token_type="bpe",
        bpemodel=f"{prefix}.model",
    )


@pytest.fixture(scope="session")
def tone() -> Callable[..., np.ndarray]:
    """Make (samples,) float sound that swells and fades."""

    def make(seconds: float, rate: int = 16000, pitch: float = 220.0) -> np.ndarray:
        time = np.arange(round(seconds * rate)) / rate
        return 0.3 * np.sin(2 * np.pi * pitch * time) * np.sin(2 * np.pi * 3 * time)

    return make


@pytest.fixture
def make_data(tmp_path: Path, tone) -> Callable[..., Path]:
    """Make a data folder as stage 1 does, of `count` short FLAC files by two speakers."""

    def make(count: int = 6, seconds: float = 1.0) -> Path:
        audio = tmp_path / "audio"
        audio.mkdir(exist_ok=True)
        utterances = []
        for number in range(count):
            path = audio / f"{number:04d}.flac"
            soundfile.write(path, tone(seconds, pitch=100 + number), 16000)
            speaker = f"mini_en_s{number % 2}"
            text = WORDS[number % len(WORDS)]
            utterances.append(
                Utterance(f"{speaker}-{number:04d}", AudioFile(path), text, speaker, "en")
            )
        write_set(tmp_path / "data" / "train", utterances, nj=1)
        return tmp_path / "data" / "train"

    return make
