"""JSON lines: every value comes back as it was written, every bad line is told."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from services.ingestd.core.job import Limits
from shared.errors import Conflict, LakehouseError, Unprocessable, UnsupportedMediaType
from tests.support.ingestd import convert_bytes


def lines_of(*rows: str | bytes, end: bytes = b"\n") -> bytes:
    return b"".join((row.encode() if isinstance(row, str) else row) + end for row in rows)


# What stands in the JSON, the type of its column, and the texts that come back.
VALUES: list[tuple[str, list[str], str, list[str | None]]] = [
    ("integers", ["1", "-9223372036854775808"], "BIGINT", ["1", "-9223372036854775808"]),
    ("past 64 bits", ["9223372036854775808", "1"], "DECIMAL(38,0)", ["9223372036854775808", "1"]),
    ("past 38 digits", ["1" * 40, "1"], "VARCHAR", ["1" * 40, "1"]),
    ("trailing zeros", ["1.10", "2"], "DECIMAL(18,2)", ["1.10", "2.00"]),
    ("long decimals", ["1234567890123456789.25", "0.5"], "DECIMAL(38,2)", [
        "1234567890123456789.25", "0.50"]),
    ("floats", ["0.30000000000000004", "1e-07"], "DOUBLE", ["0.30000000000000004", "1e-07"]),
    ("bare exponents", ["1e21", "5E3"], "DOUBLE", ["1e+21", "5000.0"]),
    ("past a double", ["1e400", "1"], "VARCHAR", ["1e400", "1"]),
    ("too fine", ["0.1234567890123456789012345678901234567891", "1"], "VARCHAR", [
        "0.1234567890123456789012345678901234567891", "1"]),
    ("true and false", ["true", "false"], "BOOLEAN", ["true", "false"]),
    ("texts of digits", ['"1"', '"2"'], "VARCHAR", ["1", "2"]),
    ("texts of truth", ['"true"', '"false"'], "VARCHAR", ["true", "false"]),
    ("dates", ['"2024-01-05"', "null"], "DATE", ["2024-01-05", None]),
    ("moments", ['"2024-01-05T10:20:30Z"', '"2024-01-05T10:20:30.5Z"'], "TIMESTAMPTZ", [
        "2024-01-05 10:20:30+00", "2024-01-05 10:20:30.5+00"]),
    ("a date and nothing", ['"2024-01-05"', '""'], "VARCHAR", ["2024-01-05", ""]),
    ("escapes", [r'"a\"b\\c\n\u00e5"', '"x"'], "VARCHAR", ['a"b\\c\nå', "x"]),
    ("numbers and texts", ["1.50", '"a"'], "VARCHAR", ["1.50", "a"]),
    ("nothing", ["null", "null"], "VARCHAR", [None, None]),
    ("lists", ["[1,2]", "[]"], "BIGINT[]", ["[1, 2]", "[]"]),
    ("lists of floats", ["[1,2.5]", "[5.1e-05,0.1234567890123456]"], "DOUBLE[]", [
        "[1.0, 2.5]", "[5.1e-05, 0.1234567890123456]"]),
    ("uneven lists", ['[1,"a"]', "[true]"], "VARCHAR", ['[1,"a"]', "[true]"]),
    ("zeros in lists", ["[1.10,12345678901234567890.5]", "[1]"], "VARCHAR", [
        "[1.10,12345678901234567890.5]", "[1]"]),
    ("objects", ['{"x": 1, "y": {"z": "a"}}', "null"],
        'STRUCT("x" BIGINT, "y" STRUCT("z" VARCHAR))', ["{'x': 1, 'y': {'z': a}}", None]),
    ("a member that is not always there", ['{"x":1}', '{"x":1,"y":null}'], "VARCHAR", [
        '{"x":1}', '{"x":1,"y":null}']),
    ("a member twice", ['{"x":1,"x":2}', '{"x":1,"x":2}'], "VARCHAR", [
        '{"x":1,"x":2}', '{"x":1,"x":2}']),
]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [(values, kind, expected) for _, values, kind, expected in VALUES],
    ids=[name.replace(" ", "-") for name, *_ in VALUES],
)
# The last of many rows decides as much as the first: no sample does.
@pytest.mark.parametrize("before", [0, 5000])
def test_values_come_back(
    values: list[str], kind: str, expected: list[str | None], before: int, tmp_path: Path
) -> None:
    first = values[0]
    data = lines_of(
        *(f'{{"n": {number}, "v": {first}}}' for number in range(before)),
        *(f'{{"n": {before + number}, "v": {value}}}' for number, value in enumerate(values)),
    )
    found = convert_bytes(tmp_path, data)
    assert found.types == ["BIGINT", kind]
    assert [value for _, value in found.rows[-len(values) :]] == expected
    assert len(found.rows) == before + len(values)
    assert {value for _, value in found.rows[:before]} <= {expected[0]}


BAD = [
    ("{", "json", "not valid JSON"),
    ('{"a":1,}', "json", "character"),
    ('{"a":NaN}', "json", "NaN"),
    ('{"a":-Infinity}', "json", "Infinity"),
    ('{"a":01}', "json", "not valid JSON"),
    ('{"a":1} {"a":2}', "json", "Extra data"),
    ('{"a":"x\ty"}', "json", "control character"),
    ("[1,2]", "not_object", "an array"),
    ("5", "not_object", "a number"),
    ('"text"', "not_object", "a string"),
    ("null", "not_object", "a bare word"),
    ('{"a":1,"a":2}', "duplicate_key", "'a' twice"),
    (r'{"a":"\ud800"}', "encoding", "half a surrogate"),
    (b'{"a":"\xff"}', "encoding", "not valid UTF-8"),
    ('{"a":' * 3000 + "1" + "}" * 3000, "too_deep", "too deep"),
]


@pytest.mark.parametrize(
    ("line", "reason", "says"), BAD, ids=[f"{number}-{one[1]}" for number, one in enumerate(BAD)]
)
def test_a_bad_line_is_a_reject(line: str | bytes, reason: str, says: str, tmp_path: Path) -> None:
    good = ['{"a": 1, "b": "å"}'] * 4
    found = convert_bytes(tmp_path, lines_of(*good[:2], "", line, *good[2:]))
    assert found.rows == [("1", "å")] * 4
    assert [(one[0], one[2]) for one in found.rejects] == [(4, reason)]
    assert says in found.rejects[0][3]
    text = line if isinstance(line, str) else line.decode("utf-8", "backslashreplace")
    assert found.rejects[0][4] == text
    assert "Empty lines passed over: 1." in found.outcome.warnings


@pytest.mark.parametrize(
    "data",
    [
        lines_of('{"a":1,"b":"å"}', '{"a":2,"b":"c"}', end=b"\r\n"),
        lines_of('{"a":1,"b":"å"}', '{"a":2,"b":"c"}', end=b"\r"),
        lines_of('{"a":1,"b":"å"}', '{"a":2,"b":"c"}')[:-1],
        b"\xef\xbb\xbf" + lines_of('{"a":1,"b":"å"}', '{"a":2,"b":"c"}'),
        '{"a":1,"b":"å"}\n{"a":2,"b":"c"}\n'.encode("utf-16"),
        '{"a":1,"b":"å"}\n{"a":2,"b":"c"}\n'.encode("cp1252"),
        gzip.compress(lines_of('{"a":1,"b":"å"}', '{"a":2,"b":"c"}')),
        pa.Codec("zstd").compress(lines_of('{"a":1,"b":"å"}', '{"a":2,"b":"c"}'), asbytes=True),
    ],
    ids=["crlf", "cr", "no-last-end", "bom", "utf-16", "cp1252", "gzip", "zstd"],
)
def test_ways_to_write_lines(data: bytes, tmp_path: Path) -> None:
    found = convert_bytes(tmp_path, data)
    assert found.types == ["BIGINT", "VARCHAR"]
    assert found.rows == [("1", "å"), ("2", "c")]


def test_columns_are_those_of_all_rows(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"id": number} for number in range(3000)]
    rows[1500]["late"] = "x"
    rows[2999] |= {"later": 1.5, "": 1, "ID": 2}
    found = convert_bytes(tmp_path, lines_of(*(json.dumps(row) for row in rows), "{}"))
    assert found.names == ["id", "late", "later", "column_4", "ID_2"]
    assert found.rows[1500] == ("1500", "x", None, None, None)
    assert found.rows[2999] == ("2999", None, "1.5", "1", "2")
    assert found.rows[3000] == (None,) * 5


def test_lines_of_many_forms_keep_their_order_and_numbers(tmp_path: Path) -> None:
    written = [
        json.dumps({"n": number, "s": "é" * (number % 7)}, ensure_ascii=number % 3 == 0)
        if number % 5
        else json.dumps({"s": f'"{number}"', "n": number}, separators=(",", ":"))
        for number in range(20_000)
    ]
    written[777] = "bad"
    found = convert_bytes(tmp_path, lines_of(*written))
    assert [int(n or "") for _, n in found.rows] == [n for n in range(20_000) if n != 777]
    assert [one[0] for one in found.rejects] == [778]
    assert all(
        s == (f'"{n}"' if int(n or "") % 5 == 0 else "é" * (int(n or "") % 7))
        for s, n in found.rows
    )


TABLE = [("id", "BIGINT"), ("at", "DATE"), ("spot", "STRUCT(x BIGINT, y VARCHAR)")]
SENT = lines_of(
    '{"ID": 1, "at": "2024-01-05", "spot": {"x": 1, "y": "a"}}',
    '{"ID": "one", "at": "2024-01-06", "spot": null}',
    '{"ID": 3, "at": "", "spot": {"x": 1, "y": "a"}}',
    '{"ID": 4, "at": null, "spot": {"x": "1", "z": "a"}}',
)


def test_freeze_names_each_column_that_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(Conflict) as caught:
        convert_bytes(tmp_path, SENT, table=TABLE)
    found = {one["column"]: (one["line"], one["count"]) for one in caught.value.details["columns"]}
    assert found == {"id": (2, 1), "at": (3, 1), "spot": (4, 1)}


def test_discard_row_keeps_the_lines(tmp_path: Path) -> None:
    found = convert_bytes(tmp_path, SENT, table=TABLE, contract="discard_row")
    assert found.rows == [("1", "2024-01-05", "{'x': 1, 'y': a}")]
    assert [(one[0], one[1], one[2]) for one in found.rejects] == [
        (2, "id", "does_not_fit"),
        (3, "at", "does_not_fit"),
        (4, "spot", "does_not_fit"),
    ]
    assert [one[4] for one in found.rejects] == SENT.decode().splitlines()[1:]


def test_discard_value_lists_the_values(tmp_path: Path) -> None:
    found = convert_bytes(tmp_path, SENT, table=TABLE, contract="discard_value")
    assert len(found.rows) == 4
    assert found.outcome.discarded == 3
    assert [(one[0], one[1]) for one in found.rejects] == [(2, "id"), (3, "at"), (4, "spot")]


def test_evolve_adds_columns_and_leaves_missing_ones_null(tmp_path: Path) -> None:
    data = lines_of('{"id": 1, "new": [1]}', '{"id": 2}')
    found = convert_bytes(tmp_path, data, table=TABLE, contract="evolve")
    assert found.outcome.columns[-1] == ("new", "BIGINT[]")
    assert found.rows == [("1", None, None, "[1]"), ("2", None, None, None)]


REFUSED: list[tuple[str, bytes, dict[str, Any], type[LakehouseError], str]] = [
    ("an array", b'[{"a": 1}, {"a": 2}]', {}, UnsupportedMediaType, "jq -c '.[]'"),
    ("one object over lines", b'{\n  "a": 1\n}\n', {}, UnsupportedMediaType, "jq -c ."),
    ("sent as CSV", b'{"a": 1}\n', {"format": "csv"}, UnsupportedMediaType, "x-ndjson"),
    ("no line good", b'{"a":\n{"b":\n', {"format": "jsonl"}, Unprocessable, "None of the 2"),
    ("only blanks", b"\n\n", {"format": "jsonl"}, Unprocessable, "blank lines"),
    ("no members", b"{}\n{}\n", {}, Unprocessable, "No object has a member"),
    ("empty", b"", {"format": "jsonl"}, Unprocessable, "empty"),
    ("a line too long", b'{"a":"' + b"x" * (17 << 20) + b'"}', {}, Unprocessable, "Line 1"),
]


@pytest.mark.parametrize(
    ("data", "options", "cls", "says"),
    [one[1:] for one in REFUSED],
    ids=[name.replace(" ", "-") for name, *_ in REFUSED],
)
def test_what_is_no_json_lines_is_refused_with_the_reason(
    data: bytes, options: dict[str, Any], cls: type[LakehouseError], says: str, tmp_path: Path
) -> None:
    with pytest.raises(cls) as caught:
        convert_bytes(tmp_path, data, **options)
    assert says in caught.value.message


def test_names_that_are_data_are_refused(tmp_path: Path) -> None:
    data = lines_of(*(json.dumps({f"k{number}": 1}) for number in range(50)))
    limits = Limits(columns=40, memory_bytes=256 * 1024 * 1024)
    with pytest.raises(Unprocessable, match="at most 40"):
        convert_bytes(tmp_path, data, limits=limits)


def test_a_csv_whose_cells_are_json_stays_csv(tmp_path: Path) -> None:
    found = convert_bytes(tmp_path, b'id,doc\n1,"{""a"":1}"\n')
    assert found.rows == [("1", '{"a":1}')]


def test_escapes_among_lines_written_alike(tmp_path: Path) -> None:
    texts = ["plain", 'q"q', "back\\slash", "line\nend", "é€😀", "nul\0", "", "null", "/"]
    written = [
        json.dumps({"n": number, "s": texts[number % len(texts)]}, ensure_ascii=number % 2 == 0)
        for number in range(30_000)
    ]
    written[20_000] = r'{"n": 20000, "s": "half \ud83d"}'
    written[20_001] = r'{"n": 20001, "s": "\/"}'
    found = convert_bytes(tmp_path, lines_of(*written))
    assert [one[0] for one in found.rejects] == [20_001]
    assert len(found.rows) == 29_999
    for number, text in found.rows:
        place = int(number or "")
        expected = "/" if place == 20_001 else texts[place % len(texts)]
        assert text == expected
    assert "NUL characters were kept as part of the text." in found.outcome.warnings
