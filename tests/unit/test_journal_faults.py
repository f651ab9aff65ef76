"""The journal on failing disks: it stops, says so, and never acknowledges what is not safe."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from shared.errors import InsufficientStorage, Unavailable
from shared.journal import Disk, Journal, Report, replay_directory
from tests.support.journal import (
    QUICK,
    FaultyDisk,
    GatedDisk,
    fill,
    memory_directory,
    segment_files,
)


def ids(journal: Journal) -> list[int]:
    return [record.payload["n"] for record in journal.replay()]


def append_until_failure(journal: Journal, count: int) -> list[int]:
    """Appends 1..count one by one; gives the acknowledged ones, and checks the rest fail."""
    acknowledged: list[int] = []
    for number in range(1, count + 1):
        try:
            journal.append_sync({"n": number})
        except InsufficientStorage:
            with pytest.raises(InsufficientStorage):
                journal.append_sync({"n": number})
            assert journal.failure is not None
            break
        acknowledged.append(number)
    return acknowledged


def test_a_short_write_on_a_full_disk_is_cut_back(tmp_path: Path) -> None:
    faulty = FaultyDisk("write", 4, errno.ENOSPC, short=30)
    journal = Journal(tmp_path, disk=faulty.disk)
    journal.open()
    assert append_until_failure(journal, 9) == [1, 2, 3]
    # The refused second attempt did not even try.
    assert faulty.calls["write"] == 5
    assert faulty.calls["truncate"] == 1
    assert ids(journal) == [1, 2, 3]
    stats = journal.stats()
    assert stats.read_only is not None
    assert str(tmp_path) not in stats.read_only
    assert "ENOSPC" in stats.read_only
    assert (stats.appended, stats.pending_records, stats.pending_bytes) == (3, 0, 0)
    journal.close()
    assert segment_files(tmp_path)[0].read_bytes().count(b"\n") == 3
    faulty.mend()
    assert journal.open().clean
    assert journal.failure is None
    assert journal.append_sync({"n": 4}) == 4
    assert ids(journal) == [1, 2, 3, 4]
    journal.close()


def test_a_short_write_that_can_go_on_goes_on(tmp_path: Path) -> None:
    with Journal(tmp_path, disk=Disk(write=lambda fd, data: os.write(fd, data[:7]))) as journal:
        assert journal.append_many_sync([{"n": 1}, {"n": 2}]) == range(1, 3)
        assert ids(journal) == [1, 2]


def test_a_write_that_takes_nothing_is_a_full_disk(tmp_path: Path) -> None:
    disk = Disk(write=lambda fd, data: os.write(fd, data[:5]) if len(data) > 60 else 0)
    with Journal(tmp_path, disk=disk) as journal, pytest.raises(InsufficientStorage):
        journal.append_sync({"n": 1})


@pytest.mark.anyio
async def test_a_failed_sync_fails_all_who_wait_and_is_not_tried_again(tmp_path: Path) -> None:
    gated = GatedDisk()
    journal = Journal(tmp_path, disk=gated.disk)
    journal.open()
    gated.gate.set()
    assert await journal.append({"n": 0}) == 1
    gated.gate.clear()
    gated.held.clear()
    gated.error = OSError(errno.EIO, "injected")
    group = [asyncio.create_task(journal.append({"n": n})) for n in range(1, 5)]
    while not gated.held.is_set():
        await asyncio.sleep(0)
    behind = [asyncio.create_task(journal.append({"n": n})) for n in range(5, 8)]
    threaded = asyncio.create_task(asyncio.to_thread(journal.append_sync, {"n": 8}))
    while journal.stats().pending_records < 8:
        await asyncio.sleep(0)
    gated.held.clear()
    gated.gate.set()
    results = await asyncio.gather(*group, *behind, threaded, return_exceptions=True)
    assert [type(result) for result in results] == [InsufficientStorage] * 8
    assert len(set(map(id, results))) == 8
    with pytest.raises(InsufficientStorage):
        await journal.append({"n": 9})
    assert not gated.held.is_set()
    assert ids(journal) == [0]
    await journal.aclose()
    with Journal(tmp_path, disk=QUICK) as again:
        assert ids(again) == [0]


@pytest.mark.parametrize("short", [0, 30, -1])
def test_what_could_not_be_cut_back_is_there_once_and_a_retry_gets_its_own_seq(
    tmp_path: Path, short: int
) -> None:
    kind = "write" if short else "fdatasync"
    # Opening writes and syncs nothing in an empty directory, so the third call is record 3's.
    faulty = FaultyDisk(kind, 3, errno.EIO, short=short, also="truncate")
    journal = Journal(tmp_path, disk=faulty.disk)
    journal.open()
    assert append_until_failure(journal, 5) == [1, 2]
    assert ids(journal) == [1, 2]
    journal.close()
    faulty.mend()
    report = journal.open()
    # Without a sync, record 3 may be there or not. What is there is whole and seen once.
    found = ids(journal)
    assert found == ([1, 2] if short == 30 else [1, 2, 3])
    assert (report.torn, report.completed) == (int(short == 30), int(short == -1))
    assert journal.append_sync({"n": 3}) == len(found) + 1
    assert [record.seq for record in journal.replay()] == list(range(1, len(found) + 2))
    journal.close()


def test_what_filled_a_segment_before_the_failure_is_acknowledged(tmp_path: Path) -> None:
    gated = GatedDisk()
    made = 0

    def fsync(fd: int) -> None:
        nonlocal made
        made += 1
        # Of the journal's first segment: the file, then the directory.
        if made > 2:
            raise OSError(errno.ENOSPC, "injected")

    journal = Journal(
        tmp_path, segment_bytes=400, disk=Disk(fdatasync=gated.disk.fdatasync, fsync=fsync)
    )
    journal.open()

    async def main() -> list[object]:
        first = asyncio.create_task(journal.append({"n": 0}))
        while not gated.held.is_set():
            await asyncio.sleep(0)
        # One group that begins in the first segment and would end in the third.
        singles = [asyncio.create_task(journal.append({"n": n})) for n in range(1, 4)]
        many = asyncio.create_task(journal.append_many({"n": n} for n in range(4, 14)))
        while journal.stats().pending_records < 14:
            await asyncio.sleep(0)
        gated.gate.set()
        return await asyncio.gather(first, *singles, many, return_exceptions=True)

    *acknowledged, refused = asyncio.run(main())
    assert acknowledged == [1, 2, 3, 4]
    assert isinstance(refused, InsufficientStorage)
    assert journal.stats().appended == 4
    journal.close()
    with Journal(tmp_path, segment_bytes=400, disk=QUICK) as again:
        # The first of the refused ones had been synced with the full segment.
        assert ids(again) == list(range(again.last_seq))
        assert 4 <= again.last_seq < 14
        assert again.append_sync({"n": "next"}) == again.last_seq


@pytest.mark.parametrize("kind", ["write", "fdatasync", "fsync"])
@pytest.mark.parametrize("also", ["", "truncate"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failure_at_any_call_loses_and_doubles_nothing(kind: str, also: str, code: int) -> None:
    """The same work again and again, each time failing one call later, until none fails."""
    with memory_directory() as root:
        for at in range(1, 100):
            directory = root / str(at)
            fill(directory, 3, segment_bytes=250)
            path = segment_files(directory)[-1]
            # A torn end, so that opening has something to mend, and that may fail as well.
            path.write_bytes(path.read_bytes() + b'{"v":1,"cr')
            faulty = FaultyDisk(kind, at, code, short=at % 2 * 20, also=also)
            journal = Journal(directory, segment_bytes=250, disk=faulty.disk)
            journal.open()
            already = ids(journal)
            assert already == [1, 2, 3]
            acknowledged = append_until_failure(journal, 12)
            report = Report()
            seen = [record.payload["n"] for record in journal.replay(report=report)]
            assert seen == already + acknowledged
            journal.close()
            failed = faulty.failed
            faulty.mend()
            with journal:
                found = ids(journal)
                assert found[: len(seen)] == seen
                # At most the one that was refused came back, and it came back once.
                assert found[len(seen) :] in ([], [len(acknowledged) + 1])
                journal.append_sync({"n": 99})
                final = list(journal.replay())
                assert [record.payload["n"] for record in final] == [*found, 99]
                assert [record.seq for record in final] == list(range(1, len(final) + 1))
            if not failed:
                assert at > 2
                return
        pytest.fail("the sweep never came to an end")


def test_a_full_disk_at_the_start_leaves_the_log_readable_and_untouched(tmp_path: Path) -> None:
    records = fill(tmp_path, 5)
    path = segment_files(tmp_path)[0]
    path.write_bytes(path.read_bytes() + b'{"v":1,"torn')
    before = path.read_bytes()
    faulty = FaultyDisk("write", 1, errno.ENOSPC, short=10)
    with Journal(tmp_path, disk=faulty.disk) as journal:
        assert journal.failure is not None
        assert (tmp_path / "quarantine.jsonl").read_bytes() == b""
        assert list(journal.replay()) == records
        with pytest.raises(InsufficientStorage):
            journal.append_sync({"n": 6})
        # Old segments can still be dropped to make room.
        assert journal.drop_before(3).segments == 0
    assert path.read_bytes() == before
    with Journal(tmp_path, disk=QUICK) as journal:
        assert journal.append_sync({"n": 6}) == 6
    assert path.read_bytes().count(b"torn") == 0


def test_torn_bytes_are_synced_in_quarantine_before_they_are_cut_off(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    path = segment_files(tmp_path)[0]
    path.write_bytes(path.read_bytes() + b'{"torn')
    trace: list[str] = []

    def name(fd: int) -> str:
        return Path(os.readlink(f"/proc/self/fd/{fd}")).name

    def truncate(fd: int, size: int) -> None:
        trace.append(f"cut {name(fd)}")
        os.ftruncate(fd, size)

    disk = Disk(
        fdatasync=lambda fd: trace.append(f"sync {name(fd)}"),
        fsync=lambda fd: trace.append(f"sync {name(fd)}"),
        truncate=truncate,
    )
    with Journal(tmp_path, disk=disk):
        pass
    log = path.name
    folder = tmp_path.name
    wanted = ["sync quarantine.jsonl", f"sync {folder}", f"cut {log}", f"sync {log}"]
    assert [step for step in trace if step in wanted] == [*wanted, f"sync {folder}"]


def test_opening_syncs_what_the_process_before_may_not_have(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    recording = FaultyDisk()
    with Journal(tmp_path, disk=recording.disk):
        found = segment_files(tmp_path)[0].stat()
        assert recording.synced[found.st_ino] == found.st_size


def test_damage_that_finds_no_room_in_quarantine_is_reported(tmp_path: Path) -> None:
    fill(tmp_path, 12, segment_bytes=600)
    first = segment_files(tmp_path)[0]
    data = bytearray(first.read_bytes())
    data[50] ^= 1
    first.write_bytes(data)
    faulty = FaultyDisk("write", 1, errno.ENOSPC)
    with Journal(tmp_path, disk=faulty.disk) as journal:
        report = Report()
        assert len(list(journal.replay(report=report))) == 11
        assert (report.damaged, report.unsaved) == (1, 1)
        faulty.mend()
        report = Report()
        list(journal.replay(report=report))
        assert (report.damaged, report.unsaved) == (1, 0)
    assert (tmp_path / "quarantine.jsonl").read_bytes().count(b"\n") == 1


def test_a_quarantine_that_cannot_be_synced_keeps_the_segments(tmp_path: Path) -> None:
    fill(tmp_path, 12, segment_bytes=300)
    first = segment_files(tmp_path)[0]
    data = bytearray(first.read_bytes())
    data[50] ^= 1
    first.write_bytes(data)
    faulty = FaultyDisk()
    with Journal(tmp_path, disk=faulty.disk) as journal:
        list(journal.replay())
        faulty.kind, faulty.at = "fdatasync", faulty.calls["fdatasync"] + 1
        with pytest.raises(InsufficientStorage):
            journal.drop_before(12)
        assert first.exists()


def test_a_segment_that_cannot_be_read_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    path = segment_files(tmp_path)[0]
    path.rename(tmp_path / "kept")
    path.mkdir()
    with pytest.raises(Unavailable):
        Journal(tmp_path, disk=QUICK).open()
    path.rmdir()
    (tmp_path / "kept").rename(path)
    with Journal(tmp_path, disk=QUICK) as journal:
        assert ids(journal) == [1, 2]


def test_a_clock_that_fails_is_heard_by_its_caller(tmp_path: Path) -> None:
    def broken() -> int:
        raise RuntimeError("no time")

    with Journal(tmp_path, disk=QUICK, clock=broken) as journal:
        with pytest.raises(InsufficientStorage, match="RuntimeError"):
            journal.append_sync({"n": 1})
        assert list(journal.replay()) == []


def test_a_directory_that_cannot_be_made_is_no_room(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InsufficientStorage):
        Journal(tmp_path / "file" / "log").open()
    with pytest.raises(Unavailable):
        replay_directory(tmp_path / "file")
