"""Options of decoding, as `load` takes them and `conf/decode_*.yaml` holds them."""

from __future__ import annotations

from dataclasses import dataclass, fields

from espnet_mlma.errors import MlmaError

# Types in a configuration file, for options that are not numbers.
_TYPES = {
    "beam_size": (int, "a whole number"),
    "lm": ((str, type(None)), "a file"),
    "hotwords": ((list, tuple), "a list of words"),
    "speech_guard": (bool, "true or false"),
}


@dataclass(frozen=True)
class Decoding:
    """How emissions become text.

    With `beam_size` 1 and neither language model nor hotwords, the text is the best path.

    Attributes:
        beam_size: prefixes kept from frame to frame.
        token_threshold: symbols with a lower log-probability are not tried in a frame.
        score_threshold: prefixes this far below the best one are dropped, natural logarithm.
        lm: an n-gram model of words, an ARPA or KenLM binary file.
        lm_weight: factor of the language model's natural logarithm.
        word_bonus: added for every word, because language models prefer few words; without a
            language model it is not added.
        hotwords: words or phrases to expect.
        hotword_weight: added for every letter of every hotword found, natural logarithm.
        speech_guard: drop words where the sound cannot be speech: silence, steady noise, hum.
    """

    beam_size: int = 1
    token_threshold: float = -8.0
    score_threshold: float = 12.0
    lm: str | None = None
    lm_weight: float = 0.5
    word_bonus: float = 1.5
    hotwords: tuple[str, ...] = ()
    hotword_weight: float = 1.0
    speech_guard: bool = True

    def __post_init__(self):
        if self.beam_size < 1:
            raise MlmaError(f"beam_size is {self.beam_size}; give 1 for the best path, or more")
        if isinstance(self.hotwords, str):
            raise MlmaError(f"hotwords is the text {self.hotwords!r}; give a list of words")

    @property
    def is_best_path(self) -> bool:
        """Whether the best path suffices and no search is needed."""
        return self.beam_size == 1 and self.lm is None and not self.hotwords

    @classmethod
    def from_dict(cls, options: dict, where: str) -> Decoding:
        """Check the options of a configuration file.

        Args:
            options: values by name.
            where: the file, for errors.

        Raises:
            MlmaError: an option is unknown, or its value has the wrong type.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(options) - known):
            raise MlmaError(f"{where}: unknown option {unknown[0]!r}; known are {sorted(known)}")
        for name, value in options.items():
            types, wanted = _TYPES.get(name, ((int, float), "a number"))
            if not isinstance(value, types) or isinstance(value, bool) and types is not bool:
                raise MlmaError(f"{where}: {name} is {value!r}; give {wanted}")
        if "hotwords" in options:
            options = options | {"hotwords": tuple(options["hotwords"])}
        return cls(**options)
