"""Arrow answers of /v1/sql read by clients nobody here wrote, from the wire as it comes.

pyarrow (C++), DuckDB over pyarrow's reader, polars (Rust) and nanoarrow (C) share no decoder;
each reads from the HTTP response itself, as from a file that has no end yet.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Generator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import nanoarrow as na
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from polars.exceptions import PanicException

from scripts.private_fleet import PrivateFleet

DAEMONS = ("gateway", "storaged", "catalogd", "ingestd", "queryd")
ARROW = "application/vnd.apache.arrow.stream"
WORKERS = b"id,name,rate,hired\n1,Kari,31.50,2026-01-31\n2,\xc3\x85se,,\n3,,19.75,1969-12-31\n"


class House:
    """A fleet with a small dataset; `ask` gives the response, whose rows may still be made."""

    def __init__(self, url: str) -> None:
        self.address = url.removeprefix("http://")
        self.connections: list[http.client.HTTPConnection] = []
        self.responses: list[http.client.HTTPResponse] = []

    def post(self, path: str, body: bytes, **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(self.address, timeout=60)
        self.connections.append(connection)
        connection.request("POST", path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        response = connection.getresponse()
        self.responses.append(response)
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {response.read(2000)!r}")
        return response

    def ask(self, sql: str, **more: object) -> http.client.HTTPResponse:
        body = json.dumps({"sql": sql, **more}).encode()
        return self.post("/v1/sql", body, content_type="application/json", accept=ARROW)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    with PrivateFleet(DAEMONS, {}, tmp_path_factory.mktemp("house")) as fleet:
        yield fleet.urls["gateway"]


@pytest.fixture
def house(url: str) -> Generator[House]:
    house = House(url)
    # The same content is the same ingest: only the first time does it store anything.
    house.post("/v1/ingest?dataset=workers", WORKERS, content_type="text/csv").read()
    yield house
    for opened in (*house.responses, *house.connections):
        opened.close()


Read = Callable[[Any], list[dict[str, Any]]]


def read_pyarrow(response: Any) -> list[dict[str, Any]]:
    """Rows by pyarrow, which hands maps out as dicts if told."""
    with pa.ipc.open_stream(response) as reader:
        return [row for batch in reader for row in batch.to_pylist(maps_as_pydicts="strict")]


def read_polars(response: Any) -> list[dict[str, Any]]:
    """Rows by polars."""
    return pl.read_ipc_stream(response).to_dicts()


def read_nanoarrow(response: Any) -> list[dict[str, Any]]:
    """Rows by nanoarrow, batch by batch."""
    with na.ArrayStream.from_readable(response) as stream:
        return [row for batch in stream for row in batch.to_pylist()]


ALL: tuple[Read, ...] = (read_pyarrow, read_polars, read_nanoarrow)
NO_MAP: tuple[Read, ...] = (read_pyarrow, read_polars)  # nanoarrow makes no Python of maps
# It takes the digits of a decimal for those of an unsigned number.
SIGNED: tuple[Read, ...] = NO_MAP
NO_POLARS: tuple[Read, ...] = (read_pyarrow, read_nanoarrow)  # it has neither type


# What stands in SQL, the type in Arrow's words, the value, and who can read it.
TYPES: dict[str, tuple[str, str, Any, tuple[Read, ...]]] = {
    "boolean": ("true", "bool", True, ALL),
    "tinyint": ("(-128)::TINYINT", "int8", -128, ALL),
    "smallint": ("(-32768)::SMALLINT", "int16", -32768, ALL),
    "integer": ("2147483647", "int32", 2147483647, ALL),
    "bigint": ("-9223372036854775808", "int64", -(2**63), ALL),
    "utinyint": ("255::UTINYINT", "uint8", 255, ALL),
    "usmallint": ("65535::USMALLINT", "uint16", 65535, ALL),
    "uinteger": ("4294967295::UINTEGER", "uint32", 2**32 - 1, ALL),
    "ubigint": ("18446744073709551615::UBIGINT", "uint64", 2**64 - 1, ALL),
    "hugeint": ("(-1234567890123456789012)::HUGEINT", "decimal128(38, 0)",
                Decimal(-1234567890123456789012), SIGNED),
    "float": ("1.5::FLOAT", "float", 1.5, ALL),
    "double": ("-0.1::DOUBLE", "double", -0.1, ALL),
    "infinity": ("'-inf'::DOUBLE", "double", float("-inf"), ALL),
    "decimal 4": ("-1.25::DECIMAL(4,2)", "decimal128(4, 2)", Decimal("-1.25"), SIGNED),
    "decimal 9": ("1.20::DECIMAL(9,2)", "decimal128(9, 2)", Decimal("1.20"), ALL),
    "decimal 18": ("0.0001::DECIMAL(18,4)", "decimal128(18, 4)", Decimal("0.0001"), ALL),
    "decimal 38": ("-12345678901234567890123456789.123456789::DECIMAL(38,9)", "decimal128(38, 9)",
                   Decimal("-12345678901234567890123456789.123456789"), SIGNED),
    "text": ("'æøå 🦆'", "string", "æøå 🦆", ALL),
    "no text": ("''", "string", "", ALL),
    "bytes": (r"'\x00\xFF'::BLOB", "binary", b"\x00\xff", ALL),
    "uuid": ("'6bb8a1f0-0000-4000-8000-000000000001'::UUID", "string",
             "6bb8a1f0-0000-4000-8000-000000000001", ALL),
    "json": ("""'{"a":[1,null]}'::JSON""", "string", '{"a":[1,null]}', ALL),
    "date": ("DATE '1969-12-31'", "date32[day]", date(1969, 12, 31), ALL),
    "time": ("TIME '12:00:00.123456'", "time64[us]", time(12, 0, 0, 123456), ALL),
    "timestamp": ("TIMESTAMP '1969-12-31 23:59:59.999999'", "timestamp[us]",
                  datetime(1969, 12, 31, 23, 59, 59, 999999), ALL),
    "timestamp in seconds": ("'2026-01-31 12:00:00'::TIMESTAMP_S", "timestamp[s]",
                             datetime(2026, 1, 31, 12), ALL),
    "timestamp in ms": ("'2026-01-31 12:00:00.123'::TIMESTAMP_MS", "timestamp[ms]",
                        datetime(2026, 1, 31, 12, 0, 0, 123000), ALL),
    "timestamp in ns": ("'2026-01-31 12:00:00.123456000'::TIMESTAMP_NS", "timestamp[ns]",
                        datetime(2026, 1, 31, 12, 0, 0, 123456), ALL),
    "moment": ("'2026-01-31 12:00:00.5+02'::TIMESTAMPTZ", "timestamp[us, tz=UTC]",
               datetime(2026, 1, 31, 10, 0, 0, 500000, tzinfo=UTC), ALL),
    "enum": ("'b'::ENUM('a', 'b')", "dictionary<values=string, indices=uint8, ordered=0>", "b",
             ALL),
    "list": ("[1, NULL, 3]", "list<l: int32>", [1, None, 3], ALL),
    "empty list": ("[]::VARCHAR[]", "list<l: string>", [], ALL),
    "array": ("[1.5, 2.5]::FLOAT[2]", "fixed_size_list<: float>[2]", [1.5, 2.5], ALL),
    "struct": ("{'a': 1, 'b': NULL::VARCHAR}", "struct<a: int32, b: string>",
               {"a": 1, "b": None}, ALL),
    "map": ("MAP {'k': 1, 'l': NULL}", "map<string, int32>", {"k": 1, "l": None}, NO_MAP),
    "nested": ("[{'a': [[1], []], 'd': 1.5::DECIMAL(4,1), 'e': 'x'::ENUM('x')}]",
               "list<l: struct<a: list<l: list<l: int32>>, d: decimal128(4, 1), "
               "e: dictionary<values=string, indices=uint8, ordered=0>>>",
               [{"a": [[1], []], "d": Decimal("1.5"), "e": "x"}], ALL),
    "nested map": ("[MAP {'x': {'y': [1.5]}}]",
                   "list<l: map<string, struct<y: list<l: decimal128(2, 1)>>>>",
                   [{"x": {"y": [Decimal("1.5")]}}], NO_MAP),
    "interval": ("INTERVAL '1 month 2 days 3 seconds'", "month_day_nano_interval",
                 (1, 2, 3_000_000_000), NO_POLARS),
    "union": ("union_value(n := 1)", "sparse_union<n: int32=0>", 1, NO_POLARS),
}  # fmt: skip


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_and_its_null_read_alike_by_all(house: House, kind: str) -> None:
    sql, told, value, readers = TYPES[kind]
    query = f"SELECT v FROM (SELECT 1 AS n, {sql} AS v UNION ALL SELECT 2, NULL) ORDER BY n"
    with pa.ipc.open_stream(house.ask(query)) as reader:
        assert str(reader.schema.field("v").type) == told
    for read in readers:
        assert read(house.ask(query)) == [{"v": value}, {"v": None}], read.__name__


def test_nanoseconds_are_there_for_who_can_hold_them(house: House) -> None:
    query = "SELECT '2026-01-31 12:00:00.123456789'::TIMESTAMP_NS AS t"
    want = 1_769_860_800_123_456_789
    assert pl.read_ipc_stream(house.ask(query))["t"].to_physical().to_list() == [want]
    assert pa.ipc.open_stream(house.ask(query)).read_all()["t"].cast(pa.int64()).to_pylist() == [
        want
    ]


@pytest.mark.parametrize("read", ALL)
def test_a_dataset_with_its_nulls(house: House, read: Read) -> None:
    assert read(house.ask("FROM workers ORDER BY id")) == [
        {"id": 1, "name": "Kari", "rate": Decimal("31.50"), "hired": date(2026, 1, 31)},
        {"id": 2, "name": "Åse", "rate": None, "hired": None},
        {"id": 3, "name": None, "rate": Decimal("19.75"), "hired": date(1969, 12, 31)},
    ]


@pytest.mark.parametrize("read", ALL)
@pytest.mark.parametrize("sql", ["FROM workers WHERE false", "SELECT 'a'::ENUM('a') AS e LIMIT 0"])
def test_no_rows_are_an_answer_with_a_schema(house: House, read: Read, sql: str) -> None:
    assert read(house.ask(sql)) == []
    names = pa.ipc.open_stream(house.ask(sql)).schema.names
    assert pl.read_ipc_stream(house.ask(sql)).columns == names
    with na.ArrayStream.from_readable(house.ask(sql)) as stream:
        assert [stream.schema.field(i).name for i in range(stream.schema.n_fields)] == names


@pytest.mark.parametrize("read", ALL)
def test_a_cut_answer_is_whole_for_who_does_not_look_and_told_to_who_does(
    house: House, read: Read
) -> None:
    rows = read(house.ask("SELECT i FROM range(100000) AS r(i)", max_rows=70_000))
    assert [row["i"] for row in rows] == list(range(70_000))
    reader = pa.ipc.open_stream(house.ask("FROM workers", max_rows=2))
    told: dict[bytes, bytes] = {}
    while not told:
        batch, metadata = reader.read_next_batch_with_custom_metadata()
        told = dict(metadata or {})
    assert batch.num_rows == 0
    assert told == {b"lakehouse.truncated": b"true", b"lakehouse.row_count": b"2"}
    with pytest.raises(StopIteration):
        reader.read_next_batch()


def test_rows_are_read_while_others_are_not_made_yet(house: House) -> None:
    """Ten thousand million rows cannot have been made; the first ones are there."""
    response = house.ask("SELECT i, i::VARCHAR AS t FROM range(10000000000) AS r(i)")
    with pa.ipc.open_stream(response) as reader:
        seen = 0
        for batch in reader:
            assert batch["i"][0].as_py() == seen
            seen += batch.num_rows
            if seen > 200_000:
                break
    response.close()
    with na.ArrayStream.from_readable(house.ask("FROM range(10000000000) AS r(i)")) as stream:
        first = next(iter(stream))
        assert first.to_pylist()[:2] == [{"i": 0}, {"i": 1}]


def test_a_broken_answer_is_an_error_to_every_reader(house: House) -> None:
    """What fails in the middle must not pass for a shorter answer."""
    sql = (
        "SELECT CASE WHEN i < 900000 THEN i::VARCHAR ELSE 'x' END::BIGINT AS n "
        "FROM range(1000000) AS r(i)"
    )
    errors = (
        OSError,
        RuntimeError,
        http.client.HTTPException,
        pl.exceptions.PolarsError,
        PanicException,
    )
    for read in ALL:
        with pytest.raises(errors):
            read(house.ask(sql))


def test_duckdb_and_datasets_take_the_stream_as_it_comes(house: House, tmp_path: Path) -> None:
    sql = "SELECT i, i % 7 AS k, (i / 4)::DECIMAL(12, 2) AS d FROM range(300000) AS r(i)"
    with duckdb.connect() as connection, pa.ipc.open_stream(house.ask(sql)) as stream:
        connection.register("stream", stream)
        found = connection.execute(
            "SELECT count(*), sum(i), sum(d) FROM stream WHERE k = 3"
        ).fetchone()
        wanted = connection.execute(
            f"SELECT count(*), sum(i), sum(d) FROM ({sql}) WHERE k = 3"
        ).fetchone()
    assert found == wanted
    with pa.ipc.open_stream(house.ask(sql)) as stream:
        ds.write_dataset(stream, tmp_path / "out", format="parquet", partitioning=["k"])
    assert ds.dataset(tmp_path / "out", partitioning=["k"]).count_rows() == 300_000
    assert len(pq.read_table(tmp_path / "out" / "3").column("i")) == 300_000 // 7
