"""The dialogue that a talk becomes: speech is what the user says, its translation the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from espnet_mlma.errors import MlmaError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Positions without a target, for torch's cross-entropy and all of transformers.
NO_TARGET = -100


@dataclass(frozen=True)
class Format:
    """What a family of models writes around messages.

    Attributes:
        marks: the special tokens that a tokenizer of the family has.
        begin: before the first message.
        header: before a message; `{role}` is system, user or assistant.
        end: the one token that ends a message.
        between: after it, before the next message's header.
    """

    marks: tuple[str, ...]
    begin: str
    header: str
    end: str
    between: str


CHATML = Format(
    marks=("<|im_start|>", "<|im_end|>"),
    begin="",
    header="<|im_start|>{role}\n",
    end="<|im_end|>",
    between="\n",
)
LLAMA3 = Format(
    marks=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    begin="<|begin_of_text|>",
    header="<|start_header_id|>{role}<|end_header_id|>\n\n",
    end="<|eot_id|>",
    between="",
)


@dataclass(frozen=True)
class Tokens:
    """Token ids in which some places are for speech.

    Attributes:
        ids: (tokens,) int64; in places of speech an id that stands for nothing.
        is_speech: (tokens,) bool; the places of the encoder's vectors, in order.
    """

    ids: Tensor
    is_speech: Tensor


@dataclass(frozen=True)
class Example(Tokens):
    """A whole dialogue to learn from.

    Attributes:
        labels: (tokens,) int64; the id itself where it is to be predicted, elsewhere NO_TARGET.
    """

    labels: Tensor


class Dialogue:
    """Writes the turns of a talk as token ids, alike for training and for streaming.

    A turn is made of the tokens of its pieces, each piece tokenised by itself. What ends the
    assistant's message, `closing_ids`, is fed at the start of the next turn: in a stream the
    model has said it, but it has not yet been fed back.

    Args:
        tokenizer: of a model that writes its messages as Qwen2.5 does (ChatML) or as Llama 3.
        source, target: names of the languages, in English.
        multiplier: None: the system prompt of CMU's IWSLT 2025 system; a latency multiplier: that
            of InfiniSST, which names it. `<latency_M>` is one token where the tokenizer has it.

    Attributes:
        prompt_ids: the system prompt; `first_turn` begins with them.
        end_id: what the assistant ends a turn with; alone, it asks for more speech.
        closing_ids: `end_id` and what the format puts between two messages.

    Raises:
        MlmaError: the tokenizer has the special tokens of neither format.

    Source: CMU's IWSLT 2025 Simultaneous Speech Translation System; Ouyang et al., InfiniSST,
        arXiv 2503.02969.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        source: str = "English",
        target: str = "German",
        multiplier: int | None = None,
    ):
        self.tokenizer = tokenizer
        style = _format_of(tokenizer)
        self.end_id: int = tokenizer.convert_tokens_to_ids(style.end)
        self.closing_ids = self._ids(style.end + style.between)
        task = system_prompt(source, target, multiplier)
        self.prompt_ids = [
            *self._ids(style.begin + style.header.format(role="system")),
            *self._ids(task),
            *self.closing_ids,
        ]
        self._user_ids = self._ids(style.header.format(role="user"))
        self._assistant_ids = self._ids(style.header.format(role="assistant"))

    def first_turn(self, vectors: int) -> Tokens:
        """What a model is fed at the start of a talk: the system prompt, speech, the header of the
        answer.

        Args:
            vectors: places for speech, of 80 ms each.
        """
        return self._tokens(self.prompt_ids, vectors)

    def next_turn(self, vectors: int) -> Tokens:
        """What it is fed after an answer: the end of that, speech, the header of the next.

        Args:
            vectors: places for speech, of 80 ms each.
        """
        return self._tokens(self.closing_ids, vectors)

    def example(self, texts: Sequence[str], vectors_per_turn: int) -> Example:
        """A talk with all its answers; it ends with the `end_id` of the last.

        Targets are the answers' tokens and the `end_id` after each, of an empty answer this alone.

        Args:
            texts: the answer to each turn; space around it is dropped, so that there is one kind
                of empty answer.
            vectors_per_turn: places for speech in each turn, of 80 ms each.
        """
        ids: list[int] = []
        is_speech: list[bool] = []
        labels: list[int] = []
        for number, text in enumerate(texts):
            turn = self.next_turn(vectors_per_turn) if number else self.first_turn(vectors_per_turn)
            answer = self._ids(text.strip(), is_data=True)
            # The end of this answer is fed with the next turn, but it is this one's target.
            start = len(ids)
            ids += turn.ids.tolist() + answer
            is_speech += turn.is_speech.tolist() + [False] * len(answer)
            labels += [NO_TARGET] * len(turn.ids) + answer
            if number:
                labels[start] = self.end_id
        if texts:
            ids.append(self.end_id)
            is_speech.append(False)
            labels.append(self.end_id)
        return Example(torch.tensor(ids), torch.tensor(is_speech), torch.tensor(labels))

    def _tokens(self, before: list[int], vectors: int) -> Tokens:
        head = before + self._user_ids
        tail = self.closing_ids + self._assistant_ids
        ids = torch.tensor(head + [self.end_id] * vectors + tail)
        is_speech = torch.zeros(len(ids), dtype=torch.bool)
        is_speech[len(head) : len(head) + vectors] = True
        return Tokens(ids, is_speech)

    def _ids(self, piece: str, is_data: bool = False) -> list[int]:
        """In data, what looks like a special token is text."""
        return self.tokenizer(
            piece, add_special_tokens=False, split_special_tokens=is_data
        ).input_ids


def system_prompt(source: str, target: str, multiplier: int | None = None) -> str:
    """The task in words; arguments as of `Dialogue`."""
    if multiplier is None:
        return (
            f"Translate the following speeches from {source} to {target} "
            "as a simultaneous interpreter."
        )
    return (
        f"Translate the following speech from {source} to {target} "
        f"with latency <latency_{multiplier}>."
    )


def _format_of(tokenizer: PreTrainedTokenizerBase) -> Format:
    added = tokenizer.get_added_vocab()
    for style in (CHATML, LLAMA3):
        if all(mark in added for mark in style.marks):
            return style
    raise MlmaError(
        f"the tokenizer of {tokenizer.name_or_path or 'this model'} has neither the special tokens "
        f"of ChatML ({' '.join(CHATML.marks)}) nor those of Llama 3 ({' '.join(LLAMA3.marks)}); "
        "take an instruction-tuned model with one of them, such as Qwen2.5 or Llama 3.1"
    )
