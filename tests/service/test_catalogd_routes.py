"""Every route of catalogd, over a real storaged, in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from shared.clients.catalogd import CatalogdClient
from shared.errors import Conflict, NotFound, Unavailable
from shared.wire.catalogd import IngestRecord, RegisterRequest, Rejects
from tests.support.catalogd import DATASETS, Pair, catalogd_pair

pytestmark = pytest.mark.anyio

TWO = {"id": pa.array([1, 2], pa.int64()), "city": ["Oslo", "Rome"]}
ONE = {"id": pa.array([3], pa.int64()), "city": ["Bern"]}


def assert_error(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"] == code
    assert error["service"] == "catalogd"
    assert "file:" not in answer.text
    return dict(error)


async def test_register_creates_then_updates_then_changes_nothing(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        two, one = await pair.put("two", TWO), await pair.put("one", ONE)
        record = {"rows_in": 3, "rows_out": 2, "rejects": {"count": 1, "object": "r"}}
        created = await pair.send("towns", two, ingest_id="first", record=record)
        assert created.status_code == 201, created.text
        made = created.json()
        assert made["status"] == "created"
        assert made["dataset"] == "towns"
        assert made["schema"] == [
            {"name": "id", "type": "BIGINT"},
            {"name": "city", "type": "VARCHAR"},
        ]
        assert made["record"]["rejects"] == {"count": 1, "object": "r"}
        updated = await pair.send("towns", one, ingest_id="second")
        assert updated.status_code == 200
        after = updated.json()
        assert after["status"] == "updated"
        assert after["snapshot_id"] != made["snapshot_id"]
        assert after["fingerprint"] == made["fingerprint"]
        again = await pair.send("towns", two, ingest_id="first")
        assert again.status_code == 200
        assert again.json() == {**made, "status": "unchanged"}
        assert await pair.rows("towns") == [(1, "Oslo"), (2, "Rome"), (3, "Bern")]


async def test_list_and_get_show_the_current_snapshot(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        assert await pair.get("") == {"datasets": []}
        two, one = await pair.put("two", TWO), await pair.put("one", ONE)
        await pair.register("b", two)
        await pair.register("a", two)
        last = await pair.register("a", one)
        listed = (await pair.get(""))["datasets"]
        assert [dataset["name"] for dataset in listed] == ["a", "b"]
        shown = await pair.get("/a")
        assert shown == listed[0]
        files = (await pair.get("/a/files"))["files"]
        assert shown["rows"] == 3
        assert shown["files"] == 2
        assert shown["bytes"] == sum(file["size"] for file in files)
        for key in ("uuid", "snapshot_id", "fingerprint", "schema"):
            assert shown[key] == last[key]
        assert shown["updated_at"] == (await pair.get("/a/snapshots"))["snapshots"][-1]["time"]


async def test_files_are_what_storaged_holds(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        await pair.register("towns", await pair.put("a/b c/ø.parquet", TWO))
        found = await pair.get("/towns/files")
        [file] = found["files"]
        held = await pair.storage.head("/storage/objects/a/b c/ø.parquet")
        assert file == {
            "uri": held.headers["x-lakehouse-uri"],
            "size": int(held.headers["content-length"]),
            "rows": 2,
            # On disk this key is escaped; only storaged could tell it from its place.
            "key": None,
        }
        assert found["dataset"] == "towns"
        assert await pair.rows("towns") == [(1, "Oslo"), (2, "Rome")]


async def test_snapshots_are_listed_oldest_first(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        first = await pair.register("towns", await pair.put("two", TWO), ingest_id="i1")
        second = await pair.register("towns", await pair.put("one", ONE), ingest_id="i2")
        found = (await pair.get("/towns/snapshots"))["snapshots"]
        assert [s["snapshot_id"] for s in found] == [first["snapshot_id"], second["snapshot_id"]]
        assert [s["parent_id"] for s in found] == [None, first["snapshot_id"]]
        assert [s["rows"] for s in found] == [2, 3]
        assert [s["operation"] for s in found] == ["append", "append"]
        assert [s["summary"]["lakehouse.ingest-id"] for s in found] == ["i1", "i2"]
        assert found[0]["time"] < found[1]["time"]


async def test_identity_is_reserved_once_and_ends_with_the_dataset(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        path = f"{DATASETS}/towns/identity"
        reserved = await pair.catalog.put(path)
        assert reserved.status_code == 200
        uuid = reserved.json()["uuid"]
        assert reserved.json()["dataset"] == "towns"
        assert (await pair.catalog.put(path)).json()["uuid"] == uuid
        assert await pair.get("") == {"datasets": []}
        assert_error(await pair.catalog.get(f"{DATASETS}/towns"), 404, "not_found")
        assert_error(await pair.catalog.delete(f"{DATASETS}/towns"), 404, "not_found")
        made = await pair.register("towns", await pair.put("two", TWO))
        assert made["uuid"] == uuid
        assert (await pair.catalog.put(path)).json()["uuid"] == uuid
        deleted = await pair.catalog.delete(f"{DATASETS}/towns")
        assert deleted.json() == {"dataset": "towns", "uuid": uuid, "deleted": True}
        assert (await pair.catalog.put(path)).json()["uuid"] != uuid


async def test_a_deleted_dataset_is_gone_and_a_new_one_knows_nothing_of_it(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        two, one = await pair.put("two", TWO), await pair.put("one", {"other": [1.5]})
        old = await pair.register("towns", two, ingest_id="same")
        assert (await pair.catalog.delete(f"{DATASETS}/towns")).status_code == 200
        for path in ("", "/files", "/snapshots", "/ingests/same"):
            answer = await pair.catalog.get(f"{DATASETS}/towns{path}")
            assert_error(answer, 404, "not_found")
        assert_error(await pair.catalog.delete(f"{DATASETS}/towns"), 404, "not_found")
        new = await pair.register("towns", one, ingest_id="same")
        assert new["status"] == "created"
        assert new["uuid"] != old["uuid"]
        assert await pair.rows("towns") == [(1.5,)]
        held = await pair.storage.head("/storage/objects/two")
        assert held.status_code == 200


async def test_a_write_begun_before_the_deletion_is_refused(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        two, one = await pair.put("two", TWO), await pair.put("one", ONE)
        uuid = (await pair.catalog.put(f"{DATASETS}/towns/identity")).json()["uuid"]
        await pair.register("towns", two, uuid=uuid)
        await pair.catalog.delete(f"{DATASETS}/towns")
        error = assert_error(await pair.send("towns", one, uuid=uuid), 409, "conflict")
        assert error["details"]["expected_uuid"] == uuid
        assert await pair.get("") == {"datasets": []}
        await pair.register("towns", two)
        assert_error(await pair.send("towns", one, uuid=uuid), 409, "conflict")
        assert await pair.rows("towns") == [(1, "Oslo"), (2, "Rome")]


async def test_an_ingest_is_found_by_an_id_of_any_characters(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        record = {"rows_in": 2, "rows_out": 2, "warnings": ["w"]}
        made = await pair.register(
            "towns", await pair.put("two", TWO), ingest_id="a/b c?d%é", record=record
        )
        found = await pair.get("/towns/ingests/a%2Fb%20c%3Fd%25%C3%A9")
        assert found["ingest_id"] == "a/b c?d%é"
        assert found["snapshot_id"] == made["snapshot_id"]
        assert found["schema"] == made["schema"]
        assert found["record"]["warnings"] == ["w"]
        assert found["superseded"] is False
        answer = await pair.catalog.get(f"{DATASETS}/towns/ingests/other")
        assert_error(answer, 404, "not_found")


async def test_files_of_a_moment_before_the_first_snapshot_name_the_oldest(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        made = await pair.register("towns", await pair.put("two", TWO))
        for moment in ("1999-01-01T00:00:00Z", "77"):
            answer = await pair.catalog.get(f"{DATASETS}/towns/files", params={"snapshot": moment})
            error = assert_error(answer, 404, "not_found")
            assert error["details"]["oldest_snapshot_id"] == made["snapshot_id"]
        answer = await pair.catalog.get(f"{DATASETS}/towns/files", params={"snapshot": "soon"})
        assert assert_error(answer, 404, "not_found")["details"]["tags"] == []
        answer = await pair.catalog.get(f"{DATASETS}/towns/files", params={"snapshot": "2 pm"})
        assert_error(answer, 400, "invalid")


async def test_a_name_that_is_none_is_told(tmp_path: Path) -> None:
    names = ["Upper", "1st", "a-b", "a.b", "_x", "x" * 64, "ø", "a%2Fb", "drop%20table"]
    async with catalogd_pair(tmp_path) as pair:
        for name in names:
            answer = await pair.catalog.put(f"{DATASETS}/{name}/identity")
            assert answer.status_code in (400, 404), name
            error = assert_error(await pair.send(name, "x"), 400, "invalid")
            assert "name" in error["message"]


async def test_a_request_that_is_none_is_told(tmp_path: Path) -> None:
    bodies: list[dict[str, Any]] = [
        {"name": "t"},
        {"name": "t", "objects": "x"},
        {"name": "t", "objects": [""]},
        {"name": "t", "objects": ["x"], "mode": "upsert"},
        {"name": "t", "objects": ["x"], "ingest_id": ""},
        {"name": "t", "objects": ["x"], "ingest_id": "a\nb"},
        {"name": "t", "objects": ["x"], "ingest_id": "x" * 201},
        {"name": "t", "objects": ["x"], "location": "file:///etc/passwd"},
        {"name": "t", "objects": ["x"], "record": {"rows_in": -1, "rows_out": 0}},
    ]
    async with catalogd_pair(tmp_path) as pair:
        for body in bodies:
            assert_error(await pair.catalog.post(DATASETS, json=body), 400, "invalid")


async def test_ready_tells_of_storaged_and_the_database(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        ready = await pair.catalog.get("/ready")
        assert ready.json()["checks"] == {"database": "ok", "storaged": "ok"}


async def test_metrics_count_commits_and_datasets(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        two = await pair.put("two", TWO)
        await pair.register("towns", two)
        await pair.register("towns", two)
        text = (await pair.catalog.get("/metrics")).text
        assert 'lakehouse_catalogd_registers_total{status="created"} 1.0' in text
        assert 'lakehouse_catalogd_registers_total{status="unchanged"} 1.0' in text
        assert "lakehouse_catalogd_commit_seconds_count 1.0" in text
        assert "lakehouse_catalogd_datasets 1.0" in text
        await pair.catalog.delete(f"{DATASETS}/towns")
        assert "lakehouse_catalogd_datasets 0.0" in (await pair.catalog.get("/metrics")).text


async def test_a_second_catalogd_on_the_same_folder_does_not_start(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path):
        with pytest.raises(Unavailable, match="in use by process"):
            async with catalogd_pair(tmp_path):
                pass


async def test_what_was_registered_is_there_after_a_restart(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        await pair.register("towns", await pair.put("two", TWO), ingest_id="i")
        before = await pair.get("")
    async with catalogd_pair(tmp_path) as pair:
        assert await pair.get("") == before
        assert await pair.rows("towns") == [(1, "Oslo"), (2, "Rome")]
        again = await pair.register("towns", "two", ingest_id="i")
        assert again["status"] == "unchanged"


async def test_the_data_directory_may_have_any_name(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path / "data dir #1 (new)") as pair:
        await pair.register("towns", await pair.put("two", TWO))
        assert await pair.rows("towns") == [(1, "Oslo"), (2, "Rome")]
    async with catalogd_pair(tmp_path / "data dir #1 (new)") as pair:
        assert len((await pair.get("/towns/snapshots"))["snapshots"]) == 1


async def test_the_client_speaks_every_route(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        client = CatalogdClient(pair.config, pair.transports)
        try:
            await check_every_call(pair, client)
        finally:
            await client.aclose()


async def check_every_call(pair: Pair, client: CatalogdClient) -> None:
    assert await client.list_datasets() == []
    identity = await client.reserve_identity("towns")
    key = await pair.put(f"datasets/{identity.uuid}/two", TWO)
    record = IngestRecord(rows_in=3, rows_out=2, rejects=Rejects(count=1, object="r"))
    request = RegisterRequest(
        name="towns", objects=[key], ingest_id="i/1", uuid=identity.uuid, record=record
    )
    made = await client.register(request)
    assert made.status == "created"
    assert made.record == record
    assert [column.type for column in made.columns] == ["BIGINT", "VARCHAR"]
    found = await client.find_ingest("towns", "i/1")
    assert found is not None
    assert found.record == record
    assert await client.find_ingest("towns", "i/2") is None
    assert await client.find_ingest("nowhere", "i/1") is None
    [listed] = await client.list_datasets()
    assert listed == await client.get_dataset("towns")
    files = await client.list_files("towns", made.snapshot_id)
    assert [file.rows for file in files.files] == [2]
    [snapshot] = (await client.list_snapshots("towns")).snapshots
    assert snapshot.snapshot_id == files.snapshot_id == made.snapshot_id
    other = await pair.put("other", {"x": [1]})
    with pytest.raises(Conflict) as caught:
        await client.register(RegisterRequest(name="towns", objects=[other]))
    assert [entry["name"] for entry in caught.value.details["missing"]] == ["id", "city"]
    assert (await client.delete_dataset("towns")).uuid == identity.uuid
    with pytest.raises(NotFound):
        await client.get_dataset("towns")
