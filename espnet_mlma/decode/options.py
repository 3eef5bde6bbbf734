"""Options of decoding, as `load` takes them and `conf/decode_*.yaml` holds them."""

from __future__ import annotations

from dataclasses import dataclass, fields

from espnet_mlma.errors import MlmaError

# What an option is in a configuration, where it is not a number.
_KINDS = {
    "beam": (int, "a whole number"),
    "lm": ((str, type(None)), "a file"),
    "hotwords": ((list, tuple), "a list of words"),
    "speech_guard": (bool, "true or false"),
}


@dataclass(frozen=True)
class Decoding:
    """How emissions become text. A beam of 1 without language model or hotwords is the best path.

    Attributes:
        beam: prefixes kept from frame to frame.
        token_threshold: log-probability below which a symbol is not tried in a frame.
        score_threshold: prefixes this far below the best one are dropped, natural logarithm.
        lm: an n-gram model of words, KenLM's ARPA or binary.
        lm_weight: of its natural logarithm.
        word_bonus: added for every word, against a language model's liking for few; without one
            it is not.
        hotwords: words or phrases to expect.
        hotword_weight: added for every letter of every hotword found, natural logarithm.
        speech_guard: drop words where the sound cannot be speech: silence, steady noise, hum.
    """

    beam: int = 1
    token_threshold: float = -8.0
    score_threshold: float = 12.0
    lm: str | None = None
    lm_weight: float = 0.5
    word_bonus: float = 1.5
    hotwords: tuple[str, ...] = ()
    hotword_weight: float = 1.0
    speech_guard: bool = True

    def __post_init__(self):
        if self.beam < 1:
            raise MlmaError(f"beam is {self.beam}; give 1 for the best path, or more")
        if isinstance(self.hotwords, str):
            raise MlmaError(f"hotwords is the text {self.hotwords!r}; give a list of words")

    @property
    def is_best_path(self) -> bool:
        """Whether no search is needed."""
        return self.beam == 1 and self.lm is None and not self.hotwords

    @classmethod
    def from_dict(cls, options: dict, where: str) -> Decoding:
        """Options as a configuration file has them.

        Args:
            options: name and value of each.
            where: the file, for errors.

        Raises:
            MlmaError: an unknown option, or a value of another kind.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(options) - known):
            raise MlmaError(f"{where}: unknown option {unknown[0]!r}; known are {sorted(known)}")
        for name, value in options.items():
            kinds, wanted = _KINDS.get(name, ((int, float), "a number"))
            if not isinstance(value, kinds) or isinstance(value, bool) and kinds is not bool:
                raise MlmaError(f"{where}: {name} is {value!r}; give {wanted}")
        if "hotwords" in options:
            options = options | {"hotwords": tuple(options["hotwords"])}
        return cls(**options)
