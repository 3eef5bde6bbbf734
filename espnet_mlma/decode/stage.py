"""Stage 12: decode data folders into ESPnet's `text token token_int score`, and `utt2lang`.

Re-running resumes a run that was stopped and skips finished sets. A sound that cannot be read is
reported and skipped; stage 13 counts its words as deleted.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from espnet_mlma.arguments import ArgumentParser, first_line, refuse_to_replace
from espnet_mlma.decode.fingerprint import of_decoding
from espnet_mlma.decode.folder import read_options
from espnet_mlma.decode.recogniser import Recogniser, load
from espnet_mlma.decode.sets import decode_set
from espnet_mlma.memory import keep_freed_memory


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(prog="mlma recipe decode", description=first_line(__doc__))
    parser.add_argument("--asr_train_config", type=Path, required=True)
    parser.add_argument("--asr_model_file", type=Path, required=True)
    parser.add_argument("--data_dir", type=Path, nargs="+", required=True, help="dump/raw/<set>")
    parser.add_argument("--output_dir", type=Path, required=True, help="gets a folder per set")
    parser.add_argument("--config", type=Path, required=True, help="conf/decode_*.yaml")
    parser.add_argument("--lm", help="n-gram model of words, replaces the configuration's")
    parser.add_argument("--ngpu", type=int, default=0)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Decode each set and print the speed."""
    arguments = _parse(argv)
    keep_freed_memory()
    inputs = [*arguments.data_dir, arguments.asr_train_config, arguments.asr_model_file]
    for data_dir in arguments.data_dir:
        refuse_to_replace(arguments.output_dir / data_dir.name, inputs)
    batch_seconds, decoding = read_options(arguments.config)
    if arguments.lm is not None:
        decoding = replace(decoding, lm=arguments.lm)
    config, model_file = arguments.asr_train_config, arguments.asr_model_file

    @cache
    def recogniser() -> Recogniser:
        device = "cuda" if arguments.ngpu else "cpu"
        return load(config, model_file, device, decoding=decoding)

    made_with = of_decoding(config, model_file, batch_seconds, decoding)
    for data_dir in arguments.data_dir:
        out = arguments.output_dir / data_dir.name
        print(decode_set(recogniser, data_dir, batch_seconds, out, made_with))
