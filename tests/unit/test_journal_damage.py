"""The journal on damaged files: whatever the bytes, nothing raises and nothing intact is lost."""

from __future__ import annotations

import base64
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.journal import Journal, Record, Report, replay_directory
from shared.journal.record import HEAD, decode_line, encode_line, encode_payload, salvage_line
from tests.support.journal import QUICK, fill, memory_directory, segment_files

ROOMY = 1 << 20


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder for tests that remake their files thousands of times."""
    with memory_directory() as made:
        yield made


def quarantined(directory: Path) -> list[tuple[str, int, bytes, str]]:
    """What the quarantine holds: (segment, offset, bytes, reason)."""
    path = directory / "quarantine.jsonl"
    lines = path.read_bytes().splitlines() if path.exists() else []
    entries: list[dict[str, Any]] = [orjson.loads(line) for line in lines]
    return [(e["segment"], e["offset"], base64.b64decode(e["data"]), e["reason"]) for e in entries]


def seqs_of(records: list[Record]) -> list[int]:
    return [record.seq for record in records]


# --- cuts


@pytest.mark.deep
def test_cut_at_every_byte_keeps_every_whole_record(memory: Path) -> None:
    records = fill(memory / "whole", 30, segment_bytes=850)
    files = [(path.name, path.read_bytes()) for path in segment_files(memory / "whole")]
    assert len(files) >= 3
    # Where each record's object ends, counted over all segments; its newline is one further.
    ends: list[int] = []
    base = 0
    for _, data in files:
        ends += [base + at for at in range(len(data)) if data[at : at + 1] == b"\n"]
        base += len(data)
    assert len(ends) == 30
    assert base > 2000
    directory = memory / "cut"
    for cut in range(base + 1):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        left = cut
        for name, data in files:
            (directory / name).write_bytes(data[:left])
            left -= len(data)
            if left < 0:
                break
        kept = sum(1 for end in ends if end <= cut)
        whole = ends[kept - 1] if kept else 0
        torn = max(0, cut - whole - 1) if kept else cut
        journal = Journal(directory, segment_bytes=850, disk=QUICK)
        report = journal.open()
        assert list(journal.replay()) == records[:kept]
        assert (report.torn, report.torn_bytes) == (int(torn > 0), torn)
        assert report.completed == int(cut in ends)
        sizes = [path.stat().st_size for path in segment_files(directory)]
        assert [segment.size for segment in journal.segments()] == sizes
        saved = quarantined(directory)
        assert [(len(data), reason) for _, _, data, reason in saved] == (
            [(torn, "torn")] if torn else []
        )
        assert journal.append_sync({"new": cut}) == kept + 1
        again = list(journal.replay())
        assert again[:kept] == records[:kept]
        assert [r.payload for r in again[kept:]] == [{"new": cut}]
        journal.close()
        if cut % 9 == 0:
            journal.open()
            report = Report()
            assert list(journal.replay(report=report)) == again
            assert report.clean
            assert quarantined(directory) == saved
            journal.close()


@pytest.mark.parametrize("chained", [False, True])
def test_a_cut_in_an_old_segment_is_a_reported_gap(tmp_path: Path, chained: bool) -> None:
    records = fill(tmp_path, 30, segment_bytes=1500, chained=chained)
    first, second, *_ = segment_files(tmp_path)
    intact = first.read_bytes()
    upper = int(second.stem)
    for cut in range(0, len(intact), 13):
        first.write_bytes(intact[:cut])
        report = Report()
        with Journal(tmp_path, disk=QUICK, chained=chained) as journal:
            found = list(journal.replay(report=report))
        kept = found[: len(found) - (31 - upper)]
        assert found == records[: len(kept)] + records[upper - 1 :]
        assert report.gaps == ([(len(kept) + 1, upper - 1)] if len(kept) + 1 < upper else [])
        assert report.chain_breaks == int(chained and len(kept) + 1 < upper)


# --- flipped bytes


def test_a_flipped_byte_costs_its_record_and_no_other(memory: Path) -> None:
    records = fill(memory, 24, segment_bytes=700)
    files = segment_files(memory)
    assert len(files) >= 3
    chance = random.Random(20)
    quarantine = memory / "quarantine.jsonl"
    lost_in_all = 0
    for _ in range(2000):
        path = chance.choice(files)
        intact = path.read_bytes()
        at = chance.randrange(len(intact))
        changed = intact[at] ^ chance.randrange(1, 256)
        path.write_bytes(intact[:at] + bytes([changed]) + intact[at + 1 :])
        owner = int(path.stem) + intact[:at].count(b"\n")
        report = Report()
        with Journal(memory, disk=QUICK) as journal:
            found = list(journal.replay(report=report))
            next_seq = journal.last_seq + 1
        lost = {record.seq for record in records} - set(seqs_of(found))
        assert found == [record for record in records if record.seq not in lost]
        allowed = {owner, owner + 1} if intact[at] == 10 else {owner}
        assert lost <= allowed
        # A seq that was given out is never given out again.
        assert next_seq > 24 or (lost and path == files[-1])
        lost_in_all += len(lost)
        if lost:
            assert report.damaged
            assert quarantine.exists()
        quarantine.unlink(missing_ok=True)
        path.write_bytes(intact)
    assert 1800 < lost_in_all < 2050


def test_damage_is_copied_to_the_quarantine_once(tmp_path: Path) -> None:
    records = fill(tmp_path, 12, segment_bytes=600)
    for path in (segment_files(tmp_path)[0], segment_files(tmp_path)[-1]):
        data = bytearray(path.read_bytes())
        data[60] ^= 1
        path.write_bytes(data)
    damaged = [(p.name, p.read_bytes()) for p in segment_files(tmp_path)]
    sizes: set[int] = set()
    for _ in range(3):
        with Journal(tmp_path, disk=QUICK) as journal:
            for _ in range(2):
                report = Report()
                assert len(list(journal.replay(report=report))) == 10
                assert report.damaged == 2
                assert report.missing == 2
        sizes.add((tmp_path / "quarantine.jsonl").stat().st_size)
    assert len(sizes) == 1
    saved = quarantined(tmp_path)
    assert len(saved) == 2
    for name, offset, data, reason in saved:
        assert reason == "damaged"
        assert dict(damaged)[name][offset : offset + len(data)] == data
    # The damaged files themselves are left as they were found.
    assert [(p.name, p.read_bytes()) for p in segment_files(tmp_path)] == damaged
    assert records[0].seq == 1


def test_a_torn_quarantine_entry_does_not_swallow_the_next(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    path = segment_files(tmp_path)[0]
    path.write_bytes(path.read_bytes() + b'{"v":1,"torn')
    (tmp_path / "quarantine.jsonl").write_bytes(b'{"segment":"000')
    with Journal(tmp_path, disk=QUICK):
        pass
    last = (tmp_path / "quarantine.jsonl").read_bytes().splitlines()[-1]
    assert base64.b64decode(orjson.loads(last)["data"]) == b'{"v":1,"torn'


def test_large_damage_is_kept_in_pieces(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    path = segment_files(tmp_path)[0]
    intact = path.read_bytes()
    path.write_bytes(intact + os.urandom(1).replace(b"\n", b"x") * 2_500_000)
    with Journal(tmp_path, disk=QUICK) as journal:
        assert seqs_of(list(journal.replay())) == [1, 2]
    saved = quarantined(tmp_path)
    assert [len(data) for _, _, data, _ in saved] == [1 << 20, 1 << 20, 2_500_000 - (2 << 20)]
    assert [offset for _, offset, _, _ in saved] == [len(intact) + k * (1 << 20) for k in range(3)]
    assert path.read_bytes() == intact


# --- damage of every kind


@pytest.mark.parametrize(
    ("tail", "kept", "torn"),
    [
        (b"\0" * 5000, 3, 5000),
        (b"\xe2\x82", 3, 2),
        (b'{"v":1,"crc":"00000000","seq":4,"t":1,"payload":{}}', 3, 51),
        (b"[]", 3, 2),
        (b"\n\n\n", 3, 0),
    ],
)
def test_a_foreign_tail_is_set_aside(tmp_path: Path, tail: bytes, kept: int, torn: int) -> None:
    fill(tmp_path, 3)
    path = segment_files(tmp_path)[0]
    path.write_bytes(path.read_bytes() + tail)
    with Journal(tmp_path, disk=QUICK) as journal:
        assert seqs_of(list(journal.replay())) == [1, 2, 3]
        assert journal.append_sync({"n": 4}) == kept + 1
    assert sum(len(data) for _, _, data, _ in quarantined(tmp_path)) == torn
    assert seqs_of(list(replay_directory(tmp_path))) == [1, 2, 3, 4]


def test_a_last_record_whose_newline_became_padding_is_kept(tmp_path: Path) -> None:
    records = fill(tmp_path, 3)
    path = segment_files(tmp_path)[0]
    path.write_bytes(path.read_bytes()[:-1] + b"\0" * 4096)
    with Journal(tmp_path, disk=QUICK) as journal:
        assert list(journal.replay()) == records
        journal.append_sync({"n": 4})
    lines = path.read_bytes().split(b"\n")
    assert [orjson.loads(line)["seq"] for line in lines[:-1]] == [1, 2, 3, 4]


def test_lines_joined_doubled_and_shuffled_come_out_once_and_in_order(tmp_path: Path) -> None:
    records = fill(tmp_path, 8)
    path = segment_files(tmp_path)[0]
    one, two, three, four, five, six, seven, eight = path.read_bytes().splitlines()
    path.write_bytes(
        b"\n".join([five, one, two + three, one, b'{"v":1,"cr' + four, eight + b"\r", six, five])
        + seven
        + b"\n"
    )
    report = Report()
    with Journal(tmp_path, disk=QUICK) as journal:
        assert list(journal.replay(report=report)) == records
        assert report.duplicates == 2
        assert report.missing == 0
        assert journal.append_sync({"n": 9}) == 9
    reasons = sorted(reason for _, _, _, reason in quarantined(tmp_path))
    assert reasons == ["damaged", "damaged", "duplicate", "duplicate"]


def test_a_second_record_of_one_seq_is_kept_aside_not_lost(tmp_path: Path) -> None:
    records = fill(tmp_path, 3)
    impostor = encode_line(2, 5, b'{"other":true}')
    path = segment_files(tmp_path)[0]
    path.write_bytes(path.read_bytes() + impostor)
    with Journal(tmp_path, disk=QUICK) as journal:
        assert list(journal.replay()) == records
        assert journal.append_sync({"n": 4}) == 4
    assert [data + b"\n" for _, _, data, _ in quarantined(tmp_path)] == [impostor]


def test_a_record_of_another_segment_hides_none_of_its_own(tmp_path: Path) -> None:
    records = fill(tmp_path, 20, segment_bytes=600)
    first, *_, last = segment_files(tmp_path)
    stray = last.read_bytes().splitlines(keepends=True)[0]
    first.write_bytes(stray + first.read_bytes())
    report = Report()
    with Journal(tmp_path, disk=QUICK) as journal:
        assert list(journal.replay(report=report)) == records
    assert report.damaged == 1
    assert [reason for *_, reason in quarantined(tmp_path)] == ["foreign"]


def test_a_payload_that_looks_like_a_record_never_becomes_one(memory: Path) -> None:
    inner = orjson.loads(encode_line(900, 1, b'{"forged":true}'))
    with Journal(memory, disk=QUICK) as journal:
        journal.append_sync(inner)
        journal.append_sync({"a": inner, "b": [inner, inner], "c": orjson.dumps(inner).decode()})
        records = list(journal.replay())
    path = segment_files(memory)[0]
    intact = path.read_bytes()
    assert intact.count(HEAD) == 6
    for at in range(len(intact)):
        for changed in (intact[at] ^ 1, 0x7D, 0x0A, 0x20):
            path.write_bytes(intact[:at] + bytes([changed]) + intact[at + 1 :])
            found = list(replay_directory(memory))
            assert all(record in records for record in found)


def test_damaged_lines_at_the_end_keep_their_seqs(tmp_path: Path) -> None:
    fill(tmp_path, 6)
    path = segment_files(tmp_path)[0]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:4], lines[4].lower().replace(b"v", b"w"), b"junk\n"]))
    with Journal(tmp_path, disk=QUICK) as journal:
        # 5 and 6 may have been acknowledged to someone.
        assert journal.append_sync({"n": 7}) == 7
        report = Report()
        assert seqs_of(list(journal.replay(report=report))) == [1, 2, 3, 4, 7]
        assert report.gaps == [(5, 6)]


_kinds = ["cut", "flip", "zeros", "insert", "double", "swap", "drop", "join", "json", "half"]
_ops = st.lists(
    st.tuples(st.sampled_from(_kinds), st.integers(0, 2), st.integers(0, 10**6), st.binary()),
    min_size=1,
    max_size=4,
)


def damage(data: bytes, kind: str, at: int, extra: bytes) -> bytes:
    """One blow to a segment's bytes."""
    place = at % (len(data) + 1)
    lines = data.split(b"\n")
    line = at % len(lines)
    if kind == "cut":
        return data[:place]
    if kind == "flip":
        return data[:place] + bytes(b ^ 0x55 for b in data[place : place + 3]) + data[place + 3 :]
    if kind == "zeros":
        return data[:place] + b"\0" * 40 + data[place + 40 :]
    if kind == "insert":
        return data[:place] + extra + data[place:]
    if kind == "join":
        return b"\n".join(lines[:line]) + b"\n".join(lines[line:])
    if kind == "double":
        lines.insert(line, lines[(at // 7) % len(lines)])
    elif kind == "swap":
        other = (at // 7) % len(lines)
        lines[line], lines[other] = lines[other], lines[line]
    elif kind == "drop":
        del lines[line]
    elif kind == "json":
        lines.insert(line, b'{"v":1,"seq":3}')
    elif kind == "half":
        lines.insert(line, "€".encode()[: 1 + at % 2])
    return b"\n".join(lines)


@settings(max_examples=120, deadline=None)
@given(ops=_ops, chained=st.booleans())
def test_no_damage_raises_invents_or_hides(
    ops: list[tuple[str, int, int, bytes]], chained: bool
) -> None:
    with memory_directory() as directory:
        records = fill(directory, 15, segment_bytes=1400 if chained else 500, chained=chained)
        files = segment_files(directory)
        of = {
            path: dict(zip(path.read_bytes().splitlines(), range(int(path.stem), 16), strict=False))
            for path in files
        }
        for kind, number, at, extra in ops:
            path = files[number % len(files)]
            path.write_bytes(damage(path.read_bytes(), kind, at, extra))
        intact = {
            of[path][line]
            for path in files
            for line in path.read_bytes().split(b"\n")
            if line in of[path]
        }
        with Journal(directory, segment_bytes=500, disk=QUICK, chained=chained) as journal:
            found = list(journal.replay())
            assert seqs_of(found) == sorted(set(seqs_of(found)))
            assert all(record in records for record in found)
            assert intact <= set(seqs_of(found))
            new = journal.append_sync({"new": True})
            assert new > max(seqs_of(found), default=0)
        before = quarantined(directory)
        with Journal(directory, disk=QUICK, chained=chained) as journal:
            assert list(journal.replay())[:-1] == found
            assert journal.last_seq == new
        assert quarantined(directory) == before


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(
    payload=st.dictionaries(st.text(), _json),
    seq=st.integers(1, 2**53 - 1),
    link=st.none() | st.just("ab" * 32),
)
def test_any_object_comes_back_as_it_was(
    payload: dict[str, Any], seq: int, link: str | None
) -> None:
    line = encode_line(seq, 5, encode_payload(payload, ROOMY), link)
    assert line.count(b"\n") == 1
    assert decode_line(line[:-1]) == Record(seq, 5, payload, link)
    assert orjson.loads(line)["payload"] == payload


@settings(max_examples=100, deadline=None)
@given(st.binary(), st.binary(), st.booleans())
def test_salvage_accounts_for_every_byte(front: bytes, back: bytes, glued: bool) -> None:
    line = front + (encode_line(7, 1, b'{"a":1}')[:-1] if glued else HEAD) + back
    pieces = salvage_line(line)
    assert b"".join(piece.data for piece in pieces) == line
    assert [piece.at for piece in pieces] == sorted(piece.at for piece in pieces)


@pytest.mark.parametrize(
    "body",
    [
        b'"seq":0,"t":1,"payload":{}}',
        b'"seq":9007199254740992,"t":1,"payload":{}}',
        b'"seq":true,"t":1,"payload":{}}',
        b'"seq":1,"t":"1","payload":{}}',
        b'"seq":1,"t":1,"payload":[]}',
        b'"seq":1,"t":1}',
        b'"seq":1,"t":1,"prev_hash":5,"payload":{}}',
        b'"seq":1,"t":1,"payload":{}',
        b'"seq":1,"t":1,"payload":{"a":"\xff"}}',
        b'"seq":1,"t":1,"payload":' + b'{"a":' * 3000 + b"1" + b"}" * 3001,
    ],
)
def test_a_right_crc_does_not_make_a_record(body: bytes) -> None:
    assert decode_line(HEAD + b'%08x",' % crc32(body) + body) is None
