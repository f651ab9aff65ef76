"""What a dataset's columns are, how two sets of them differ, and how one becomes another.

Columns are known by name alone, because the files carry no field ids. So:

- A fingerprint is the SHA-256 over (name, type) in order of names. It knows case (files are
  read by exact name) and does not know the order of columns or whether they may be null.
- Two columns of one table whose names differ only in case are refused: SQL could not tell
  them apart.
- A field id belongs to a name for the life of the dataset. Iceberg's name mapping, by which
  every engine finds columns in such files, is one for all snapshots: were a dropped and
  re-added name to get a new id, older snapshots would read as null in it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from services.catalogd.core.sqltypes import sql_name
from services.catalogd.core.types import (
    Columns,
    ColumnType,
    Decimal,
    Field,
    List,
    Map,
    Path,
    Scalar,
    Struct,
    canonical_text,
    walk_paths,
)
from shared.errors import Conflict

Mode = Literal["append", "replace", "rewrite"]

# Pairs of which the second holds every value of the first.
_WIDER = frozenset({("int", "long"), ("float", "double")})
# Columns named in a message; the details name all.
_NAMED = 5


def fingerprint_columns(columns: Columns) -> str:
    """64 hexadecimal digits, equal for equal names and types in any order."""
    pairs = sorted([column.name, canonical_text(column.type)] for column in columns)
    text = json.dumps(pairs, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def find_name_problem(columns: Columns) -> str | None:
    """Why these names cannot be a table's, or None when they can."""
    if not columns:
        return "it has no columns"
    levels: dict[Path, list[str]] = {(): [column.name for column in columns]}
    for path, kind in walk_paths(columns):
        if isinstance(kind, Struct):
            levels[path] = [member.name for member in kind.fields]
            if not kind.fields:
                return f"struct {'.'.join(path)!r} has no members"
    for path, names in levels.items():
        where = f" in {'.'.join(path)!r}" if path else ""
        if "" in names:
            return f"a column{where} has an empty name"
        for name, count in Counter(names).items():
            if count > 1:
                return f"column {name!r}{where} is there {count} times"
        if pair := find_case_clash(names):
            return f"columns {pair[0]!r} and {pair[1]!r}{where} differ only in case"
    # Iceberg and Parquet both call a nested field by its dotted path.
    dotted = Counter(".".join(path) for path, _ in walk_paths(columns))
    for name, count in dotted.items():
        if count > 1:
            return f"{name!r} is the name of a column and of a field inside another"
    return None


def find_case_clash(names: Iterable[str]) -> tuple[str, str] | None:
    """Two different names that SQL takes for one."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            return other, name
    return None


def widen_type(one: ColumnType, other: ColumnType) -> ColumnType | None:
    """The narrowest type that holds every value of both, or None when Iceberg has none.

    int and long, float and double, decimals of one scale; structs member by member (one
    side's members are null in the other), lists by element, maps by value.
    """
    if canonical_text(one) == canonical_text(other):
        return one
    match one, other:
        case Scalar(), Scalar():
            if (one.kind, other.kind) in _WIDER:
                return other
            return one if (other.kind, one.kind) in _WIDER else None
        case Decimal(), Decimal() if one.scale == other.scale:
            return one if one.precision > other.precision else other
        case List(), List():
            element = widen_type(one.element, other.element)
            return None if element is None else List(element)
        case Map(), Map() if canonical_text(one.key) == canonical_text(other.key):
            value = widen_type(one.value, other.value)
            return None if value is None else Map(one.key, value)
        case Struct(), Struct():
            merged = merge_columns(one.fields, other.fields)
            if merged.blocked or find_case_clash(f.name for f in merged.columns):
                return None
            return Struct(merged.columns)
        case _:
            return None


@dataclass(frozen=True)
class Merge:
    """Columns of both sides; `blocked` are the names that no type fits."""

    columns: Columns
    blocked: tuple[str, ...]


def merge_columns(table: Columns, given: Columns) -> Merge:
    """The table's columns in their order, widened as need be, then those it has not yet."""
    offered = {column.name: column.type for column in given}
    merged: list[Field] = []
    blocked: list[str] = []
    for column in table:
        other = offered.pop(column.name, column.type)
        wider = widen_type(column.type, other)
        if wider is None:
            blocked.append(column.name)
        merged.append(Field(column.name, wider or column.type))
    merged += [Field(name, kind) for name, kind in offered.items()]
    return Merge(tuple(merged), tuple(blocked))


@dataclass(frozen=True)
class Difference:
    """How offered columns differ from a table's. Types are SQL names."""

    added: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    missing: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    changed: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def describe(self) -> str:
        """One sentence part naming the first few columns of each sort."""
        parts: list[str] = []
        for word, entries in (
            ("new", self.added),
            ("missing", self.missing),
            ("of another type", self.changed),
        ):
            if entries:
                named = ", ".join(_describe_entry(entry) for entry in entries[:_NAMED])
                more = f" and {len(entries) - _NAMED} more" if len(entries) > _NAMED else ""
                parts.append(f"{word}: {named}{more}")
        return "; ".join(parts)


def _describe_entry(entry: Mapping[str, Any]) -> str:
    types = [kind for kind in (entry["table_type"], entry["object_type"]) if kind]
    return f"{entry['name']} ({' in the table, '.join(types)})"


def compare_columns(table: Columns, given: Columns) -> Difference:
    """Every column that is new, missing or of another type, with both types by name."""
    ours = {column.name: column.type for column in table}
    theirs = {column.name: column.type for column in given}
    difference = Difference()
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        mine, other = ours.get(name), theirs.get(name)
        entry = {
            "name": name,
            "table_type": sql_name(mine) if mine else None,
            "object_type": sql_name(other) if other else None,
        }
        if mine is None:
            difference.added.append(entry)
        elif other is None:
            difference.missing.append(entry)
        elif canonical_text(mine) != canonical_text(other):
            difference.changed.append(entry)
    return difference


def plan_columns(name: str, table: Columns, given: Columns, mode: Mode, evolve: bool) -> Columns:
    """The columns that a dataset has after a write.

    Args:
        name: the dataset's, for the message.
        table: its columns now.
        given: those of the objects.
        mode: append and rewrite keep every column; replace takes the objects' columns as they
            are.
        evolve: whether the columns may change at all.

    Raises:
        Conflict: they differ and may not, or no lossless change leads there. The details
            name each column with both types.
    """
    if fingerprint_columns(table) == fingerprint_columns(given):
        return table
    difference = compare_columns(table, given)
    details: dict[str, Any] = {
        "dataset": name,
        "added": difference.added,
        "missing": difference.missing,
        "changed": difference.changed,
        "fingerprint": {
            "table": fingerprint_columns(table),
            "objects": fingerprint_columns(given),
        },
    }
    if not evolve:
        raise Conflict(
            f"The objects' columns are not those of dataset {name}: {difference.describe()}. "
            "Send evolve=true to let the dataset take them, or make the columns match.",
            details=details,
        )
    if mode == "replace":
        return given
    merged = merge_columns(table, given)
    if merged.blocked:
        raise Conflict(
            f"Dataset {name} cannot take these columns without loss: {difference.describe()}. "
            "Only new columns, int to bigint, float to double and longer decimals of the same "
            "scale are. Cast the columns, or write with mode=replace.",
            details={**details, "blocking": list(merged.blocked)},
        )
    if problem := find_name_problem(merged.columns):
        raise Conflict(
            f"Dataset {name} cannot take these columns: {problem}. Rename it in the objects.",
            details={**details, "problem": problem},
        )
    return merged.columns


def assign_ids(columns: Columns, known: Mapping[Path, int], last_id: int) -> dict[Path, int]:
    """A field id for every path: the one its name always had, else the next free one."""
    ids: dict[Path, int] = {}
    for path, _ in walk_paths(columns):
        if path in known:
            ids[path] = known[path]
        else:
            last_id += 1
            ids[path] = last_id
    return ids


def build_name_mapping(ids: Mapping[Path, int]) -> list[dict[str, Any]]:
    """Iceberg's name mapping (`schema.name-mapping.default`) for all paths ever known."""
    nodes: dict[Path, dict[str, Any]] = {}
    roots: list[dict[str, Any]] = []
    for path in sorted(ids, key=lambda path: (len(path), ids[path])):
        node: dict[str, Any] = {"field-id": ids[path], "names": [path[-1]]}
        nodes[path] = node
        parent = nodes.get(path[:-1])
        if parent is None:
            roots.append(node)
        else:
            parent.setdefault("fields", []).append(node)
    return roots


def read_name_mapping(mapping: list[dict[str, Any]], parent: Path = ()) -> dict[Path, int]:
    """Paths and ids of a name mapping; the opposite of `build_name_mapping`."""
    ids: dict[Path, int] = {}
    for node in mapping:
        for name in node.get("names", ()):
            path = (*parent, name)
            if "field-id" in node:
                ids[path] = node["field-id"]
            ids.update(read_name_mapping(node.get("fields", []), path))
    return ids
