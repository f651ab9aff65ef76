"""Parquet files of others: values kept or the file refused, never cut off."""

from __future__ import annotations

import datetime
import io
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.errors import Conflict, Unprocessable, UnsupportedMediaType
from tests.support.ingestd import convert_bytes


def write(columns: Any, names: list[str] | None = None, **options: Any) -> bytes:
    sink = io.BytesIO()
    table = pa.table(columns) if names is None else pa.table(columns, names=names)
    pq.write_table(table, sink, **options)
    return sink.getvalue()


KEPT: list[tuple[str, pa.Array, str, list[str | None]]] = [
    ("uint64", pa.array([2**64 - 1, 0], pa.uint64()), "DECIMAL(20,0)", [str(2**64 - 1), "0"]),
    ("uint32", pa.array([2**32 - 1, 0], pa.uint32()), "BIGINT", [str(2**32 - 1), "0"]),
    ("uint16", pa.array([65535, 0], pa.uint16()), "INTEGER", ["65535", "0"]),
    ("int8", pa.array([-128, 127], pa.int8()), "INTEGER", ["-128", "127"]),
    ("int64", pa.array([2**63 - 1, None]), "BIGINT", [str(2**63 - 1), None]),
    ("float", pa.array([1.5, None], pa.float32()), "FLOAT", ["1.5", None]),
    ("double", pa.array([0.1, float("nan")]), "DOUBLE", ["0.1", "nan"]),
    ("decimal", pa.array([Decimal("1.10"), None]), "DECIMAL(3,2)", ["1.10", None]),
    ("nanoseconds", pa.array([1000, 2000], pa.timestamp("ns")), "TIMESTAMP", [
        "1970-01-01 00:00:00.000001", "1970-01-01 00:00:00.000002"]),
    ("nanoseconds in UTC", pa.array([1000, None], pa.timestamp("ns", "UTC")), "TIMESTAMPTZ", [
        "1970-01-01 00:00:00.000001+00", None]),
    ("milliseconds", pa.array([1, None], pa.timestamp("ms")), "TIMESTAMP", [
        "1970-01-01 00:00:00.001", None]),
    ("time", pa.array([1000, None], pa.time64("ns")), "TIME", ["00:00:00.000001", None]),
    ("date", pa.array([datetime.date(2024, 1, 5), None]), "DATE", ["2024-01-05", None]),
    ("text", pa.array(["", "007"]), "VARCHAR", ["", "007"]),
    ("dictionary", pa.array(["a", "b"]).dictionary_encode(), "VARCHAR", ["a", "b"]),
    ("bytes", pa.array([b"\xff", b""]), "BLOB", ["\\xFF", ""]),
    ("nothing", pa.array([None, None]), "VARCHAR", [None, None]),
    ("struct", pa.array([{"a": 2**64 - 1}, None], pa.struct([("a", pa.uint64())])),
        'STRUCT("a" DECIMAL(20,0))', [f"{{'a': {2**64 - 1}}}", None]),
    ("list", pa.array([["a", None], []]), "VARCHAR[]", ["[a, NULL]", "[]"]),
    ("map", pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
        "MAP(VARCHAR, BIGINT)", ["{a=1}", None]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [one[1:] for one in KEPT],
    ids=[name.replace(" ", "-") for name, *_ in KEPT],
)
def test_values_come_back(
    values: pa.Array, kind: str, expected: list[str | None], tmp_path: Path
) -> None:
    found = convert_bytes(tmp_path, write({"v": values}))
    assert found.types == [kind]
    assert [value for (value,) in found.rows] == expected


def test_int96_is_kept_where_it_holds_microseconds(tmp_path: Path) -> None:
    values = pa.array([1000, -1000], pa.timestamp("ns"))
    data = write({"v": values}, use_deprecated_int96_timestamps=True)
    found = convert_bytes(tmp_path, data)
    assert found.rows == [("1970-01-01 00:00:00.000001",), ("1969-12-31 23:59:59.999999",)]


LOST: list[tuple[str, pa.Array, dict[str, Any], str]] = [
    ("nanoseconds", pa.array([1000, 2001], pa.timestamp("ns")), {}, "00.000002001"),
    ("in UTC", pa.array([1000, 2001], pa.timestamp("ns", "UTC")), {}, "00.000002001"),
    ("time", pa.array([1000, 2001], pa.time64("ns")), {}, "00.000002001"),
    ("int96", pa.array([1000, 2001], pa.timestamp("ns")),
        {"use_deprecated_int96_timestamps": True}, "00.000002001"),
    ("nested", pa.array([[2001]], pa.list_(pa.timestamp("ns", "UTC"))), {}, "nanoseconds"),
    ("decimal of 45 digits", pa.array([Decimal("1" * 44 + ".5")], pa.decimal256(45, 1)), {},
        "more than 38 digits"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "options", "says"),
    [one[1:] for one in LOST],
    ids=[name.replace(" ", "-") for name, *_ in LOST],
)
def test_what_would_be_cut_off_is_refused(
    values: pa.Array, options: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(Unprocessable) as caught:
        convert_bytes(tmp_path, write({"a": [1] * len(values), "v": values}, **options))
    assert says in caught.value.message
    assert caught.value.details["columns"][0]["column"] == "v"


GOOD = write({"a": list(range(1000)), "b": [f"x{number}" for number in range(1000)]})


@pytest.mark.parametrize(
    "data",
    [GOOD[:100], GOOD[:-100], GOOD[:-4], GOOD[:200] + bytes(400) + GOOD[600:], b"PAR1PAR1"],
    ids=["head", "no-footer", "no-magic", "zeroed", "magic-alone"],
)
def test_damage_is_told(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(Unprocessable, match="damaged"):
        convert_bytes(tmp_path, data)


def test_flipped_bytes_end_in_a_table_or_a_clear_refusal(tmp_path: Path) -> None:
    chance = random.Random(7)
    for _ in range(60):
        data = bytearray(GOOD)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(4, len(data) - 8)] = chance.randrange(256)
        try:
            found = convert_bytes(tmp_path, bytes(data))
        except Unprocessable:
            continue
        assert found.outcome.rows_in == len(found.rows)


def test_encrypted_files_and_wrong_names_are_told(tmp_path: Path) -> None:
    with pytest.raises(Unprocessable, match="encrypted"):
        convert_bytes(tmp_path, b"PARE" + GOOD[4:-4] + b"PARE")
    with pytest.raises(UnsupportedMediaType, match="is a Parquet file"):
        convert_bytes(tmp_path, GOOD, format="csv")
    with pytest.raises(UnsupportedMediaType, match="is none"):
        convert_bytes(tmp_path, b"a,b\n1,2\n", format="parquet")
    with pytest.raises(Unprocessable, match="no rows"):
        convert_bytes(tmp_path, write({"a": pa.array([], pa.int64())}))


def test_names_are_made_distinct_and_usable(tmp_path: Path) -> None:
    data = write([[1], [2], [3], [4], [5]], ["a", "a", "A", "", " b.c "])
    found = convert_bytes(tmp_path, data)
    assert found.names == ["a", "a_2", "A_3", "column_4", "b.c"]
    assert found.rows == [("1", "2", "3", "4", "5")]


def test_many_row_groups_keep_their_order(tmp_path: Path) -> None:
    data = write({"a": list(range(50_000))}, row_group_size=700)
    assert [int(a or "") for (a,) in convert_bytes(tmp_path, data).rows] == list(range(50_000))


TABLE = [("id", "BIGINT"), ("rate", "DECIMAL(18,2)"), ("word", "VARCHAR"), ("at", "TIMESTAMP")]
SENT = write(
    {
        "ID": [1.0, 2.0, 3.5],
        "rate": [1.5, 1.255, 2.0],
        "word": [1, 2, 3],
        "at": [datetime.date(2024, 1, 5)] * 3,
    }
)


@pytest.mark.parametrize("contract", ["freeze", "evolve"])
def test_what_does_not_fit_is_a_conflict(contract: str, tmp_path: Path) -> None:
    with pytest.raises(Conflict) as caught:
        convert_bytes(tmp_path, SENT, table=TABLE, contract=contract)
    found = [(one["column"], one["example"]) for one in caught.value.details["columns"]]
    assert found == [("id", "3.5"), ("rate", "1.255")]


def test_rows_that_do_not_fit_are_kept_as_rejects(tmp_path: Path) -> None:
    found = convert_bytes(tmp_path, SENT, table=TABLE, contract="discard_row")
    assert found.rows == [("1", "1.50", "1", "2024-01-05 00:00:00")]
    assert [(one[0], one[1]) for one in found.rejects] == [(2, "rate"), (3, "id")]
    assert found.rejects[1][4] == '{"ID":3.5,"rate":2.0,"word":3,"at":"2024-01-05"}'


def test_values_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    found = convert_bytes(tmp_path, SENT, table=TABLE, contract="discard_value")
    assert [row[:2] for row in found.rows] == [("1", "1.50"), ("2", None), (None, "2.00")]
    assert found.outcome.discarded == 2


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (pa.array([True]), "BIGINT"),
        (pa.array([1]), "BOOLEAN"),
        (pa.array([0], pa.timestamp("us")), "TIMESTAMPTZ"),
        (pa.array([b"x"]), "VARCHAR"),
        (pa.array([2**53 + 1]), "DOUBLE"),
        (pa.array([""]), "BIGINT"),
        (pa.array(["1.50"]), "BIGINT"),
        (pa.array([[1]]), "BIGINT"),
    ],
)
def test_casts_that_change_a_value_are_none(values: pa.Array, kind: str, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="do not fit"):
        convert_bytes(tmp_path, write({"v": values}), table=[("v", kind)])


def test_evolve_widens_for_typed_values(tmp_path: Path) -> None:
    data = write({"id": pa.array([2**40]), "new": ["x"]})
    found = convert_bytes(tmp_path, data, table=[("id", "INTEGER")], contract="evolve")
    assert found.outcome.columns == (("id", "BIGINT"), ("new", "VARCHAR"))
