"""Several files as one ingest: one commit or none, columns joined, every row told by its file."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import AsyncGenerator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.ingestd.core.bundle import Bundle, BundleFile
from services.ingestd.core.job import Limits
from services.ingestd.core.options import Options
from services.ingestd.worker.bundle import convert_bundle
from tests.support.apps import make_config
from tests.support.ingestd import Trio, read_parquet, run_trio

pytestmark = pytest.mark.anyio

Named = tuple[str, bytes]
A = ("a.csv", b"id,name\n1,Ann\n2,Bob\n")
B = ("b.csv", b"id,name\n3,Cy\n")
EVOLVE = "dataset=w&contract=evolve"


@pytest.fixture
async def trio(tmp_path: Path) -> AsyncGenerator[Trio]:
    async with run_trio(make_config(tmp_path)) as trio:
        yield trio


async def send(
    trio: Trio, query: str, files: Sequence[Named], headers: dict[str, str] | None = None
) -> httpx.Response:
    form = [("file", (name, data)) for name, data in files]
    return await trio.ingestd.post(f"/ingest?{query}", files=form, headers=headers or {})


async def take(trio: Trio, query: str, *files: Named) -> Any:
    response = await send(trio, query, files)
    assert response.status_code == 200, response.text
    return check(response.json())


def check(answer: Any) -> Any:
    assert answer["rows_in"] == answer["rows_out"] + answer["rejects"]["count"]
    for what in ("rows_in", "rows_out"):
        assert answer[what] == sum(one[what] for one in answer["files"])
    assert answer["rejects"]["count"] == sum(one["rejects"] for one in answer["files"])
    return answer


async def refuse(trio: Trio, query: str, status: int, *files: Named) -> Any:
    before = await trio.list_keys()
    response = await send(trio, query, files)
    assert response.status_code == status, response.text
    assert trio.leftovers() == []
    assert await trio.list_keys() == before
    return response.json()["error"]


async def snapshots(trio: Trio, name: str = "w") -> list[Any]:
    found = (await trio.catalogd.get(f"/catalog/datasets/{name}/snapshots")).json()
    return list(found["snapshots"])


async def put(trio: Trio, *files: Named) -> None:
    for name, data in files:
        await trio.storaged.put(f"/storage/objects/uploads/{name}", content=data)


async def take_json(trio: Trio, query: str, body: Any) -> httpx.Response:
    return await trio.ingestd.post(f"/ingest?{query}", json=body)


async def read_rejects(trio: Trio, answer: Any, folder: Path) -> list[Any]:
    stored = await trio.storaged.get(f"/storage/objects/{answer['rejects']['object']}")
    path = folder / "rejects.parquet"
    path.write_bytes(stored.content)
    return read_parquet(path, raw=True)


def types_of(answer: Any) -> dict[str, str]:
    return {one["name"]: one["type"] for one in answer["schema"]}


async def test_several_files_are_one_ingest_and_the_same_again_a_duplicate(trio: Trio) -> None:
    answer = await take(trio, "dataset=w", A, B)
    assert answer["files"] == [
        {"name": "a.csv", "rows_in": 2, "rows_out": 2, "rejects": 0},
        {"name": "b.csv", "rows_in": 1, "rows_out": 1, "rejects": 0},
    ]
    assert await trio.read_rows("w") == [("1", "Ann"), ("2", "Bob"), ("3", "Cy")]
    (only,) = await snapshots(trio)
    assert only["rows"] == 3
    # Small files are no reason for small parts.
    assert len([key for key in await trio.list_keys() if key.endswith("-0.parquet")]) == 1
    again = await take(trio, "dataset=w", A, B)
    assert again == {**answer, "duplicate": True}
    assert (await take(trio, "dataset=w", B, A))["duplicate"] is False
    assert trio.leftovers() == []


async def test_a_form_of_one_file_is_the_file_itself(trio: Trio) -> None:
    alone = (await trio.post("dataset=w", A[1])).json()
    answer = (await send(trio, "dataset=w", [A])).json()
    assert answer["files"] == []
    assert answer["ingest_id"] == alone["ingest_id"]
    assert answer["duplicate"] is True


async def test_columns_are_those_of_all_files_whatever_their_formats(trio: Trio) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"id": pa.array([4], pa.int32()), "city": ["Oslo"]}), sink)
    answer = await take(
        trio,
        EVOLVE,
        ("a.csv", b"id,note\n1,\n2,\n"),
        ("b.jsonl.gz", gzip.compress(b'{"id": 3, "note": 7, "tools": ["saw"]}\n')),
        ("c.parquet", sink.getvalue()),
    )
    # Nothing in the first file says what a note is, so the second does.
    assert types_of(answer) == {
        "id": "BIGINT", "note": "BIGINT", "tools": "VARCHAR[]", "city": "VARCHAR",
    }  # fmt: skip
    assert await trio.read_rows("w") == [
        ("1", None, None, None),
        ("2", None, None, None),
        ("3", "7", "[saw]", None),
        ("4", None, None, "Oslo"),
    ]
    assert len(await snapshots(trio)) == 1


async def test_numbers_of_new_columns_join_without_loss(trio: Trio) -> None:
    most = 2**63 - 1
    answer = await take(
        trio,
        EVOLVE,
        ("jan.csv", b"id,rate,big\n1,30,%d\n" % most),
        ("feb.csv", b"id,rate,big\n2,30.5,1\n"),
        ("mar.csv", b"id,rate,big\n3,30.125,0.5\n"),
    )
    assert types_of(answer) == {"id": "BIGINT", "rate": "DECIMAL(18,3)", "big": "DECIMAL(38,1)"}
    assert await trio.read_rows("w") == [
        ("1", "30.000", f"{most}.0"),
        ("2", "30.500", "1.0"),
        ("3", "30.125", "0.5"),
    ]


async def test_a_number_that_no_wider_type_holds_is_refused(trio: Trio) -> None:
    exact = ("a.csv", b"n\n9007199254740993\n")
    error = await refuse(trio, EVOLVE, 409, exact, ("b.csv", b"n\n1.5e300\n"))
    assert error["details"]["columns"][0]["column"] == "n"
    error = await refuse(trio, EVOLVE, 409, A, ("b.csv", b"id,name\nabc,X\n"))
    assert error["details"]["file"] == "b.csv"
    assert error["details"]["columns"][0] | {"example": ""} == {
        "column": "id", "problem": "does_not_fit", "expected": "BIGINT", "found": "VARCHAR",
        "count": 1, "example": "", "line": 2,
    }  # fmt: skip


async def test_what_a_dataset_says_is_widened_as_for_one_file(trio: Trio) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"id": pa.array([1], pa.int32())}), sink)
    await trio.post("dataset=w", sink.getvalue(), "application/octet-stream")
    large = ("b.csv", b"id\n%d\n" % 2**40)
    answer = await take(trio, EVOLVE, ("a.csv", b"id,x\n2,y\n"), large)
    assert types_of(answer) == {"id": "BIGINT", "x": "VARCHAR"}
    error = await refuse(trio, EVOLVE, 409, ("a.csv", b"id\n3\n"), ("b.csv", b"id\n0.5\n"))
    assert (error["details"]["file"], error["details"]["file_number"]) == ("b.csv", 2)
    assert "those of the files before" not in error["message"]


async def test_files_that_do_not_agree_are_refused_under_freeze(trio: Trio) -> None:
    error = await refuse(trio, "dataset=w", 409, A, ("b.csv", b"id,city\n3,Oslo\n"))
    assert error["message"].startswith("File 2 of 2, 'b.csv': ")
    assert error["details"]["columns"] == [
        {"column": "city", "problem": "new", "expected": None},
        {"column": "name", "problem": "missing", "expected": "VARCHAR"},
    ]
    error = await refuse(trio, "dataset=w", 409, A, ("b.csv", b"id,name\n1.5,Cy\n"))
    (one,) = error["details"]["columns"]
    assert (one["column"], one["expected"], one["found"]) == ("id", "BIGINT", "DECIMAL(18,1)")
    assert (await trio.catalogd.get("/catalog/datasets/w")).status_code == 404
    await take(trio, "dataset=w", A, B)
    error = await refuse(trio, "dataset=w", 409, B, ("c.csv", b"id\n4\n"))
    assert error["details"]["file"] == "c.csv"


async def test_rejects_tell_their_file(trio: Trio, tmp_path: Path) -> None:
    answer = await take(
        trio,
        "dataset=w",
        ("a.csv", b"id,name\n1,Ann\noops\n"),
        ("b.csv", b"id,name\n2,B,x\n3,C\n4,D\n5,E\n"),
    )
    assert answer["files"][0] == {"name": "a.csv", "rows_in": 2, "rows_out": 1, "rejects": 1}
    found = await read_rejects(trio, answer, tmp_path)
    assert [(one[0], one[1], one[3], one[5]) for one in found] == [
        ("a.csv", 3, "too_few_fields", "oops"),
        ("b.csv", 2, "too_many_fields", "2,B,x"),
    ]
    # One file alone has rejects as well.
    answer = await take(trio, "dataset=x", A, ("b.csv", b"id,name\n3,C\nodd\n"))
    (one,) = await read_rejects(trio, answer, tmp_path)
    assert (one[0], one[1]) == ("b.csv", 3)


async def test_discarding_means_what_it_means_for_each_file(trio: Trio, tmp_path: Path) -> None:
    await trio.post("dataset=w", A[1])
    odd = ("b.csv", b"id,name,extra\nx,Cy,\n3,Di,more\n4,Ed,\n")
    answer = await take(trio, "dataset=w&contract=discard_row", ("a.csv", b"id\n9\nz\n"), odd)
    assert [one["rejects"] for one in answer["files"]] == [1, 2]
    found = await read_rejects(trio, answer, tmp_path)
    assert [(one[0], one[1], one[2]) for one in found] == [
        ("a.csv", 3, "id"),
        ("b.csv", 2, "id"),
        ("b.csv", 3, "extra"),
    ]
    answer = await take(trio, "dataset=w&contract=discard_value", ("a.csv", b"id\n7\n"), odd)
    assert answer["rejects"]["count"] == 0
    found = await read_rejects(trio, answer, tmp_path)
    assert {one[0] for one in found} == {"b.csv"}
    assert types_of(answer) == {"id": "BIGINT", "name": "VARCHAR"}


async def test_a_replace_puts_all_files_in_place_of_all_rows(trio: Trio) -> None:
    await trio.post("dataset=w", b"other\n1\n")
    query = "dataset=w&mode=replace&contract=evolve"
    await take(trio, query, A, ("b.csv", b"id,city\n3,Oslo\n"))
    assert await trio.read_rows("w") == [
        ("1", "Ann", None),
        ("2", "Bob", None),
        ("3", None, "Oslo"),
    ]
    await refuse(trio, "dataset=w&mode=replace", 409, A, B)


async def test_one_bad_file_refuses_all_and_is_named(trio: Trio) -> None:
    for name, data, status in (
        ("empty.csv", b"", 422),
        ("head.csv", b"id,name\n", 422),
        ("cut.csv.gz", gzip.compress(A[1])[:-9], 422),
        ("book.xlsx", b"PK\x03\x04" + b"\0" * 60, 415),
        ("cut.parquet", b"PAR1" + b"\0" * 60, 422),
    ):
        error = await refuse(trio, "dataset=w", status, A, (name, data))
        assert error["message"].startswith(f"File 2 of 2, {name!r}: ")
        assert error["details"]["file"] == name
    assert (await trio.catalogd.get("/catalog/datasets/w")).status_code == 404


async def test_of_a_key_in_several_files_the_last_file_counts(trio: Trio, tmp_path: Path) -> None:
    await trio.post("dataset=w", b"id,v\n1,old\n8,old\n")
    query = "dataset=w&mode=upsert&key=id"
    answer = await take(
        trio,
        query,
        ("mon.csv", b"id,v\n1,a\n2,a\n1,b\n"),
        ("tue.jsonl", b'{"id": 2, "v": "c"}\n{"id": 3, "v": "c"}\n'),
        ("wed.csv", b"id,v\n3,d\n4,d\n"),
        ("thu.csv", b"id,v\n3,e\n4,e\n"),
    )
    assert [one["rows_out"] for one in answer["files"]] == [1, 1, 0, 2]
    assert (answer["inserted"], answer["updated"]) == (3, 1)
    assert await trio.read_rows("w") == [
        ("1", "b"), ("2", "c"), ("3", "e"), ("4", "e"), ("8", "old"),
    ]  # fmt: skip
    found = await read_rejects(trio, answer, tmp_path)
    assert [(one[0], one[1], one[3], one[5]) for one in found] == [
        ("mon.csv", 2, "repeated_key", "1,a"),
        ("mon.csv", 3, "repeated_key", "2,a"),
        ("tue.jsonl", 2, "repeated_key", '{"id": 3, "v": "c"}'),
        ("wed.csv", 2, "repeated_key", "3,d"),
        ("wed.csv", 3, "repeated_key", "4,d"),
    ]
    assert "again in line 4, which counts" in found[0][4]
    assert "again in the file 'tue.jsonl', which counts" in found[1][4]
    assert "'thu.csv'" in found[2][4]


async def test_an_upserts_files_all_need_the_key(trio: Trio) -> None:
    query = "dataset=w&mode=upsert&key=id&contract=evolve"
    error = await refuse(trio, query, 422, A, ("b.csv", b"name\nCy\n"))
    assert error["details"]["file"] == "b.csv"
    # A wider type in a later file is the same key all the same.
    answer = await take(trio, query, ("a.csv", b"id\n1\n2\n"), ("b.csv", b"id,x\n1.5,a\n2.0,b\n"))
    assert [one["rows_out"] for one in answer["files"]] == [1, 2]
    assert await trio.read_rows("w") == [("1.0", None), ("1.5", "a"), ("2.0", "b")]


async def test_objects_in_storage_are_named_one_by_one_or_by_prefix(trio: Trio) -> None:
    await put(
        trio, ("n-2.csv", B[1]), ("n-1.csv.gz", gzip.compress(A[1])), ("other.csv", b"x\n1\n")
    )
    answer = check((await take_json(trio, "dataset=w", {"prefix": "uploads/n-"})).json())
    assert [one["name"] for one in answer["files"]] == ["uploads/n-1.csv.gz", "uploads/n-2.csv"]
    named = {"objects": ["uploads/n-1.csv.gz", "uploads/n-2.csv"]}
    assert (await take_json(trio, "dataset=w", named)).json() == {**answer, "duplicate": True}
    missing = await take_json(trio, "dataset=w", {"objects": ["uploads/n-2.csv", "uploads/no"]})
    assert missing.status_code == 404
    assert "'uploads/no'" in missing.json()["error"]["message"]
    none = await take_json(trio, "dataset=w", {"prefix": "uploads/none"})
    assert none.status_code == 404
    elsewhere = await take_json(trio, "dataset=w", {"prefix": "datasets/"})
    assert elsewhere.status_code == 400


async def test_more_files_than_one_ingest_takes_are_refused(tmp_path: Path) -> None:
    async with run_trio(make_config(tmp_path, ingestd={"max_files": 2})) as trio:
        error = await refuse(trio, "dataset=w", 400, A, B, ("c.csv", b"id,name\n4,Di\n"))
        assert error["details"] == {"limit": 2}
        await put(trio, A, B, ("c.csv", b"id,name\n4,Di\n"))
        refused = await take_json(trio, "dataset=w", {"prefix": "uploads/"})
        assert refused.status_code == 400
        await take(trio, "dataset=w", A, B)


async def test_files_of_too_many_columns_together_are_refused(tmp_path: Path) -> None:
    async with run_trio(make_config(tmp_path, ingestd={"max_columns": 3})) as trio:
        error = await refuse(trio, EVOLVE, 422, A, ("b.csv", b"id,x,y\n1,2,3\n"))
        assert (error["details"]["file"], error["details"]["limit"]) == ("b.csv", 3)


async def test_the_same_bytes_under_two_names_are_taken_and_told(trio: Trio) -> None:
    answer = await take(trio, "dataset=w", A, ("copy.csv", A[1]))
    assert answer["rows_out"] == 4
    assert "'copy.csv', holds the same bytes" in answer["warnings"][0]


async def test_warnings_name_their_file(trio: Trio) -> None:
    answer = await take(trio, EVOLVE, A, ("b.csv", b"id\n3\n\n"))
    assert any(said.startswith("b.csv: Empty lines") for said in answer["warnings"])


async def test_parts_too_large_to_join_stay_within_their_size(tmp_path: Path) -> None:
    config = make_config(tmp_path, ingestd={"part_mb": 1})
    async with run_trio(config) as trio:
        files = [
            (f"{n}.csv", b"id,v\n" + b"".join(b"%d,%x\n" % (i, i * 7919**3) for i in range(90_000)))
            for n in range(2)
        ]
        files.append(("odd.csv", b"id,w\n1,x\n"))
        answer = await take(trio, EVOLVE, *files)
        assert answer["rows_out"] == 180_001
        listed = (
            await trio.storaged.get("/storage/objects", params={"prefix": "datasets/"})
        ).json()
        sizes = [one["size"] for one in listed["objects"] if one["key"].endswith(".parquet")]
        assert len(sizes) > 1
        assert max(sizes) <= 1024 * 1024


# --- as jobs


async def finish(trio: Trio, response: httpx.Response) -> Any:
    assert response.status_code == 202, response.text
    job = (await trio.ingestd.get(f"/ingest/jobs/{response.json()['job_id']}?wait=30")).json()
    assert job["status"] in ("done", "failed"), job
    return job


async def test_a_job_of_several_files_tells_of_all(trio: Trio) -> None:
    headers = {"prefer": "respond-async", "idempotency-key": "k"}
    response = await send(trio, "dataset=w", [A, B], headers)
    size = len(A[1]) + len(B[1])
    assert response.json()["source"] == {"bytes": size, "object": None, "files": 2}
    job = await finish(trio, response)
    check(job["result"])
    assert (job["progress"]["rows"], job["progress"]["stage"]) == (3, "done")
    again = await send(trio, "dataset=w", [A, B], headers)
    assert (again.status_code, again.json()) == (200, job["result"])
    other = await send(trio, "dataset=w", [B, A], headers)
    assert other.status_code == 422
    assert trio.leftovers() == []


async def test_objects_become_a_job_by_their_sum(tmp_path: Path) -> None:
    config = make_config(tmp_path, ingestd={"job_from_mb": 1})
    async with run_trio(config) as trio:
        rows = b"".join(b"%d,name %d\n" % (n, n) for n in range(40_000))
        await put(trio, ("n-1.csv", b"id,name\n" + rows), ("n-2.csv", b"id,name\n" + rows + b"1\n"))
        headers = {"idempotency-key": "nightly"}
        body = {"prefix": "uploads/n-"}
        response = await trio.ingestd.post("/ingest?dataset=w", json=body, headers=headers)
        job = await finish(trio, response)
        assert check(job["result"])["rows_out"] == 80_000
        assert job["source"]["object"] == "uploads/n-"
        assert job["source"]["files"] == 2
        assert job["progress"]["files_total"] in (None, 2)
        # What came to lie there since is not the request's.
        await put(trio, ("n-3.csv", b"id,name\n1,x\n"))
        again = await trio.ingestd.post("/ingest?dataset=w", json=body, headers=headers)
        assert again.json()["snapshot_id"] == job["result"]["snapshot_id"]
        named = {"objects": ["uploads/n-1.csv", "uploads/n-2.csv"]}
        other = await trio.ingestd.post("/ingest?dataset=w", json=named, headers=headers)
        assert other.status_code == 422


async def test_an_object_replaced_since_the_job_was_accepted_is_named(tmp_path: Path) -> None:
    async with run_trio(make_config(tmp_path, ingestd={"job_from_mb": 0})) as trio:
        await put(trio, A, B)
        jobs = trio.app.state.jobs
        receive = jobs._receive

        async def late(job: Any, folder: Path) -> Any:
            await put(trio, ("b.csv", b"id,name\n9,Z\n"))
            return await receive(job, folder)

        jobs._receive = late
        body = {"objects": ["uploads/a.csv", "uploads/b.csv"]}
        job = await finish(trio, await take_json(trio, "dataset=w", body))
        assert job["status"] == "failed"
        assert job["error"]["details"] == {"object": "uploads/b.csv"}
        assert trio.leftovers() == []


# --- any files


def make_file(dice: random.Random, row: int) -> tuple[Named, list[dict[str, str]]]:
    """A file of some columns and rows, as CSV or JSON lines, and what it holds."""
    names = ["id", *sorted(dice.sample("abcde", dice.randint(0, 4)))]
    kinds = {name: dice.choice(["whole", "whole", "point", "empty"]) for name in names}
    kinds["e"] = dice.choice(["text", "empty"])
    values = {
        "whole": lambda: str(dice.randint(-9, 10**12)),
        "point": lambda: f"{dice.randint(0, 99)}.{dice.randint(0, 999):0{dice.randint(1, 3)}d}",
        "text": lambda: dice.choice(["x", "007x", "7-", "so"]),
        "empty": lambda: "",
    }
    rows = [
        {name: str(row + n) if name == "id" else values[kinds[name]]() for name in names}
        for n in range(dice.randint(1, 5))
    ]
    if dice.random() < 0.5:
        text = "\n".join(",".join(values) for values in (names, *(one.values() for one in rows)))
        return (f"{row}.csv", f"{text}\n".encode()), rows
    lines = [
        "{"
        + ", ".join(
            f'"{name}": {"null" if not value else json.dumps(value) if name == "e" else value}'
            for name, value in one.items()
        )
        + "}\n"
        for one in rows
    ]
    return (f"{row}.jsonl", "".join(lines).encode()), rows


def test_whatever_files_come_every_value_is_there_under_its_name(tmp_path: Path) -> None:
    dice = random.Random(8)
    for number in range(25):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "work").mkdir()
        made = [make_file(dice, 10 * n) for n in range(dice.randint(2, 5))]
        files: list[BundleFile] = []
        for n, ((name, data), _) in enumerate(made):
            (folder / f"source-{n}").write_bytes(data)
            files.append(BundleFile(name, str(folder / f"source-{n}"), len(data)))
        options = Options(contract="evolve")
        limits = Limits(memory_bytes=256 * 1024 * 1024)
        work = str(folder / "work")
        outcome = convert_bundle(
            Bundle(tuple(files), work, "test", options, None, limits), lambda _: None
        )
        names = [name for name, _ in outcome.columns]
        types = dict(outcome.columns)
        found = [row for part in outcome.parts for row in read_parquet(part.path)]
        wanted = [row for _, rows in made for row in rows]
        assert outcome.rows_in == outcome.rows_out == len(found) == len(wanted)
        assert set(names) == {name for row in wanted for name in row}
        for want, got in zip(wanted, found, strict=True):
            for name, value in zip(names, got, strict=True):
                said = want.get(name) or None
                if types[name] == "VARCHAR" or said is None or value is None:
                    assert value == said, (number, name)
                else:
                    assert Decimal(value) == Decimal(said), (number, name, types[name])
