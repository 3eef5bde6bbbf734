"""Run the front-end and the encoder of any ESPnet model piece by piece, as audio arrives."""

from __future__ import annotations

from typing import Any

import torch
from espnet2.legacy.nets.pytorch_backend.transformer.subsampling import TooShortUttError
from torch import Tensor


class FeatureStream:
    """Compute an ESPnet model's normalised features of audio that arrives in pieces.

    The features equal those of one pass over the whole audio, whatever the pieces. The stream keeps
    only the audio that the next frame reads, and a little before it.

    Args:
        model: an ESPnet ASR model in evaluation mode, with the front-end `default` and the
            normalisation `global_mvn` or none.
    """

    def __init__(self, model: Any):
        frontend = model.frontend
        self._model = model
        self._hop = frontend.hop_length
        # Frame t reads `window` samples from t * hop - early on. Before the beginning and after
        # the end, the front-end inserts a reflection.
        self._window = frontend.stft.n_fft
        is_centred = frontend.stft.center
        self._early = self._window // 2 if is_centred else 0
        self._least = self._early + 1 if is_centred else self._window
        # Frames at the beginning of the kept samples that may read a reflection which one pass
        # does not have; one more, so that the reflection at the end has its samples.
        self._spoilt = -(-self._early // self._hop) + 1 if is_centred else 0
        self._samples = torch.zeros(0, device=next(model.parameters()).device)
        self._given = 0  # frames of the kept samples that were returned

    def push(self, samples: Tensor) -> Tensor:
        """Add the next samples (time,); return the frames that are now final, (frame, size)."""
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
        """Return the frames that needed the end of the audio, (frame, size)."""
        if len(self._samples) < self._least:
            return self._samples.new_zeros(0, self._model.frontend.output_size())
        return self._extract()[self._given :]

    def _extract(self) -> Tensor:
        """Compute all frames of the kept samples, (frame, size)."""
        length = torch.tensor([len(self._samples)], device=self._samples.device)
        features, lengths = self._model.frontend(self._samples[None], length)
        if self._model.normalize is not None:
            features, _ = self._model.normalize(features, lengths)
        return features[0]


class WindowStream:
    """Run any encoder in chunks: each chunk is encoded together with a window around it.

    Args:
        model: an ESPnet ASR model in evaluation mode.
        stride: feature frames per encoder frame.
        chunk: encoder frames that become final together.
        right_context: encoder frames after a chunk that are encoded with it.
        left_context: encoder frames before a chunk that are encoded with it.
    """

    def __init__(
        self,
        model: Any,
        stride: int,
        chunk: int,
        right_context: int,
        left_context: int,
    ):
        self._model = model
        self._stride = stride
        self._chunk = chunk
        self._left = left_context
        self._before = 0  # encoder frames of the window that are final already
        # A subsampling without padding gives fewer frames than length / stride.
        probe = torch.zeros(32 * stride, model.frontend.output_size())
        probe = probe.to(next(model.parameters()))
        self._after = chunk + right_context + 32 - len(self._encode(probe))
        self._features = probe[:0]

    def push(self, features: Tensor) -> Tensor:
        """Add the next features (frame, size); return the frames that are now final."""
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
        """Return the frames that are left."""
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
        except TooShortUttError:  # from ESPnet's input layers: less than one frame
            return nothing
        return (frames[0] if isinstance(frames, tuple) else frames)[0]
