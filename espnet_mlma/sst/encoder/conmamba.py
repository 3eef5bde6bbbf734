"""Use our causal ConMamba as the translator's encoder, initialised from a recogniser."""

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
from espnet_mlma.sst.encoder.base import ChunkEncoder, check_blocks
from espnet_mlma.sst.grid import CHUNK_SAMPLES, SAMPLE_RATE


@dataclass(frozen=True)
class ConMambaConfig:
    """Configure the encoder as ESPnet does.

    Attributes:
        encoder_conf: options of `ConMambaEncoder`; must contain `bimamba: none`.
        frontend_conf: options of ESPnet's `default` front-end.
        vocabulary: number of CTC symbols; required with self-conditioning.
    """

    encoder_conf: dict[str, Any] = field(default_factory=lambda: {"bimamba": "none"})
    frontend_conf: dict[str, Any] = field(
        default_factory=lambda: {"hop_length": 160, "win_length": 400, "center": False}
    )
    vocabulary: int | None = None


class ConMambaState(NamedTuple):
    """Hold the streams of features and frames; both change in place."""

    features: FeatureStream
    frames: EncoderStream


class ChunkConMamba(ChunkEncoder):
    """Encode chunks with a unidirectional ConMamba, whose state has a fixed size.

    A frame sees all earlier audio, so the multiplier does not change the frames. Only the front-end
    looks ahead: with input_layer cnn4 and windows of 512 samples, the last frame of a chunk reads
    352 samples beyond the chunk. A stream therefore starts with 352 zeros (96 with centred
    windows). Each chunk then gives all its frames at once, and a frame reads no audio after its own
    40 ms. A stream gives the same frames as one pass, up to rounding.

    Args:
        config: configuration of front-end and encoder.

    Raises:
        MlmaError: the encoder is not causal, its input layer or sampling rate is not supported, or
            960 ms is not a whole number of frames.

    Source: Jiang et al., Speech Slytherin, arXiv 2407.09732 (ConMamba).
    """

    def __init__(self, config: ConMambaConfig):
        super().__init__()
        self.config = config
        frontend_conf: dict[str, Any] = {"fs": SAMPLE_RATE} | config.frontend_conf
        try:
            self.frontend = DefaultFrontend(**frontend_conf)
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
                raise MlmaError(
                    "interctc_use_conditioning needs `vocabulary`, the number of symbols"
                )
            self.ctc = CTC(config.vocabulary, self.output_size)
            self.encoder.conditioning_layer = nn.Linear(config.vocabulary, self.output_size)
        hop = self.frontend.hop_length
        conv_frontend: Any = self.encoder.frontend
        self.chunk_frames = CHUNK_SAMPLES // (hop * conv_frontend.stride)
        stft: Any = self.frontend.stft
        reach = stft.n_fft // 2 if stft.center else stft.n_fft
        self._lead = max(reach - hop, 0)  # zeros before the first sample

    def _check(self) -> None:
        if not self.encoder.is_causal():
            raise MlmaError(
                "the encoder is bidirectional and would wait for the end of the talk; train a "
                "recogniser with encoder_conf `bimamba: none`"
            )
        if not isinstance(self.encoder.frontend, ConvFrontend | LinearFrontend):
            raise MlmaError(
                "the encoder cannot be streamed; it needs input_layer cnn4, cnn8 or linear"
            )
        rate = self.frontend.logmel.mel_options["sr"]
        if rate != SAMPLE_RATE:
            raise MlmaError(
                f"the front-end is for {rate} Hz; the translator needs {SAMPLE_RATE} Hz"
            )
        frame = self.frontend.hop_length * self.encoder.frontend.stride
        if CHUNK_SAMPLES % frame:
            raise MlmaError(
                f"960 ms are {CHUNK_SAMPLES / frame:.2f} frames of the encoder; it must be a whole "
                "number, such as 24 with hop_length 160 and input_layer cnn4"
            )

    def forward(self, speech: Tensor, multiplier: int) -> Tensor:
        """See `ChunkEncoder`; the multiplier does not change the frames."""
        check_blocks(speech.size(1), multiplier)
        padded = F.pad(speech, (self._lead, 0))
        lengths = torch.full((len(speech),), padded.size(1), device=speech.device)
        # Power spectra exceed the range of half precision.
        with torch.autocast(speech.device.type, enabled=False):
            features, lengths = self.normalize(*self.frontend(padded.float(), lengths))
        count = speech.size(1) // self.frontend.hop_length
        frames, _, _ = self.encoder(features[:, :count], lengths.clamp(max=count), ctc=self.ctc)
        return frames[0] if isinstance(frames, tuple) else frames

    def initial_state(self) -> ConMambaState:
        """See `ChunkEncoder`; the stream starts with zeros."""
        features = FeatureStream(self)
        features.push(torch.zeros(self._lead))
        return ConMambaState(features, EncoderStream(self.encoder, ctc=self.ctc))

    @torch.no_grad()
    def step(self, samples: Tensor, state: ConMambaState) -> tuple[Tensor, ConMambaState]:
        """See `ChunkEncoder`."""
        check_blocks(len(samples), 1)
        with torch.autocast(samples.device.type, enabled=False):
            features = state.features.push(samples)
        return state.frames.push(features), state


class Normalisation(nn.Module):
    """Normalise features to zero mean and unit variance; the identity until `copy_from`.

    Args:
        bins: number of features.

    Attributes:
        mean, std: (bins,).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, bins: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(bins))
        self.register_buffer("std", torch.ones(bins))

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return normalised features (batch, time, bins) and their lengths, unchanged."""
        return (x - self.mean) / self.std, lengths

    def copy_from(self, other: GlobalMVN) -> None:
        """Copy the statistics that ESPnet computed on the training set."""
        statistics: Any = other  # buffers have no types
        if other.norm_means:
            self.mean.copy_(statistics.mean)
        if other.norm_vars:
            self.std.copy_(statistics.std)


def load_conmamba(path: Path) -> ChunkConMamba:
    """Load the encoder of a trained recogniser, in evaluation mode.

    Args:
        path: see `espnet_mlma.loading.checkpoint.build`.

    Raises:
        MlmaError: see `build` and `ChunkConMamba`; also if the recogniser's encoder, front-end or
            normalisation has another type.
    """
    model, arguments = checkpoint.build(Path(path))
    if not isinstance(model.encoder, ConMambaEncoder):
        raise MlmaError(f"{path}: encoder is {arguments['encoder']!r}; it must be conmamba")
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
        ours.normalize.copy_from(model.normalize)
    return ours.eval()
