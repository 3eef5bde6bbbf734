"""Read a translator's configuration from one YAML file and check it.

Training writes the configuration beside the weights, with the encoder's sizes. Inference needs that
folder and the language model, nothing else.

We parse YAML ourselves instead of using OmegaConf: errors name the file and the key, unknown keys
suggest the nearest known one, and `Literal` types are checked.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from espnet_mlma.errors import MlmaError
from espnet_mlma.files import read_yaml
from espnet_mlma.sst.languages import name_of


@dataclass(frozen=True)
class EncoderConfig:
    """Configure the speech encoder.

    Attributes:
        kind: `wav2vec2` as in the paper, or `conmamba`.
        weights: a wav2vec 2.0 (see `load_wav2vec2`) or a recogniser (see `load_conmamba`); None:
            random weights.
        options: fields of `Wav2Vec2Config` or `ConMambaConfig`; empty for a trained recogniser.
    """

    kind: Literal["wav2vec2", "conmamba"]
    weights: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LlmConfig:
    """Configure the language model.

    Attributes:
        name: folder or name of the model, see `llm.model.load`.
        random: sizes of a randomly initialised model, see `llm.model.load`.
        dtype: type of the frozen weights.
        gradient_checkpointing: recompute each layer in the backward pass to save memory.
    """

    name: str
    random: dict[str, Any] | None = None
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    gradient_checkpointing: bool = False


@dataclass(frozen=True)
class DialogueConfig:
    """Configure languages and prompt.

    Attributes:
        source: language of the speech, ISO 639-1.
        target: language of the translation, ISO 639-1.
        names_latency: state the latency multiplier in the prompt, as InfiniSST does; CMU's IWSLT
            2025 system does not.
    """

    source: str = "en"
    target: str = "de"
    names_latency: bool = False

    def __post_init__(self) -> None:
        for language in (self.source, self.target):
            name_of(language)


@dataclass(frozen=True)
class LoraConfig:
    """Configure stage 2's LoRA, which is added to all linear layers."""

    rank: int = 32
    alpha: float = 16.0
    dropout: float = 0.1

    def __post_init__(self) -> None:
        _check_positive(self, "rank", "alpha")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it must be 0 or more and below 1")


@dataclass(frozen=True)
class TrainingConfig:
    """Configure what all stages of training share.

    Attributes:
        batch_tokens: maximum tokens of a batch, padding and speech vectors included.
        batch_segments: maximum segments of a batch; each has up to 28.8 s of audio.
        batches_per_update: batches per update over all processes.
        largest_multiplier: latency multipliers are drawn uniformly from 1 to this.
        multiplier_per: `segment`, as in the paper: draw one per segment, then batch segments with
            equal multipliers; `batch`, as in the public code: draw one per batch.
        warmup_updates: updates of linear warm-up from 0; then a cosine down to 0.
        clip_norm: maximum norm of the gradient.
        precision: autocast type; trained parameters are always float32.
        seed: seed of weights, order, multipliers and dropout.
        read_ahead: batches whose audio is read ahead, each by one thread.
        log_updates: updates between two log lines.
        save_updates: updates between two checkpoints; each epoch ends with one too.
    """

    batch_tokens: int = 1800
    batch_segments: int = 2
    batches_per_update: int = 32
    largest_multiplier: int = 12
    multiplier_per: Literal["segment", "batch"] = "segment"
    warmup_updates: int = 1000
    clip_norm: float = 1.0
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    seed: int = 1
    read_ahead: int = 4
    log_updates: int = 50
    save_updates: int = 500

    def __post_init__(self) -> None:
        _check_positive(self, "batch_tokens", "batch_segments", "batches_per_update")
        _check_positive(self, "largest_multiplier", "clip_norm", "read_ahead")
        _check_positive(self, "log_updates", "save_updates")
        _check_not_negative(self, "warmup_updates")


@dataclass(frozen=True)
class StageConfig:
    """Configure one stage of training: peak learning rate and number of epochs."""

    learning_rate: float
    epochs: int = 1

    def __post_init__(self) -> None:
        _check_positive(self, "learning_rate", "epochs")


@dataclass(frozen=True)
class TurnDecoding:
    """Configure beam search and memory of a turn; the defaults are the paper's.

    Attributes:
        beams: beam width; 1 is greedy search.
        repetition_penalty: factor on log-probabilities of tokens that occur in the turn's input or
            output, as in transformers' beam search.
        penalize_eos: apply the penalty to the end-of-turn token too, as InfiniSST does. That token
            is always in the input, so turns become longer.
        no_repeat_ngram: n-grams of this length may not repeat within a turn or occur again after
            they were in `lookback`; 0: no ban.
        lookback: number of tokens of earlier turns in which n-grams are searched.
        tokens_per_chunk: maximum tokens of a turn per chunk of speech.
        length_penalty: a hypothesis's log-probability is divided by its length to this power.
        max_tokens: maximum tokens in the language model's cache.
        keep_tokens: tokens kept when the cache is full, see `cache.SlidingCache`; None:
            `max_tokens`.

    Source: CMU's IWSLT 2025 Simultaneous Speech Translation System.
    """

    beams: int = 4
    repetition_penalty: float = 1.2
    penalize_eos: bool = True
    no_repeat_ngram: int = 5
    lookback: int = 100
    tokens_per_chunk: int = 10
    length_penalty: float = 1.0
    max_tokens: int = 1000
    keep_tokens: int | None = None

    def __post_init__(self) -> None:
        _check_positive(self, "beams", "repetition_penalty", "tokens_per_chunk", "max_tokens")
        _check_not_negative(self, "no_repeat_ngram", "lookback")


@dataclass(frozen=True)
class Config:
    """Configure a translator and its training; the defaults are the paper's.

    Attributes:
        encoder: see `EncoderConfig`.
        llm: see `LlmConfig`.
        dialogue: see `DialogueConfig`.
        lora: see `LoraConfig`.
        training: see `TrainingConfig`.
        stage0: CTC pretraining before the paper's two stages (`train/ctc.py`); None: skip it.
        stage1: training of encoder and adapter.
        stage2: training of LoRA.
        decoding: defaults of the command line.

    Source: CMU's IWSLT 2025 Simultaneous Speech Translation System, section 4.1.
    """

    encoder: EncoderConfig
    llm: LlmConfig
    dialogue: DialogueConfig = field(default_factory=DialogueConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    stage0: StageConfig | None = None
    stage1: StageConfig = field(default_factory=lambda: StageConfig(2e-4))
    stage2: StageConfig = field(default_factory=lambda: StageConfig(1e-4))
    decoding: TurnDecoding = field(default_factory=TurnDecoding)

    def stage(self, number: int) -> StageConfig:
        """Return the configuration of a stage.

        Raises:
            MlmaError: the stage is not configured.
        """
        found = {0: self.stage0, 1: self.stage1, 2: self.stage2}[number]
        if found is None:
            raise MlmaError(f"the configuration has no stage{number}; add it, or skip that stage")
        return found


def read(path: Path, changes: Sequence[str] = ()) -> Config:
    """Read a configuration file and apply overrides.

    Args:
        path: YAML file.
        changes: overrides of the form `key.key=value`; values are YAML.

    Raises:
        MlmaError: the file is missing or not YAML, a key is unknown or missing, or a value has the
            wrong type.
    """
    values = read_yaml(path, "give one like conf/sst/*.yaml")
    try:
        for change in changes:
            _put(values, change)
    except yaml.YAMLError as error:
        raise MlmaError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    return make(Config, values, str(path))


def write(config: Config) -> str:
    """Return a configuration as YAML with all keys."""
    plain = json.loads(json.dumps(dataclasses.asdict(config)))  # lists for tuples
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def make[Made](kind: type[Made], values: Any, where: str) -> Made:
    """Make a dataclass from a mapping, and check keys and types.

    Args:
        kind: the dataclass.
        values: mapping from YAML.
        where: file and key, for error messages.

    Raises:
        MlmaError: a key is unknown or missing, or a value has the wrong type.
    """
    made = fields_of(kind, values, where)
    dataclass_kind: Any = kind
    missing = [
        f.name
        for f in dataclasses.fields(dataclass_kind)
        if f.name not in made
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise MlmaError(f"{where}: missing key {missing[0]}; add it")
    try:
        return kind(**made)
    except (MlmaError, ValueError) as error:
        raise MlmaError(f"{where}: {error}") from None


def fields_of(kind: type, values: Any, where: str) -> dict[str, Any]:
    """Check a mapping like `make`, but allow missing keys; return the fields."""
    if not isinstance(values, Mapping):
        raise MlmaError(f"{where}: is {values!r}; it must be a mapping")
    types_of = get_type_hints(kind)
    for key in values:
        if key not in types_of:
            near = difflib.get_close_matches(str(key), types_of, 1)
            hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(types_of)}"
            raise MlmaError(f"{where}: unknown key {key}; {hint}")
    return {key: _value(types_of[key], value, f"{where}: {key}") for key, value in values.items()}


def _value(wanted: Any, value: Any, where: str) -> Any:
    """Return a YAML value as the wanted type, or raise MlmaError."""
    if dataclasses.is_dataclass(wanted):
        kind: Any = wanted
        return make(kind, value, where)
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):  # an optional type
        return None if value is None else _value(inner[0], value, where)
    if origin is Literal:
        if value in inner:
            return value
        raise MlmaError(f"{where} is {value!r}; it must be {' or '.join(map(str, inner))}")
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_value(inner[0], item, where) for item in value)
    if wanted is float and isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML 1.1 reads 2e-4 as a string
        except ValueError:
            pass
    plain = origin or wanted
    if isinstance(value, plain) and not (plain is int and isinstance(value, bool)):
        return value
    raise MlmaError(f"{where} is {value!r}; it must be of type {plain.__name__}")


def _put(values: Any, change: str) -> None:
    key, equals, value = change.partition("=")
    *path, last = key.split(".")
    for name in path:
        values = values.setdefault(name, {}) if isinstance(values, dict) else None
    if not equals or not isinstance(values, dict):
        raise MlmaError(f"--set {change}: not of the form key.key=value")
    values[last] = yaml.safe_load(value)


def _check_positive(config: Any, *names: str) -> None:
    for name in names:
        if getattr(config, name) <= 0:
            raise ValueError(f"{name} is {getattr(config, name)}; it must be above 0")


def _check_not_negative(config: Any, *names: str) -> None:
    for name in names:
        if getattr(config, name) < 0:
            raise ValueError(f"{name} is {getattr(config, name)}; it must be 0 or more")
