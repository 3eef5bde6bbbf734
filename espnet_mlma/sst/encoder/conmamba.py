"""Our causal ConMamba as the translator's encoder, started from a recogniser."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from espnet2.asr.ctc import CTC
from espnet2.asr.frontend.default import DefaultFrontend
from espnet2.layers.global_mvn import GlobalMVN
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_mlma.encoder import ConMambaEncoder, EncoderStream
from espnet_mlma.encoder.espnet_streams import FeatureStream
from espnet_mlma.encoder.frontend import ConvFrontend, LinearFrontend
from espnet_mlma.errors import MlmaError
from espnet_mlma.loading import checkpoint
from espnet_mlma.sst.encoder.base import check_blocks
from espnet_mlma.sst.grid import CHUNK_SAMPLES, SAMPLE_RATE


@dataclass(frozen=True)
class ConMambaConfig:
    """What the encoder is built from, as in an ESPnet configuration.

    Attributes:
        encoder_conf: of `ConMambaEncoder`; `bimamba: none` is needed.
        frontend_conf: of ESPnet's `default` front-end.
        vocabulary: symbols of the CTC head, for an encoder with self-conditioning.
    """

    encoder_conf: dict[str, Any] = field(default_factory=lambda: {"bimamba": "none"})
    frontend_conf: dict[str, Any] = field(
        default_factory=lambda: {"hop_length": 160, "win_length": 400, "center": False}
    )
    vocabulary: int | None = None


class State(NamedTuple):
    """A stream's features and frames; both go on in place."""

    features: FeatureStream
    frames: EncoderStream


class ChunkConMamba(nn.Module):
    """ConMamba in one direction, with a state of fixed size instead of a window.

    A frame sees all that was heard before, so blocks of any multiplier give the same frames. What
    looks ahead is the front-end alone: with input_layer cnn4 and windows of 512 samples, the last
    frame of a chunk reads 352 samples more than the chunk has. So a stream begins with as many
    zeros (96 where windows are centred), every chunk gives all its frames at once, and frame t
    reads nothing after the 40 ms that are its own. Streams are exact: they give the frames of one
    pass, to rounding.

    Args:
        config: of front-end and encoder.

    Raises:
        MlmaError: the encoder is not causal, the input layer or the sampling rate is another, or
            960 ms are no whole number of frames.

    Source: Jiang et al., Speech Slytherin, arXiv 2407.09732 (ConMamba).
    """

    def __init__(self, config: ConMambaConfig):
        super().__init__()
        self.config = config
        try:
            self.frontend = DefaultFrontend(**{"fs": SAMPLE_RATE} | config.frontend_conf)
            bins = self.frontend.output_size()
            self.encoder = ConMambaEncoder(bins, **config.encoder_conf)
        except (TypeError, ValueError) as error:
            raise MlmaError(f"frontend_conf or encoder_conf: {error}") from None
        self.normalize = Normalisation(bins)
        self.output_size = self.encoder.output_size()
        self._check()
        self.ctc: CTC | None = None
        if self.encoder.interctc_use_conditioning:
            if config.vocabulary is None:
                raise MlmaError("interctc_use_conditioning needs the vocabulary's size as well")
            self.ctc = CTC(config.vocabulary, self.output_size)
            self.encoder.conditioning_layer = nn.Linear(config.vocabulary, self.output_size)
        hop = self.frontend.hop_length
        self.chunk_frames = CHUNK_SAMPLES // (hop * self.encoder.frontend.stride)
        stft = self.frontend.stft
        reach = stft.n_fft // 2 if stft.center else stft.n_fft
        self._lead = max(reach - hop, 0)  # zeros before the first sample

    def _check(self) -> None:
        if not self.encoder.is_causal():
            raise MlmaError(
                "the encoder runs against time as well and would wait for the end of the talk; "
                "train a recogniser with encoder_conf `bimamba: none`"
            )
        if not isinstance(self.encoder.frontend, ConvFrontend | LinearFrontend):
            raise MlmaError(
                "the encoder cannot be streamed; it needs input_layer cnn4, cnn8, linear"
            )
        rate = self.frontend.logmel.mel_options["sr"]
        if rate != SAMPLE_RATE:
            raise MlmaError(f"the front-end is for {rate} Hz; the translator hears {SAMPLE_RATE}")
        frame = self.frontend.hop_length * self.encoder.frontend.stride
        if CHUNK_SAMPLES % frame:
            raise MlmaError(
                f"960 ms are {CHUNK_SAMPLES / frame:.2f} frames of the encoder and must be a whole "
                "number; with hop_length 160 and input_layer cnn4 they are 24"
            )

    def forward(self, speech: Tensor, multiplier: int) -> Tensor:
        """As of `ChunkEncoder`; the multiplier only says what a whole block is."""
        check_blocks(speech.size(1), multiplier)
        padded = F.pad(speech, (self._lead, 0))
        lengths = torch.full((len(speech),), padded.size(1), device=speech.device)
        # Powers of a spectrum are beyond half precision.
        with torch.autocast(speech.device.type, enabled=False):
            features, lengths = self.normalize(*self.frontend(padded.float(), lengths))
        known = speech.size(1) // self.frontend.hop_length
        frames, _, _ = self.encoder(features[:, :known], lengths.clamp(max=known), ctc=self.ctc)
        return frames[0] if isinstance(frames, tuple) else frames

    def initial_state(self) -> State:
        """As of `ChunkEncoder`: the zeros that a stream begins with."""
        features = FeatureStream(self)
        features.push(torch.zeros(self._lead))
        return State(features, EncoderStream(self.encoder, ctc=self.ctc))

    @torch.no_grad()
    def step(self, samples: Tensor, state: State) -> tuple[Tensor, State]:
        """As of `ChunkEncoder`."""
        check_blocks(len(samples), 1)
        with torch.autocast(samples.device.type, enabled=False):
            features = state.features.push(samples)
        return state.frames.push(features), state


class Normalisation(nn.Module):
    """Features less their mean, divided by their deviation; both are 0 and 1 until set.

    Args:
        bins: of the features.
    """

    def __init__(self, bins: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(bins))
        self.register_buffer("std", torch.ones(bins))

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """x (batch, time, bins) and its lengths; both come back."""
        return (x - self.mean) / self.std, lengths

    def set(self, other: GlobalMVN) -> None:
        """Take over what ESPnet has measured on the training set."""
        if other.norm_means:
            self.mean.copy_(other.mean)
        if other.norm_vars:
            self.std.copy_(other.std)


def load_conmamba(path: Path) -> ChunkConMamba:
    """The encoder of a trained recogniser, in evaluation mode.

    Args:
        path: as of `espnet_mlma.loading.checkpoint.build`.

    Raises:
        MlmaError: as of `build` and `ChunkConMamba`, or the recogniser's encoder, front-end or
            normalisation is of another kind.
    """
    model, arguments = checkpoint.build(Path(path))
    if not isinstance(model.encoder, ConMambaEncoder):
        raise MlmaError(f"{path}: encoder is {arguments['encoder']!r}; conmamba is needed")
    if not isinstance(model.frontend, DefaultFrontend) or model.frontend.stft is None:
        raise MlmaError(f"{path}: a stream needs `frontend: default`")
    if not isinstance(model.normalize, GlobalMVN | None):
        raise MlmaError(f"{path}: a stream needs `normalize: global_mvn` or null")
    vocabulary = len(arguments["token_list"])
    ours = ChunkConMamba(
        ConMambaConfig(arguments["encoder_conf"], arguments["frontend_conf"], vocabulary)
    )
    ours.encoder.load_state_dict(model.encoder.state_dict())
    ours.frontend.load_state_dict(model.frontend.state_dict())
    if ours.ctc is not None:
        ours.ctc.load_state_dict(model.ctc.state_dict())
    if model.normalize is not None:
        ours.normalize.set(model.normalize)
    return ours.eval()
