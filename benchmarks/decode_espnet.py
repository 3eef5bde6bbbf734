"""Compare decoding with ESPnet's: time and texts.

    python benchmarks/decode_espnet.py [--symbols N | --model EXPERIMENT --data SETS] [--json FILE]

ESPnet's side is `espnet2.bin.asr_inference.Speech2Text` with `ctc_weight=1.0`. Speed is that of
random weights on noise: as initialised, when ESPnet's search runs to its limit, or with
`--symbols`, when the output layer writes that many symbols in 10 s like a trained one (peaky.py).
Both searches start from the encoder's output; `faster` compares with the faster of ESPnet's ways.
With a trained model the texts are compared. ESPnet searches the text with the highest sum over
alignments; PyTorch's CTC loss tells whether its sum is higher than that of the best path's text.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch
import torch.nn.functional as F
from common import ROOT, milliseconds, model_arguments, prepare, report, time_together
from espnet2.bin.asr_inference import Speech2Text
from peaky import encode, write_experiment
from streaming import read_set

import espnet_mlma
from espnet_mlma.audio import SAMPLE_RATE, read_audio
from espnet_mlma.decode.best_path import best_path
from espnet_mlma.decode.folder import read_options
from espnet_mlma.decode.options import Decoding
from espnet_mlma.decode.prefix_beam import prefix_beam
from espnet_mlma.decode.recogniser import Recogniser, by_length
from espnet_mlma.loading.paths import AVERAGES

VOCABULARY = 1000
DURATIONS = (10.0, *np.linspace(5, 15, 63))  # the first is also timed alone
BATCH_SECONDS, _ = read_options(ROOT / "conf" / "decode_ctc_best_path.yaml")


def espnet(folder: Path, beam: int = 1) -> Speech2Text:
    checkpoint = next(folder / name for name in AVERAGES if (folder / name).is_file())
    return Speech2Text(folder / "config.yaml", checkpoint, ctc_weight=1.0, beam_size=beam)


def in_batches(recognise: Callable, utterances: list[np.ndarray]) -> list:
    """Recognise in stage 12's batches; return the results in the utterances' order."""
    lengths = {str(i): len(samples) for i, samples in enumerate(utterances)}
    found = {}
    for batch in by_length(lengths, BATCH_SECONDS):
        found.update(zip(batch, recognise([utterances[int(key)] for key in batch]), strict=True))
    return [found[key] for key in lengths]


def row(name: str, ours: Callable[[], list], *theirs: Callable[[], list]) -> list:
    """Time ESPnet's ways and ours, and count the results of its first way that equal ours."""
    found, expected = [run() for run in (ours, *theirs)][:2]  # also the warm-up
    same = sum(a == b for a, b in zip(found, expected, strict=True))
    our, *their = time_together(dict(enumerate((ours, *theirs))), 3, warm_up=0).values()
    cells = [*map(milliseconds, their), "-"][:2]
    return [name, *cells, milliseconds(our), f"{min(their) / our:.1f}x", f"{same} of {len(found)}"]


def search(theirs: Speech2Text, options: Decoding, path: Path) -> list:
    encoded = encode(theirs.asr_model, read_audio(path))
    limits = options.beam_size, options.token_threshold, options.score_threshold

    def ours() -> list:
        log_probs = theirs.asr_model.ctc.log_softmax(encoded[None])[0]
        if options.is_best_path:
            return [list(best_path(log_probs).token_ids)]
        return [list(prefix_beam(log_probs.numpy(), *limits)[0].token_ids)]

    name = f"search, 10 s with {len(ours()[0])} symbols, beam {options.beam_size}"
    return row(name, ours, lambda: [theirs.beam_search(encoded)[0].yseq[1:-1].tolist()])


def one_file(theirs: Speech2Text, recogniser: Recogniser, path: Path) -> list:
    return row(
        f"file to text, 10 s, beam {recogniser.decoding.beam_size}",
        lambda: [recogniser.transcribe(path).text],
        lambda: [theirs(read_audio(path))[0][0]],
    )


def all_files(theirs: Speech2Text, recogniser: Recogniser, paths: list[Path]) -> list:
    def ours() -> list:
        found = in_batches(recogniser.transcribe_batch, list(map(read_audio, paths)))
        return [transcript.text for transcript in found]

    def batched() -> list:
        found = in_batches(theirs.batch_decode, list(map(read_audio, paths)))
        return [results[0][0] for results in found]

    name = f"files to text, {len(paths)} x 5 to 15 s, beam 1"
    return row(name, ours, lambda: [theirs(read_audio(path))[0][0] for path in paths], batched)


@torch.no_grad()
def speed(args) -> None:
    noise, rows = np.random.default_rng(0), []
    with tempfile.TemporaryDirectory() as name:
        paths = [Path(name) / f"{i}.wav" for i in range(len(DURATIONS))]
        for path, seconds in zip(paths, DURATIONS, strict=True):
            soundfile.write(path, noise.normal(0, 0.1, round(seconds * SAMPLE_RATE)), SAMPLE_RATE)
        write_experiment(Path(name), list(map(read_audio, paths)), VOCABULARY, args.symbols)
        for options in (Decoding(speech_guard=False), Decoding(beam_size=10, speech_guard=False)):
            theirs = espnet(Path(name), options.beam_size)
            recogniser = espnet_mlma.load(name, device="cpu", decoding=options)
            rows.append(search(theirs, options, paths[0]))
            rows.append(one_file(theirs, recogniser, paths[0]))
            if options.is_best_path:
                rows.append(all_files(theirs, recogniser, paths))
    size = sum(p.numel() for p in theirs.asr_model.parameters()) / 1e6
    weights = "as initialised" if args.symbols is None else f"{args.symbols:g} symbols in 10 s"
    title = f"{size:.1f} M, vocabulary {VOCABULARY}, {weights}"
    header = ["", "ESPnet (ms)", "in batches (ms)", "ours (ms)", "faster", "same result"]
    report(f"Decoding beside ESPnet's, {title}", header, rows, args)


@torch.no_grad()
def texts(args) -> None:
    """Count results that are the best path, and compare the probabilities of the others."""
    theirs, counts = espnet(Path(args.model)), Counter()
    model = theirs.asr_model
    utterances = [samples for folder in args.data for samples, _ in read_set(folder)]
    unguarded = Decoding(speech_guard=False)  # ESPnet drops no words
    recogniser = espnet_mlma.load(args.model, device="cpu", decoding=unguarded)
    ours = in_batches(recogniser.transcribe_batch, utterances)
    for samples, transcript in zip(utterances, ours, strict=True):
        text, _, found, _ = theirs(samples)[0]
        log_probs = model.ctc.log_softmax(encode(model, samples)[None])[0].double()
        path = [i for i in torch.unique_consecutive(log_probs.argmax(1)).tolist() if i]
        counts["ours is the best path"] += [token.id for token in transcript.tokens] == path
        counts["ESPnet's is the best path"] += found == path
        counts["... and ours is the same text"] += found == path and text == transcript.text
        gain = log_probability(log_probs, found) - log_probability(log_probs, path)
        counts["ESPnet's is another of a higher sum"] += found != path and gain > 0
        counts["ESPnet's is another of a lower sum"] += found != path and gain <= 0
    title = f"Texts beside ESPnet's, {Path(args.model).name}"
    report(title, ["utterances", str(len(utterances))], list(counts.items()), args)


def log_probability(log_probs: torch.Tensor, token_ids: list[int]) -> float:
    """Return a text's log-probability, summed over its alignments."""
    sizes = torch.tensor([len(log_probs)]), torch.tensor([len(token_ids)])
    return -F.ctc_loss(
        log_probs[:, None], torch.tensor([token_ids]), *sizes, reduction="sum"
    ).item()


def main() -> None:
    parser = model_arguments(__doc__.splitlines()[0])
    parser.add_argument("--symbols", type=float, help="that the model writes in 10 s of noise")
    args = parser.parse_args()
    prepare(args)
    (texts if args.model else speed)(args)


if __name__ == "__main__":
    main()
