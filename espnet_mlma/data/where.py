"""Filter labels by the fields of their rows: the `where` of a line in a mixtures file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from espnet_mlma.errors import MlmaError
from espnet_mlma.numbers import number_of

_ATTRIBUTION = "creative commons attribution"  # as YouTube names its one free licence


@dataclass(frozen=True)
class Where:
    """Conditions that a row must meet.

    Attributes:
        conditions: `min_<field>` and `max_<field>` with a number, `<field>` with a value or a list
            of values. A row without the field does not meet a condition on it. `license: cc-by`
            takes every version of that licence and no other one.
    """

    conditions: Mapping[str, Any]

    @classmethod
    def checked(cls, conditions: object, known: Mapping[str, type], place: str) -> Where:
        """Check conditions against the fields of a reader.

        Args:
            conditions: a mapping, as the mixtures file has it.
            known: type of each field: float, str or bool.
            place: of the conditions, for errors.

        Raises:
            MlmaError: no mapping, an unknown field, or a value of another type than the field's.
        """
        if not isinstance(conditions, Mapping):
            raise MlmaError(f"{place}: 'where' is not a mapping of fields and values")
        names = sorted(
            name
            for field, kind in known.items()
            for name in ((f"min_{field}", f"max_{field}") if kind is float else (field,))
        )
        for name, value in conditions.items():
            if name not in names:
                fields = " ".join(names) or "none"
                raise MlmaError(f"{place}: unknown field '{name}' in 'where'; known: {fields}")
            kind = known.get(name, float)
            values = value if isinstance(value, list) and kind is str else [value]
            if not values or not all(_is_a(one, kind) for one in values):
                what = {float: "a number", bool: "true or false", str: "a text or a list"}[kind]
                raise MlmaError(f"{place}: '{name}: {value}' in 'where' is not {what}")
        return cls(conditions)

    def unmet(self, row: Mapping[str, Any]) -> str | None:
        """Return the first condition that a row does not meet; None: it meets all."""
        for name, wanted in self.conditions.items():
            if not _is_met(name, wanted, row):
                return name
        return None


def licence(text: str) -> str:
    """Normalise the name of a licence: `CC BY 4.0` becomes `cc-by-4.0`."""
    if text.lower().startswith(_ATTRIBUTION):
        return "cc-by-3.0"
    return re.sub(r"[\s_-]+", "-", text.strip().lower())


def _is_met(name: str, wanted: Any, row: Mapping[str, Any]) -> bool:
    if name.startswith(("min_", "max_")):
        value = number_of(row.get(name[4:]))
        if value is None:
            return False
        return value >= wanted if name.startswith("min_") else value <= wanted
    value = row.get(name)
    if isinstance(wanted, bool):
        return str(value).lower() == str(wanted).lower()
    if not isinstance(value, str):
        return False
    choices = wanted if isinstance(wanted, list) else [wanted]
    if name == "license":
        return any(_is_licence(licence(value), licence(one)) for one in choices)
    return value in choices


def _is_licence(found: str, wanted: str) -> bool:
    version = found.removeprefix(wanted)
    return found.startswith(wanted) and (not version or bool(re.fullmatch(r"-[\d.]+", version)))


def _is_a(value: object, kind: type) -> bool:
    if kind is float:
        return not isinstance(value, str) and number_of(value) is not None
    return isinstance(value, kind)
