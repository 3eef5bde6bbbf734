"""Turn audio into text with a loaded model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import compress, islice
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import numpy as np
import torch
from torch import Tensor

from espnet_mlma.audio import SAMPLE_RATE, DamagedAudio, UntilDamage, as_samples, audio_blocks
from espnet_mlma.decode.acoustic import AcousticModel
from espnet_mlma.decode.best_path import Path as TokenPath
from espnet_mlma.decode.best_path import best_path, forced_path
from espnet_mlma.decode.fusion import Fusion
from espnet_mlma.decode.known_text import known_words
from espnet_mlma.decode.language import guess_language
from espnet_mlma.decode.long_audio import pieces
from espnet_mlma.decode.options import Decoding
from espnet_mlma.decode.owsm import acoustic_model
from espnet_mlma.decode.precision import Precision, prepare_linear_layers
from espnet_mlma.decode.prefix_beam import Hypothesis, prefix_beam
from espnet_mlma.decode.speech_guard import SpeechGuard
from espnet_mlma.decode.transcript import Token, Transcript, Word, join
from espnet_mlma.decode.vad import speech_spans
from espnet_mlma.decode.words import (
    CHAR_SPACE,
    Calibration,
    kept_tokens,
    timed_tokens,
    timed_words,
    token_groups,
)
from espnet_mlma.errors import MlmaError
from espnet_mlma.espnet.imports import check_device
from espnet_mlma.loading import checkpoint
from espnet_mlma.loading.configuration import pieces_of
from espnet_mlma.loading.paths import located

Audio = str | Path | BinaryIO | np.ndarray | Tensor
# Largest table, frames by symbols, that an alignment keeps: a byte each.
_MOST_CELLS = 4 << 30


class Recogniser:
    """A CTC model that recognises audio of any length.

    Args:
        acoustic: samples in, emissions out.
        config: the training configuration.
        decoding: how emissions become text.
        calibration: of the words' confidence; None: confidences are the symbols' probabilities.
        batch_seconds: most audio of a long recording encoded at once.
        language: the spoken language; None: it is recognised or guessed.
        pieces: splits text into symbols, for `align` with a `bpe` model.
    """

    def __init__(
        self,
        acoustic: AcousticModel,
        config: dict[str, Any],
        decoding: Decoding | None = None,
        calibration: Calibration | None = None,
        batch_seconds: float = 60.0,
        language: str | None = None,
        pieces: Callable[[str], list[str]] | None = None,
    ):
        self.acoustic = acoustic
        self.config = config
        self.decoding = decoding or Decoding()
        self.calibration = calibration
        self.batch_seconds = batch_seconds
        self.language = language
        self._pieces = pieces
        self._fusion = Fusion.from_options(
            acoustic.tokens, acoustic.token_type, self.decoding, acoustic.special_ids
        )

    @property
    def model(self) -> Any:
        """ESPnet's model."""
        return self.acoustic.model

    def transcribe(
        self,
        audio: Audio,
        *,
        vad: bool = False,
        progress: Callable[[float], None] | None = None,
    ) -> Transcript:
        """Recognise audio of any length.

        Args:
            audio: a file of any rate and format, open or by its path; or samples (time,) at
                16 kHz, floats between -1 and 1 or signed integers.
            vad: leave out what Silero's voice activity detector does not take for speech.
            progress: called with the seconds recognised so far.

        Raises:
            DamagedAudio: a part of the audio is missing; its `transcript` has the rest.
            MlmaError: the audio cannot be read, or the samples are not one channel.
        """
        clock, parts = _Clock(progress), []
        try:
            parts += self._parts(clock.through(_blocks(audio)), vad)
        except DamagedAudio as error:
            error.transcript = join(parts, clock.seconds)
            raise
        return join(parts, clock.seconds)

    def iter_transcribe(
        self,
        audio: Audio,
        *,
        vad: bool = False,
        progress: Callable[[float], None] | None = None,
    ) -> Iterator[Transcript]:
        """Recognise audio of any length, in parts of whole words as they become final.

        Args:
            audio, vad, progress: as for `transcribe`.

        Returns:
            Parts that have text. Times count from the beginning of the audio; `duration` is the
            part's own. Where audio is missing, all parts come before the error.
        """
        blocks = _Clock(progress).through(_blocks(audio))
        return (part for part in self._parts(blocks, vad) if part.text)

    def _parts(self, blocks: Iterable[np.ndarray], vad: bool) -> Iterator[Transcript]:
        whole = UntilDamage(blocks)
        spans = speech_spans(iter(whole)) if vad else [(0.0, whole)]
        done = 0.0  # end of the previous part, seconds
        for start, span in spans:
            clock, guard = _Clock(), SpeechGuard()
            sound = guard.through(clock.through(span))
            for piece in pieces(self.acoustic, sound, self.batch_seconds):
                first = piece.first + start / self._frame_seconds
                end = (first + len(piece.log_probs)) * self._frame_seconds
                # The last frame may reach beyond the audio.
                end = max(done, min(end, start + clock.seconds))
                part = self._transcript(piece.log_probs, first, end, done)
                yield self._without_noise(part, guard, start)
                guard.forget(end - start)
                done = end
        if whole.damage is not None:
            raise whole.damage

    def transcribe_batch(self, utterances: Sequence[np.ndarray]) -> list[Transcript]:
        """Recognise utterances together, each encoded as a whole; samples as for `transcribe`."""
        utterances = [as_samples(samples) for samples in utterances]
        transcripts = []
        emissions = self.acoustic.emissions(utterances)
        for log_probs, samples in zip(emissions, utterances, strict=True):
            transcript = self._transcript(log_probs, 0, len(samples) / SAMPLE_RATE)
            transcripts.append(self._without_noise(transcript, SpeechGuard.of(samples)))
        return transcripts

    def align(self, audio: Audio, text: str) -> Transcript:
        """Find when each word of a known text was spoken.

        Args:
            audio: as for `transcribe`.
            text: as people write it; the transcript has its words unchanged.

        Raises:
            MlmaError: the audio cannot be read; the text has no words, a character that the model
                does not write, or more symbols than the audio has frames.
        """
        acoustic, clock = self.acoustic, _Clock()
        words = known_words(text, acoustic.tokens, acoustic.token_type, self._pieces)
        token_ids = [id_ for _, ids in words for id_ in ids]
        blocks = clock.through(_blocks(audio))
        encoded = [piece.log_probs for piece in pieces(acoustic, blocks, self.batch_seconds)]
        if not encoded:
            raise MlmaError("the audio has no samples to align the text to; give another file")
        log_probs = torch.cat(encoded)
        if 2 * len(log_probs) * len(token_ids) > _MOST_CELLS:
            raise MlmaError(
                f"{clock.seconds / 60:.0f} minutes with {len(words)} words are too long to align "
                "at once; cut audio and text into chapters"
            )
        path = forced_path(log_probs, token_ids)
        tokens = timed_tokens(path, acoustic.tokens, 0, self._frame_seconds)
        left = iter(tokens)
        groups = [list(islice(left, len(ids))) for _, ids in words]
        groups = [[token for token in group if token.text != CHAR_SPACE] for group in groups]
        timed = timed_words(groups, acoustic.token_type, clock.seconds, self.calibration)
        spelled = tuple(
            replace(found, text=word) for (word, _), found in zip(words, timed, strict=True)
        )
        return self._assembled(spelled, tokens, path.score, clock.seconds)

    @property
    def _frame_seconds(self) -> float:
        return self.acoustic.frame_samples / SAMPLE_RATE

    def _transcript(
        self, log_probs: Tensor, first_frame: float, end: float, begin: float = 0.0
    ) -> Transcript:
        """Decode emissions (frames, vocabulary); words lie between `begin` and `end` seconds."""
        acoustic, path = self.acoustic, self._path(log_probs)
        tokens = timed_tokens(path, acoustic.tokens, first_frame, self._frame_seconds)
        groups = token_groups(tokens, acoustic.token_type, acoustic.special_ids)
        words = timed_words(groups, acoustic.token_type, end, self.calibration, begin)
        if self._fusion is not None:
            self._fusion.check_known(word.text for word in words)
        duration = end - first_frame * self._frame_seconds
        return self._assembled(words, tokens, path.score, duration)

    def _without_noise(
        self, transcript: Transcript, guard: SpeechGuard, start: float = 0.0
    ) -> Transcript:
        """Drop the words where the sound cannot be speech.

        Args:
            transcript: of a part of a recording.
            guard: has the recording up to half a second beyond that part.
            start: of the guard's recording, seconds.
        """
        if not self.decoding.speech_guard:
            return transcript
        keep = [
            guard.has_speech(word.start - start, word.end - start) is not False
            for word in transcript.words
        ]
        if all(keep) and transcript.words:
            return transcript
        acoustic = self.acoustic
        tokens = kept_tokens(transcript.tokens, keep, acoustic.token_type, acoustic.special_ids)
        words = tuple(compress(transcript.words, keep))
        return self._assembled(words, tokens, transcript.score, transcript.duration)

    def _assembled(
        self, words: tuple[Word, ...], tokens: tuple[Token, ...], score: float, duration: float
    ) -> Transcript:
        text = " ".join(word.text for word in words)
        recognised = self.acoustic.language_of([token.id for token in tokens])
        language = self.language or recognised or guess_language(text)
        return Transcript(text, words, language, score, duration, tokens)

    def search(self, log_probs: Tensor, n_best: int = 1) -> list[Hypothesis] | list[TokenPath]:
        """Find the best texts of emissions, best first; the best path is one text.

        Args:
            log_probs: (frames, vocabulary), natural logarithms.
            n_best: most texts returned.
        """
        options = self.decoding
        if options.is_best_path:
            return [best_path(log_probs)]
        return prefix_beam(
            log_probs.cpu().numpy(),
            options.beam_size,
            options.token_threshold,
            options.score_threshold,
            self._fusion,
            n_best,
        )

    def _path(self, log_probs: Tensor) -> TokenPath:
        (best,) = self.search(log_probs)
        if isinstance(best, TokenPath):
            return best
        return replace(forced_path(log_probs, best.token_ids), score=best.score)


class _Clock:
    """Count the seconds of the blocks that pass."""

    def __init__(self, progress: Callable[[float], None] | None = None):
        self.samples = 0
        self.progress = progress

    @property
    def seconds(self) -> float:
        return self.samples / SAMPLE_RATE

    def through(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for block in blocks:
            if self.progress is not None:
                self.progress(self.seconds)
            self.samples += len(block)
            yield block
        if self.progress is not None:
            self.progress(self.seconds)


def _blocks(audio: Audio) -> Iterable[np.ndarray]:
    return audio_blocks(audio) if _is_file(audio) else [as_samples(audio)]


def _is_file(audio: Audio) -> TypeGuard[str | Path | BinaryIO]:
    return isinstance(audio, str | Path) or hasattr(audio, "read")


def by_length(
    lengths: Mapping[str, int], batch_seconds: float, max_utterances: int = 256
) -> Iterator[list[str]]:
    """Batch utterances of similar length, longest first.

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
    decoding: Decoding | None = None,
    batch_seconds: float = 60.0,
    language: str | None = None,
    task: str = "asr",
) -> Recogniser:
    """Load a recogniser. On a CPU its encoder is converted for recognition, not for training.

    Args:
        path: any ESPnet model with a CTC head, of the asr or the s2t_ctc task: an experiment
            folder, its config.yaml, a packed zip, an unpacked one, or the id of a model on the
            Hugging Face hub, `user/name` or `user/name@revision`.
        model_file: the checkpoint; None: the packed one, or the averaged one of the folder.
        device: `cpu`, `cuda`, ...; None: a GPU where there is one.
        precision: of the encoder's large linear layers, on a CPU: `float32`, `bfloat16` or `int8`.
            With int8 an utterance's scores depend a little on its batch.
        decoding: options of the search; None: the best path.
        batch_seconds: most audio of a long recording encoded at once.
        language: the spoken language, ISO 639-1 or 639-3. Models such as OWSM-CTC decode in it;
            with others only the transcripts have it. None: it is recognised or guessed.
        task: `asr`, or `st_` and a code of three letters for a model such as OWSM-CTC to translate.

    Raises:
        MlmaError: a file or the device is missing, the checkpoint does not fit the model, a GPU or
            an encoder of ESPnet's is to have a lower precision, or the model lacks the language or
            the task.
    """
    if not str(path):  # pathlib takes it for the current folder
        raise MlmaError("the model's name is empty; give a folder, a packed zip or a hub id")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if precision != "float32" and not device.startswith("cpu"):
        raise MlmaError(f"precision {precision} is for a CPU; the device is {device}")
    check_device(device)
    model_file = None if model_file is None else Path(model_file)
    with located(Path(path), model_file) as (config_file, found):
        model, config = checkpoint.from_files(config_file, found)
        calibration = Calibration.read(config_file.with_name("calibration.yaml"), found)
        pieces = pieces_of(config)  # here, because the files of a zip are gone afterwards
    if torch.device(device).type == "cpu":
        prepare_linear_layers(model.encoder, precision)
    acoustic = acoustic_model(model, config, device, language, task)
    fixed = language if type(acoustic) is AcousticModel else None
    return Recogniser(acoustic, config, decoding, calibration, batch_seconds, fixed, pieces)
