"""How SQL values look in JSON, as SQL that writes the text of whole rows.

The engine writes rows some ten times faster than Python can, so each column gets an
expression that gives its JSON text. Digits are exact: integers of any size and decimals are
numbers written in full. Doubles are written shortest; NaN and infinities, which JSON lacks,
are strings. Dates and times are ISO 8601 strings, moments in UTC with a Z. BLOBs are base64,
JSON values stand as they are, structs and maps are objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from services.queryd.core.views import quote_text


@dataclass(frozen=True, slots=True)
class SqlType:
    """A DuckDB type: its id in lower case (`decimal`, `list`), its SQL name, its members."""

    id: str
    name: str
    members: tuple[tuple[str, SqlType], ...] = ()


# Kinds of types that are written alike, by DuckDB's ids in lower case.
NUMBERS = frozenset(
    """
    boolean tinyint smallint integer bigint hugeint utinyint usmallint uinteger ubigint uhugeint
    decimal bignum
    """.split()
)
# Their text holds nothing that JSON would escape.
BARE = frozenset("date time time_ns uuid interval bit".split())
TIMESTAMPS = frozenset(("timestamp", "timestamp_s", "timestamp_ms"))
FLOATS = frozenset(("float", "double"))
# Leaves that to_json writes the same way, so that lists of them need no lambda.
_SAME = frozenset(
    """
    boolean tinyint smallint integer bigint hugeint utinyint usmallint uinteger ubigint uhugeint
    varchar date uuid
    """.split()
)

_STRINGS = r"""'"(?:\\.|[^"\\])*"'"""


def write_row_array(columns: Sequence[SqlType]) -> str:
    """SQL for one row as `,[a,b]`; the columns are named c0, c1 …"""
    texts = [write_value(kind, f"c{i}") for i, kind in enumerate(columns)]
    return "concat(',[', " + ", ',', ".join(texts) + ", ']')"


def write_row_object(names: Sequence[str], columns: Sequence[SqlType]) -> str:
    """SQL for one row as `{"a":1,"b":2}` and a line end; the columns are named c0, c1 …"""
    parts: list[str] = []
    for i, (name, kind) in enumerate(zip(distinct_names(names), columns, strict=True)):
        parts += [quote_text(f"{'{' if i == 0 else ','}{_key(name)}:"), write_value(kind, f"c{i}")]
    return f"concat({', '.join(parts)}, '}}', chr(10))"


def distinct_names(names: Sequence[str]) -> list[str]:
    """Names as keys of an object: a repeated one gets _1, _2 … as DuckDB names columns."""
    taken: set[str] = set(names)
    seen: set[str] = set()
    keys: list[str] = []
    for name in names:
        key, count = name, 0
        while key in seen or (count and key in taken):
            count += 1
            key = f"{name}_{count}"
        seen.add(key)
        keys.append(key)
    return keys


def write_value(kind: SqlType, x: str, depth: int = 0) -> str:
    """SQL for the JSON text of `x`; never NULL.

    Args:
        kind: the type of `x`.
        x: an SQL expression.
        depth: how many lambdas are around it, for the names of their parameters.
    """
    if kind.name == "JSON":
        return _write_json(x)
    if kind.id in NUMBERS:
        return f"coalesce({x}::VARCHAR, 'null')"
    if kind.id in FLOATS:
        return (
            f"CASE WHEN {x} IS NULL THEN 'null' WHEN isfinite({x}) THEN {x}::VARCHAR "
            f"WHEN isnan({x}) THEN '\"NaN\"' WHEN {x} > 0 THEN '\"Infinity\"' "
            "ELSE '\"-Infinity\"' END"
        )
    plain = write_plain(kind, x)
    if plain is not None:
        return f"coalesce('\"' || {plain} || '\"', 'null')"
    if kind.members:
        return _write_nested(kind, x, depth)
    return f"coalesce(to_json({x}::VARCHAR)::VARCHAR, 'null')"


def _write_json(x: str) -> str:
    # A raw line end would break NDJSON; in valid JSON it can only be white space. The engine
    # takes NaN and Infinity for JSON, which nobody else does: such a value goes as a string.
    bare = f"regexp_replace({x}::VARCHAR, {_STRINGS}, '', 'g')"
    flat = f"translate({x}::VARCHAR, chr(10) || chr(13), '  ')"
    return (
        f"CASE WHEN {x} IS NULL THEN 'null' WHEN regexp_matches({bare}, '(?i)nan|inf') "
        f"THEN to_json({x}::VARCHAR)::VARCHAR ELSE {flat} END"
    )


def write_plain(kind: SqlType, x: str) -> str | None:
    """SQL for the text of `x` where it holds nothing to escape, NULL where `x` is; None for
    other types, and for numbers, whose text is no string's in JSON.
    """
    if kind.id in BARE or kind.id == "time with time zone":
        return f"{x}::VARCHAR"
    if kind.id in TIMESTAMPS:
        return _write_timestamp(x, x, "")
    if kind.id == "timestamp with time zone":
        # The same microseconds without a zone: in UTC, and for the far ends of time too.
        return _write_timestamp(x, f"make_timestamp(epoch_us({x}))", "Z")
    if kind.id == "timestamp_ns":
        return f"replace({x}::VARCHAR, ' ', 'T')"
    if kind.id == "blob":
        return f"base64({x})"
    return None


def _write_timestamp(x: str, local: str, zone: str) -> str:
    return (
        f"CASE WHEN isfinite({x}) THEN concat({local}::DATE, 'T', {local}::TIME, '{zone}') "
        f"ELSE {x}::VARCHAR END"
    )


def _write_nested(kind: SqlType, x: str, depth: int) -> str:
    if _is_same(kind):
        return f"coalesce(to_json({x})::VARCHAR, 'null')"
    item = f"e{depth}"
    if kind.id in ("list", "array"):
        text = write_value(kind.members[0][1], item, depth + 1)
        return f"coalesce('[' || {_join(x, item, text)} || ']', 'null')"
    if kind.id == "map":
        value = write_value(kind.members[1][1], f"{item}.value", depth + 1)
        text = f"to_json({item}.key::VARCHAR)::VARCHAR || ':' || {value}"
        return f"coalesce('{{' || {_join(f'map_entries({x})', item, text)} || '}}', 'null')"
    if kind.id == "union":
        cases = " ".join(
            f"WHEN {quote_text(name)} THEN concat({quote_text('{' + _key(name) + ':')}, "
            f"{write_value(member, f'union_extract({x}, {quote_text(name)})', depth)}, '}}')"
            for name, member in kind.members
            if name
        )
        return f"CASE union_tag({x})::VARCHAR {cases} ELSE 'null' END"
    return _write_struct(kind, x, depth)


def _write_struct(kind: SqlType, x: str, depth: int) -> str:
    """An object, or an array where the members have no names."""
    named = all(name for name, _ in kind.members)
    parts: list[str] = []
    for i, (name, member) in enumerate(kind.members):
        key = f"{_key(name)}:" if named else ""
        parts += [
            quote_text(("," if i else "") + key),
            write_value(member, f"struct_extract_at({x}, {i + 1})", depth),
        ]
    opened, closed = ("{", "}") if named else ("[", "]")
    return (
        f"CASE WHEN {x} IS NULL THEN 'null' "
        f"ELSE concat('{opened}', {', '.join(parts)}, '{closed}') END"
    )


def _join(values: str, item: str, text: str) -> str:
    return f"array_to_string(list_transform({values}, lambda {item}: {text}), ',')"


def _is_same(kind: SqlType) -> bool:
    if kind.id == "list":
        return all(_is_same(member) for _, member in kind.members)
    return kind.id in _SAME and kind.name != "JSON"


def _key(name: str) -> str:
    return orjson.dumps(name).decode()
