"""How SQL values look in CSV (RFC 4180), as SQL that writes the text of whole rows.

A value's text is that of the JSON answer without its quotes; lists, structs and maps are their
JSON. What holds a comma, a quote or a line end is quoted. NULL is nothing at all and an empty
text is `""`, so the two can be told apart, but for a row of one column: there NULL is `""` too,
since readers skip empty lines. Lines end in a line feed.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.queryd.core.jsontext import (
    FLOATS,
    NUMBERS,
    SqlType,
    distinct_names,
    write_plain,
    write_value,
)


def write_header(names: Sequence[str]) -> bytes:
    """The first line: the columns' names, a repeated one with _1, _2 … as DuckDB names them."""
    return (",".join(map(_quote, distinct_names(names))) + "\n").encode()


def write_row_csv(columns: Sequence[SqlType]) -> str:
    """SQL for one row and its line end; the columns are named c0, c1 …"""
    missing = "'\"\"'" if len(columns) == 1 else "''"
    cells = [f"coalesce({write_cell(kind, f'c{i}')}, {missing})" for i, kind in enumerate(columns)]
    return "concat(" + ", ',', ".join(cells) + ", chr(10))"


def write_cell(kind: SqlType, x: str) -> str:
    """SQL for the text of `x`, an expression of type `kind`; NULL where `x` is."""
    plain = write_plain(kind, x)
    if plain is not None:
        return plain
    if kind.id in NUMBERS:
        return f"{x}::VARCHAR"
    if kind.id in FLOATS:
        return (
            f"CASE WHEN isfinite({x}) THEN {x}::VARCHAR WHEN isnan({x}) THEN 'NaN' "
            f"WHEN {x} > 0 THEN 'Infinity' WHEN {x} < 0 THEN '-Infinity' END"
        )
    if kind.members:
        return f"CASE WHEN {x} IS NOT NULL THEN {_write_quoted(write_value(kind, x))} END"
    return _write_quoted(f"{x}::VARCHAR")


def _write_quoted(text: str) -> str:
    doubled = f"""'"' || replace({text}, '"', '""') || '"'"""
    return (
        f"CASE WHEN {text} = '' OR regexp_matches({text}, '[\",\\r\\n]') "
        f"THEN {doubled} ELSE {text} END"
    )


def _quote(name: str) -> str:
    if name and not any(c in name for c in '",\r\n'):
        return name
    return '"' + name.replace('"', '""') + '"'
