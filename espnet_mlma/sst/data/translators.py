"""What translates: a server, a model on disk, a table, a command."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import batched
from pathlib import Path
from typing import Any, Protocol

import torch

from espnet_mlma.data.corpora.tsv import read_lines
from espnet_mlma.data.utterance import Drop
from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.extras import require

_TIMEOUT = 300.0  # seconds for an answer


@dataclass(frozen=True, slots=True)
class Question:
    """A sentence to translate, and the prompt that asks an LLM for it."""

    id: str
    text: str
    messages: list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Answer:
    """A translation, or why there is none."""

    text: str
    dropped: str | None = None


class SentenceTranslator(Protocol):
    """Anything that translates."""

    def translate(self, questions: Sequence[Question]) -> Iterator[tuple[str, Answer]]:
        """Answer each question once, in any order, by its id.

        Raises:
            MlmaError: it cannot go on; what was yielded before is right.
        """


@dataclass(frozen=True)
class ServerTranslator:
    """An OpenAI-compatible server, such as vLLM.

    Attributes:
        url: up to and with `/v1`.
        model: by the server's name for it; None: the only one it has.
        max_tokens: of a translation; a longer one is dropped.
        at_once: requests.
        retries: attempts of a request after the first.
    """

    url: str
    model: str | None
    max_tokens: int
    at_once: int
    retries: int

    def translate(self, questions: Sequence[Question]) -> Iterator[tuple[str, Answer]]:
        client = require("openai").OpenAI(
            base_url=self.url,
            api_key=os.environ.get("OPENAI_API_KEY") or "none",
            timeout=_TIMEOUT,
            max_retries=self.retries,
        )
        model = self.model or self._only_model(client)
        left = iter(questions)
        running: dict[Future[Answer], str] = {}
        fault: MlmaError | None = None
        with ThreadPoolExecutor(self.at_once) as pool:
            while True:
                while fault is None and len(running) < self.at_once:
                    question = next(left, None)
                    if question is None:
                        break
                    running[pool.submit(self._ask, client, model, question)] = question.id
                if not running:
                    break
                # After a fault, what is under way may still be answered, and is kept.
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    id_ = running.pop(future)
                    try:
                        answer = future.result()
                    except MlmaError as error:
                        fault = fault or error
                    else:
                        yield id_, answer
        if fault is not None:
            raise fault

    def _ask(self, client: Any, model: str, question: Question) -> Answer:
        with self._one_line_errors(question.id):
            choice = client.chat.completions.create(
                model=model,
                messages=question.messages,
                temperature=0,
                max_tokens=self.max_tokens,
            ).choices[0]
            if choice.finish_reason == "length":
                return Answer("", "translation_too_long")
            return Answer(choice.message.content or "")

    def _only_model(self, client: Any) -> str:
        with self._one_line_errors("the list of models"):
            names = [model.id for model in client.models.list().data]
        if len(names) != 1:
            raise MlmaError(f"{self.url} has {len(names)} models ({' '.join(names)}); give --model")
        return names[0]

    @contextmanager
    def _one_line_errors(self, request: str) -> Iterator[None]:
        """Turn the client's errors into MlmaError.

        Args:
            request: what was requested, for the message.
        """
        openai = require("openai")
        try:
            yield
        except openai.APIStatusError as error:
            text = error.response.text[:300].strip()
            raise MlmaError(
                f"{self.url}: HTTP {error.status_code} at {request}: {text}; check --server and "
                "--model"
            ) from None
        except openai.APIConnectionError as error:
            raise MlmaError(
                f"{self.url}: no answer ({error.__cause__ or error}), {self.retries + 1} times, at "
                f"{request}; check that the server runs"
            ) from None
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise MlmaError(
                f"{self.url}: not an OpenAI-compatible answer at {request} ({error}); "
                "check --server"
            ) from None


@dataclass(frozen=True)
class LocalTranslator:
    """A causal Hugging Face model with a chat template; the most probable token at each step.

    Attributes:
        path: as of `llm.load`.
        max_tokens: of a translation; a longer one is dropped.
        at_once: sentences of a batch.
    """

    path: str
    max_tokens: int
    at_once: int

    def translate(self, questions: Sequence[Question]) -> Iterator[tuple[str, Answer]]:
        from espnet_mlma.sst.llm.model import load  # imports take seconds

        has_gpu = torch.cuda.is_available()
        dtype = torch.bfloat16 if has_gpu else torch.float32
        llm = load(self.path, "cuda" if has_gpu else "cpu", dtype)
        model, tokenizer = llm.model, llm.tokenizer
        if tokenizer.chat_template is None:
            raise MlmaError(f"{self.path}: has no chat template; take an instruction-tuned model")
        tokenizer.padding_side = "left"
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        # Batches of like length: padding costs as much as text.
        by_length = sorted(questions, key=lambda question: len(question.messages[-1]["content"]))
        for batch in batched(by_length, self.at_once):
            answers = self._answers(model, tokenizer, batch)
            yield from ((q.id, answer) for q, answer in zip(batch, answers, strict=True))

    def _answers(self, model, tokenizer, batch: Sequence[Question]) -> Iterator[Answer]:
        prompts = [
            tokenizer.apply_chat_template(q.messages, tokenize=False, add_generation_prompt=True)
            for q in batch
        ]
        given = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        given = given.to(model.device)
        ids = model.generate(
            input_ids=given["input_ids"],
            attention_mask=given["attention_mask"],
            max_new_tokens=self.max_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=tokenizer.pad_token_id,
        )
        ends = model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends, tokenizer.eos_token_id])
        for written in ids[:, given["input_ids"].shape[1] :].tolist():
            if ends.isdisjoint(written):
                yield Answer("", "translation_too_long")
            else:
                yield Answer(tokenizer.decode(written, skip_special_tokens=True))


@dataclass(frozen=True)
class TableTranslator:
    """A file of lines `<sentence id> TAB <translation>`; sentences that it lacks are dropped."""

    path: Path

    def translate(self, questions: Sequence[Question]) -> Iterator[tuple[str, Answer]]:
        texts: dict[str, str] = {}
        for row in read_lines(self.path, 2, "\t"):
            if isinstance(row, Drop):
                raise MlmaError(row.detail)
            texts[row[0]] = row[1]
        for question in questions:
            if question.id in texts:
                yield question.id, Answer(texts[question.id])
            else:
                yield question.id, Answer("", "not_in_table")


@dataclass(frozen=True)
class CommandTranslator:
    """A program that reads a sentence a line and writes its translation on a line.

    Attributes:
        command: as a shell splits it; no shell is called.
        at_once: sentences given to one process.
    """

    command: str
    at_once: int

    def translate(self, questions: Sequence[Question]) -> Iterator[tuple[str, Answer]]:
        for batch in batched(questions, self.at_once):
            lines = [" ".join(question.text.split()) for question in batch]
            given = "".join(f"{line}\n" for line in lines)
            try:
                done = subprocess.run(
                    shlex.split(self.command),
                    input=given,
                    capture_output=True,
                    encoding="utf-8",
                    errors="replace",
                )
            except OSError as error:
                raise MlmaError(f"--command {self.command}: {error.strerror}") from None
            if done.returncode:
                said = " ".join(done.stderr.split()[-30:])
                raise MlmaError(f"--command {self.command}: ended with {done.returncode}: {said}")
            written = done.stdout.removesuffix("\n").split("\n")
            if len(written) != len(batch):
                raise MlmaError(
                    f"--command {self.command}: {len(written)} lines for {len(batch)} sentences"
                )
            yield from (
                (question.id, Answer(line)) for question, line in zip(batch, written, strict=True)
            )
