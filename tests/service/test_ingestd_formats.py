"""JSON lines and Parquet over HTTP, and files of several formats one after another."""

from __future__ import annotations

import gzip
import io
import json
import secrets
from collections.abc import AsyncGenerator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.apps import make_config
from tests.support.ingestd import Trio, read_parquet, run_trio

pytestmark = pytest.mark.anyio

JSON = b'{"id": 1, "name": "Ann", "rate": 10.50}\n{"id": 2, "name": "Bob", "rate": null}\nbad\n'


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def trio(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Trio]:
    async with run_trio(make_config(tmp_path_factory.mktemp("formats"))) as trio:
        yield trio


@pytest.fixture
def name() -> str:
    return f"d{secrets.token_hex(8)}"


def write_parquet(**columns: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    "content_type",
    ["application/x-ndjson", "application/jsonl", "application/octet-stream", "text/plain"],
)
async def test_json_lines_become_a_table(trio: Trio, name: str, content_type: str) -> None:
    answer = (await trio.post(f"dataset={name}", JSON, content_type)).json()
    assert (answer["rows_in"], answer["rows_out"], answer["rejects"]["count"]) == (3, 2, 1)
    assert await trio.read_rows(name) == [("1", "Ann", "10.50"), ("2", "Bob", None)]
    path = trio.config.data_dir("storaged") / "objects" / answer["rejects"]["object"]
    if path.exists():
        assert read_parquet(path, raw=True)[0][0] == 3


async def test_the_same_lines_are_taken_once_whatever_they_are_called(
    trio: Trio, name: str
) -> None:
    first = (await trio.post(f"dataset={name}", JSON, "application/x-ndjson")).json()
    again = (await trio.post(f"dataset={name}", JSON, "application/octet-stream")).json()
    assert (first["duplicate"], again["duplicate"]) == (False, True)
    assert first["ingest_id"] == again["ingest_id"]


async def test_parquet_becomes_a_table(trio: Trio, name: str) -> None:
    data = write_parquet(id=pa.array([2**64 - 1, 1], pa.uint64()), tags=[["a"], None])
    answer = (await trio.post(f"dataset={name}", data, "application/vnd.apache.parquet")).json()
    assert [one["type"] for one in answer["schema"]] == ["DECIMAL(20,0)", "VARCHAR[]"]
    assert await trio.read_rows(name) == [("1", None), (str(2**64 - 1), "[a]")]
    again = (await trio.post(f"dataset={name}", data, "application/octet-stream")).json()
    assert again["duplicate"] is True


async def test_packed_lines_in_storage_are_taken_by_their_key(trio: Trio, name: str) -> None:
    for packed in (gzip.compress(JSON), pa.Codec("zstd").compress(JSON + b"\n", asbytes=True)):
        key = f"uploads/{secrets.token_hex(8)}"
        stored = await trio.storaged.put(f"/storage/objects/{key}", content=packed)
        assert stored.status_code in (200, 201)
        body = json.dumps({"object": key}).encode()
        answer = (await trio.post(f"dataset={name}", body, "application/json")).json()
        assert (answer["rows_in"], answer["rows_out"]) == (3, 2)


async def test_forms_hold_any_format(trio: Trio, name: str) -> None:
    for data in (JSON, write_parquet(id=[3], name=["Cy"], rate=[1.25])):
        answer = await trio.ingestd.post(f"/ingest?dataset={name}", files={"file": ("x", data)})
        assert answer.status_code == 200, answer.text
    assert (await trio.read_rows(name))[-1] == ("3", "Cy", "1.25")


async def test_a_series_of_files_of_growing_and_differing_columns_drops_nothing(
    trio: Trio, name: str
) -> None:
    series = [
        b"id,name\n1,Ann\n",
        b"NAME,id,rate\nBob,2,10.50\n",
        b'{"id": 3, "spot": {"x": 1, "y": "a"}}\n{"id": 4, "rate": 1.25, "tags": ["p"]}\n',
        write_parquet(rate=[2.5], more=pa.array([7], pa.int64())),
        b'{"id": 5, "spot": {"x": 2, "y": "b"}, "tags": []}\n',
        b"more\tid\n8\t6\n",
    ]
    for data in series:
        answer = await trio.post(
            f"dataset={name}&contract=evolve", data, "application/octet-stream"
        )
        assert answer.status_code == 200, answer.text
    schema = answer.json()["schema"]
    assert [one["name"] for one in schema] == ["id", "name", "rate", "spot", "tags", "more"]
    found = await trio.catalogd.get(f"/catalog/datasets/{name}/files")
    listed = [one["uri"].removeprefix("file://") for one in found.json()["files"]]
    uris = ", ".join(f"'{uri}'" for uri in listed)
    rows = read_parquet_by_name(uris)
    assert rows == [
        ("1", "Ann", None, None, None, None),
        ("2", "Bob", "10.50", None, None, None),
        ("3", None, None, "{'x': 1, 'y': a}", None, None),
        ("4", None, "1.25", None, "[p]", None),
        ("5", None, None, "{'x': 2, 'y': b}", "[]", None),
        ("6", None, None, None, None, "8"),
        (None, None, "2.50", None, None, "7"),
    ]


def read_parquet_by_name(uris: str) -> list[tuple[str | None, ...]]:
    import duckdb

    return duckdb.sql(
        "SELECT COLUMNS(*)::VARCHAR FROM (SELECT id, name, rate, spot, tags, more "
        f"FROM read_parquet([{uris}], union_by_name=true) ORDER BY id)"
    ).fetchall()


@pytest.mark.parametrize(
    ("query", "data", "content_type", "status", "says"),
    [
        ("", JSON, "text/csv", 415, "JSON lines, not CSV"),
        ("", b"a,b\n1,2\n", "application/x-ndjson", 415, "format=jsonl"),
        ("", b'[{"a": 1}]', "application/x-ndjson", 415, "jq"),
        ("", write_parquet(a=[1]), "text/csv", 415, "is a Parquet file"),
        ("&format=parquet", JSON, "application/octet-stream", 415, "is none"),
        ("&format=xml", JSON, "application/octet-stream", 400, "csv, jsonl, parquet"),
        ("&format=jsonl&delimiter=,", JSON, "text/plain", 400, "delimiter cannot be said"),
        ("&encoding=cp1252", JSON, "application/x-parquet", 400, "encoding cannot be said"),
        ("", write_parquet(a=[1])[:-9], "application/octet-stream", 422, "damaged"),
    ],
)
async def test_what_is_not_as_said_is_refused(
    trio: Trio, name: str, query: str, data: bytes, content_type: str, status: int, says: str
) -> None:
    response = await trio.post(f"dataset={name}{query}", data, content_type)
    assert response.status_code == status
    assert says in response.json()["error"]["message"]


async def test_lines_damaged_at_the_beginning_are_read_when_it_is_insisted_on(
    trio: Trio, name: str
) -> None:
    data = b"x\n" * 6 + b'{"a": 1}\n'
    answer = (await trio.post(f"dataset={name}&format=jsonl", data)).json()
    assert (answer["rows_in"], answer["rows_out"]) == (7, 1)
