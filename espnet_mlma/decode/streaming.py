"""Live recognition: samples in as they are heard, words out as they become final."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from espnet2.asr.frontend.default import DefaultFrontend
from espnet2.layers.global_mvn import GlobalMVN
from espnet2.legacy.nets.pytorch_backend.transformer.subsampling import TooShortUttError
from torch import Tensor

from espnet_mlma.audio import SAMPLE_RATE, as_samples
from espnet_mlma.decode.acoustic import AcousticModel, check_emissions
from espnet_mlma.decode.best_path import Path, best_path
from espnet_mlma.decode.owsm import SpeechToTextModel
from espnet_mlma.decode.recogniser import Recogniser
from espnet_mlma.decode.speech_guard import WordGuard
from espnet_mlma.decode.transcript import Token, Word
from espnet_mlma.decode.words import (
    LEAD_SECONDS,
    Calibration,
    timed_tokens,
    timed_words,
    token_groups,
)
from espnet_mlma.encoder import ConMambaEncoder, EncoderStream
from espnet_mlma.encoder.frontend import ConvFrontend, LinearFrontend
from espnet_mlma.errors import MlmaError

# After so many seconds without a symbol a word is over.
_PAUSE_SECONDS = 0.6
# So much without a pause or a space is no word; it is cut, or an hour of it would be kept.
_LONGEST_SECONDS = 30.0


@dataclass(frozen=True)
class StreamUpdate:
    """What one piece of audio has added.

    Attributes:
        final: words that are now final, times from the beginning of the stream.
        partial: what is written after all final words; more symbols may follow it.
    """

    final: tuple[Word, ...]
    partial: str


class FeatureStream:
    """An ESPnet model's features, normalised, of audio that arrives in pieces.

    They are those of one pass over the whole audio, whatever the pieces. What is kept is the audio
    that the next frame reads, and a little before it.

    Args:
        model: an ESPnet ASR model in evaluation mode, with the front-end `default` and the
            normalisation `global_mvn` or none.
    """

    def __init__(self, model: torch.nn.Module):
        frontend = model.frontend
        self._model = model
        self._hop = frontend.hop_length
        # Frame t reads `window` samples from t * hop - early on. Where it reads before the
        # beginning or after the end, the front-end puts in a reflection.
        self._window = frontend.stft.n_fft
        is_centred = frontend.stft.center
        self._early = self._window // 2 if is_centred else 0
        self._least = self._early + 1 if is_centred else self._window
        # Frames at the beginning of the kept samples that may have read a reflection which is not
        # there in one pass; one more, for the reflection at the end to have its samples.
        self._spoilt = -(-self._early // self._hop) + 1 if is_centred else 0
        self._samples = torch.zeros(0, device=next(model.parameters()).device)
        self._given = 0  # of the frames of the kept samples

    def push(self, samples: Tensor) -> Tensor:
        """Take the next samples (time,); returns the frames that are now sure, (frame, size)."""
        self._samples = torch.cat([self._samples, samples.to(self._samples)])
        sure = (len(self._samples) - self._window + self._early) // self._hop + 1
        if sure <= self._given or len(self._samples) < self._least:
            return self._samples.new_zeros(0, self._model.frontend.output_size())
        features = self._extract()[self._given : sure]
        drop = max(sure - self._spoilt, 0)
        self._samples = self._samples[drop * self._hop :].clone()
        self._given = sure - drop
        return features

    def finish(self) -> Tensor:
        """The frames that were waiting for the end."""
        if len(self._samples) < self._least:
            return self._samples.new_zeros(0, self._model.frontend.output_size())
        return self._extract()[self._given :]

    def _extract(self) -> Tensor:
        """All frames of the kept samples, (frame, size)."""
        length = torch.tensor([len(self._samples)], device=self._samples.device)
        features, lengths = self._model.frontend(self._samples[None], length)
        if self._model.normalize is not None:
            features, _ = self._model.normalize(features, lengths)
        return features[0]


class WindowStream:
    """Any encoder in chunks, by encoding a window around each chunk anew.

    Args:
        model: an ESPnet ASR model in evaluation mode.
        stride: feature frames per encoder frame.
        chunk: encoder frames that are given out together.
        right_context: encoder frames after a chunk that it sees.
        left_context: encoder frames before it that it sees.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        stride: int,
        chunk: int,
        right_context: int,
        left_context: int,
    ):
        self._model = model
        self._stride = stride
        self._chunk = chunk
        self._left = left_context
        self._before = 0  # encoder frames of the window that were given out already
        # A subsampling without padding gives fewer frames than the stride lets one expect.
        probe = torch.zeros(32 * stride, model.frontend.output_size())
        probe = probe.to(next(model.parameters()))
        self._after = chunk + right_context + 32 - len(self._encode(probe))
        self._features = probe[:0]

    def push(self, features: Tensor) -> Tensor:
        """Take the next features (frame, size); returns the frames that are now final."""
        self._features = torch.cat([self._features, features])
        out = [features.new_zeros(0, self._model.encoder.output_size())]
        while len(self._features) >= (window := self._stride * (self._before + self._after)):
            given = self._before + self._chunk
            out.append(self._encode(self._features[:window])[self._before : given])
            drop = max(given - self._left, 0)
            self._features = self._features[drop * self._stride :].clone()
            self._before = given - drop
        return torch.cat(out)

    def finish(self) -> Tensor:
        """The frames that were waiting for what comes after them."""
        return self._encode(self._features)[self._before :]

    def _encode(self, features: Tensor) -> Tensor:
        encoder, length = self._model.encoder, torch.tensor([len(features)], device=features.device)
        nothing = features.new_zeros(0, encoder.output_size())
        if not len(features):
            return nothing
        has_feedback = getattr(encoder, "interctc_use_conditioning", False)
        options = {"ctc": self._model.ctc} if has_feedback else {}
        try:
            frames = encoder(features[None], length, **options)[0]
        except TooShortUttError:  # ESPnet's input layers: not enough for one frame
            return nothing
        return (frames[0] if isinstance(frames, tuple) else frames)[0]


class WordStream:
    """The best path's words, as soon as no frame to come can change them.

    A word is final when the next one begins, when a space follows it and its end is known, or after
    a pause of 0.6 s, even if what follows the pause begins without a space. Only the symbols of the
    last word are kept.

    Args:
        acoustic: whose emissions these are.
        calibration: of the words' confidence.
    """

    def __init__(self, acoustic: AcousticModel, calibration: Calibration | None = None):
        self._acoustic = acoustic
        self._calibration = calibration
        self._frame_seconds = acoustic.frame_samples / SAMPLE_RATE
        self.frames = 0
        self._silent_since = 0  # the frame after the last symbol
        self._tokens: list[Token] = []  # of the word that is not final
        self.partial = ""

    @property
    def silence(self) -> int:
        """Frames since the last symbol."""
        return self.frames - self._silent_since

    @property
    def partial_start(self) -> float:
        """Seconds before which nothing to come begins."""
        first = self._tokens[0].start if self._tokens else self.frames * self._frame_seconds
        return max(0.0, first - LEAD_SECONDS)

    def push(self, log_probs: Tensor, end: float = math.inf) -> StreamUpdate:
        """Take the next frames.

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
        """Whether nothing to come can change the last word, nor its end."""
        now = self.frames * self._frame_seconds
        is_closed = self._tokens[-1] is not symbols[-1]
        # A symbol to come may begin now, and its word a lead before that.
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
    """What no space divides, divided at pauses and where it gets too long."""
    part = [symbols[0]]
    for token in symbols[1:]:
        pause, length = token.start - part[-1].end, token.start - part[0].start
        if pause >= _PAUSE_SECONDS or length >= _LONGEST_SECONDS:
            yield part
            part = []
        part.append(token)
    yield part


def _joined(first: Token, second: Token) -> Token:
    """One symbol that the end of a piece has cut in two."""
    lengths = first.end - first.start, second.end - second.start
    total = first.score * lengths[0] + second.score * lengths[1]
    return replace(first, end=second.end, score=total / sum(lengths))


class StreamingTranscriber:
    """Recognise audio while it is heard; time per push and memory do not grow.

    Our causal encoder gives what it would give in one pass, as soon as it has heard. Any
    other works in chunks: our bidirectional encoder carries the state of its direction in time from
    chunk to chunk and forgets it in pauses, for it was trained on utterances; ESPnet's encoders see
    `left_context` before each. Words come from the best path.

    Args:
        recogniser: with an ESPnet model whose front-end and normalisation can stream.
        chunk: seconds that a model which is not causal encodes at once.
        lookahead: seconds after a chunk that are waited for and seen by it.
        left_context: seconds before a chunk that are encoded again, for encoders not our own.

    Raises:
        MlmaError: the model cannot stream, the recogniser has a beam, or a number is out of range.
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
                f"give a chunk of at least one frame, {frame_seconds} s, and no negative number"
            )
        self._pause = round(_PAUSE_SECONDS / frame_seconds)
        self._recogniser = recogniser
        self.reset()

    @torch.inference_mode()
    def reset(self) -> None:
        """Forget what was heard: the next sample is the first of a new stream."""
        recogniser = self._recogniser
        self._is_over = False
        self._samples = 0
        self._features = FeatureStream(recogniser.model)
        self._encoder = self._encoder_stream()
        self._forgot = 0  # frame
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
        """Take the next samples.

        Args:
            samples: (time,) at 16 kHz, any number of them, floats between -1 and 1 or signed
                integers.

        Raises:
            MlmaError: they are something else, or the stream is finished.
        """
        self._check_open()
        samples = as_samples(samples)
        self._samples += len(samples)
        self._guard.push(samples)
        update = self._recognise(self._features.push(torch.from_numpy(samples)))
        return self._guard.judged(update, self._words.partial_start)

    def _recognise(self, features: Tensor) -> StreamUpdate:
        if not self._forgets:
            return self._words.push(self._log_probs(self._encoder.push(features)))
        # So little at once that no pause depends on how the audio is cut into pieces.
        final, partial = [], self._words.partial
        for heard in features.split(self._recogniser.model.encoder.frontend.stride):
            update = self._words.push(self._log_probs(self._encoder.push(heard)))
            final += update.final
            partial = update.partial
            if min(self._words.silence, self._words.frames - self._forgot) >= self._pause:
                self._encoder.forget()
                self._forgot = self._words.frames
        return StreamUpdate(tuple(final), partial)

    @property
    def _forgets(self) -> bool:
        return isinstance(self._encoder, EncoderStream) and self._encoder.chunk is not None

    @torch.inference_mode()
    def finish(self) -> StreamUpdate:
        """The audio is over: all words that are left.

        Raises:
            MlmaError: the stream is finished already.
        """
        self._check_open()
        self._is_over = True
        self._guard.finish()
        frames = [self._encoder.push(self._features.finish()), self._encoder.finish()]
        end = self._samples / SAMPLE_RATE
        update = self._words.push(self._log_probs(torch.cat(frames)), end)
        return self._guard.judged(update, self._words.partial_start)

    def _check_open(self) -> None:
        if self._is_over:
            raise MlmaError("the stream is finished; call reset() before a new one")

    def _log_probs(self, frames: Tensor) -> Tensor:
        return check_emissions(self._recogniser.model.ctc.log_softmax(frames[None])[0])


def _check(recogniser: Recogniser) -> None:
    """Raise MlmaError if there is something that cannot be had piece by piece."""
    model = recogniser.model
    if not recogniser.decoding.is_best_path:
        raise MlmaError("a stream writes the best path; load without beam, lm and hotwords")
    if isinstance(recogniser.acoustic, SpeechToTextModel):
        raise MlmaError("an S2T-CTC model hears 30 s at once and cannot stream; transcribe files")
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
            raise MlmaError(f"the model has a {part}; a stream works with none")
