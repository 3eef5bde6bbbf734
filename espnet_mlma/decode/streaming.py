"""Live recognition: samples in as they arrive, words out as they become final."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from espnet2.asr.frontend.default import DefaultFrontend
from espnet2.layers.global_mvn import GlobalMVN
from torch import Tensor

from espnet_mlma.audio import SAMPLE_RATE, as_samples
from espnet_mlma.decode.acoustic import AcousticModel, check_emissions
from espnet_mlma.decode.best_path import Path, best_path
from espnet_mlma.decode.owsm import SpeechToTextModel
from espnet_mlma.decode.recogniser import Recogniser
from espnet_mlma.decode.speech_guard import WordGuard
from espnet_mlma.decode.transcript import StreamUpdate, Token, Word
from espnet_mlma.decode.words import (
    LEAD_SECONDS,
    Calibration,
    timed_tokens,
    timed_words,
    token_groups,
)
from espnet_mlma.encoder import ConMambaEncoder, EncoderStream
from espnet_mlma.encoder.espnet_streams import FeatureStream, WindowStream
from espnet_mlma.encoder.frontend import ConvFrontend, LinearFrontend
from espnet_mlma.errors import MlmaError

# A word is over after this long without a symbol.
_PAUSE_SECONDS = 0.6
# Longer text without pause or space is cut, so that memory does not grow.
_LONGEST_SECONDS = 30.0


class WordStream:
    """Return the best path's words as soon as no later frame can change them.

    A word is final when the next one begins, when a space follows it and its end is known, or after
    a pause of 0.6 s, even if the text after the pause begins without a space. Only the symbols of
    the last word are kept.

    Args:
        acoustic: the model that computes the emissions.
        calibration: of the words' confidence.
    """

    def __init__(self, acoustic: AcousticModel, calibration: Calibration | None = None):
        self._acoustic = acoustic
        self._calibration = calibration
        self._frame_seconds = acoustic.frame_samples / SAMPLE_RATE
        self.frames = 0
        self._silent_since = 0  # the frame after the last symbol
        self._tokens: list[Token] = []  # of the word that is not final yet
        self.partial = ""

    @property
    def silence(self) -> int:
        """Frames since the last symbol."""
        return self.frames - self._silent_since

    @property
    def partial_start(self) -> float:
        """Seconds from which on later words begin."""
        first = self._tokens[0].start if self._tokens else self.frames * self._frame_seconds
        return max(0.0, first - LEAD_SECONDS)

    def push(self, log_probs: Tensor, end: float = math.inf) -> StreamUpdate:
        """Add the next frames.

        Args:
            log_probs: (frame, vocabulary), natural logarithms.
            end: of the audio, seconds, if these are its last frames.
        """
        path = best_path(log_probs)
        if path.end:
            self._silent_since = self.frames + path.end[-1]
        self._append(path)
        self.frames += len(log_probs)
        type_, special = self._acoustic.token_type, self._acoustic.special_ids
        groups = token_groups(self._tokens, type_, special)
        parts = [part for group in groups for part in _parts(group)]
        words = timed_words(parts, type_, end, self._calibration)
        if not words or end < math.inf or self._is_settled(parts[-1], words[-1]):
            self._tokens, self.partial = [], ""
            return StreamUpdate(words, "")
        self._tokens = self._tokens[self._tokens.index(parts[-1][0]) :]
        self.partial = words[-1].text
        return StreamUpdate(words[:-1], self.partial)

    def _is_settled(self, symbols: list[Token], word: Word) -> bool:
        """Return whether later frames can change neither the last word nor its end."""
        now = self.frames * self._frame_seconds
        is_closed = self._tokens[-1] is not symbols[-1]
        # The next symbol may begin now, and its word LEAD_SECONDS earlier.
        is_over = word.end <= now - LEAD_SECONDS
        return is_over and (is_closed or now - symbols[-1].end >= _PAUSE_SECONDS)

    def _append(self, path: Path) -> None:
        acoustic = self._acoustic
        tokens = timed_tokens(path, acoustic.tokens, self.frames, self._frame_seconds)
        for token in tokens:
            last = self._tokens[-1] if self._tokens else None
            if last is not None and (last.id, last.end) == (token.id, token.start):
                self._tokens[-1] = _joined(last, token)
            else:
                self._tokens.append(token)


def _parts(symbols: Sequence[Token]) -> Iterator[list[Token]]:
    """Divide a text without spaces at pauses and where it gets too long."""
    part = [symbols[0]]
    for token in symbols[1:]:
        pause, length = token.start - part[-1].end, token.start - part[0].start
        if pause >= _PAUSE_SECONDS or length >= _LONGEST_SECONDS:
            yield part
            part = []
        part.append(token)
    yield part


def _joined(first: Token, second: Token) -> Token:
    """Join a symbol that the end of a piece has cut in two."""
    lengths = first.end - first.start, second.end - second.start
    total = first.score * lengths[0] + second.score * lengths[1]
    return replace(first, end=second.end, score=total / sum(lengths))


class StreamingTranscriber:
    """Recognise audio as it arrives; neither the time per push nor memory grows.

    Our causal encoder returns each frame at once, equal to that of one pass. Other encoders work in
    chunks. Our bidirectional encoder carries its forward state from chunk to chunk; it forgets the
    state in pauses, because it was trained on utterances. ESPnet's encoders see `left_context`
    before each chunk. Words come from the best path.

    Args:
        recogniser: with an ESPnet model whose front-end and normalisation can stream.
        chunk: seconds encoded at once, unless the model is causal.
        lookahead: seconds after a chunk that are encoded with it, and waited for.
        left_context: seconds before a chunk that are encoded again, by ESPnet's encoders.

    Raises:
        MlmaError: the model cannot stream, the recogniser searches with a beam, or a number is out
            of range.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        chunk: float = 0.64,
        lookahead: float = 0.64,
        left_context: float = 5.12,
    ):
        _check(recogniser)
        frame_seconds = recogniser.acoustic.frame_samples / SAMPLE_RATE
        self._chunk, self._lookahead, self._left_context = (
            round(seconds / frame_seconds) for seconds in (chunk, lookahead, left_context)
        )
        if self._chunk < 1 or self._lookahead < 0 or self._left_context < 0:
            raise MlmaError(
                f"chunk is {chunk} s, lookahead {lookahead} s, left_context {left_context} s; "
                f"give a chunk of at least one frame, {frame_seconds} s, and the others from 0 on"
            )
        self._pause = round(_PAUSE_SECONDS / frame_seconds)
        self._recogniser = recogniser
        self.reset()

    @torch.inference_mode()
    def reset(self) -> None:
        """Start a new stream: the next sample is its first."""
        recogniser = self._recogniser
        self._is_over = False
        self._samples = 0
        self._features = FeatureStream(recogniser.model)
        self._encoder = self._encoder_stream()
        self._forgot = 0  # frame at which the encoder's state was reset
        self._words = WordStream(recogniser.acoustic, recogniser.calibration)
        self._guard = WordGuard(recogniser.decoding.speech_guard)

    def _encoder_stream(self) -> EncoderStream | WindowStream:
        model, acoustic = self._recogniser.model, self._recogniser.acoustic
        encoder, context = model.encoder, (self._chunk, self._lookahead)
        if not isinstance(encoder, ConMambaEncoder) or not isinstance(
            encoder.frontend, ConvFrontend | LinearFrontend
        ):
            stride = acoustic.frame_samples // model.frontend.hop_length
            return WindowStream(model, stride, *context, self._left_context)
        if encoder.is_causal():
            return EncoderStream(encoder, ctc=model.ctc)
        return EncoderStream(encoder, *context, ctc=model.ctc)

    @torch.inference_mode()
    def push(self, samples: np.ndarray | Tensor) -> StreamUpdate:
        """Add the next samples.

        Args:
            samples: (time,) at 16 kHz, any number of them, floats between -1 and 1 or signed
                integers.

        Raises:
            MlmaError: the samples have another shape or type, or the stream is finished.
        """
        self._check_open()
        samples = as_samples(samples)
        self._samples += len(samples)
        self._guard.push(samples)
        update = self._recognise(self._features.push(torch.from_numpy(samples)))
        return self._guard.filter(update, self._words.partial_start)

    def _recognise(self, features: Tensor) -> StreamUpdate:
        encoder = self._encoder
        if not isinstance(encoder, EncoderStream) or encoder.chunk is None:
            return self._words.push(self._log_probs(encoder.push(features)))
        # One encoder frame at a time, so that pauses do not depend on the pieces.
        final, partial = [], self._words.partial
        for frame in features.split(self._recogniser.model.encoder.frontend.stride):
            update = self._words.push(self._log_probs(encoder.push(frame)))
            final += update.final
            partial = update.partial
            if min(self._words.silence, self._words.frames - self._forgot) >= self._pause:
                encoder.forget()
                self._forgot = self._words.frames
        return StreamUpdate(tuple(final), partial)

    @torch.inference_mode()
    def finish(self) -> StreamUpdate:
        """End the stream and return the words that are left.

        Raises:
            MlmaError: the stream is finished already.
        """
        self._check_open()
        self._is_over = True
        self._guard.finish()
        frames = [self._encoder.push(self._features.finish()), self._encoder.finish()]
        end = self._samples / SAMPLE_RATE
        update = self._words.push(self._log_probs(torch.cat(frames)), end)
        return self._guard.filter(update, self._words.partial_start)

    def _check_open(self) -> None:
        if self._is_over:
            raise MlmaError("the stream is finished; call reset() before a new one")

    def _log_probs(self, frames: Tensor) -> Tensor:
        return check_emissions(self._recogniser.model.ctc.log_softmax(frames[None])[0])


def _check(recogniser: Recogniser) -> None:
    """Refuse a recogniser that cannot work piece by piece.

    Raises:
        MlmaError: it cannot.
    """
    model = recogniser.model
    if not recogniser.decoding.is_best_path:
        raise MlmaError("a stream writes the best path; load with beam_size 1, no lm, no hotwords")
    if isinstance(recogniser.acoustic, SpeechToTextModel):
        raise MlmaError("an S2T-CTC model needs 30 s at once and cannot stream; transcribe files")
    if not isinstance(model.frontend, DefaultFrontend) or model.frontend.stft is None:
        kind = type(model.frontend).__name__
        raise MlmaError(f"a stream needs `frontend: default`; the model has {kind}")
    if not isinstance(model.normalize, GlobalMVN | None):
        kind = type(model.normalize).__name__
        raise MlmaError(
            f"a stream needs `normalize: global_mvn` or null; the model has {kind}, which waits "
            "for the end of the utterance"
        )
    for part in ("preencoder", "postencoder"):
        if getattr(model, part, None) is not None:
            raise MlmaError(f"the model has a {part}; give a model without for streams")
