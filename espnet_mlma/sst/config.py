"""What a translator is made of and how it is trained, from one YAML file.

Training writes it again beside the weights, with the encoder's sizes in it: that folder is all that
inference needs but the language model.
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
    """The speech encoder.

    Attributes:
        kind: `wav2vec2`, the paper's, or `conmamba`, ours.
        weights: a wav2vec 2.0 as of `weights.load_wav2vec2`, or a recogniser as of
            `conmamba.load_conmamba`; None: random weights.
        options: of `Wav2Vec2Config` or `ConMambaConfig`; a recogniser brings its own.
    """

    kind: Literal["wav2vec2", "conmamba"]
    weights: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LlmConfig:
    """The language model.

    Attributes:
        name, random: as of `llm.load`.
        dtype: of its weights, which are not trained.
        gradient_checkpointing: recompute each layer in the backward pass.
    """

    name: str
    random: dict[str, Any] | None = None
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    gradient_checkpointing: bool = False


@dataclass(frozen=True)
class DialogueConfig:
    """What is translated.

    Attributes:
        source, target: languages, ISO 639-1.
        names_latency: the prompt names the latency multiplier, as InfiniSST's does; the one of
            CMU's IWSLT 2025 system does not.
    """

    source: str = "en"
    target: str = "de"
    names_latency: bool = False

    def __post_init__(self) -> None:
        for language in (self.source, self.target):
            name_of(language)


@dataclass(frozen=True)
class LoraConfig:
    """Adapters of stage 2, at all linear layers."""

    rank: int = 32
    alpha: float = 16.0
    dropout: float = 0.1

    def __post_init__(self) -> None:
        _check_positive(self, "rank", "alpha")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it must be 0 or more and below 1")


@dataclass(frozen=True)
class TrainingConfig:
    """What both stages of training have in common.

    Attributes:
        batch_tokens: most tokens in a batch with its padding; speech vectors are tokens too.
        batch_segments: most segments in a batch; each is up to 28.8 s of audio.
        batches_per_update: over all processes together, so that their number changes nothing.
        largest_multiplier: multipliers are drawn from 1 to this, all alike.
        multiplier_per: `segment`, as the paper says: each segment has its own, and those of one
            multiplier make batches; `batch`, as the public code has it: segments that make a batch
            get one.
        warmup_updates: while the learning rate rises from 0; then it falls as a cosine to 0.
        clip_norm: of the gradient.
        precision: of what is not sensitive to it; parameters that are trained are float32.
        seed: of weights, order, multipliers and dropout.
        read_ahead: batches whose audio is read before they are needed, each by a thread.
        log_updates: updates from line to line.
        save_updates: updates from checkpoint to checkpoint; one is at the end of an epoch too.
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
    """What a stage of training has for itself: the highest learning rate, and how long."""

    learning_rate: float
    epochs: int = 1

    def __post_init__(self) -> None:
        _check_positive(self, "learning_rate", "epochs")


@dataclass(frozen=True)
class Decoding:
    """How the text of a turn is searched for, and what is remembered; the defaults are the paper's.

    Attributes:
        beams: hypotheses followed at once; 1 takes the best token each time.
        repetition_penalty: factor on log-probabilities of tokens that are in what the turn was fed
            or in its text so far, at any number of beams, as transformers' beam search has it.
        penalize_eos: also of the token that ends a turn, which is always in what the turn was fed,
            so that turns become longer; as in InfiniSST. False exempts it.
        no_repeat_ngram: tokens in a row that are not said again within a turn, nor in it after
            they were among the last `lookback`; 0: no ban.
        lookback: tokens of earlier turns, as far back as they are looked at for this.
        tokens_per_chunk: most tokens of a turn, for each chunk of speech in it.
        length_penalty: a hypothesis's log-probability is divided by its length to this power.
        max_tokens: most of the language model's memory.
        keep_tokens: how many it forgets down to, see `cache.SlidingCache`; None: `max_tokens`.

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
    """All of it; the defaults are the paper's.

    Attributes:
        encoder, llm, dialogue, lora, training: as their classes say.
        stage0: before the paper's two, `hearing.Hearing`; None: there is none, as in the paper.
        stage1: encoder and adapter.
        stage2: LoRA.
        decoding: where a command does not say otherwise.

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
    decoding: Decoding = field(default_factory=Decoding)

    def stage(self, number: int) -> StageConfig:
        """That of a stage.

        Raises:
            MlmaError: there is none.
        """
        found = {0: self.stage0, 1: self.stage1, 2: self.stage2}[number]
        if found is None:
            raise MlmaError(f"the configuration has no stage{number}; add it, or leave it out")
        return found


def read(path: Path, changes: Sequence[str] = ()) -> Config:
    """A configuration from a file.

    Args:
        path: YAML.
        changes: `key.key=value`, put in place of what the file says; values are YAML.

    Raises:
        MlmaError: there is no such file, it is no YAML, a key is unknown or missing, or a value is
            of another kind than its key's.
    """
    values = read_yaml(path, "give one like conf/sst/*.yaml")
    try:
        for change in changes:
            _put(values, change)
    except yaml.YAMLError as error:
        raise MlmaError(f"{path}: no YAML ({' '.join(str(error).split())})") from None
    return make(Config, values, str(path))


def write(config: Config) -> str:
    """A configuration as YAML, all keys in it."""
    plain = json.loads(json.dumps(dataclasses.asdict(config)))  # lists for tuples
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def make[Made](kind: type[Made], values: Any, where: str) -> Made:
    """A dataclass from a mapping whose keys and types are its own.

    Args:
        kind: the dataclass.
        values: what YAML gave.
        where: file and key, for errors.

    Raises:
        MlmaError: a key is unknown or missing, or a value is of another kind.
    """
    made = fields_of(kind, values, where)
    missing = [
        f.name
        for f in dataclasses.fields(kind)
        if f.name not in made
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise MlmaError(f"{where}: lacks the key {missing[0]}")
    try:
        return kind(**made)
    except (MlmaError, ValueError) as error:
        raise MlmaError(f"{where}: {error}") from None


def fields_of(kind: type, values: Any, where: str) -> dict[str, Any]:
    """Fields of a dataclass from a mapping that may lack some; otherwise as of `make`."""
    if not isinstance(values, Mapping):
        raise MlmaError(f"{where}: is {values!r}; it must have keys")
    types_of = get_type_hints(kind)
    for key in values:
        if key not in types_of:
            near = difflib.get_close_matches(str(key), types_of, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(types_of)}"
            raise MlmaError(f"{where}: unknown key {key}; {hint}")
    return {key: _value(types_of[key], value, f"{where}: {key}") for key, value in values.items()}


def _value(wanted: Any, value: Any, where: str) -> Any:
    """A value of YAML as the type that is wanted."""
    if dataclasses.is_dataclass(wanted):
        return make(wanted, value, where)
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):  # of a type and None
        return None if value is None else _value(inner[0], value, where)
    if origin is Literal:
        if value in inner:
            return value
        raise MlmaError(f"{where} is {value!r}; it must be {' or '.join(map(str, inner))}")
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_value(inner[0], item, where) for item in value)
    if wanted is float and isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return float(value)  # 2e-4 is text to YAML 1.1
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
