"""Values that come with a type (from Parquet) into the types that tables have.

A value fits when it is the same value in the other type: cast there and back, it is what
it was. Casts that change what a value means (a number to a BOOLEAN, a local time to a
moment) are none of these, though engines do them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from services.ingestd.core.nested import Node, Unreadable, read_type, write_type

_DECIMAL = re.compile(r"DECIMAL\((\d+), ?(\d+)\)")
_NUMBERS = frozenset(
    "TINYINT SMALLINT INTEGER BIGINT HUGEINT UTINYINT USMALLINT UINTEGER UBIGINT FLOAT "
    "DOUBLE".split()
)
# What a table holds in place of types that Iceberg has no equal for; none loses a value.
_STORED = {
    "TINYINT": "INTEGER",
    "SMALLINT": "INTEGER",
    "UTINYINT": "INTEGER",
    "USMALLINT": "INTEGER",
    "UINTEGER": "BIGINT",
    "UBIGINT": "DECIMAL(20,0)",
    "HUGEINT": "DECIMAL(38,0)",
    "TIMESTAMP_S": "TIMESTAMP",
    "TIMESTAMP_MS": "TIMESTAMP",
    "TIMESTAMP_NS": "TIMESTAMP",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ",
    "TIME WITH TIME ZONE": "TIME",
    "TIME_NS": "TIME",
    "JSON": "VARCHAR",
    "INTERVAL": "VARCHAR",
}
_KEPT = frozenset(
    "BOOLEAN INTEGER BIGINT FLOAT DOUBLE DATE TIME TIMESTAMP TIMESTAMPTZ VARCHAR BLOB UUID".split()
)
# Their text gives them back.
_WRITTEN = _NUMBERS | {"BOOLEAN", "DATE", "TIME", "TIMESTAMP", "TIMESTAMPTZ", "UUID"}
_NESTED = frozenset({"STRUCT", "LIST", "MAP"})


@dataclass(frozen=True, slots=True)
class Cast:
    """How a typed value is converted, and a condition that it is the same value after."""

    value: str
    same: str


def stored_type(source: str) -> str | None:
    """The type a new column gets for values of this one; None for one that no table holds."""
    try:
        node = _stored_node(read_type(source))
    except Unreadable:
        return None
    return None if node is None else write_type(node)


def build_cast(source: str, target: str, value: str) -> Cast | None:
    """The cast of `value`; None for one that would change what values mean."""
    if source == target:
        return Cast(value, "true")
    try:
        before, after = read_type(source), read_type(target)
    except Unreadable:
        return None
    if not _goes(before, after):
        return None
    there = f"TRY_CAST({value} AS {target})"
    if target == "VARCHAR":
        return Cast(there, "true")
    return Cast(there, f"coalesce(TRY_CAST({there} AS {source}) = {value}, false)")


def _goes(before: Node, after: Node) -> bool:
    """Whether the cast keeps the meaning; whether each value survives is seen by casting back."""
    if before == after:
        return True
    if before.name in _NESTED or after.name in _NESTED:
        return (
            before.name == after.name
            and [name for name, _ in before.members] == [name for name, _ in after.members]
            and all(
                _goes(mine, theirs)
                for (_, mine), (_, theirs) in zip(before.members, after.members, strict=True)
            )
        )
    if after.name == "VARCHAR":
        return before.name in _WRITTEN or _is_number(before.name)
    if _is_number(before.name):
        return _is_number(after.name)
    stored = _STORED.get(before.name, before.name)
    return stored == after.name or {stored, after.name} == {"DATE", "TIMESTAMP"}


def _is_number(name: str) -> bool:
    return name in _NUMBERS or bool(_DECIMAL.fullmatch(name))


def _stored_node(node: Node) -> Node | None:
    if node.name in _NESTED:
        members: list[tuple[str, Node]] = []
        for name, inner in node.members:
            found = _stored_node(inner)
            if found is None:
                return None
            members.append((name, found))
        return Node(node.name, tuple(members))
    decimal = _DECIMAL.fullmatch(node.name)
    if decimal:
        return Node(f"DECIMAL({decimal[1]},{decimal[2]})")
    name = _STORED.get(node.name, node.name)
    return Node(name) if name in _KEPT or name.startswith("DECIMAL(") else None
