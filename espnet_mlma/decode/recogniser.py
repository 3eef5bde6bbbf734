"""A loaded model that turns audio into text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from espnet_mlma.corpora.audio import SAMPLE_RATE, read_audio
from espnet_mlma.decode import checkpoint
from espnet_mlma.decode.best_path import BestPath, best_path
from espnet_mlma.decode.precision import Precision, prepare_linear_layers
from espnet_mlma.errors import MlmaError


@dataclass(frozen=True)
class Transcript:
    """What was recognised in one utterance.

    Attributes:
        text: words separated by single spaces.
        tokens: the symbols the model wrote.
        token_ids: their indices in the token list.
        score: log-probability of the path.
        duration: seconds of audio.
    """

    text: str
    tokens: tuple[str, ...]
    token_ids: tuple[int, ...]
    score: float
    duration: float


class Recogniser:
    """A CTC model with its token list.

    Args:
        model: an ESPnet ASR model in evaluation mode.
        token_list: the symbols, blank first.
        token_type: `char` or `bpe`.
        device: where to run.

    Raises:
        MlmaError: the model has no CTC head, or its tokens are of another type.
    """

    def __init__(
        self, model: torch.nn.Module, token_list: Sequence[str], token_type: str, device: str
    ):
        if getattr(model, "ctc", None) is None:
            raise MlmaError("the model has no CTC head; train with ctc_weight above 0")
        if token_type not in ("char", "bpe"):
            raise MlmaError(f"token_type is {token_type!r}; this decoder writes char and bpe")
        self.model = model.to(device)
        self.device = device
        self._tokens = tuple(token_list)
        self._space = "<space>" if token_type == "char" else "\N{LOWER ONE EIGHTH BLOCK}"

    def transcribe(self, audio: str | Path | np.ndarray | Tensor) -> Transcript:
        """Recognise one utterance.

        Args:
            audio: a file of any rate and format libsndfile reads, or samples (time,) at 16 kHz.

        Raises:
            MlmaError: the file cannot be read, or the samples are not one channel.
        """
        if isinstance(audio, str | Path):
            samples = read_audio(audio)
        else:
            samples = np.asarray(audio, dtype=np.float32)
        if samples.ndim != 1:
            raise MlmaError(f"samples have shape {samples.shape}; give one channel, (time,)")
        return self.transcribe_batch([samples])[0]

    @torch.inference_mode()
    def transcribe_batch(self, utterances: Sequence[np.ndarray]) -> list[Transcript]:
        """Recognise utterances together; each (time,) samples at 16 kHz."""
        lengths = torch.tensor([len(samples) for samples in utterances])
        speech = torch.zeros(len(utterances), int(lengths.max()))
        for row, samples in zip(speech, utterances, strict=True):
            row[: len(samples)] = torch.from_numpy(np.ascontiguousarray(samples))
        frames, frame_lengths = self.model.encode(speech.to(self.device), lengths.to(self.device))
        if isinstance(frames, tuple):  # with intermediate CTC: (frames, intermediate frames)
            frames = frames[0]
        paths = best_path(self.model.ctc.log_softmax(frames), frame_lengths)
        return [
            self._transcript(path, len(samples))
            for path, samples in zip(paths, utterances, strict=True)
        ]

    def _transcript(self, path: BestPath, num_samples: int) -> Transcript:
        tokens = tuple(self._tokens[i] for i in path.token_ids)
        text = "".join(tokens).replace(self._space, " ")
        return Transcript(
            " ".join(text.split()), tokens, path.token_ids, path.score, num_samples / SAMPLE_RATE
        )


def by_length(
    lengths: dict[str, int], batch_seconds: float, max_utterances: int = 256
) -> Iterator[list[str]]:
    """Batches of utterances of like length.

    Args:
        lengths: samples of each utterance id.
        batch_seconds: most audio in a batch, padding included.
        max_utterances: most utterances in a batch.
    """
    batch: list[str] = []
    for key in sorted(lengths, key=lambda key: (-lengths[key], key)):
        longest = lengths[batch[0]] if batch else lengths[key]
        over = (len(batch) + 1) * longest > batch_seconds * SAMPLE_RATE
        if batch and (over or len(batch) == max_utterances):
            yield batch
            batch = []
        batch.append(key)
    if batch:
        yield batch


def load(
    path: str | Path,
    model_file: str | Path | None = None,
    device: str | None = None,
    precision: Precision = "float32",
) -> Recogniser:
    """Load a recogniser. On a CPU its encoder is changed for recognition and cannot be trained.

    Args:
        path: an experiment folder of the recipe, its config.yaml, or a packed zip.
        model_file: the checkpoint; None: the averaged one of the folder.
        device: `cpu`, `cuda`, ...; None: a GPU where there is one.
        precision: of the encoder's large linear layers, on a CPU: `float32`, `bfloat16` or `int8`.
            With int8 an utterance's scores depend a little on its batch.

    Raises:
        MlmaError: a file is missing, the checkpoint's keys are not the model's, or a lower
            precision is asked of a GPU.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if precision != "float32" and torch.device(device).type != "cpu":
        raise MlmaError(f"precision {precision} is for a CPU; the device is {device}")
    model, config = checkpoint.build(Path(path), None if model_file is None else Path(model_file))
    if torch.device(device).type == "cpu":
        prepare_linear_layers(model.encoder, precision)
    return Recogniser(model, config["token_list"], config["token_type"], device)
