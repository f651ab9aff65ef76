"""Upserts: rows take the place of those with their keys, whole, once, in one snapshot."""

from __future__ import annotations

import asyncio
import csv
import io
import random
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.ingestd.store.tablefiles import TableFiles
from shared.clients.catalogd import CatalogdClient
from shared.errors import Conflict
from shared.wire.catalogd import RegisterRequest, RegisterResponse
from tests.support.apps import make_config
from tests.support.ingestd import Trio, read_parquet, reader, run_trio

pytestmark = pytest.mark.anyio

BASE = b"id,name,rate\n1,Ann,10.50\n2,Bob,\n3,Cy,7.25\n"


@pytest.fixture
async def trio(tmp_path: Path) -> AsyncGenerator[Trio]:
    async with run_trio(make_config(tmp_path)) as trio:
        yield trio


async def upsert(trio: Trio, data: bytes, query: str = "key=id", name: str = "w") -> Any:
    response = await trio.post(f"dataset={name}&mode=upsert&{query}", data)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["rows_in"] == answer["rows_out"] + answer["rejects"]["count"]
    assert answer["inserted"] + answer["updated"] == answer["rows_out"]
    return answer


async def read_rejects(trio: Trio, answer: Any, folder: Path) -> list[Any]:
    stored = await trio.storaged.get(f"/storage/objects/{answer['rejects']['object']}")
    path = folder / "rejects.parquet"
    path.write_bytes(stored.content)
    return read_parquet(path, raw=True)


async def snapshots(trio: Trio, name: str = "w") -> list[Any]:
    found = (await trio.catalogd.get(f"/catalog/datasets/{name}/snapshots")).json()
    return list(found["snapshots"])


async def test_rows_with_known_keys_are_replaced_and_others_added(trio: Trio) -> None:
    await trio.post("dataset=w", BASE)
    before = len(await snapshots(trio))
    answer = await upsert(trio, b"id,name,rate\n2,Bea,1.00\n4,Di,2.00\n")
    assert (answer["inserted"], answer["updated"]) == (1, 1)
    assert await trio.read_rows("w") == [
        ("1", "Ann", "10.50"),
        ("2", "Bea", "1.00"),
        ("3", "Cy", "7.25"),
        ("4", "Di", "2.00"),
    ]
    assert len(await snapshots(trio)) == before + 1
    assert (await snapshots(trio))[-1]["rows"] == 4
    assert trio.leftovers() == []


async def test_an_upsert_makes_the_dataset_when_there_is_none(trio: Trio) -> None:
    answer = await upsert(trio, BASE)
    assert (answer["inserted"], answer["updated"]) == (3, 0)
    assert len(await trio.read_rows("w")) == 3
    response = await trio.post("dataset=x&mode=upsert&key=nothing", BASE)
    assert response.status_code == 422
    assert "'nothing'" in response.json()["error"]["message"]


async def test_the_same_upsert_again_changes_nothing(trio: Trio) -> None:
    first = await upsert(trio, BASE)
    again = await upsert(trio, BASE)
    assert again == {**first, "duplicate": True}
    assert len(await snapshots(trio)) == 1


async def test_what_a_later_upsert_changed_can_be_had_again(trio: Trio) -> None:
    one, two = b"id,v\n1,a\n", b"id,v\n1,b\n"
    for data, value in ((one, "a"), (two, "b"), (one, "a"), (two, "b")):
        assert (await upsert(trio, data))["duplicate"] is False
        assert (await upsert(trio, data))["duplicate"] is True
        assert await trio.read_rows("w") == [("1", value)]


async def test_the_last_of_a_repeated_key_counts_and_no_row_is_lost(
    trio: Trio, tmp_path: Path
) -> None:
    await trio.post("dataset=w", BASE)
    data = b"id,name,rate\n2,first,1.00\n5,new,1.00\n2,last,2.00\n"
    data += b",nobody,3.00\noops\n5,newer,4.00\n"
    answer = await upsert(trio, data)
    assert (answer["rows_in"], answer["rows_out"]) == (6, 2)
    assert (answer["inserted"], answer["updated"]) == (1, 1)
    rejects = await read_rejects(trio, answer, tmp_path)
    assert [(line, column, kind, raw) for line, column, kind, _, raw in rejects] == [
        (2, "id", "repeated_key", "2,first,1.00"),
        (3, "id", "repeated_key", "5,new,1.00"),
        (5, "id", "missing_key", ",nobody,3.00"),
        (6, None, "too_few_fields", "oops"),
    ]
    assert "again in line 4, which counts" in rejects[0][3]
    assert await trio.read_rows("w") == [
        ("1", "Ann", "10.50"),
        ("2", "last", "2.00"),
        ("3", "Cy", "7.25"),
        ("5", "newer", "4.00"),
    ]


async def test_a_file_without_a_single_key_is_refused(trio: Trio) -> None:
    response = await trio.post("dataset=w&mode=upsert&key=id", b"id,name\n,a\n,b\n")
    assert response.status_code == 422
    assert response.json()["error"]["details"]["rejects"][0]["reason"] == "missing_key"


async def test_keys_of_several_columns_and_names_without_regard_to_case(trio: Trio) -> None:
    await trio.post("dataset=w", b'Site,Number,"a,b"\nA,1,x\nA,2,y\nB,1,z\n')
    answer = await upsert(trio, b'number,"A,B",site\n1,new,B\n3,added,A\n', "key=site,number")
    assert (answer["inserted"], answer["updated"]) == (1, 1)
    assert await trio.read_rows("w") == [
        ("A", "1", "x"),
        ("A", "2", "y"),
        ("A", "3", "added"),
        ("B", "1", "new"),
    ]
    quoted = await upsert(trio, b'number,"A,B",site\n9,z,Z\n', 'key="a,b",number')
    assert (quoted["inserted"], quoted["updated"]) == (1, 0)


async def test_keys_are_compared_as_the_tables_type(trio: Trio) -> None:
    await trio.post("dataset=t", b"code,v\n007,a\n7x,b\n")
    answer = await upsert(trio, b"code,v\n7,new\n007,same\n", "key=code", "t")
    assert (answer["inserted"], answer["updated"]) == (1, 1)
    assert await trio.read_rows("t") == [("007", "same"), ("7", "new"), ("7x", "b")]
    await trio.post("dataset=n", b"code,v\n7,a\n8,b\n")
    answer = await upsert(trio, b"code,v\n7.0,new\n", "key=code", "n")
    assert (answer["inserted"], answer["updated"]) == (0, 1)


@pytest.mark.parametrize(
    ("column", "old", "new"),
    [
        ("d", "2024-01-05", "2024-01-06"),
        ("ts", "2024-01-05 10:00:00", "2024-01-05 10:00:01"),
        ("tz", "2024-01-05T10:00:00Z", "2024-01-05T10:00:01Z"),
        ("f", "1.5e7", "2.5e-07"),
        ("b", "true", "false"),
        ("m", "1.10", "1.20"),
        ("s", "Åse Lie", "Ola 😀"),
    ],
)
async def test_keys_may_be_of_any_type(trio: Trio, column: str, old: str, new: str) -> None:
    await trio.post("dataset=w", f"{column},v\n{old},1\n".encode())
    answer = await upsert(trio, f"{column},v\n{old},2\n{new},3\n".encode(), f"key={column}")
    assert (answer["inserted"], answer["updated"]) == (1, 1)
    assert sorted(row[1] or "" for row in await trio.read_rows("w")) == ["2", "3"]


async def test_rows_without_a_key_in_the_table_stay(trio: Trio) -> None:
    await trio.post("dataset=w", b"id,name\n1,a\n,b\n,c\n")
    answer = await upsert(trio, b"id,name\n1,new\n")
    assert answer["updated"] == 1
    assert await trio.read_rows("w") == [("", "b"), ("", "c"), ("1", "new")] or (
        await trio.read_rows("w") == [(None, "b"), (None, "c"), ("1", "new")]
    )


async def test_all_rows_of_a_key_are_replaced_by_one(trio: Trio) -> None:
    await trio.post("dataset=w", b"id,name\n1,a\n2,b\n")
    await trio.post("dataset=w", b"id,name\n1,c\n3,d\n")
    answer = await upsert(trio, b"id,name\n1,one\n")
    assert (answer["inserted"], answer["updated"]) == (0, 1)
    assert await trio.read_rows("w") == [("1", "one"), ("2", "b"), ("3", "d")]


async def test_older_files_lack_columns_and_new_ones_come_in(trio: Trio) -> None:
    await trio.post("dataset=w", b"id,name\n1,Ann\n2,Bob\n")
    await trio.post("dataset=w&contract=evolve", b"id,city\n3,Oslo\n")
    answer = await upsert(trio, b"id,age\n1,40\n3,41\n4,42\n", "key=id&contract=evolve")
    assert (answer["inserted"], answer["updated"]) == (1, 2)
    columns = [column["name"] for column in answer["schema"]]
    assert columns == ["id", "name", "city", "age"]
    # Whole rows: what the file has no column for is NULL in the new row.
    listed = (await trio.catalogd.get("/catalog/datasets/w/files")).json()["files"]
    paths = [file["uri"].removeprefix("file://") for file in listed]
    rows = (
        reader()
        .execute(
            f"SELECT id, name, city, age FROM read_parquet({paths}, union_by_name=true) ORDER BY id"
        )
        .fetchall()
    )
    assert rows == [
        (1, None, None, 40),
        (2, "Bob", None, None),
        (3, None, None, 41),
        (4, None, None, 42),
    ]


async def test_files_of_a_narrower_type_are_rewritten_in_the_wider_one(trio: Trio) -> None:
    await trio.post("dataset=w", BASE)
    await trio.post("dataset=w", b'{"id": 9, "name": "x", "rate": 1.25}\n', "application/x-ndjson")
    data = b"id,name,rate\n1,Ann,12345678901234567890123.25\n9,y,2.00\n"
    answer = await upsert(trio, data, "key=id&contract=evolve")
    assert (answer["inserted"], answer["updated"]) == (0, 2)
    types = {column["name"]: column["type"] for column in answer["schema"]}
    assert types["rate"] == "DECIMAL(38,2)"
    assert await trio.read_rows("w") == [
        ("1", "Ann", "12345678901234567890123.25"),
        ("2", "Bob", None),
        ("3", "Cy", "7.25"),
        ("9", "y", "2.00"),
    ]


async def test_nested_columns_come_through_a_rewrite(trio: Trio) -> None:
    lines = b'{"id": 1, "tags": ["a"], "at": {"city": "Oslo"}}\n'
    lines += b'{"id": 2, "tags": ["b", "c"], "at": {"city": "Voss"}}\n'
    assert (await trio.post("dataset=w", lines, "application/x-ndjson")).status_code == 200
    before = await trio.read_rows("w")
    changed = b'{"id": 2, "tags": [], "at": {"city": "Bergen"}}\n'
    response = await trio.post("dataset=w&mode=upsert&key=id", changed, "application/x-ndjson")
    assert response.status_code == 200, response.text
    assert response.json()["updated"] == 1
    after = await trio.read_rows("w")
    assert after[0] == before[0]
    assert "Bergen" in str(after[1])


async def test_a_key_column_that_the_table_does_not_have_matches_nothing(trio: Trio) -> None:
    await trio.post("dataset=w", b"name\nAnn\nBob\n")
    answer = await upsert(trio, b"name,id\nCy,1\n", "key=id&contract=evolve")
    assert (answer["inserted"], answer["updated"]) == (1, 0)
    answer = await upsert(trio, b"name,id\nDi,1\n", "key=id&contract=evolve")
    assert (answer["inserted"], answer["updated"]) == (0, 1)
    assert (await snapshots(trio))[-1]["rows"] == 3


async def test_the_contract_is_kept_as_in_an_append(trio: Trio) -> None:
    await trio.post("dataset=w", BASE)
    refused = await trio.post("dataset=w&mode=upsert&key=id", b"id,name,rate\n1,x,abc\n")
    assert refused.status_code == 409
    refused = await trio.post("dataset=w&mode=upsert&key=id", b"id,name\n1,x\n")
    assert refused.status_code == 409
    data = b"id,name,rate\n1,x,abc\n2,y,1.00\n"
    answer = await upsert(trio, data, "key=id&contract=discard_row")
    assert (answer["rejects"]["count"], answer["updated"]) == (1, 1)
    answer = await upsert(trio, data, "key=id&contract=discard_value")
    assert (answer["rejects"]["count"], answer["updated"]) == (0, 2)
    assert ("1", "x", None) in await trio.read_rows("w")


@pytest.mark.parametrize(
    "query",
    [
        "mode=upsert",
        "mode=upsert&key=",
        "mode=upsert&key=a,,b",
        "mode=upsert&key=a,A",
        'mode=upsert&key="a',
        "mode=append&key=a",
        "mode=upsert&key=" + ",".join(f"c{number}" for number in range(17)),
    ],
)
async def test_a_key_that_is_none_is_refused(trio: Trio, query: str) -> None:
    assert (await trio.post(f"dataset=w&{query}", BASE)).status_code == 400


async def test_only_files_that_hold_a_key_are_read_whole(
    trio: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ids in turn in one of three files, and far away in a fourth; names that take room.
    dice = random.Random(3)
    for start, step in ((0, 3), (1, 3), (2, 3), (10_000_000, 1)):
        lines = [f"{start + step * n},{dice.randbytes(60).hex()}" for n in range(8000)]
        await trio.post("dataset=w", ("id,name\n" + "\n".join(lines) + "\n").encode())
    fetched: dict[str, int] = {}
    fetch = TableFiles._fetch  # pyright: ignore[reportPrivateUsage]

    async def count(self: Any, file: Any, wanted: Any, at: int) -> bytes:
        whole = wanted is None
        fetched[file.key] = max(fetched.get(file.key, 0), 2 if whole else 1)
        return await fetch(self, file, wanted, at)

    monkeypatch.setattr(TableFiles, "_fetch", count)
    before = {file["uri"] for file in (await files_of(trio))}
    answer = await upsert(trio, b"id,name\n3,x\n6,y\n")
    assert (answer["inserted"], answer["updated"]) == (0, 2)
    assert sorted(fetched.values()) == [1, 1, 1, 2]
    after = {file["uri"] for file in (await files_of(trio))}
    assert len(before & after) == 3
    assert (await snapshots(trio))[-1]["rows"] == 32_000


async def files_of(trio: Trio, name: str = "w") -> list[Any]:
    found = (await trio.catalogd.get(f"/catalog/datasets/{name}/files")).json()
    return list(found["files"])


async def test_files_that_others_wrote_are_read_too(trio: Trio, tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    table = pa.table({"id": pa.array([1, 2, 3], pa.int64()), "name": ["a", "b", "c"]})
    pq.write_table(table, path, row_group_size=1, write_statistics=False)
    await trio.storaged.put("/storage/objects/own/a/b.parquet", content=path.read_bytes())
    request = {"name": "w", "objects": ["own/a/b.parquet"]}
    assert (await trio.catalogd.post("/catalog/datasets", json=request)).status_code == 201
    answer = await upsert(trio, b"id,name\n2,new\n")
    assert answer["updated"] == 1
    assert await trio.read_rows("w") == [("1", "a"), ("2", "new"), ("3", "c")]


async def test_upserts_and_appends_at_once_lose_nothing(trio: Trio) -> None:
    await trio.post("dataset=w", b"id,v\n" + b"".join(b"%d,0\n" % n for n in range(50)))

    async def put(number: int) -> httpx.Response:
        data = b"id,v\n%d,%d\n%d,%d\n" % (number, number + 100, 1000 + number, number)
        return await trio.post("dataset=w&mode=upsert&key=id", data)

    async def add(number: int) -> httpx.Response:
        return await trio.post("dataset=w", b"id,v\n%d,9\n" % (5000 + number))

    answers = await asyncio.gather(*(put(n) for n in range(6)), *(add(n) for n in range(6)))
    assert [answer.status_code for answer in answers] == [200] * 12
    expected = {str(n): "0" for n in range(50)}
    expected |= {str(n): str(n + 100) for n in range(6)}
    expected |= {str(1000 + n): str(n) for n in range(6)}
    expected |= {str(5000 + n): "9" for n in range(6)}
    rows = await trio.read_rows("w")
    assert len(rows) == len(expected)
    assert {row[0]: row[1] for row in rows} == expected


async def test_another_daemons_write_in_between_is_seen(
    trio: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another ingestd knows nothing of our gates: the base snapshot alone tells."""
    await trio.post("dataset=w", b"id,v\n1,a\n2,b\n")
    register = CatalogdClient.register
    others = [b"id,v\n3,c\n", b"id,v\n1,z\n"]

    async def late(self: CatalogdClient, request: RegisterRequest) -> Any:
        if request.mode == "rewrite" and others:
            data = others.pop(0)
            path = "datasets/other/" + str(len(others)) + ".parquet"
            rows = list(csv.reader(io.StringIO(data.decode())))
            table = pa.table({"id": [int(rows[1][0])], "v": [rows[1][1]]})
            sink = pa.BufferOutputStream()
            pq.write_table(table, sink)
            await trio.storaged.put(
                f"/storage/objects/{path}", content=sink.getvalue().to_pybytes()
            )
            plain = RegisterRequest(name="w", objects=[path])
            assert (await register(self, plain)).status == "updated"
        return await register(self, request)

    monkeypatch.setattr(CatalogdClient, "register", late)
    answer = await upsert(trio, b"id,v\n1,new\n4,d\n")
    assert (answer["inserted"], answer["updated"]) == (1, 1)
    assert await trio.read_rows("w") == [("1", "new"), ("2", "b"), ("3", "c"), ("4", "d")]


async def test_an_upsert_that_never_gets_in_between_says_so(
    trio: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    await trio.post("dataset=w", b"id,v\n1,a\n")
    register = CatalogdClient.register

    async def never(self: CatalogdClient, request: RegisterRequest) -> Any:
        if request.mode == "rewrite":
            request = request.model_copy(update={"base_snapshot": "1"})
        return await register(self, request)

    with monkeypatch.context() as patched:
        patched.setattr(CatalogdClient, "register", never)
        refused = await trio.post("dataset=w&mode=upsert&key=id", b"id,v\n1,b\n")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
    assert await trio.read_rows("w") == [("1", "a")]
    assert (await upsert(trio, b"id,v\n1,b\n"))["updated"] == 1


async def test_json_lines_are_upserted_with_their_lines(trio: Trio, tmp_path: Path) -> None:
    await trio.post("dataset=w", b"id,name\n1,Ann\n2,Bob\n")
    data = b'{"id": 2, "name": "a"}\n\n{"name": "x"}\nnot json\n{"id": 2, "name": "b"}\n'
    answer = await upsert(trio, data, "key=id&format=jsonl")
    assert (answer["rows_out"], answer["updated"]) == (1, 1)
    rejects = await read_rejects(trio, answer, tmp_path)
    assert [(line, kind) for line, _, kind, _, _ in rejects if kind.endswith("key")] == [
        (1, "repeated_key"),
        (3, "missing_key"),
    ]
    assert rejects[0][4] == '{"id": 2, "name": "a"}'
    assert await trio.read_rows("w") == [("1", "Ann"), ("2", "b")]


async def test_parquet_is_upserted_with_its_rows_numbers(trio: Trio, tmp_path: Path) -> None:
    await trio.post("dataset=w", b"id,name\n1,Ann\n2,Bob\n")
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table({"id": pa.array([2, None, 3, 2], pa.int64()), "name": ["a", "b", "c", "d"]}), sink
    )
    answer = await upsert(trio, sink.getvalue().to_pybytes(), "key=id&format=parquet")
    assert (answer["rows_out"], answer["updated"], answer["inserted"]) == (2, 1, 1)
    rejects = await read_rejects(trio, answer, tmp_path)
    assert [(line, kind) for line, _, kind, _, _ in rejects] == [
        (1, "repeated_key"),
        (2, "missing_key"),
    ]
    assert await trio.read_rows("w") == [("1", "Ann"), ("2", "d"), ("3", "c")]


async def test_an_upsert_can_be_a_job(trio: Trio) -> None:
    await trio.post("dataset=w", BASE)
    sent = await trio.ingestd.post(
        "/ingest?dataset=w&mode=upsert&key=id",
        content=b"id,name,rate\n1,x,1.00\n",
        headers={"content-type": "text/csv", "prefer": "respond-async"},
    )
    path = f"/ingest/jobs/{sent.json()['job_id']}"
    job = (await trio.ingestd.get(f"{path}?wait=30")).json()
    assert (job["status"], job["mode"], job["result"]["updated"]) == ("done", "upsert", 1)


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(4))
async def test_any_sequence_of_writes_is_that_of_a_dictionary(trio: Trio, seed: int) -> None:
    dice = random.Random(seed)
    model: list[tuple[str, str]] = []
    done: list[tuple[str, bytes]] = []
    for step in range(14):
        mode = dice.choice(["append", "upsert", "upsert", "upsert", "replace"])
        rows = [
            (str(dice.randrange(25)), f"{step}-{number}") for number in range(dice.randrange(1, 12))
        ]
        data = ("id,v\n" + "".join(f"{key},{value}\n" for key, value in rows)).encode()
        key = "&key=id" if mode == "upsert" else ""
        response = await trio.post(f"dataset=w&mode={mode}{key}", data)
        assert response.status_code == 200, response.text
        answer = response.json()
        last = dict(rows)
        if mode == "upsert":
            known = {name for name, _ in model}
            assert answer["rejects"]["count"] == len(rows) - len(last)
            assert answer["updated"] == len(known & last.keys())
            assert answer["inserted"] == len(last.keys() - known)
            model = [row for row in model if row[0] not in last] + list(last.items())
        else:
            model = ([] if mode == "replace" else model) + rows
        assert sorted(await trio.read_rows("w")) == sorted(model)
        again = await trio.post(f"dataset=w&mode={mode}{key}", data)
        assert again.json()["duplicate"] is True
        done.append((mode, data))
    assert trio.leftovers() == []
    assert len(done) == 14


@pytest.mark.parametrize("query", ["mode=append", "mode=upsert&key=id"])
async def test_what_was_collected_between_storing_and_registering_is_stored_again(
    trio: Trio, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    register, calls = CatalogdClient.register, 0

    async def collect_first(client: CatalogdClient, request: RegisterRequest) -> RegisterResponse:
        nonlocal calls
        calls += 1
        if calls == 1:
            for key in request.objects:
                await trio.storaged.delete(f"/storage/objects/{key}")
            raise Conflict("They were collected.", details={"collected": request.objects})
        return await register(client, request)

    monkeypatch.setattr(CatalogdClient, "register", collect_first)
    response = await trio.post(f"dataset=w&{query}", BASE)
    assert response.status_code == 200, response.text
    assert calls == 2
    assert len(await trio.read_rows("w")) == 3
