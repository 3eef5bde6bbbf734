"""Build, save and load the translator: encoder, adapter and language model."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_mlma import files
from espnet_mlma.errors import MlmaError
from espnet_mlma.espnet.imports import import_espnet
from espnet_mlma.loading import tensors
from espnet_mlma.sst import config as configuration
from espnet_mlma.sst.config import Config, EncoderConfig
from espnet_mlma.sst.encoder.base import Adapter, ChunkEncoder
from espnet_mlma.sst.encoder.wav2vec2 import ChunkWav2Vec2, Wav2Vec2Config
from espnet_mlma.sst.encoder.weights import load_wav2vec2
from espnet_mlma.sst.extras import require
from espnet_mlma.sst.languages import name_of
from espnet_mlma.sst.llm import model as language_models
from espnet_mlma.sst.llm.dialogue import NO_TARGET, Dialogue, Example
from espnet_mlma.sst.llm.model import LanguageModel

safetensors = require("safetensors.torch")

Stage = Literal[0, 1, 2]

_CONFIG = "config.yaml"
_SPEECH = "speech.safetensors"
_LORA = "lora"
_SPEECH_PARTS = ("encoder.", "adapter.")
_LLM_PART = "_llm."


@dataclass(frozen=True)
class SegmentBatch:
    """Hold segments with one latency multiplier, padded at the end.

    Attributes:
        speech: (segments, chunks * CHUNK_SAMPLES) at 16 kHz; chunks is a multiple of `multiplier`.
        multiplier: chunks per turn.
        tokens: dialogues, (segments, tokens); padding is neither speech nor a target.
    """

    speech: Tensor
    multiplier: int
    tokens: Example

    @property
    def targets(self) -> int:
        """Number of tokens to predict."""
        return int((self.tokens.labels != NO_TARGET).sum())

    def to(self, device: torch.device) -> SegmentBatch:
        """Return the batch on a device."""
        tokens = (self.tokens.ids, self.tokens.is_speech, self.tokens.labels)
        moved = Example(*(tensor.to(device) for tensor in tokens))
        return SegmentBatch(self.speech.to(device), self.multiplier, moved)


class SpeechTranslator(nn.Module):
    """Translate speech with a language model that reads the adapter's vectors as embeddings.

    Args:
        config: configuration it was built from.
        encoder: speech encoder.
        llm: language model.

    Attributes:
        llm: language model, with LoRA in stage 2.

    Source: CMU's IWSLT 2025 Simultaneous Speech Translation System, section 3.
    """

    def __init__(self, config: Config, encoder: ChunkEncoder, llm: LanguageModel):
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.adapter = Adapter(encoder.output_size, llm.hidden_size, encoder.chunk_frames)
        self.llm = llm
        self._llm = llm.model  # registers it as a submodule

    def dialogue(self, multiplier: int) -> Dialogue:
        """Return the dialogue format for turns of `multiplier` chunks."""
        options = self.config.dialogue
        return Dialogue(
            self.llm.tokenizer,
            name_of(options.source),
            name_of(options.target),
            multiplier if options.names_latency else None,
        )

    def forward(self, batch: SegmentBatch) -> Tensor:
        """Return the cross-entropy summed over all targets, in nats; a float32 scalar."""
        vectors = self.adapter(self.encoder(batch.speech, batch.multiplier))
        heard = batch.tokens.is_speech.sum(1, keepdim=True)
        is_heard = torch.arange(vectors.size(1), device=vectors.device) < heard
        # Padding is at the end and attention is causal, so no mask is needed.
        targets = batch.tokens.labels[:, 1:]
        places = (targets != NO_TARGET).any(0).nonzero().flatten()
        logits = self.llm.model(
            inputs_embeds=self.llm.embed(batch.tokens, vectors[is_heard]),
            logits_to_keep=places,
            use_cache=False,
        ).logits
        return F.cross_entropy(
            logits.float().flatten(0, 1),
            targets[:, places].flatten(),
            ignore_index=NO_TARGET,
            reduction="sum",
        )

    def prepare(self, stage: Stage) -> None:
        """Freeze and unfreeze: train encoder and adapter before stage 2, LoRA in stage 2.

        Stage 2 adds LoRA if the model has none.
        """
        is_first = stage < 2
        if not is_first and not isinstance(self.llm.model, language_models.peft.PeftModel):
            self._set_llm(language_models.add_lora(self.llm, **asdict(self.config.lora)))
        self.encoder.requires_grad_(is_first)
        self.adapter.requires_grad_(is_first)
        if is_first:
            self.llm.model.requires_grad_(False)
        if self.config.llm.gradient_checkpointing:
            self.llm.model.gradient_checkpointing_enable({"use_reentrant": False})

    def train(self, mode: bool = True) -> SpeechTranslator:
        """Set training mode; frozen encoder and adapter stay without dropout."""
        super().train(mode)
        is_trained = any(parameter.requires_grad for parameter in self.adapter.parameters())
        for part in (self.encoder, self.adapter):
            part.train(mode and is_trained)
        return self

    def _set_llm(self, llm: LanguageModel) -> None:
        self.llm, self._llm = llm, llm.model

    def speech_state(self) -> dict[str, Tensor]:
        """Return parameters and buffers of encoder and adapter."""
        return {n: t for n, t in self.state_dict().items() if n.startswith(_SPEECH_PARTS)}

    def load_speech(self, file: Path) -> None:
        """Load encoder and adapter from the file that `save` wrote.

        Raises:
            MlmaError: the file is missing, damaged, or of another encoder or language model.
        """
        try:
            state = safetensors.load_file(file)
        except Exception as error:  # safetensors has its own error type
            raise MlmaError(f"{file}: cannot be read ({error}); run stage 1 to write it") from None
        ours = self.speech_state()
        wrong = sorted(
            name
            for name in ours.keys() | state.keys()
            if name not in ours or name not in state or ours[name].shape != state[name].shape
        )
        if wrong:
            raise MlmaError(
                f"{file}: of another encoder or language model: {wrong[0]} and {len(wrong) - 1} "
                "more are missing, unknown or of another shape; give the folder of its stage 1"
            )
        tensors.check_finite(state, file)
        self.load_state_dict(state, strict=False)

    def load_lora(self, folder: Path, trainable: bool) -> None:
        """Load LoRA that stage 2 trained; see `llm.model.load_lora`."""
        self._set_llm(language_models.load_lora(self.llm, folder, trainable))


def build(config: Config, device: torch.device | str = "cpu") -> SpeechTranslator:
    """Build an untrained translator from a configuration, in evaluation mode.

    Args:
        config: configuration of the translator.
        device: device to put it on.

    Raises:
        MlmaError: weights are missing or do not fit, or options contradict each other.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        encoder = build_encoder(config.encoder)
        # Random frozen weights are not saved, so every build must give the same ones.
        torch.manual_seed(config.training.seed)
        llm = language_models.load(
            config.llm.name, device, getattr(torch, config.llm.dtype), config.llm.random
        )
        model = SpeechTranslator(config, encoder, llm)
    return model.to(device).eval()


def build_encoder(config: EncoderConfig) -> ChunkEncoder:
    """Build the speech encoder of a configuration.

    Raises:
        MlmaError: see `build`.
    """
    where = "encoder: options"
    if config.kind == "wav2vec2":
        options = configuration.fields_of(Wav2Vec2Config, config.options, where)
        if config.weights is None:
            return ChunkWav2Vec2(Wav2Vec2Config(**options))
        return load_wav2vec2(Path(config.weights), **options)[0]
    # ESPnet takes seconds to import.
    import_espnet()
    from espnet_mlma.sst.encoder.conmamba import ChunkConMamba, ConMambaConfig, load_conmamba

    if config.weights is None:
        return ChunkConMamba(configuration.make(ConMambaConfig, config.options, where))
    if config.options:
        raise MlmaError(f"{where}: the recogniser {config.weights} has its own; remove them")
    return load_conmamba(Path(config.weights))


def load(folder: Path, device: torch.device | str = "cpu") -> SpeechTranslator:
    """Load a trained translator in evaluation mode, with LoRA merged into the weights.

    Args:
        folder: `--out` of stage 1 or 2.
        device: device to put it on.

    Raises:
        MlmaError: a file is missing or damaged, or the language model differs from the one in
            training.
    """
    return resumed(read_config(folder), Path(folder), device)


def read_config(folder: Path) -> Config:
    """Read the configuration that training wrote.

    Raises:
        MlmaError: the folder has no configuration, or a damaged one.
    """
    file = Path(folder) / _CONFIG
    if not file.is_file():
        raise MlmaError(f"{file}: no such file; give the --out of a training stage")
    return configuration.read(file)


def resumed(
    config: Config, folder: Path, device: torch.device | str = "cpu", trainable: bool = False
) -> SpeechTranslator:
    """Build a translator and load the weights of an earlier stage; encoder sizes come from there.

    Args:
        config: configuration of everything but the encoder.
        folder: `--out` of the earlier stage.
        device: device to put it on.
        trainable: keep LoRA separate from the weights; False: merge it.

    Raises:
        MlmaError: see `load`.
    """
    config = replace(config, encoder=read_config(folder).encoder)
    model = build(config, device)
    model.load_speech(folder / _SPEECH)
    if (folder / _LORA).is_dir():
        model.load_lora(folder / _LORA, trainable)
    return model.eval()


def save(
    model: SpeechTranslator,
    stage: Stage,
    state: Mapping[str, Tensor],
    folder: Path,
    init: Path | None = None,
) -> None:
    """Write a complete translator after a stage of training.

    Args:
        model: the trained model.
        stage: the stage that trained it.
        state: trained parameters and all buffers, unsharded and on the CPU.
        folder: folder to write to; config.yaml is written last.
        init: folder that stage 2 started from; its encoder and adapter are copied.

    Raises:
        MlmaError: a file cannot be written.
    """
    speech = {name: t.contiguous() for name, t in state.items() if name.startswith(_SPEECH_PARTS)}
    with files.whole(folder / _SPEECH) as new:
        if stage < 2:
            new.write_bytes(safetensors.save(speech))  # save_file makes the file private
        else:
            assert init is not None
            shutil.copyfile(init / _SPEECH, new)
    if stage == 2:
        of_llm = {n.removeprefix(_LLM_PART): t for n, t in state.items() if n.startswith(_LLM_PART)}
        language_models.save_lora(model.llm, folder / _LORA, of_llm)
    sizes = asdict(model.encoder.config)
    encoder = EncoderConfig(model.config.encoder.kind, None, sizes)
    files.write(folder / _CONFIG, configuration.write(replace(model.config, encoder=encoder)))
