"""Format a talk as a dialogue: speech is the user's message, its translation the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from espnet_mlma.errors import MlmaError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Label of positions without a target, as in torch's cross-entropy and in transformers.
NO_TARGET = -100


@dataclass(frozen=True)
class ChatFormat:
    """Define the text that a family of models has around messages.

    Attributes:
        marks: special tokens by which a tokenizer of the family is recognised.
        begin: text before the first message.
        header: text before a message; `{role}` is system, user or assistant.
        end: special token that ends a message.
        between: text between `end` and the next header.
    """

    marks: tuple[str, ...]
    begin: str
    header: str
    end: str
    between: str


CHATML = ChatFormat(
    marks=("<|im_start|>", "<|im_end|>"),
    begin="",
    header="<|im_start|>{role}\n",
    end="<|im_end|>",
    between="\n",
)
LLAMA3 = ChatFormat(
    marks=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    begin="<|begin_of_text|>",
    header="<|start_header_id|>{role}<|end_header_id|>\n\n",
    end="<|eot_id|>",
    between="",
)


@dataclass(frozen=True)
class Tokens:
    """Hold token ids with positions reserved for speech.

    Attributes:
        ids: (tokens,) int64; arbitrary at speech positions.
        is_speech: (tokens,) bool; True at the positions of the adapter's vectors, in order.
    """

    ids: Tensor
    is_speech: Tensor


@dataclass(frozen=True)
class Example(Tokens):
    """Hold a complete dialogue for training.

    Attributes:
        labels: (tokens,) int64; the id at positions to predict, NO_TARGET elsewhere.
    """

    labels: Tensor


class Dialogue:
    """Convert the turns of a talk to token ids, the same for training and streaming.

    Header, text and end of a message are tokenised separately. The tokens that end an answer,
    `closing_ids`, are fed at the start of the next turn: in a stream, the model has predicted the
    end token but not read it yet.

    Args:
        tokenizer: tokenizer of a model with Qwen2.5's message format (ChatML) or Llama 3's.
        source, target: English names of the languages.
        multiplier: latency multiplier to state in the system prompt, as InfiniSST does; None: the
            system prompt of CMU's IWSLT 2025 system, which does not state it. `<latency_M>` is one
            token if the tokenizer has it.

    Attributes:
        prompt_ids: system prompt, the start of `first_turn`.
        end_id: token that ends an answer; an empty answer consists of it alone.
        closing_ids: `end_id` and the text between two messages.

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
        self.tokenizer: Any = tokenizer
        style = _format_of(tokenizer)
        self.end_id: int = self.tokenizer.convert_tokens_to_ids(style.end)
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
        """Return the input at the start of a talk: system prompt, speech, header of the answer.

        Args:
            vectors: number of speech positions, 80 ms each.
        """
        return self._tokens(self.prompt_ids, vectors)

    def next_turn(self, vectors: int) -> Tokens:
        """Return the input after an answer: its end, speech, header of the next answer.

        Args:
            vectors: number of speech positions, 80 ms each.
        """
        return self._tokens(self.closing_ids, vectors)

    def example(self, texts: Sequence[str], vectors_per_turn: int) -> Example:
        """Return a talk with all its answers; it ends with the `end_id` of the last answer.

        The targets are the tokens of the answers and the `end_id` after each.

        Args:
            texts: answer of each turn; surrounding spaces are removed, so that all empty answers
                are the same.
            vectors_per_turn: number of speech positions per turn, 80 ms each.
        """
        ids: list[int] = []
        is_speech: list[bool] = []
        labels: list[int] = []
        for number, text in enumerate(texts):
            turn = self.next_turn(vectors_per_turn) if number else self.first_turn(vectors_per_turn)
            answer = self._ids(text.strip(), is_data=True)
            # The turn starts with the end of the previous answer, which is a target too.
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
        """Tokenise a piece; in data, the text of special tokens is plain text."""
        return self.tokenizer(
            piece, add_special_tokens=False, split_special_tokens=is_data
        ).input_ids


def system_prompt(source: str, target: str, multiplier: int | None = None) -> str:
    """Return the text of the system prompt; see `Dialogue`."""
    if multiplier is None:
        return (
            f"Translate the following speeches from {source} to {target} "
            "as a simultaneous interpreter."
        )
    return (
        f"Translate the following speech from {source} to {target} "
        f"with latency <latency_{multiplier}>."
    )


def _format_of(tokenizer: Any) -> ChatFormat:
    added = tokenizer.get_added_vocab()
    for style in (CHATML, LLAMA3):
        if all(mark in added for mark in style.marks):
            return style
    raise MlmaError(
        f"the tokenizer of {tokenizer.name_or_path or 'this model'} has neither the special tokens "
        f"of ChatML ({' '.join(CHATML.marks)}) nor those of Llama 3 ({' '.join(LLAMA3.marks)}); "
        "use an instruction-tuned model, such as Qwen2.5 or Llama 3.1"
    )
