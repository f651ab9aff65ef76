"""catalogd's store on a real disk and database: durable, whole, and honest when it cannot be."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import ManifestContent, ManifestFile
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.update import update_table_metadata
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import LongType, NestedField
from sqlalchemy import event

from services.catalogd.core.snapshots import format_time
from services.catalogd.store import changes, fileio
from services.catalogd.store.changes import Changes, apply_updates
from services.catalogd.store.parquet import make_data_file
from services.catalogd.store.pointers import Pointers
from shared.errors import InsufficientStorage, Internal, NotFound, Unprocessable
from tests.support.catalogd import Store, catalogd_pair


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path)
    yield made
    made.close()


def metadata_files(store: Store) -> list[str]:
    return sorted(str(path) for path in (store.directory / "warehouse").rglob("*.*"))


def outside_catalog(store: Store) -> SqlCatalog:
    """pyiceberg's own client, as another program would open the catalogue."""
    warehouse = f"file://{store.directory / 'outside'}"
    return SqlCatalog("lakehouse", uri=store.uri, warehouse=warehouse)


def test_everything_is_on_disk_before_the_pointer_moves(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync, swap, rename = os.fsync, store.pointers.swap, os.rename
    named: dict[str, int] = {}

    def note_fsync(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}").removesuffix(".tmp"))
        fsync(fd)

    def note_rename(old: str, new: str) -> None:
        assert new in synced, "named before its content was durable"
        named[new] = len(synced)
        rename(old, new)

    moved: list[str] = []

    def note_swap(**fields: Any) -> None:
        location = fields["location"].removeprefix("file://")
        assert location in named
        for path, position in named.items():
            assert os.path.dirname(path) in synced[position:], "its name is not durable"
        moved.append(location)
        swap(**fields)

    monkeypatch.setattr(fileio.os, "fsync", note_fsync)
    monkeypatch.setattr(fileio.os, "rename", note_rename)
    monkeypatch.setattr(store.pointers, "swap", note_swap)
    for number in range(2):
        store.register("t", store.write(f"k{number}", {"x": [number]}))
    assert len(moved) == 2
    # Per commit: a manifest, the manifest list, the table's metadata.
    assert len(named) == 6
    with store.pointers.engine.connect() as connection:
        assert connection.exec_driver_sql("pragma synchronous").scalar() == 2
        assert connection.exec_driver_sql("pragma journal_mode").scalar() == "wal"


def no_space(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def fail_fsync_at(monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> None:
    fsync, calls = os.fsync, iter(range(1000))

    def failing(fd: int) -> None:
        if next(calls) == number:
            raise OSError(code, os.strerror(code))
        fsync(fd)

    monkeypatch.setattr(fileio.os, "fsync", failing)


def no_space_in_write(monkeypatch: pytest.MonkeyPatch, _: Store) -> None:
    monkeypatch.setattr(fileio.WriteStream, "write", no_space)


def no_space_in_database(store: Store) -> None:
    with store.pointers.engine.connect() as connection:
        pages = connection.exec_driver_sql("pragma page_count").scalar()
    store.pointers.engine.dispose()
    limit = f"pragma max_page_count={pages}"
    # Each new connection gets the limit; SQLite itself then finds its disk full.
    event.listen(store.pointers.engine, "connect", lambda raw, _: raw.execute(limit))


def test_a_file_opened_after_the_commit_is_off_leaves_nothing(tmp_path: Path) -> None:
    io = fileio.DurableFileIO()
    io.discard()
    with pytest.raises(OSError, match="the commit is off"):
        io.new_output(str(tmp_path / "late.avro")).create()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "fill",
    [
        no_space_in_write,
        *(
            lambda patch, _, number=number: fail_fsync_at(patch, number, errno.ENOSPC)
            for number in range(4)
        ),
        lambda patch, _: fail_fsync_at(patch, 1, errno.EDQUOT),
    ],
)
@pytest.mark.parametrize("mode", ["append", "replace"])
def test_a_full_disk_changes_nothing_and_leaves_nothing(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    fill: Callable[[pytest.MonkeyPatch, Store], None],
    mode: str,
) -> None:
    before = store.register("t", store.write("a", {"x": [1]}))
    files = metadata_files(store)
    info = store.write("b", {"x": [2]})
    with monkeypatch.context() as patch:
        fill(patch, store)
        with pytest.raises(InsufficientStorage, match="Free space"):
            store.register("t", info, ingest_id="i", mode=mode)
    assert store.reader.describe("t").snapshot_id == before.snapshot_id
    assert store.keys("t") == ["a"]
    # A thread of the same commit may still be about to hear that it is off.
    deadline = time.monotonic() + 10
    while metadata_files(store) != files:
        assert time.monotonic() < deadline, metadata_files(store)
    # Space was freed: the same request goes through.
    assert store.register("t", info, ingest_id="i", mode=mode).status == "updated"
    assert "b" in store.keys("t")


def test_a_full_database_changes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    before = store.register("t", store.write("a", {"x": [1]}))
    no_space_in_database(store)
    wide = store.write("wide", {f"a_rather_long_name_{n}": [n] for n in range(2000)})
    with pytest.raises(InsufficientStorage, match="disk is full"):
        store.register("t", wide, mode="replace", evolve=True, ingest_id="i")
    store.close()
    freed = Store(tmp_path)
    assert freed.reader.describe("t").snapshot_id == before.snapshot_id
    assert freed.pointers.find_ingest(before.uuid, "i") is None
    done = freed.register("t", wide, mode="replace", evolve=True, ingest_id="i")
    assert done.status == "updated"
    assert freed.keys("t") == ["wide"]


def test_a_broken_disk_makes_the_catalogue_read_only_until_it_is_restarted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.register("t", store.write("a", {"x": [1]}))
    info = store.write("b", {"x": [2]})
    with monkeypatch.context() as patch:
        fail_fsync_at(patch, 0, errno.EIO)
        with pytest.raises(InsufficientStorage, match="read-only"):
            store.register("t", info)
    with pytest.raises(InsufficientStorage, match="read-only"):
        store.register("t", info)
    with pytest.raises(InsufficientStorage, match="read-only"):
        store.commits.check_disk()
    assert store.keys("t") == ["a"]
    restarted = Store(store.directory)
    assert restarted.register("t", info).status == "updated"


@pytest.mark.anyio
async def test_a_broken_disk_is_told_by_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with catalogd_pair(tmp_path) as pair:
        key = await pair.put("x", {"x": [1]})
        with monkeypatch.context() as patch:
            fail_fsync_at(patch, 0, errno.EIO)
            assert (await pair.send("t", key)).status_code == 507
        ready = await pair.catalog.get("/ready")
        assert ready.status_code == 503
        assert "read-only" in ready.json()["error"]["details"]["checks"]["database"]
        assert await pair.get("") == {"datasets": []}


@pytest.mark.anyio
async def test_a_database_of_the_users_choice(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    warehouse = f"file://{tmp_path}/ware house #1/ø"
    async with catalogd_pair(tmp_path, database_uri=address, warehouse=warehouse) as pair:
        await pair.register("t", await pair.put("x", {"x": [1]}))
        assert await pair.rows("t") == [(1,)]
        assert (await pair.get("/t/snapshots"))["snapshots"][0]["rows"] == 1
        # Such a database may have several catalogd: no lock on the folder.
        async with catalogd_pair(tmp_path / "b", database_uri=address, warehouse=warehouse) as two:
            assert len((await two.get(""))["datasets"]) == 1
    assert list((tmp_path / "ware house #1" / "ø").rglob("*.metadata.json"))


def test_times_of_snapshots_always_go_forward(tmp_path: Path) -> None:
    clock = iter([5_000, 5_000, 5_000, 5_000, 1_000, 1_000, 9_000, 9_000])
    store = Store(tmp_path, clock=lambda: next(clock))
    made = [store.register("t", store.write(f"k{n}", {"x": [n]})).snapshot_id for n in range(4)]
    snapshots = store.reader.list_snapshots("t").snapshots
    times = [snapshot.time for snapshot in snapshots]
    assert times == [f"1970-01-01T00:00:0{s}Z" for s in ("5.000", "5.001", "5.002", "9.000")]
    for snapshot_id, moment in zip(made, times, strict=True):
        assert store.reader.list_files("t", moment).snapshot_id == snapshot_id


def test_a_tag_keeps_its_snapshot(tmp_path: Path) -> None:
    store = Store(tmp_path, keep=2)
    first = store.register("t", store.write("k0", {"x": [0]}))
    table = store.catalog.load_table("lakehouse.t")
    table.manage_snapshots().create_tag(int(first.snapshot_id), "golden").commit()
    for number in range(1, 5):
        store.register("t", store.write(f"k{number}", {"x": [number]}))
    kept = [s.snapshot_id for s in store.reader.list_snapshots("t").snapshots]
    assert len(kept) == 3
    assert kept[0] == first.snapshot_id
    assert len(store.reader.list_files("t", first.snapshot_id).files) == 1
    # What was current right after the tagged one is gone: no guess at it.
    metadata = store.reader.load("t")
    gone = metadata.snapshots[0].timestamp_ms + 1
    with pytest.raises(NotFound) as caught:
        store.reader.list_files("t", format_time(gone))
    assert caught.value.details["oldest_snapshot_id"] == kept[1]


def test_metadata_on_disk_stays_small(tmp_path: Path) -> None:
    store = Store(tmp_path, keep=5)
    for number in range(30):
        store.register("t", store.write(f"k{number:02}", {"x": [number]}))
    metadata = store.reader.load("t")
    assert len(metadata.snapshots) == 5
    assert len(metadata.metadata_log) == 5
    assert sum(path.endswith(".json") for path in metadata_files(store)) == 6
    table = store.catalog.load_table("lakehouse.t")
    snapshot = metadata.current_snapshot()
    assert snapshot is not None
    assert len(snapshot.manifests(table.io)) <= 10
    assert len(store.keys("t")) == 30


def test_a_pointer_that_moves_while_its_file_is_opened_is_followed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.register("t", store.write("a", {"x": [1]}))
    other = Store(store.directory)
    load, tries = other.catalog.load_metadata, iter(range(100))

    def vanish_first(location: str) -> Any:
        if next(tries) == 0:
            raise FileNotFoundError
        return load(location)

    monkeypatch.setattr(other.catalog, "load_metadata", vanish_first)
    assert other.keys("t") == ["a"]


def test_metadata_that_is_really_gone_is_told_without_its_place(store: Store) -> None:
    store.register("t", store.write("a", {"x": [1]}))
    for path in metadata_files(store):
        if path.endswith(".json"):
            os.unlink(path)
    fresh = Store(store.directory)
    with pytest.raises(Internal, match="missing") as caught:
        fresh.reader.list_files("t", None)
    assert str(store.directory) not in caught.value.message


def test_a_table_that_another_client_made_is_a_dataset_too(store: Store) -> None:
    catalog = outside_catalog(store)
    rows = pa.table({"x": pa.array([1, 2], pa.int64()), "y": ["a", "b"]})
    theirs = catalog.create_table("lakehouse.t", rows.schema)
    assert store.reader.describe("t").snapshot_id == ""
    assert store.reader.list_files("t", None).files == []
    theirs.append(rows)
    assert store.reader.describe("t").rows == 2
    [pointer] = store.pointers.list_pointers()
    assert pointer.description is None
    more = store.write("more", {"x": [3], "y": ["c"]})
    answer = store.register("t", more, ingest_id="i")
    assert answer.status == "updated"
    assert answer.uuid == str(theirs.metadata.table_uuid)
    assert store.pointers.list_pointers()[0].uuid == answer.uuid
    assert sorted(theirs.refresh().scan().to_arrow()["x"].to_pylist()) == [1, 2, 3]
    # It writes again: ours is out of date, and says nothing until it has looked.
    theirs.append(rows)
    assert store.pointers.list_pointers()[0].description is None
    assert store.reader.describe("t").rows == 5
    assert store.register("t", more, ingest_id="i").status == "unchanged"


def test_a_name_reserved_here_and_made_there_takes_the_tables_identity(store: Store) -> None:
    store.pointers.reserve_uuid("t", "11111111-1111-4111-8111-111111111111")
    rows = pa.table({"x": pa.array([1], pa.int64())})
    theirs = outside_catalog(store).create_table("lakehouse.t", rows.schema)
    answer = store.register("t", store.write("a", rows))
    assert answer.uuid == str(theirs.metadata.table_uuid)
    assert store.register("t", store.write("b", rows)).uuid == answer.uuid


def test_other_clients_commit_through_our_catalogue_and_are_described(store: Store) -> None:
    rows = pa.table({"x": pa.array([1, 2], pa.int64())})
    table = store.catalog.create_table("lakehouse.t", rows.schema)
    table.append(rows)
    [pointer] = store.pointers.list_pointers()
    assert pointer.description is not None
    assert '"rows":2' in pointer.description
    store.catalog.drop_table("lakehouse.t")
    assert store.pointers.list_pointers() == []


def test_a_partitioned_table_of_another_client_is_left_to_it(store: Store) -> None:
    schema = Schema(NestedField(1, "x", LongType(), required=False))
    spec = PartitionSpec(PartitionField(1, 1000, IdentityTransform(), "x"))
    outside_catalog(store).create_table("lakehouse.t", schema, partition_spec=spec)
    with pytest.raises(Unprocessable, match="partitioned"):
        store.register("t", store.write("a", {"x": [1]}))


def test_files_are_not_shown_past_row_level_deletes(store: Store) -> None:
    store.register("t", store.write("a", {"x": [1]}))
    deletes = ManifestFile.from_args(content=ManifestContent.DELETES, manifest_path="x")
    with pytest.raises(Unprocessable, match="row-level deletes"):
        store.reader._read_manifest(store.catalog.open_io("file:///"), deletes)


def test_updates_without_copies_are_what_pyiceberg_makes_of_them(tmp_path: Path) -> None:
    store = Store(tmp_path, keep=3)
    for number in range(3):
        store.register("t", store.write(f"k{number}", {"x": [number]}))
    table = store.catalog.load_table("lakehouse.t")
    [file] = store.registrar.read_objects([store.write("new", {"x": [1], "y": ["a"]})])
    staged = Changes(table)
    staged.set_columns(file.columns)
    ids = {("x",): 1, ("y",): 2}
    staged.add_snapshot([make_data_file(file, file.columns, ids)], mode="replace", now_ms=1)
    staged.expire_snapshots(3)
    kinds = {type(update).__name__ for update in staged.updates}
    assert len(kinds) == 6
    location = table.metadata_location
    ours = apply_updates(table.metadata, staged.updates, location)
    theirs = update_table_metadata(table.metadata, staged.updates, metadata_location=location)
    assert ours == theirs
    assert apply_updates(table.metadata, ()) == table.metadata


def test_a_database_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"not a database" * 100)
    with pytest.raises(Exception, match="does not answer"):
        Pointers(f"sqlite:///{tmp_path / 'x.db'}").create_tables()


def test_the_properties_of_a_table_keep_its_commits_flat(store: Store) -> None:
    store.register("t", store.write("a", {"x": [1]}))
    properties = store.reader.load("t").properties
    for name, value in changes.TABLE_PROPERTIES.items():
        assert properties[name] == value
    assert store.reader.describe("t").properties == {}
