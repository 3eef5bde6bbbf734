"""Translations of the sentences, with the prompt of the paper and up to three sentences before.

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
    Answer,
    CommandTranslator,
    LocalTranslator,
    Question,
    SentenceTranslator,
    ServerTranslator,
    TableTranslator,
)
from espnet_mlma.sst.languages import NAMES, name_of

PRECEDING = 3
_SYSTEM = "You are a professional translator."
_TASK = (
    "Given an English sentence along with its preceding sentences, translate the given sentence "
    "into {}. Do not include any other text."
)


def messages(text: str, preceding: Sequence[str], target: str) -> list[dict[str, str]]:
    """The paper's prompt as a dialogue of `system` and `user`.

    Args:
        text: the sentence.
        preceding: those before it in the recording, oldest first.
        target: language, ISO 639-1.
    """
    user = (
        f"{_TASK.format(name_of(target))}\n\n"
        f"|Preceding Sentences|\n{'\n'.join(preceding)}\n|End of Preceding Sentences|\n\n"
        f"|Sentence to Translate|\n{text}\n|End of Sentence to Translate|"
    )
    return [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": user}]


def preceding_texts(sentences: Sequence[Sentence], most: int = PRECEDING) -> dict[str, list[str]]:
    """What was said before each sentence in its recording, oldest first.

    Args:
        sentences: in the order they are heard; recordings may be mixed.
        most: sentences.
    """
    heard: dict[str, list[str]] = {}
    found = {}
    for sentence in sentences:
        before = heard.setdefault(sentence.recording, [])
        found[sentence.id] = before[max(0, len(before) - most) :]
        before.append(sentence.text)
    return found


def translated(sentence: Sentence, answer: Answer, target: str) -> Sentence:
    """A sentence with its translation, or dropped with the reason why there is none."""
    text = " ".join(answer.text.split())
    if answer.dropped or not text:
        return replace(sentence, target=target, dropped=answer.dropped or "empty_translation")
    return replace(sentence, target=target, translation=text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    synthesis.add_arguments(parser)
    parser.add_argument("--target", choices=sorted(NAMES), required=True, help="language")
    backend = parser.add_mutually_exclusive_group(required=True)
    backend.add_argument("--server", metavar="URL", help="OpenAI-compatible, such as vLLM: .../v1")
    backend.add_argument(
        "--local", metavar="MODEL", help="causal Hugging Face model: folder, .gguf file or hub id"
    )
    backend.add_argument("--table", type=Path, metavar="TSV", help="of sentence ids and texts")
    backend.add_argument(
        "--command", metavar="CMD", help="a line in, a line out: 'apertium -f line -u eng-spa'"
    )
    parser.add_argument("--model", help="name of the server's model")
    parser.add_argument(
        "--preceding", type=int, default=PRECEDING, help="sentences shown before it (default: 3)"
    )
    parser.add_argument(
        "--max_tokens", type=natural, default=512, help="of a translation (default: 512)"
    )
    parser.add_argument(
        "--at_once", type=natural, default=32, help="requests or sentences of a batch (default: 32)"
    )
    parser.add_argument(
        "--retries",
        type=natural,
        default=14,
        help="retries of a request; 14 wait for more than a minute (default: 14)",
    )


def run(args: argparse.Namespace) -> None:
    """Translate a shard."""
    options = {"target": args.target, "preceding": args.preceding, "backend": _identity(args)}
    job = synthesis.Job.from_arguments("translate", args, options)

    def work(todo: Sequence[Sentence], all_: Sequence[Sentence]) -> Iterator[Sentence]:
        before = preceding_texts(all_, args.preceding)
        by_id = {sentence.id: sentence for sentence in todo}
        questions = [
            Question(s.id, s.text, messages(s.text, before[s.id], args.target)) for s in todo
        ]
        for id_, answer in _translator(args).translate(questions):
            yield translated(by_id[id_], answer, args.target)

    report = synthesis.run_stage(job, work)
    print(f"{report}, in {job.file}")


def _identity(args: argparse.Namespace) -> Mapping[str, object]:
    """What translations depend on; not where a server is, which may come back elsewhere."""
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
            args.server, args.model, args.max_tokens, args.at_once, args.retries
        )
    if args.local:
        return LocalTranslator(args.local, args.max_tokens, args.at_once)
    if args.table:
        return TableTranslator(args.table)
    return CommandTranslator(args.command, args.at_once)
