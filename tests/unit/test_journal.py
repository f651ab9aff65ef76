"""The journal's promises to its callers: order, grouping, bounds, retention, one owner."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from hashlib import sha256
from pathlib import Path
from zlib import crc32

import pytest

from shared.errors import (
    InsufficientStorage,
    Internal,
    Invalid,
    LakehouseError,
    RateLimited,
    TooLarge,
    Unavailable,
)
from shared.journal import Disk, Journal, Record, Report, replay_directory
from tests.support.journal import QUICK, FaultyDisk, GatedDisk, fill, segment_files


async def until(condition: object, event: threading.Event | None = None) -> None:
    """Lets the loop turn until the condition holds, for ten seconds at most."""
    deadline = asyncio.get_running_loop().time() + 10
    while not (event.is_set() if event else condition()):  # type: ignore[operator]
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0)


# --- the form on disk


def test_a_record_is_a_line_of_plain_json_with_a_checkable_crc(tmp_path: Path) -> None:
    with Journal(tmp_path, disk=QUICK, clock=lambda: 1234567) as journal:
        assert journal.append_sync({"a": "é\n", "b": [1, None]}) == 1
    line = segment_files(tmp_path)[0].read_bytes()
    assert line.endswith(b"\n")
    fields = json.loads(line)
    assert fields["v"] == 1
    assert fields["seq"] == 1
    assert fields["t"] == 1234567
    assert fields["payload"] == {"a": "é\n", "b": [1, None]}
    covered = line[line.index(b'"seq"') : -1]
    assert fields["crc"] == f"{crc32(covered):08x}"
    assert segment_files(tmp_path)[0].name == "00000000000000000001.jsonl"


def test_seq_goes_on_over_segments_and_restarts(tmp_path: Path) -> None:
    expected: list[Record] = []
    for start in (0, 20, 40):
        with Journal(tmp_path, segment_bytes=500, disk=QUICK) as journal:
            assert journal.last_seq == start
            for number in range(20):
                assert journal.append_sync({"n": start + number}) == start + number + 1
            expected = list(journal.replay())
    assert [record.seq for record in expected] == list(range(1, 61))
    assert [record.payload["n"] for record in expected] == list(range(60))
    files = segment_files(tmp_path)
    assert len(files) > 5
    for path in files:
        lines = path.read_bytes().splitlines()
        assert json.loads(lines[0])["seq"] == int(path.stem)
        assert path.stat().st_size <= 500


def test_a_record_larger_than_a_segment_gets_one_of_its_own(tmp_path: Path) -> None:
    with Journal(tmp_path, segment_bytes=200, disk=QUICK) as journal:
        for size in (1, 1000, 1, 1):
            journal.append_sync({"x": "x" * size})
        assert [s.first_seq for s in journal.segments()] == [1, 2, 3]
        assert len(list(journal.replay())) == 4


@pytest.mark.parametrize("start", [1, 2, 700, 1500, 2999, 3000, 3001, 9999])
def test_replay_starts_at_any_seq(tmp_path: Path, start: int) -> None:
    with Journal(tmp_path, segment_bytes=300_000, disk=QUICK) as journal:
        journal.append_many_sync({"n": n, "pad": "p" * 60} for n in range(1, 3001))
        wanted = [record for record in journal.replay() if record.seq >= start]
        # The second time every segment is known to be orderly, and is entered in the middle.
        report = Report()
        assert list(journal.replay(start, report=report)) == wanted
        assert report.clean
        assert report.records <= max(0, 3001 - start) + 450 or start < 3


def test_replay_ends_with_what_was_durable_when_it_began(tmp_path: Path) -> None:
    with Journal(tmp_path, disk=QUICK) as journal:
        journal.append_many_sync([{"n": 1}, {"n": 2}])
        replay = journal.replay()
        journal.append_sync({"n": 3})
        assert [record.seq for record in replay] == [1, 2]
        assert [record.seq for record in replay_directory(tmp_path)] == [1, 2, 3]


# --- acknowledgement


@pytest.mark.anyio
async def test_nothing_is_acknowledged_or_read_before_its_sync(tmp_path: Path) -> None:
    gated = GatedDisk()
    journal = Journal(tmp_path, disk=gated.disk)
    journal.open()
    task = asyncio.create_task(journal.append({"n": 1}))
    await until(None, gated.held)
    assert segment_files(tmp_path)[0].stat().st_size > 0
    assert not task.done()
    assert journal.last_seq == 0
    assert list(journal.replay()) == []
    gated.gate.set()
    assert await task == 1
    assert [record.payload for record in journal.replay()] == [{"n": 1}]
    await journal.aclose()


@pytest.mark.anyio
async def test_callers_of_one_turn_share_one_sync(tmp_path: Path) -> None:
    counting = FaultyDisk()
    async with Journal(tmp_path, disk=counting.disk) as journal:
        await journal.append({"n": 0})
        before = counting.calls["fdatasync"]
        seqs = await asyncio.gather(*(journal.append({"n": n}) for n in range(1, 65)))
        assert seqs == list(range(2, 66))
        assert counting.calls["fdatasync"] == before + 1
        assert journal.stats().groups == 2


def test_a_new_segment_and_its_name_are_synced_before_any_record_in_it(tmp_path: Path) -> None:
    trace: list[tuple[str, str]] = []

    def traced(kind: str) -> object:
        def call(fd: int) -> None:
            trace.append((kind, Path(os.readlink(f"/proc/self/fd/{fd}")).name))

        return call

    disk = Disk(fdatasync=traced("data"), fsync=traced("full"))  # type: ignore[arg-type]
    with Journal(tmp_path / "log", segment_bytes=200, disk=disk) as journal:
        for number in range(6):
            journal.append_sync({"n": number})
        names = [segment.path.name for segment in journal.segments()]
    assert len(names) == 3
    for name in names:
        made = trace.index(("full", name))
        assert trace[made + 1] == ("full", "log")
        assert trace.index(("data", name)) > made + 1
    # The journal's own directory is a new name as well.
    assert trace[0] == ("full", tmp_path.name)


@pytest.mark.anyio
async def test_every_acknowledged_record_lies_in_synced_bytes(tmp_path: Path) -> None:
    recording = FaultyDisk()
    async with Journal(tmp_path, segment_bytes=2000, disk=recording.disk) as journal:

        async def append(caller: int) -> None:
            for number in range(15):
                seq = await journal.append({"caller": caller, "n": number})
                needle = b'"seq":%d,' % seq
                path = next(p for p in reversed(segment_files(tmp_path)) if int(p.stem) <= seq)
                synced = path.read_bytes()[: recording.synced[path.stat().st_ino]]
                assert needle in synced

        await asyncio.gather(*(append(caller) for caller in range(12)))
        assert len(journal.segments()) > 3


# --- many at once


def test_tasks_loops_and_threads_at_once_under_rotation(tmp_path: Path) -> None:
    journal = Journal(tmp_path, segment_bytes=4000, disk=QUICK)
    journal.open()
    written: dict[int, tuple[str, int]] = {}
    failures: list[BaseException] = []

    def guard(work: object) -> object:
        def run() -> None:
            try:
                work()  # type: ignore[operator]
            except BaseException as error:
                failures.append(error)

        return run

    def in_thread(name: str) -> None:
        seqs: list[int] = []
        for number in range(60):
            seqs.append(journal.append_sync({"who": name, "n": number}))
            written[seqs[-1]] = (name, number)
        assert seqs == sorted(seqs)

    async def in_task(name: str) -> None:
        seqs: list[int] = []
        for number in range(0, 30, 3):
            written[seq := await journal.append({"who": name, "n": number})] = (name, number)
            several = await journal.append_many({"who": name, "n": number + k} for k in (1, 2))
            assert len(several) == 2
            seqs += [seq, *several]
            written.update({s: (name, number + k) for k, s in enumerate(several, 1)})
        assert seqs == sorted(seqs)

    def in_loop(name: str) -> None:
        async def main() -> None:
            await asyncio.gather(*(in_task(f"{name}/{n}") for n in range(10)))

        asyncio.run(main())

    works = [lambda n=n: in_thread(f"thread {n}") for n in range(4)]
    works += [lambda n=n: in_loop(f"loop {n}") for n in range(2)]
    threads = [threading.Thread(target=guard(work)) for work in works]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    stats = journal.stats()
    journal.close()
    total = 4 * 60 + 2 * 10 * 30
    assert sorted(written) == list(range(1, total + 1))
    assert stats.appended == total
    assert (stats.pending_records, stats.pending_bytes) == (0, 0)
    found = {r.seq: (r.payload["who"], r.payload["n"]) for r in replay_directory(tmp_path)}
    assert found == written
    assert len(segment_files(tmp_path)) > 5


@pytest.mark.anyio
async def test_a_cancelled_caller_disturbs_nobody(tmp_path: Path) -> None:
    gated = GatedDisk()
    journal = Journal(tmp_path, disk=gated.disk)
    journal.open()
    first = [asyncio.create_task(journal.append({"n": n})) for n in range(5)]
    await until(None, gated.held)
    behind = [asyncio.create_task(journal.append({"n": n})) for n in range(5, 10)]
    await until(lambda: journal.stats().pending_records == 10)
    for task in (first[1], first[4], behind[0], behind[3]):
        task.cancel()
    gated.gate.set()
    results = await asyncio.gather(*first, *behind, return_exceptions=True)
    assert await journal.append({"n": 10}) == 11
    payloads = {record.seq: record.payload["n"] for record in journal.replay()}
    assert len(payloads) == 11
    for number, result in enumerate(results):
        if number in (1, 4, 5, 8):
            assert isinstance(result, asyncio.CancelledError)
        else:
            assert payloads[result] == number  # type: ignore[index]
    await journal.aclose()


def test_a_loop_that_ended_while_its_caller_waited_leaves_the_journal_working(
    tmp_path: Path,
) -> None:
    gated = GatedDisk()
    journal = Journal(tmp_path, disk=gated.disk)
    journal.open()

    async def leave() -> None:
        task = asyncio.create_task(journal.append({"n": 1}))
        await until(None, gated.held)
        # One more, in the very turn in which the loop ends.
        late = asyncio.create_task(journal.append({"n": 2}))
        await asyncio.sleep(0)
        task.cancel()
        late.cancel()

    asyncio.run(leave())
    gated.gate.set()
    assert journal.append_sync({"n": 3}) == 3
    assert asyncio.run(journal.append({"n": 4})) == 4
    journal.close()


@pytest.mark.anyio
async def test_close_writes_and_acknowledges_what_waits(tmp_path: Path) -> None:
    gated = GatedDisk()
    journal = Journal(tmp_path, disk=gated.disk)
    journal.open()
    tasks = [asyncio.create_task(journal.append({"n": n})) for n in range(50)]
    await until(None, gated.held)
    gated.gate.set()
    await journal.aclose()
    assert sorted(await asyncio.gather(*tasks)) == list(range(1, 51))
    journal.close()
    with pytest.raises(Unavailable):
        await journal.append({"n": 51})
    with Journal(tmp_path, disk=QUICK) as again:
        assert again.append_sync({"n": 51}) == 51


# --- bounds and bad input


@pytest.mark.anyio
async def test_a_full_queue_refuses_at_once_and_recovers(tmp_path: Path) -> None:
    gated = GatedDisk()
    journal = Journal(tmp_path, disk=gated.disk, max_pending_records=4)
    journal.open()
    tasks = [asyncio.create_task(journal.append({"n": n})) for n in range(4)]
    await until(lambda: journal.stats().pending_records == 4)
    with pytest.raises(RateLimited) as refused:
        await journal.append({"n": 5})
    assert refused.value.headers == {"Retry-After": "1"}
    assert journal.stats().refused == 1
    gated.gate.set()
    await asyncio.gather(*tasks)
    assert await journal.append({"n": 5}) == 5
    await journal.aclose()


def test_bytes_that_wait_are_bounded_too(tmp_path: Path) -> None:
    with Journal(tmp_path, disk=QUICK, max_pending_bytes=1000) as journal:
        with pytest.raises(TooLarge, match="in parts"):
            journal.append_many_sync([{"x": "x" * 400}] * 3)
        assert journal.append_many_sync([{"x": "x" * 400}] * 2) == range(1, 3)


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        ([1], Invalid),
        ({"x": {1, 2}}, Invalid),
        ({"x": 2**70}, Invalid),
        ({1: "x"}, Invalid),
        ({"x": "\ud800"}, Invalid),
        ({"x": "x" * 1000}, TooLarge),
    ],
)
def test_a_payload_that_cannot_be_kept_is_refused_and_nothing_with_it(
    tmp_path: Path, payload: object, error: type[LakehouseError]
) -> None:
    with Journal(tmp_path, disk=QUICK, max_record_bytes=500) as journal:
        with pytest.raises(error):
            journal.append_sync(payload)  # type: ignore[arg-type]
        with pytest.raises(error):
            journal.append_many_sync([{"ok": 1}, payload])  # type: ignore[list-item]
        assert journal.append_many_sync([]) == range(1, 1)
        assert journal.append_sync({"ok": 1}) == 1


# --- one owner


def test_a_second_opener_is_refused_until_the_first_closes(tmp_path: Path) -> None:
    first, second = Journal(tmp_path, disk=QUICK), Journal(tmp_path, disk=QUICK)
    first.open()
    first.append_sync({"n": 1})
    with pytest.raises(Unavailable, match="in use"):
        second.open()
    with pytest.raises(Internal):
        first.open()
    assert [record.seq for record in replay_directory(tmp_path)] == [1]
    first.close()
    second.open()
    assert second.append_sync({"n": 2}) == 2
    second.close()


def test_a_forked_child_cannot_use_its_parents_journal(tmp_path: Path) -> None:
    with Journal(tmp_path, disk=QUICK) as journal:
        journal.append_sync({"n": 1})
        child = os.fork()
        if child == 0:
            refused = 0
            for use in (lambda: journal.append_sync({"n": 2}), journal.replay, journal.segments):
                try:
                    use()
                except Internal:
                    refused += 1
            journal.close()
            os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
        assert journal.append_sync({"n": 2}) == 2
        with pytest.raises(Unavailable):
            Journal(tmp_path).open()


def test_making_a_journal_touches_nothing_and_opening_starts_no_thread(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    with pytest.raises(Unavailable):
        journal.replay()
    with pytest.raises(Unavailable):
        replay_directory(tmp_path / "a")
    threads = threading.active_count()
    assert journal.open().clean
    assert threading.active_count() == threads
    assert list(journal.replay()) == []
    assert journal.stats().first_seq == 1
    journal.close()


# --- lineage


def test_a_chain_links_every_record_over_segments_and_restarts(tmp_path: Path) -> None:
    for _ in range(3):
        fill(tmp_path, 5, chained=True, segment_bytes=450)
    report = Report()
    records = list(replay_directory(tmp_path, chained=True, report=report))
    assert len(records) == 15
    assert report.clean
    assert records[0].prev_hash == "0" * 64
    assert len({record.prev_hash for record in records}) == 15


def test_a_chain_shows_a_record_that_was_replaced_with_a_valid_one(tmp_path: Path) -> None:
    fill(tmp_path, 6, chained=True)
    fill(tmp_path / "other", 3, chained=True, clock=lambda: 5)
    path = segment_files(tmp_path)[0]
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = segment_files(tmp_path / "other")[0].read_bytes().splitlines(keepends=True)[2]
    path.write_bytes(b"".join(lines))
    report = Report()
    assert len(list(replay_directory(tmp_path, chained=True, report=report))) == 6
    assert report.chain_breaks == 2
    assert report.broken_at == [3, 4]
    assert not report.clean


def test_a_chain_shows_a_link_that_was_taken_out(tmp_path: Path) -> None:
    fill(tmp_path, 3, chained=True)
    with Journal(tmp_path, disk=QUICK) as unchained:
        unchained.append_sync({"n": 4})
    report = Report()
    list(replay_directory(tmp_path, chained=True, report=report))
    assert report.broken_at == [4]


def test_a_chain_goes_on_after_all_old_segments_were_dropped(tmp_path: Path) -> None:
    with Journal(tmp_path, disk=QUICK, chained=True, segment_bytes=600) as journal:
        journal.append_many_sync([{"n": n} for n in range(9)])
        last = segment_files(tmp_path)[-1].read_bytes().splitlines()[-1]
        assert journal.drop_before(10, seal=True).records > 0
    with Journal(tmp_path, disk=QUICK, chained=True, segment_bytes=600) as journal:
        assert journal.append_sync({"n": 9}) == 10
        report = Report()
        newest = list(journal.replay(report=report))[-1]
        assert (newest.seq, newest.prev_hash) == (10, sha256(last).hexdigest())
        assert report.clean


# --- retention and checkpoints


def test_whole_old_segments_are_dropped_and_counted(tmp_path: Path) -> None:
    with Journal(tmp_path, disk=QUICK, segment_bytes=500) as journal:
        journal.append_many_sync([{"n": n} for n in range(40)])
        firsts = [segment.first_seq for segment in journal.segments()]
        sizes = [segment.size for segment in journal.segments()]
        assert journal.drop_before(firsts[2] - 1) == (1, firsts[1] - 1, sizes[0])
        assert journal.drop_before(firsts[2] - 1) == (0, 0, 0)
        dropped = journal.drop_before(10**6)
        assert dropped.segments == len(firsts) - 2
        assert [segment.first_seq for segment in journal.segments()] == firsts[-1:]
        stats = journal.stats()
        assert stats.dropped_segments == len(firsts) - 1
        assert stats.dropped_records == firsts[-1] - 1
        assert stats.first_seq == firsts[-1]
        report = Report()
        assert [r.seq for r in journal.replay(report=report)] == list(range(firsts[-1], 41))
        assert report.clean
        # Asked for by number, what is gone is a gap.
        list(journal.replay(3, report=report))
        assert report.gaps == [(3, firsts[-1] - 1)]
        # With sealing even the newest goes, and seq does not start again.
        assert journal.drop_before(41, seal=True).records == 41 - firsts[-1]
        assert list(journal.replay()) == []
    with Journal(tmp_path, disk=QUICK) as journal:
        assert journal.append_sync({"n": 40}) == 41


def test_a_segment_dropped_while_it_is_replayed_is_a_gap(tmp_path: Path) -> None:
    with Journal(tmp_path, disk=QUICK, segment_bytes=300) as journal:
        journal.append_many_sync([{"n": n} for n in range(12)])
        firsts = [segment.first_seq for segment in journal.segments()]
        report = Report()
        replay = journal.replay(report=report)
        assert next(replay).seq == 1
        journal.drop_before(firsts[2])
        seqs = [record.seq for record in replay]
        assert seqs == [*range(2, firsts[1]), *range(firsts[2], 13)]
        assert report.gaps == [(firsts[1], firsts[2] - 1)]


def test_a_checkpoint_is_read_back_and_the_newest_two_are_kept(tmp_path: Path) -> None:
    with Journal(tmp_path, disk=QUICK, clock=lambda: 77) as journal:
        assert journal.latest_checkpoint() is None
        journal.append_many_sync([{"n": n} for n in range(9)])
        for seq in (2, 4, 6):
            state = [b"state\n" * 3, b"", b"x" * 3_000_000, b"\n", b"at %d" % seq]
            journal.write_checkpoint(seq, state)
        found = journal.latest_checkpoint()
        assert found is not None
        assert (found.seq, found.t) == (6, 77)
        assert b"".join(found.chunks()) == b"".join(state)
        assert list(found.lines()) == [b"state"] * 3 + [b"x" * 3_000_000, b"at 6"]
        assert len(list(tmp_path.glob("*.ckpt"))) == 2
        with pytest.raises(Invalid):
            journal.write_checkpoint(10, [])
        with pytest.raises(Invalid):
            journal.write_checkpoint(5, [])


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path) -> None:
    with Journal(tmp_path, disk=QUICK) as journal:
        journal.append_many_sync([{"n": n} for n in range(9)])
        journal.write_checkpoint(3, [b"three"])
        newest = journal.write_checkpoint(7, [b"seven"]).path
        intact = newest.read_bytes()
        for at in range(len(intact)):
            newest.write_bytes(intact[:at] + bytes([intact[at] ^ 4]) + intact[at + 1 :])
            found = journal.latest_checkpoint()
            assert found is not None
            assert found.seq == 3
            newest.write_bytes(intact[:at])
            assert journal.latest_checkpoint() == found


def test_compacting_drops_only_what_two_checkpoints_do_not_need(tmp_path: Path) -> None:
    def total(journal: Journal) -> int:
        """Rebuilds a state the way a daemon does: checkpoint, then the records behind it."""
        checkpoint = journal.latest_checkpoint()
        seq, value = 0, 0
        if checkpoint is not None:
            seq, value = checkpoint.seq, int(b"".join(checkpoint.chunks()))
        report = Report()
        value += sum(r.payload["n"] for r in journal.replay(seq + 1, report=report))
        assert report.missing == 0
        return value

    with Journal(tmp_path, disk=QUICK, segment_bytes=300) as journal:
        journal.append_many_sync([{"n": n} for n in range(1, 21)])
        assert journal.compact(10, [b"%d" % sum(range(11))]).segments == 0
        assert journal.compact(20, [b"%d" % sum(range(21))]).segments > 1
        assert 8 <= journal.stats().first_seq <= 11
        journal.append_sync({"n": 21})
        assert total(journal) == sum(range(22))
    (tmp_path / "checkpoint-00000000000000000020.ckpt").write_bytes(b"gone bad")
    (tmp_path / "checkpoint-00000000000000000099.ckpt.partial").write_bytes(b"half")
    with Journal(tmp_path, disk=QUICK) as journal:
        assert total(journal) == sum(range(22))
    assert not list(tmp_path.glob("*.partial"))


def test_seq_never_falls_behind_a_checkpoint(tmp_path: Path) -> None:
    with Journal(tmp_path, disk=QUICK) as journal:
        journal.append_many_sync([{"n": n} for n in range(9)])
        journal.write_checkpoint(8, [b"eight"])
    path = segment_files(tmp_path)[0]
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:5]))
    with Journal(tmp_path, disk=QUICK) as journal:
        # Given 6 again, the record would be taken for one that the checkpoint holds.
        assert journal.append_sync({"n": 9}) == 9
        report = Report()
        assert [r.seq for r in journal.replay(report=report)] == [1, 2, 3, 4, 5, 9]
        assert report.gaps == [(6, 8)]


def test_a_checkpoint_that_finds_no_room_leaves_the_log_working(tmp_path: Path) -> None:
    faulty = FaultyDisk("fsync", 4, 28)
    with Journal(tmp_path, disk=faulty.disk) as journal:
        journal.append_sync({"n": 1})
        faulty.at = faulty.calls["fsync"] + 1
        with pytest.raises(InsufficientStorage) as error:
            journal.write_checkpoint(1, [b"one"])
        assert error.value.details == {"cause": "ENOSPC"}
        assert not list(tmp_path.glob("checkpoint*"))
        assert journal.failure is None
        assert journal.append_sync({"n": 2}) == 2
