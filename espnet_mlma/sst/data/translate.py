"""Translate the sentences with the paper's prompt, which shows up to three preceding sentences.

    mlma translate translate --sentences sentences.jsonl --target de \\
        --server http://localhost:8000/v1 --model Qwen/Qwen2.5-32B-Instruct-AWQ --out de.jsonl

Source: Ouyang et al., CMU's IWSLT 2025 simultaneous speech translation system, section 3.2.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from espnet_mlma.numbers import natural
from espnet_mlma.sst.data import synthesis
from espnet_mlma.sst.data.records import Sentence
from espnet_mlma.sst.data.translators import (
    CommandTranslator,
    LocalTranslator,
    SentenceTranslator,
    ServerTranslator,
    TableTranslator,
    Translation,
    TranslationRequest,
)
from espnet_mlma.sst.languages import NAMES, name_of

PRECEDING = 3
_SYSTEM = "You are a professional translator."
_TASK = (
    "Given an English sentence along with its preceding sentences, translate the given sentence "
    "into {}. Do not include any other text."
)


def messages(text: str, preceding: Sequence[str], target: str) -> list[dict[str, str]]:
    """Return the paper's prompt as chat messages.

    Args:
        text: sentence to translate.
        preceding: sentences before it in the recording, oldest first.
        target: language of the translation, ISO 639-1.
    """
    user = (
        f"{_TASK.format(name_of(target))}\n\n"
        f"|Preceding Sentences|\n{'\n'.join(preceding)}\n|End of Preceding Sentences|\n\n"
        f"|Sentence to Translate|\n{text}\n|End of Sentence to Translate|"
    )
    return [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": user}]


def preceding_texts(sentences: Sequence[Sentence], most: int = PRECEDING) -> dict[str, list[str]]:
    """Return the texts before each sentence in its recording, oldest first, by sentence id.

    Args:
        sentences: in the order of their recordings; recordings may be interleaved.
        most: maximum number of preceding texts.
    """
    texts: dict[str, list[str]] = {}
    found = {}
    for sentence in sentences:
        before = texts.setdefault(sentence.recording, [])
        found[sentence.id] = before[max(0, len(before) - most) :]
        before.append(sentence.text)
    return found


def with_translation(sentence: Sentence, translation: Translation, target: str) -> Sentence:
    """Return the sentence with its translation; drop it if there is none."""
    text = " ".join(translation.text.split())
    if translation.dropped or not text:
        return replace(sentence, target=target, dropped=translation.dropped or "empty_translation")
    return replace(sentence, target=target, translation=text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `translate`."""
    synthesis.add_arguments(parser)
    parser.add_argument(
        "--target", choices=sorted(NAMES), required=True, help="language to translate into"
    )
    backend = parser.add_mutually_exclusive_group(required=True)
    backend.add_argument("--server", metavar="URL", help="OpenAI-compatible server: .../v1")
    backend.add_argument(
        "--local", metavar="MODEL", help="causal Hugging Face model: folder, .gguf file or hub id"
    )
    backend.add_argument(
        "--table", type=Path, metavar="TSV", help="file of sentence ids and translations"
    )
    backend.add_argument(
        "--command", metavar="CMD", help="translates line by line: 'apertium -f line -u eng-spa'"
    )
    parser.add_argument("--model", help="the server's name of the model; default: its only model")
    parser.add_argument(
        "--preceding",
        type=int,
        default=PRECEDING,
        help="preceding sentences in the prompt (default: 3)",
    )
    parser.add_argument(
        "--max_tokens",
        type=natural,
        default=512,
        help="maximum tokens of a translation (default: 512)",
    )
    parser.add_argument(
        "--batch_size",
        type=natural,
        default=32,
        help="concurrent requests, or sentences per batch (default: 32)",
    )
    parser.add_argument(
        "--retries",
        type=natural,
        default=14,
        help="retries of a request; 14 wait for more than a minute (default: 14)",
    )


def run(args: argparse.Namespace) -> None:
    """Translate the sentences of a shard and print its report."""
    options = {"target": args.target, "preceding": args.preceding, "backend": _identity(args)}
    job = synthesis.Job.from_arguments("translate", args, options)

    def work(todo: Sequence[Sentence], all_: Sequence[Sentence]) -> Iterator[Sentence]:
        before = preceding_texts(all_, args.preceding)
        by_id = {sentence.id: sentence for sentence in todo}
        requests = [
            TranslationRequest(s.id, s.text, messages(s.text, before[s.id], args.target))
            for s in todo
        ]
        for id_, translation in _translator(args).translate(requests):
            yield with_translation(by_id[id_], translation, args.target)

    report = synthesis.run_stage(job, work)
    print(f"{report}, in {job.file}")


def _identity(args: argparse.Namespace) -> Mapping[str, object]:
    """Return what the translations depend on; a server may be restarted at another URL."""
    if args.server:
        return {"model": args.model, "max_tokens": args.max_tokens}
    if args.local:
        return {"local": args.local, "max_tokens": args.max_tokens}
    if args.table:
        content = args.table.read_bytes() if args.table.is_file() else b""
        return {"table": sha256(content).hexdigest()}
    return {"command": args.command}


def _translator(args: argparse.Namespace) -> SentenceTranslator:
    if args.server:
        return ServerTranslator(
            args.server, args.model, args.max_tokens, args.batch_size, args.retries
        )
    if args.local:
        return LocalTranslator(args.local, args.max_tokens, args.batch_size)
    if args.table:
        return TableTranslator(args.table)
    return CommandTranslator(args.command, args.batch_size)
