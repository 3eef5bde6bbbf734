"""Compare OWSM-CTC's architecture with ours: time and memory from samples to text.

    python benchmarks/owsm_ctc.py [--threads 2] [--json FILE]

OWSM-CTC is built by ESPnet's s2t_ctc task with the values of its published configuration
(egs2/owsm_ctc_v3.1/s2t1/conf of ESPnet) and 50,002 symbols, as ESPnet's s2t.sh makes of its BPE of
50,000: 1.01 B parameters. Ours is conf/train_asr_conmamba.yaml with 100 sentencepieces. Weights are
random and the audio is noise; the best path costs the same for any text. Ours writes about as many
symbols as for speech (peaky.py), because they decide where long audio is cut. Neither normalises
features.

OWSM-CTC pads every utterance to 30 s, because its errors triple without the padding; ours does not
pad. Files go through `transcribe`: OWSM-CTC encodes overlapping windows of 30 s, ours encodes
windows and then each utterance again. Each system runs in its own process. A case runs once for
memory and then again for time; cases that take OWSM-CTC long run once for both. For OWSM-CTC 5 s,
30 s and a file of 30 s are the same work: their difference shows how quiet the machine was.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from common import (
    in_own_process,
    milliseconds,
    peak_bytes,
    peak_of_process,
    prepare,
    report,
    timed_arguments,
)
from espnet2.tasks.s2t_ctc import S2TTask
from peaky import write_experiment

import espnet_mlma
from espnet_mlma.audio import SAMPLE_RATE
from espnet_mlma.decode.precision import count_parameters
from espnet_mlma.decode.recogniser import Recogniser
from espnet_mlma.loading.paths import AVERAGES

OWSM = "OWSM-CTC"
SYSTEMS = (OWSM, "ours")
SYMBOLS = ["<na>", "<nolang>", "<eng>", "<asr>"]
VOCABULARY = 50_002
LAYERS = 27
OWSM_CTC = {
    "encoder": "e_branchformer_ctc",
    "encoder_conf": {
        "output_size": 1024,
        "attention_heads": 16,
        "attention_layer_type": "selfattn",
        "pos_enc_layer_type": "abs_pos",
        "cgmlp_linear_units": 4096,
        "cgmlp_conv_kernel": 31,
        "num_blocks": LAYERS,
        "input_layer": "conv2d8",
        "linear_units": 4096,
        "use_ffn": True,
        "macaron_ffn": True,
        "merge_conv_kernel": 31,
        "interctc_layer_idx": [6, 12, 15, 21],
        "interctc_use_conditioning": True,
        "use_cross_attention": [layer % 3 == 2 for layer in range(LAYERS)],
    },
    "promptencoder": "transformer",
    "promptencoder_conf": {
        "output_size": 512,
        "attention_heads": 8,
        "linear_units": 2048,
        "num_blocks": 4,
    },
    "model_conf": {"interctc_weight": 0.8, "ctc_asr_only": [True, True, True, False, False]},
    "preprocessor_conf": {"speech_length": 30, "nolang_symbol": "<nolang>"},
    "frontend_conf": {"n_fft": 512, "win_length": 400, "hop_length": 160},
    "normalize": None,
    "token_type": "bpe",
}
OUR_TEXT = {"vocabulary": 100, "symbols": 90}  # symbols written in 10 s


@dataclass(frozen=True)
class Case:
    """Utterances of one length, recognised together, or a file of that length.

    Attributes:
        repeats: runs after the first, for OWSM-CTC and for ours.
    """

    name: str
    seconds: float
    utterances: int = 1
    is_file: bool = False
    repeats: tuple[int, int] = (0, 9)

    def run(self, recogniser: Recogniser) -> None:
        samples = noise(self.seconds)
        if self.is_file:
            recogniser.transcribe(samples)
        else:
            recogniser.transcribe_batch([samples] * self.utterances)


CASES = (
    Case("5 s", 5, repeats=(1, 15)),
    Case("30 s", 30, repeats=(1, 9)),
    Case("8 x 5 s, a batch", 5, utterances=8),
    Case("30 s, a file", 30, is_file=True),
    Case("10 min, a file", 600, is_file=True, repeats=(0, 2)),
)


def noise(seconds: float) -> np.ndarray:
    """Make samples (time,)."""
    samples = np.random.default_rng(0).normal(0, 0.1, round(seconds * SAMPLE_RATE))
    return samples.astype(np.float32)


def write_owsm_ctc(folder: Path) -> None:
    """Write an experiment folder with OWSM-CTC's architecture."""
    args = S2TTask.get_parser().parse_args(["--output_dir", str(folder)])
    words = [f"▁{i}" for i in range(VOCABULARY - len(SYMBOLS) - 5)]
    tokens = ["<blank>", "<unk>", *SYMBOLS, *words, "<sop>", "<sos>", "<eos>"]
    vars(args).update(OWSM_CTC, token_list=tokens)
    torch.manual_seed(0)
    model = S2TTask.build_model(args)
    (folder / "config.yaml").write_text(yaml.safe_dump(vars(args)))
    torch.save(model.state_dict(), folder / AVERAGES[0])


def load(system: str) -> Recogniser:
    """Load a recogniser with random weights."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if system == OWSM:
            write_owsm_ctc(folder)
            return espnet_mlma.load(folder, device="cpu", language="en")
        write_experiment(folder, [noise(30)], **OUR_TEXT)
        return espnet_mlma.load(folder, device="cpu")


def measure(system: str) -> dict:
    """Return the number of parameters, and each case's median seconds and peak memory."""
    recogniser = load(system)
    found = {"parameters": count_parameters(recogniser.model), "cases": []}
    recogniser.transcribe_batch([noise(1)])
    for case in CASES:
        times: list[float] = []

        def run(case: Case = case, times: list[float] = times) -> None:
            start = time.perf_counter()
            case.run(recogniser)
            times.append(time.perf_counter() - start)

        peak_bytes(run)
        peak = peak_of_process()
        for _ in range(case.repeats[SYSTEMS.index(system)]):
            run()
        found["cases"].append((statistics.median(times[1:] or times), peak))
        print(f"{system}, {case.name}: {times[-1]:.2f} s", file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = timed_arguments(__doc__.splitlines()[0])
    parser.add_argument("--system", choices=SYSTEMS, help="measure one, print JSON")
    args = parser.parse_args()
    prepare(args)
    if args.system:
        print(json.dumps(measure(args.system)))
        return
    theirs, ours = (in_own_process(__file__, args, "--system", name) for name in SYSTEMS)
    speed, memory = [], []
    for case, of_theirs, of_ours in zip(CASES, theirs["cases"], ours["cases"], strict=True):
        (their_time, their_peak), (our_time, our_peak) = of_theirs, of_ours
        audio = case.seconds * case.utterances
        times = [milliseconds(their_time), milliseconds(our_time), f"{their_time / our_time:.0f}x"]
        speed.append([case.name, *times, f"{their_time / audio:.3f}", f"{our_time / audio:.4f}"])
        peaks = [f"{peak / 2**30:.2f}" for peak in (their_peak, our_peak)]
        memory.append([case.name, *peaks, f"{their_peak / our_peak:.1f}x"])
    sizes = [f"{found['parameters'] / 1e6:.1f} M" for found in (theirs, ours)]
    title = f"{OWSM}'s architecture, {sizes[0]}, beside ours, {sizes[1]}"
    header = ["audio", f"{OWSM} (ms)", "ours (ms)", "faster", f"{OWSM}, RTF", "ours, RTF"]
    report(f"{title}, time", header, speed, args)
    header = ["audio", f"{OWSM} (GiB)", "ours (GiB)", "less"]
    report(f"{title}, peak of process", header, memory, args)


if __name__ == "__main__":
    main()
