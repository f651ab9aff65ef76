"""The declared lattice: knobs with ordered values, and the configurations one change away.

A configuration can be replayed on a logged query, so every challenger is tried on the very
runs that the incumbent served. Only what is declared is ever tried, and one knob moves at a
time, so that what a promotion changed can be named.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shared.errors import Invalid

Value = str | int | float | bool
MAX_KNOBS = 16
MAX_VALUES = 32


@dataclass(frozen=True, slots=True)
class Configuration:
    """One value for every knob, in the lattice's order. Its name is what it holds."""

    items: tuple[tuple[str, Value], ...]

    @property
    def values(self) -> dict[str, Value]:
        """The values by knob."""
        return dict(self.items)

    @property
    def hash(self) -> str:
        """What runs are labelled with: the same for equal values, on any machine."""
        text = json.dumps(self.values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Lattice:
    """Knobs and their values; values lie in their natural order, neighbours side by side."""

    knobs: tuple[tuple[str, tuple[Value, ...]], ...]

    @staticmethod
    def declare(knobs: Mapping[str, Sequence[Value]]) -> Lattice:
        """The lattice of these knobs.

        Raises:
            Invalid: there is nothing to choose from, or a value stands twice.
        """
        if not knobs or len(knobs) > MAX_KNOBS:
            raise Invalid(f"Declare 1 to {MAX_KNOBS} knobs, each with its values in order.")
        for name, values in knobs.items():
            if not 1 <= len(values) <= MAX_VALUES:
                raise Invalid(f"{name}: declare 1 to {MAX_VALUES} values.")
            if len({(type(value), value) for value in values}) != len(values):
                raise Invalid(f"{name}: a value stands there twice.")
        return Lattice(tuple((name, tuple(values)) for name, values in knobs.items()))

    @property
    def size(self) -> int:
        """How many configurations there are."""
        count = 1
        for _, values in self.knobs:
            count *= len(values)
        return count

    def configure(self, values: Mapping[str, Value]) -> Configuration:
        """The configuration with these values.

        Raises:
            Invalid: a knob is missing or unknown, or its value was not declared.
        """
        if unknown := sorted(set(values) - {name for name, _ in self.knobs}):
            raise Invalid(f"{unknown[0]}: no such knob; there are {', '.join(dict(self.knobs))}.")
        items: list[tuple[str, Value]] = []
        for name, declared in self.knobs:
            if name not in values:
                raise Invalid(f"{name}: a configuration has a value for every knob.")
            items.append((name, declared[_place(declared, values[name], name)]))
        return Configuration(tuple(items))

    def neighbours(self, of: Configuration) -> list[Configuration]:
        """The configurations that differ by one step of one knob; of text or booleans, by any."""
        found: list[Configuration] = []
        for number, (name, declared) in enumerate(self.knobs):
            at = _place(declared, of.items[number][1], name)
            ordered = all(isinstance(v, int | float) and not isinstance(v, bool) for v in declared)
            others = (at - 1, at + 1) if ordered else range(len(declared))
            for other in others:
                if other != at and 0 <= other < len(declared):
                    items = list(of.items)
                    items[number] = (name, declared[other])
                    found.append(Configuration(tuple(items)))
        return found


def _place(declared: Sequence[Value], value: Value, name: str) -> int:
    # In Python 1 and True are equal; as values of a knob they are not.
    for number, known in enumerate(declared):
        if known == value and isinstance(known, bool) == isinstance(value, bool):
            return number
    raise Invalid(f"{name}: {value!r} was not declared; values are {list(declared)}.")
