"""Stage 12: decode a data folder into ESPnet's `text token token_int score`, and `utt2lang`."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

from espnet_mlma.arguments import ArgumentParser, refuse_to_replace
from espnet_mlma.decode.folder import decode_folder, read_options, write_results
from espnet_mlma.decode.recogniser import load
from espnet_mlma.errors import run_cli
from espnet_mlma.memory import keep_freed_memory


def _parse() -> argparse.Namespace:
    parser = ArgumentParser(prog="python -m espnet_mlma.decode", description=__doc__)
    parser.add_argument("--asr_train_config", type=Path, required=True)
    parser.add_argument("--asr_model_file", type=Path, required=True)
    parser.add_argument("--data_dir", type=Path, nargs="+", required=True, help="dump/raw/<set>")
    parser.add_argument("--output_dir", type=Path, required=True, help="gets a folder per set")
    parser.add_argument("--config", type=Path, required=True, help="conf/decode_*.yaml")
    parser.add_argument("--lm", help="n-gram model of words, in place of the configuration's")
    parser.add_argument("--ngpu", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Decode each set and say how fast."""
    arguments = _parse()
    keep_freed_memory()
    inputs = [*arguments.data_dir, arguments.asr_train_config, arguments.asr_model_file]
    for data_dir in arguments.data_dir:
        refuse_to_replace(arguments.output_dir / data_dir.name, inputs)
    batch_seconds, decoding = read_options(arguments.config)
    if arguments.lm is not None:
        decoding = replace(decoding, lm=arguments.lm)
    device = "cuda" if arguments.ngpu else "cpu"
    recogniser = load(
        arguments.asr_train_config, arguments.asr_model_file, device, decoding=decoding
    )
    for data_dir in arguments.data_dir:
        start = time.perf_counter()
        results = decode_folder(recogniser, data_dir, batch_seconds)
        write_results(results, arguments.output_dir / data_dir.name)
        spent = time.perf_counter() - start
        audio = sum(result.duration for result in results.values())
        print(
            f"{data_dir.name}: {len(results)} utterances, {audio:.0f} s of audio "
            f"in {spent:.1f} s, {audio / spent:.0f} x real time"
        )


if __name__ == "__main__":
    run_cli(main)
