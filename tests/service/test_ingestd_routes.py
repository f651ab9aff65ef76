"""ingestd over HTTP, with the real storaged and catalogd behind it."""

from __future__ import annotations

import asyncio
import gzip
import json
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from httpx import ASGITransport

from services.ingestd.store.workers import Workers
from shared.clients.ingestd import IngestdClient
from shared.errors import Conflict, Unprocessable
from tests.support.apps import make_config
from tests.support.ingestd import Trio, read_parquet, run_trio

pytestmark = pytest.mark.anyio

CSV = b"id,name,rate\n1,Ann,10.50\n2,Bob,\n"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def trio(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Trio]:
    """One for all tests here: each uses a dataset of its own."""
    async with run_trio(make_config(tmp_path_factory.mktemp("trio"))) as trio:
        yield trio


@pytest.fixture
def name() -> str:
    """A dataset that no other test has."""
    return f"d{secrets.token_hex(8)}"


async def test_a_file_becomes_a_table(trio: Trio, name: str) -> None:
    response = await trio.post(f"dataset={name}&mode=append", CSV)
    assert response.status_code == 200
    answer = response.json()
    assert answer["dataset"] == name
    assert isinstance(answer["snapshot_id"], str)
    assert (answer["rows_in"], answer["rows_out"]) == (2, 2)
    assert answer["rejects"] == {"count": 0, "object": None}
    assert answer["schema"] == [
        {"name": "id", "type": "BIGINT"},
        {"name": "name", "type": "VARCHAR"},
        {"name": "rate", "type": "DECIMAL(18,2)"},
    ]
    assert answer["duplicate"] is False
    assert await trio.read_rows(name) == [("1", "Ann", "10.50"), ("2", "Bob", None)]
    assert trio.leftovers() == []


async def test_objects_are_named_by_their_content(trio: Trio, name: str) -> None:
    await trio.post(f"dataset={name}", CSV + b"oops\n")
    identity = (await trio.catalogd.put(f"/catalog/datasets/{name}/identity")).json()
    part, rejects = await trio.list_keys(f"datasets/{identity['uuid']}/")
    folder, _, name = part.rpartition("/")
    assert folder == f"datasets/{identity['uuid']}"
    assert len(name) == 64 + len("-0.parquet")
    assert rejects.startswith(f"datasets/{identity['uuid']}/rejects/")


async def test_rejects_can_be_read_from_storage(trio: Trio, name: str, tmp_path: Path) -> None:
    answer = (await trio.post(f"dataset={name}", CSV + b"oops\n")).json()
    assert (answer["rows_in"], answer["rows_out"], answer["rejects"]["count"]) == (3, 2, 1)
    stored = await trio.storaged.get(f"/storage/objects/{answer['rejects']['object']}")
    path = tmp_path / "rejects.parquet"
    path.write_bytes(stored.content)
    assert read_parquet(path, raw=True) == [
        (4, None, "too_few_fields", "has 1 fields where 3 are expected", "oops")
    ]


async def test_the_same_file_again_changes_nothing(trio: Trio, name: str) -> None:
    first = (await trio.post(f"dataset={name}", CSV + b"oops\n")).json()
    second = (await trio.post(f"dataset={name}", CSV + b"oops\n")).json()
    assert second == {**first, "duplicate": True}
    assert len(await trio.read_rows(name)) == 2


async def test_the_same_file_twice_at_once_is_taken_once(trio: Trio, name: str) -> None:
    answers = await asyncio.gather(*(trio.post(f"dataset={name}", CSV) for _ in range(4)))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert sorted(answer.json()["duplicate"] for answer in answers) == [False, True, True, True]
    assert len(await trio.read_rows(name)) == 2


async def test_other_options_make_another_ingest(trio: Trio, name: str) -> None:
    await trio.post(f"dataset={name}", CSV)
    again = (await trio.post(f"dataset={name}&header=true", CSV)).json()
    assert again["duplicate"] is False
    assert len(await trio.read_rows(name)) == 4


async def test_replace_takes_the_place_of_all_rows(trio: Trio, name: str) -> None:
    await trio.post(f"dataset={name}", CSV)
    answer = await trio.post(f"dataset={name}&mode=replace", b"id,name,rate\n9,Zoe,1.25\n")
    assert answer.status_code == 200
    assert await trio.read_rows(name) == [("9", "Zoe", "1.25")]


async def test_what_a_replace_took_away_can_be_brought_back(trio: Trio, name: str) -> None:
    other = b"id,name,rate\n9,Zoe,1.25\n"
    for data in (CSV, other, CSV, other):
        answer = (await trio.post(f"dataset={name}&mode=replace", data)).json()
        assert answer["duplicate"] is False
        repeated = (await trio.post(f"dataset={name}&mode=replace", data)).json()
        assert repeated["duplicate"] is True
    assert await trio.read_rows(name) == [("9", "Zoe", "1.25")]


async def test_a_conflict_names_each_column_and_writes_nothing(trio: Trio, name: str) -> None:
    await trio.post(f"dataset={name}", CSV)
    before = await trio.list_keys()
    response = await trio.post(f"dataset={name}", b"id,name,rate\nx,Cy,1.255\n")
    assert response.status_code == 409
    error = response.json()["error"]
    assert error["code"] == "conflict"
    assert [column["column"] for column in error["details"]["columns"]] == ["id", "rate"]
    assert await trio.list_keys() == before
    assert len(await trio.read_rows(name)) == 2


async def test_evolve_lets_the_table_grow(trio: Trio, name: str) -> None:
    await trio.post(f"dataset={name}", CSV)
    response = await trio.post(f"dataset={name}&contract=evolve", b"id,city\n3,Oslo\n")
    assert response.status_code == 200
    assert [column["name"] for column in response.json()["schema"]] == [
        "id",
        "name",
        "rate",
        "city",
    ]


async def test_discard_row_over_http(trio: Trio, name: str) -> None:
    await trio.post(f"dataset={name}", CSV)
    data = b"id,name,rate\nx,Cy,1\n4,Di,2\n"
    answer = (await trio.post(f"dataset={name}&contract=discard_row", data)).json()
    assert (answer["rows_in"], answer["rows_out"], answer["rejects"]["count"]) == (2, 1, 1)
    assert len(await trio.read_rows(name)) == 3


async def test_discard_value_over_http(trio: Trio, name: str) -> None:
    await trio.post(f"dataset={name}", CSV)
    data = b"id,name,rate\nx,Cy,1\n"
    answer = (await trio.post(f"dataset={name}&contract=discard_value", data)).json()
    assert (answer["rows_in"], answer["rows_out"], answer["rejects"]["count"]) == (1, 1, 0)
    assert answer["rejects"]["object"] is not None
    assert (None, "Cy", "1.00") in await trio.read_rows(name)


async def test_a_form_holds_the_file_in_its_field(trio: Trio, name: str) -> None:
    response = await trio.ingestd.post(
        f"/ingest?dataset={name}", files={"file": ("x.csv", CSV, "text/csv")}
    )
    assert response.status_code == 200
    raw = (await trio.post(f"dataset={name}", CSV)).json()
    assert raw["duplicate"] is True
    assert raw["ingest_id"] == response.json()["ingest_id"]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"upload": ("x.csv", CSV)}, "'upload'"),
        ({"file": ("x.csv", CSV), "note": ("n.txt", b"x")}, "'note'"),
        ([("file", ("x.csv", CSV)), ("upload", ("y.csv", CSV))], "'upload'"),
    ],
)
async def test_other_forms_are_refused(trio: Trio, name: str, files: object, says: str) -> None:
    response = await trio.ingestd.post(f"/ingest?dataset={name}", files=files)  # type: ignore[arg-type]
    assert response.status_code == 400
    assert says in response.json()["error"]["message"]
    assert trio.leftovers() == []


@pytest.mark.parametrize(
    "body",
    [
        b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\nid\n1\n",
        b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\nid\n1\n\r\n--x\r\n",
        b"no form at all",
        b"--x--\r\n",
        b"",
    ],
)
async def test_broken_forms_are_refused(trio: Trio, name: str, body: bytes) -> None:
    response = await trio.post(f"dataset={name}", body, "multipart/form-data; boundary=x")
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid"
    assert trio.leftovers() == []


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ("dataset=workers&mode=merge", 400, "append, replace, upsert"),
        ("dataset=workers&mode=upsert", 400, "needs key"),
        ("dataset=workers&key=id", 400, "mode=upsert"),
        ("dataset=workers&contract=none", 400, "freeze"),
        ("dataset=Workers", 400, "lower-case"),
        ("dataset=a/b", 400, "lower-case"),
        ("mode=append", 400, "dataset"),
        ("dataset=workers&delimeter=;", 400, "delimeter"),
        ("dataset=workers&header=perhaps", 400, "auto"),
    ],
)
async def test_bad_queries_are_refused_with_what_is_supported(
    trio: Trio, query: str, status: int, says: str
) -> None:
    response = await trio.post(query, CSV)
    assert response.status_code == status
    assert says in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("content_type", "says"),
    [
        ("application/xml", "text/csv"),
        ("application/x-www-form-urlencoded", "--data-binary"),
        ("application/vnd.apache.parquet", "is none"),
    ],
)
async def test_other_bodies_are_415(trio: Trio, name: str, content_type: str, says: str) -> None:
    response = await trio.post(f"dataset={name}", b'{"object": "uploads/x.csv"}', content_type)
    assert response.status_code == 415
    assert says in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("data", "status"),
    [(b"", 422), (b"id,name\n", 422), (b"\n\n", 422), (b"\x1f\x8b\x08\0", 422)],
)
async def test_what_is_no_table_is_refused(trio: Trio, name: str, data: bytes, status: int) -> None:
    response = await trio.post(f"dataset={name}", data)
    assert response.status_code == status
    assert (await trio.catalogd.get(f"/catalog/datasets/{name}")).status_code == 404
    assert trio.leftovers() == []


PACKED = {
    "gzip": (gzip.compress(CSV), "application/gzip", None),
    "gzip as an encoding": (gzip.compress(CSV), "text/csv", "gzip"),
    "two gzips": (gzip.compress(CSV[:20]) + gzip.compress(CSV[20:]), "application/gzip", None),
    "zstd": (bytes(pa.compress(CSV, codec="zstd")), "application/zstd", None),
}


@pytest.mark.parametrize("kind", PACKED)
async def test_packed_files_are_unpacked(trio: Trio, name: str, kind: str) -> None:
    data, content_type, encoding = PACKED[kind]
    headers = {"content-type": content_type}
    if encoding is not None:
        headers["content-encoding"] = encoding
    plain = await trio.post(f"dataset={name}_plain", CSV)
    packed = await trio.ingestd.post(f"/ingest?dataset={name}", content=data, headers=headers)
    assert packed.status_code == 200, packed.text
    same = ("rows_in", "rows_out", "schema", "warnings")
    assert [packed.json()[key] for key in same] == [plain.json()[key] for key in same]
    assert trio.leftovers() == []


async def test_a_worker_that_unpacked_has_its_memory_for_the_next(trio: Trio, name: str) -> None:
    """Its limit counts what is set aside, which Arrow's own allocator does by the GiB."""
    response = await trio.post(f"dataset={name}", bytes(pa.compress(CSV, codec="zstd")))
    assert response.status_code == 200, response.text
    workers: Workers = trio.app.state.workers
    # One of them did it; the others are smaller.
    held = [read_data_kib(pid) for pid in workers.idle_pids()]
    assert 0 < max(held) < 900 * 1024


def read_data_kib(pid: int) -> int:
    """KiB of a process's data segment, as its limit counts it."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmData:"))
    return int(line.split()[1])


async def test_tabs_are_told_by_the_content_type(trio: Trio, name: str) -> None:
    data = b"a,b\tc\n1,5\tx\n2,5\ty\n"
    response = await trio.post(f"dataset={name}", data, "text/tab-separated-values")
    assert [column["name"] for column in response.json()["schema"]] == ["a,b", "c"]


async def test_a_file_in_storage_is_taken_by_its_key(trio: Trio, name: str) -> None:
    key = f"uploads/{name}.csv"
    assert (await trio.storaged.put(f"/storage/objects/{key}", content=CSV)).status_code == 201
    body = json.dumps({"object": key}).encode()
    taken = await trio.post(f"dataset={name}", body, "application/json")
    assert taken.status_code == 200, taken.text
    # It is the same input as the file itself.
    sent = await trio.post(f"dataset={name}", CSV)
    assert sent.json()["duplicate"] is True
    assert sent.json()["ingest_id"] == taken.json()["ingest_id"]
    missing = await trio.post(
        f"dataset={name}", b'{"object": "uploads/none.csv"}', "application/json"
    )
    assert missing.status_code == 404
    assert "uploads/none.csv" in missing.json()["error"]["message"]
    elsewhere = await trio.post(f"dataset={name}", b'{"object": "datasets/x"}', "application/json")
    assert elsewhere.status_code == 400
    long = await trio.post(f"dataset={name}", b" " * 20_000, "application/json")
    assert long.status_code == 400
    assert trio.leftovers() == []


async def test_a_body_over_the_cap_leaves_nothing(tmp_path: Path) -> None:
    async with run_trio(make_config(tmp_path, ingestd={"max_body_bytes": 1000})) as trio:

        async def pieces() -> AsyncGenerator[bytes]:
            for _ in range(20):
                yield b"1,x\n" * 20

        declared = await trio.post("dataset=workers", b"x" * 2000)
        streamed = await trio.ingestd.post(
            "/ingest?dataset=workers", content=pieces(), headers={"content-type": "text/csv"}
        )
        assert (declared.status_code, streamed.status_code) == (413, 413)
        assert trio.leftovers() == []
        assert await trio.list_keys() == []


async def test_ready_names_its_dependencies(trio: Trio) -> None:
    response = await trio.ingestd.get("/ready")
    assert response.json()["checks"] == {"storaged": "ok", "catalogd": "ok", "jobs": "ok"}


async def test_figures_tell_what_was_done(tmp_path: Path) -> None:
    async with run_trio(make_config(tmp_path)) as trio:
        await trio.post("dataset=workers", CSV + b"oops\n")
        await trio.post("dataset=workers", CSV + b"oops\n")
        await trio.post("dataset=workers", b"")
        text = (await trio.ingestd.get("/metrics")).text
    for line in (
        'lakehouse_ingestd_ingests_total{outcome="done"} 1.0',
        'lakehouse_ingestd_ingests_total{outcome="duplicate"} 1.0',
        'lakehouse_ingestd_ingests_total{outcome="unprocessable"} 1.0',
        "lakehouse_ingestd_rows_total 2.0",
        "lakehouse_ingestd_rejects_total 1.0",
        "lakehouse_ingestd_workers_started_total 1.0",
    ):
        assert line in text


async def test_the_document_describes_the_route(trio: Trio) -> None:
    document = (await trio.ingestd.get("/openapi.json")).json()
    operation = document["paths"]["/ingest"]["post"]
    assert {"text/csv", "multipart/form-data"} <= set(operation["requestBody"]["content"])
    assert {"dataset", "mode", "contract", "header"} <= {p["name"] for p in operation["parameters"]}


async def test_the_client_speaks_to_the_route(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    async with run_trio(config) as trio, running_client(trio) as client:
        path = tmp_path / "x.csv"
        path.write_bytes(CSV)

        async def pieces() -> AsyncGenerator[bytes]:
            yield CSV[:10]
            yield CSV[10:]

        first = await client.ingest("workers", CSV)
        assert first.rows_out == 2
        assert first.columns[0].name == "id"
        assert (await client.ingest("workers", path)).duplicate
        assert (await client.ingest("workers", pieces())).duplicate
        forced = await client.ingest("other", b"1;2\n", delimiter=";", header="false")
        assert forced.rows_out == 1
        with pytest.raises(Conflict) as caught:
            await client.ingest("workers", b"id,name,rate\nx,y,1\n")
        assert caught.value.details["columns"][0]["column"] == "id"
        with pytest.raises(Unprocessable):
            await client.ingest("workers", b"", mode="replace", contract="evolve")


@asynccontextmanager
async def running_client(trio: Trio) -> AsyncGenerator[IngestdClient]:
    transport = ASGITransport(trio.app, raise_app_exceptions=False)
    client = IngestdClient(trio.config, {"ingestd": transport})
    yield client
    await client.aclose()
