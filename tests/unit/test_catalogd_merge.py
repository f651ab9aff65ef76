"""Merging: rows in order, every type, columns that a file lacks, sizes, jobs as JSON."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import uuid
from decimal import Decimal as D
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.catalogd.core.columns import read_columns
from services.catalogd.core.footer import TAIL, parse_footer, parse_tail
from services.catalogd.core.job import MergedPart, MergeJob
from services.catalogd.core.types import (
    Columns,
    Decimal,
    Field,
    Fixed,
    List,
    Map,
    Scalar,
    Struct,
)
from services.catalogd.worker import merge
from services.catalogd.worker.merge import merge_files

EVERY: Columns = (
    Field("b", Scalar("boolean")),
    Field("i", Scalar("int")),
    Field("l", Scalar("long")),
    Field("f", Scalar("float")),
    Field("d", Scalar("double")),
    Field("day", Scalar("date")),
    Field("t", Scalar("time")),
    Field("ts", Scalar("timestamp")),
    Field("tz", Scalar("timestamptz")),
    Field("s", Scalar("string")),
    Field("u", Scalar("uuid")),
    Field("x", Scalar("binary")),
    Field("fix", Fixed(3)),
    Field("dec", Decimal(20, 2)),
    Field("st", Struct((Field("a", Scalar("long")), Field("b", List(Scalar("string")))))),
    Field("li", List(Struct((Field("k", Scalar("int")), Field("new", Scalar("string")))))),
    Field("m", Map(Scalar("string"), Scalar("double"))),
)


def make_job(tmp_path: Path, columns: Columns, *tables: pa.Table, target: int = 2**27) -> MergeJob:
    """A job over these tables as files; through JSON, as the process gets it."""
    inputs: list[str] = []
    for number, table in enumerate(tables):
        inputs.append(str(tmp_path / f"in-{number}.parquet"))
        pq.write_table(table, inputs[-1], row_group_size=3)
    job = MergeJob(tuple(inputs), str(tmp_path), columns, target, 2**28)
    assert MergeJob.from_json(json.loads(json.dumps(job.to_json()))) == job
    return job


def read(parts: list[MergedPart]) -> list[dict[str, Any]]:
    return [row for part in parts for row in pq.read_table(part.path).to_pylist()]


def columns_of(path: str) -> Columns:
    """What catalogd makes of a file."""
    content = Path(path).read_bytes()
    length = parse_tail(content[-TAIL:], len(content))
    start = len(content) - TAIL - length
    columns, problems = read_columns(parse_footer(content[start:-TAIL], len(content)))
    assert problems == {}
    return columns


def test_every_type_comes_through_in_order_and_missing_is_null(tmp_path: Path) -> None:
    day = dt.date(2026, 1, 31)
    noon = dt.datetime(2026, 1, 31, 12, 0, 0, 123456)
    zone = noon.replace(tzinfo=dt.UTC)
    name = uuid.UUID(int=7)
    full = pa.table(
        {
            "m": pa.array(
                [[("a", 1.5), ("b", None)], None, []], pa.map_(pa.string(), pa.float64())
            ),
            "b": [True, None, False],
            "i": pa.array([1, None, -1], pa.int8()),
            "l": pa.array([1, 2, None], pa.int32()),
            "f": pa.array([0.5, float("nan"), None], pa.float32()),
            "d": pa.array([0.5, -0.0, None], pa.float32()),
            "day": [day, None, day],
            "t": pa.array([dt.time(1, 2, 3, 4), None, None], pa.time64("us")),
            "ts": pa.array([noon, None, None], pa.timestamp("us")),
            "tz": pa.array([zone, None, zone], pa.timestamp("us", "Europe/Oslo")),
            "s": pa.array(["a", "ø", None]).dictionary_encode(),
            "u": pa.array([name.bytes, None, name.bytes], pa.binary(16)).cast(pa.uuid()),
            "x": [b"\x00", b"", None],
            "fix": pa.array([b"abc", None, b"def"], pa.binary(3)),
            "dec": pa.array([D("1.25"), None, D("-9.99")], pa.decimal128(9, 2)),
            "st": pa.array(
                [{"b": ["x", None], "a": 1}, None, {"b": None, "a": 3}],
                pa.struct([("b", pa.list_(pa.string())), ("a", pa.int32())]),
            ),
            "li": pa.array(
                [[{"k": 1}, None], None, []], pa.large_list(pa.struct([("k", pa.int16())]))
            ),
        }
    )
    narrow = pa.table({"l": pa.array([10, 11, 12, 13], pa.int64())})
    [part] = merge_files(make_job(tmp_path, EVERY, full, narrow, full.slice(1)))
    rows = read([part])
    assert [row["l"] for row in rows] == [1, 2, None, 10, 11, 12, 13, 2, None]
    nothing = dict.fromkeys(column.name for column in EVERY)
    assert rows[3:7] == [{**nothing, "l": number} for number in (10, 11, 12, 13)]
    assert rows[0] == {
        "b": True,
        "i": 1,
        "l": 1,
        "f": 0.5,
        "d": 0.5,
        "day": day,
        "t": dt.time(1, 2, 3, 4),
        "ts": noon,
        "tz": zone,
        "s": "a",
        "u": name,
        "x": b"\x00",
        "fix": b"abc",
        "dec": D("1.25"),
        "st": {"a": 1, "b": ["x", None]},
        "li": [{"k": 1, "new": None}, None],
        "m": [("a", 1.5), ("b", None)],
    }
    assert str(rows[1]["f"]) == "nan"
    assert str(rows[1]["d"]) == "-0.0"
    # Nulls stay nulls at every depth, and empty stays empty.
    assert [row["st"] for row in rows[:3]] == [rows[0]["st"], None, {"a": 3, "b": None}]
    assert [row["li"] for row in rows[1:3]] == [None, []]
    assert [row["m"] for row in rows[1:3]] == [None, []]
    assert {**rows[7], "f": None} == {**rows[1], "f": None}
    assert columns_of(part.path) == EVERY
    assert part.rows == 9
    assert part.size == Path(part.path).stat().st_size


def test_a_value_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    job = make_job(tmp_path, (Field("x", Scalar("int")),), pa.table({"x": [1, 2**40]}))
    with pytest.raises(pa.ArrowInvalid):
        merge_files(job)


def test_files_stay_below_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge, "GROUP_ROWS", 1000)
    numbers = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(10_000)]
    tables = [pa.table({"x": numbers[start : start + 500]}) for start in range(0, 10_000, 500)]
    target = 200_000
    columns = (Field("x", Scalar("string")),)
    parts = merge_files(make_job(tmp_path, columns, *tables, target=target))
    assert len(parts) > 1
    assert all(part.size <= target for part in parts)
    assert sum(part.rows for part in parts) == 10_000
    assert [row["x"] for row in read(parts)] == numbers
