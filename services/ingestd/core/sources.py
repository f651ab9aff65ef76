"""What a file says of its columns' values before any of them is looked at.

CSV says nothing: text may be anything. JSON says whether a value is a number, a text or
nested; a text of digits there is no number. Parquet says the type outright.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.ingestd.core.checks import Target
from services.ingestd.core.jsonlines import Kind
from services.ingestd.core.ladder import Profile, choose_type, spelling_of

_MOMENTS = frozenset({"DATE", "TIMESTAMP", "TIMESTAMPTZ"})
_TEXT = Target("VARCHAR")


@dataclass(frozen=True, slots=True)
class ColumnSource:
    """One column of a file.

    Attributes:
        type: that its values have as they are read.
        literal: see `checks.Target`.
        kinds: what JSON says its values are; None where the text alone decides.
        own: the type it gets where no table says, if that is known; values may yet not fit.
    """

    type: str = "VARCHAR"
    literal: bool = False
    kinds: Kind | None = None
    own: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether its type is to be found out from the values' text."""
        return self.own is None and self.kinds in (None, *_PLAIN)

    def choose(self, profile: Profile) -> Target:
        """The type for all values of the profile."""
        if not self.is_open:
            return self.fixed()
        found = choose_type(profile)
        if self.kinds is Kind.STRING and found not in _MOMENTS:
            found = "VARCHAR"
        return Target(found, exact=True, booleans=spelling_of(profile), literal=self.literal)

    def fixed(self) -> Target:
        """The type of a column whose values' text has no say."""
        return Target(self.own or "VARCHAR", source=self.type, literal=self.literal)

    def given(self, target: Target) -> Target:
        """A table's type, for values that come as these do."""
        return Target(target.type, target.exact, target.booleans, self.type, self.literal)


_PLAIN = (Kind.STRING, Kind.NUMBER, Kind.BOOLEAN)


def describe_json(kinds: Kind, *, empties: bool, nested: str | None) -> ColumnSource:
    """A column of JSON lines.

    Args:
        kinds: of its values.
        empties: whether some value is an empty text, which no type but text holds.
        nested: the type that its nested values seem to have in common.
    """
    own = None
    if kinds is Kind.NESTED:
        own = nested or "VARCHAR"
    elif kinds not in (Kind.NONE, *_PLAIN) or (kinds is Kind.STRING and empties):
        own = "VARCHAR"
    return ColumnSource(literal=True, kinds=kinds or None, own=own)


def warn_of_kinds(name: str, source: ColumnSource) -> str | None:
    """Why a text column is one that is of more than texts in JSON."""
    kinds = source.kinds or Kind.NONE
    if kinds is Kind.NESTED and source.own == "VARCHAR":
        return (
            f"Column {name!r} is JSON text: its nested values have no type in common that gives "
            "each back."
        )
    said = {
        Kind.STRING: "texts",
        Kind.NUMBER: "numbers",
        Kind.BOOLEAN: "true or false",
        Kind.NESTED: "nested values",
    }
    found = [word for kind, word in said.items() if kind & kinds]
    if len(found) < 2:
        return None
    listed = " and ".join(found)
    return f"Column {name!r} holds {listed}, so it is text: what is no text stands as its JSON."
