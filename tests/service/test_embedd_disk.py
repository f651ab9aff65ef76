"""Vectors over restarts: kept, bounded, and never the reason for a failure."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from services.embedd.core.lru import Entry
from services.embedd.store.disk import DAMAGED, FILE, DiskCache, pack_entry, unpack_entry
from shared.errors import Unavailable
from shared.lockfile import DirectoryLock
from tests.support.embedd import world

pytestmark = pytest.mark.anyio


def entry(size: int = 1536) -> Entry:
    return Entry(os.urandom(size), 9, True)


class Faults:
    count = 0

    def add(self) -> None:
        self.count += 1


def cache(folder: Path, faults: Faults | None = None, max_bytes: int = 1 << 30) -> DiskCache:
    return DiskCache(folder, max_bytes, (faults or Faults()).add)


async def test_what_was_kept_is_found_by_the_next_process(tmp_path: Path) -> None:
    first = cache(tmp_path)
    kept = {bytes([n]) * 20: entry() for n in range(30)}
    for key, value in kept.items():
        first.keep(key, value)
    # On its way to the disk it is found as well.
    assert await first.find([*kept, b"other"]) == kept
    await first.aclose()
    second = cache(tmp_path)
    assert await second.find([*kept, b"other"]) == kept
    await second.aclose()


async def test_the_daemon_restarts_with_its_vectors(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        before = (await w.embed("a", "b")).json()
    async with world(tmp_path) as w:
        after = (await w.embed("b", "a", "c")).json()
        assert after["vectors"][:2] == before["vectors"][::-1]
        assert await w.texts_received() == [["c"]]
        assert await w.figure('embedd_cache_hits_total{where="disk"}') == 2


async def test_without_a_disk_cache_nothing_is_written(tmp_path: Path) -> None:
    async with world(tmp_path, embedd={"cache_disk_bytes": 0}) as w:
        await w.embed("a")
        folder = w.config.data_dir("embedd")
    assert not (folder / FILE).exists()


@pytest.mark.parametrize("where", ["head", "middle", "cut", "text"])
async def test_a_damaged_file_is_put_aside_and_begun_anew(tmp_path: Path, where: str) -> None:
    first = cache(tmp_path)
    kept = {n.to_bytes(20, "little"): entry() for n in range(300)}
    for key, value in kept.items():
        first.keep(key, value)
    await first.aclose()
    path = tmp_path / FILE
    content = bytearray(path.read_bytes())
    if where == "head":
        content[:64] = os.urandom(64)
    elif where == "middle":
        for at in range(4096, len(content), 4096):
            content[at : at + 32] = os.urandom(32)
    elif where == "cut":
        del content[len(content) // 2 + 100 :]
    else:
        content = bytearray(b"not a database at all" * 100)
    path.write_bytes(content)
    faults = Faults()
    second = cache(tmp_path, faults)
    found = await second.find(list(kept))
    assert all(kept[key] == value for key, value in found.items())
    assert faults.count > 0
    key, value = b"n" * 20, entry()
    second.keep(key, value)
    await second.aclose()
    third = cache(tmp_path)
    assert await third.find([key]) == {key: value}
    await third.aclose()
    assert (tmp_path / DAMAGED).exists()


async def test_a_damaged_row_is_a_miss_and_is_dropped(tmp_path: Path) -> None:
    first = cache(tmp_path)
    kept = {n.to_bytes(20, "little"): entry() for n in range(10)}
    for key, value in kept.items():
        first.keep(key, value)
    await first.aclose()
    bad = (3).to_bytes(20, "little")
    with sqlite3.connect(tmp_path / FILE) as file:
        value = bytearray(
            file.execute("select value from vectors where key = ?", (bad,)).fetchone()[0]
        )
        value[700] ^= 1
        file.execute("update vectors set value = ? where key = ?", (bytes(value), bad))
    file.close()
    faults = Faults()
    second = cache(tmp_path, faults)
    found = await second.find(list(kept))
    assert set(found) == set(kept) - {bad}
    assert faults.count == 1
    second.keep(bad, kept[bad])
    await second.aclose()
    third = cache(tmp_path)
    assert await third.find(list(kept)) == kept
    await third.aclose()


async def test_the_file_stays_within_its_bound(tmp_path: Path) -> None:
    limit = 400_000
    disk = cache(tmp_path, max_bytes=limit)
    keys = [n.to_bytes(20, "little") for n in range(1500)]
    for start in range(0, len(keys), 100):
        for key in keys[start : start + 100]:
            disk.keep(key, entry())
        while disk._pending:
            disk._flush()
            assert disk._writing is not None
            await disk._writing
    found = await disk.find(keys)
    await disk.aclose()
    assert 100 < len(found) < 400
    # The newest stay; a tenth goes at a time.
    assert keys[-1] in found
    assert keys[0] not in found
    assert (tmp_path / FILE).stat().st_size < limit + 300 * 1536


async def test_a_disk_that_cannot_be_written_harms_nothing(tmp_path: Path) -> None:
    faults = Faults()
    disk = cache(tmp_path / "absent" / "folder", faults)
    disk.keep(b"k" * 20, entry())
    assert await disk.find([b"x" * 20]) == {}
    await disk.aclose()
    assert faults.count == 2


async def test_another_layout_is_begun_anew(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE) as file:
        file.execute("create table vectors (other text)")
        file.execute("pragma user_version = 99")
    file.close()
    disk = cache(tmp_path)
    disk.keep(b"k" * 20, entry())
    assert len(await disk.find([b"k" * 20])) == 1
    await disk.aclose()


def test_rows_check_out_only_under_their_own_key() -> None:
    value = entry()
    packed = pack_entry(b"a", value)
    assert unpack_entry(b"a", packed) == value
    assert unpack_entry(b"b", packed) is None
    assert unpack_entry(b"a", packed[:-1]) is None
    assert unpack_entry(b"a", b"") is None
    assert unpack_entry(b"a", "text") is None


async def test_one_process_per_data_directory(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        folder = w.config.data_dir("embedd")
        with pytest.raises(Unavailable, match="in use by process"):
            DirectoryLock(folder).acquire()
