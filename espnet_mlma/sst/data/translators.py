"""Translate sentences by a server, a model on disk, a table or a command."""

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
class TranslationRequest:
    """Hold a sentence to translate.

    Attributes:
        id: id of the sentence.
        text: the sentence.
        messages: prompt for a language model, as `role` and `content`.
    """

    id: str
    text: str
    messages: list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Translation:
    """Hold a translation.

    Attributes:
        text: translated sentence; may be empty.
        dropped: why there is no translation; None: there is one.
    """

    text: str
    dropped: str | None = None


class SentenceTranslator(Protocol):
    """Translate sentences independently of each other."""

    def translate(
        self, requests: Sequence[TranslationRequest]
    ) -> Iterator[tuple[str, Translation]]:
        """Yield the translation of each sentence with its id, in any order.

        Raises:
            MlmaError: translation failed part-way; what was yielded before is valid.
        """
        ...


@dataclass(frozen=True)
class ServerTranslator:
    """Translate with an OpenAI-compatible server, such as vLLM.

    The environment variable OPENAI_API_KEY, if set, authenticates the requests.

    Attributes:
        url: base URL, ending with `/v1`.
        model: the server's name of the model; None: its only model.
        max_tokens: maximum tokens of a translation; longer ones are dropped.
        concurrency: number of requests at a time.
        retries: attempts of a request after the first.
    """

    url: str
    model: str | None
    max_tokens: int
    concurrency: int
    retries: int

    def translate(
        self, requests: Sequence[TranslationRequest]
    ) -> Iterator[tuple[str, Translation]]:
        """See `SentenceTranslator`."""
        client = require("openai").OpenAI(
            base_url=self.url,
            api_key=os.environ.get("OPENAI_API_KEY") or "none",
            timeout=_TIMEOUT,
            max_retries=self.retries,
        )
        model = self.model or self._only_model(client)
        waiting = iter(requests)
        running: dict[Future[Translation], str] = {}
        failure: MlmaError | None = None
        with ThreadPoolExecutor(self.concurrency) as pool:
            while True:
                while failure is None and len(running) < self.concurrency:
                    request = next(waiting, None)
                    if request is None:
                        break
                    running[pool.submit(self._request, client, model, request)] = request.id
                if not running:
                    break
                # After a failure, requests that are still running may succeed.
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    id_ = running.pop(future)
                    try:
                        translation = future.result()
                    except MlmaError as error:
                        failure = failure or error
                    else:
                        yield id_, translation
        if failure is not None:
            raise failure

    def _request(self, client: Any, model: str, request: TranslationRequest) -> Translation:
        with self._one_line_errors(request.id):
            choice = client.chat.completions.create(
                model=model,
                messages=request.messages,
                temperature=0,
                max_tokens=self.max_tokens,
            ).choices[0]
            if choice.finish_reason == "length":
                return Translation("", "translation_too_long")
            return Translation(choice.message.content or "")

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
    """Translate with a causal Hugging Face model that has a chat template, by greedy search.

    Attributes:
        path: see `llm.model.load`.
        max_tokens: maximum tokens of a translation; longer ones are dropped.
        batch_size: sentences per batch.
    """

    path: str
    max_tokens: int
    batch_size: int

    def translate(
        self, requests: Sequence[TranslationRequest]
    ) -> Iterator[tuple[str, Translation]]:
        """See `SentenceTranslator`."""
        from espnet_mlma.sst.llm.model import load  # transformers takes seconds to import

        has_gpu = torch.cuda.is_available()
        dtype = torch.bfloat16 if has_gpu else torch.float32
        llm = load(self.path, "cuda" if has_gpu else "cpu", dtype)
        model, tokenizer = llm.model, llm.tokenizer
        if tokenizer.chat_template is None:
            raise MlmaError(f"{self.path}: has no chat template; use an instruction-tuned model")
        tokenizer.padding_side = "left"
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        # Sentences of similar length share a batch, because padding costs as much as text.
        by_length = sorted(requests, key=lambda request: len(request.messages[-1]["content"]))
        for batch in batched(by_length, self.batch_size):
            translations = self._translate_batch(model, tokenizer, batch)
            yield from ((r.id, t) for r, t in zip(batch, translations, strict=True))

    def _translate_batch(
        self, model: Any, tokenizer: Any, batch: Sequence[TranslationRequest]
    ) -> Iterator[Translation]:
        prompts = [
            tokenizer.apply_chat_template(r.messages, tokenize=False, add_generation_prompt=True)
            for r in batch
        ]
        inputs = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        inputs = inputs.to(model.device)
        ids = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=self.max_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=tokenizer.pad_token_id,
        )
        ends = model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends, tokenizer.eos_token_id])
        for output in ids[:, inputs["input_ids"].shape[1] :].tolist():
            if ends.isdisjoint(output):
                yield Translation("", "translation_too_long")
            else:
                yield Translation(tokenizer.decode(output, skip_special_tokens=True))


@dataclass(frozen=True)
class TableTranslator:
    """Look up translations in a file; sentences that it lacks are dropped.

    Attributes:
        path: file of lines `<sentence id> TAB <translation>`.
    """

    path: Path

    def translate(
        self, requests: Sequence[TranslationRequest]
    ) -> Iterator[tuple[str, Translation]]:
        """See `SentenceTranslator`."""
        texts: dict[str, str] = {}
        for row in read_lines(self.path, 2, "\t"):
            if isinstance(row, Drop):
                raise MlmaError(row.detail)
            texts[row[0]] = row[1]
        for request in requests:
            if request.id in texts:
                yield request.id, Translation(texts[request.id])
            else:
                yield request.id, Translation("", "not_in_table")


@dataclass(frozen=True)
class CommandTranslator:
    """Translate with a program that writes one line for each line it reads.

    Attributes:
        command: split into words like a shell does; no shell runs it.
        batch_size: sentences per process.
    """

    command: str
    batch_size: int

    def translate(
        self, requests: Sequence[TranslationRequest]
    ) -> Iterator[tuple[str, Translation]]:
        """See `SentenceTranslator`."""
        for batch in batched(requests, self.batch_size):
            lines = [" ".join(request.text.split()) for request in batch]
            try:
                done = subprocess.run(
                    shlex.split(self.command),
                    input="".join(f"{line}\n" for line in lines),
                    capture_output=True,
                    encoding="utf-8",
                    errors="replace",
                )
            except OSError as error:
                raise MlmaError(
                    f"--command {self.command}: {error.strerror}; check that it is installed"
                ) from None
            if done.returncode:
                message = " ".join(done.stderr.split()[-30:])
                raise MlmaError(
                    f"--command {self.command}: exit status {done.returncode}: {message}"
                )
            outputs = done.stdout.removesuffix("\n").split("\n")
            if len(outputs) != len(batch):
                raise MlmaError(
                    f"--command {self.command}: {len(outputs)} lines for {len(batch)} sentences; "
                    "it must write one line per sentence"
                )
            yield from (
                (request.id, Translation(line))
                for request, line in zip(batch, outputs, strict=True)
            )
