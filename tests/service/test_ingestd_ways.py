"""The fast way and the careful way read the same rows; garbage never breaks the account."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.ingestd.worker import delimited
from shared.errors import Internal, Unprocessable
from tests.support.ingestd import Converted, convert_bytes

FIXED = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# Single bytes and short runs, so that quotes, delimiters and line ends meet in all ways.
PIECES = st.sampled_from(
    [
        *(b"a", b"1", b"2.5", b",", b",", b"\n", b"\n", b'"', b'""', b"\r\n", b"\r", b" ", b";"),
        *(b"\\", b"x,y\n", b'"q",', b'"q"\n', b"\xc3\xa9", b"\xff", b"\0", b"007", b"2024-01-05"),
    ]
)
GARBAGE = st.lists(PIECES, min_size=1, max_size=40).map(b"".join)


def convert_both_ways(
    monkeypatch: pytest.MonkeyPatch, data: bytes
) -> tuple[Converted | None, Converted | None]:
    with tempfile.TemporaryDirectory() as folder:
        found: list[Converted | None] = []
        for fast in (True, False):
            with monkeypatch.context() as patch:
                if not fast:
                    patch.setattr(delimited, "is_fast", lambda _: False)
                try:
                    found.append(convert_bytes(Path(folder), data, delimiter=",", quote='"'))
                except Unprocessable:
                    found.append(None)
        return found[0], found[1]


@pytest.mark.deep
@settings(FIXED, max_examples=100)
@given(data=GARBAGE)
def test_garbage_is_read_alike_both_ways(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    fast, careful = convert_both_ways(monkeypatch, data)
    assert (fast is None) == (careful is None)
    if fast is not None and careful is not None:
        assert fast.names == careful.names
        assert fast.types == careful.types
        assert fast.rows == careful.rows
        assert fast.rejects == careful.rejects


@pytest.mark.deep
@settings(FIXED, max_examples=60)
@given(data=GARBAGE)
def test_garbage_without_hints_is_accounted_for(data: bytes) -> None:
    # Any other failure, Internal above all, is one of the test.
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Unprocessable):
        found = convert_bytes(Path(folder), data)
        assert found.outcome.rows_in == len(found.rows) + len(found.rejects) > 0


def test_a_census_that_disagrees_sends_the_file_the_careful_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if DuckDB had dropped a row: what it wrote is not taken.
    join = delimited.CensusThread.join

    def join_with_one_more(self: delimited.CensusThread) -> object:
        counts = join(self)
        counts.records += 1
        return counts

    monkeypatch.setattr(delimited.CensusThread, "join", join_with_one_more)
    found = convert_bytes(tmp_path, b"a,b\n1,x\n2,y\n")
    assert "normalise" in found.outcome.seconds
    assert found.rows == [("1", "x"), ("2", "y")]


def test_a_regular_file_goes_the_fast_way(tmp_path: Path) -> None:
    found = convert_bytes(tmp_path, b'a,b\r\n1,"x, y"\r\n2,\r\n')
    assert "normalise" not in found.outcome.seconds
    assert found.rows == [("1", "x, y"), ("2", None)]


def test_lines_missing_from_the_account_are_a_fault_and_never_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from services.ingestd.worker import normalise

    monkeypatch.setattr(normalise.CountedBlocks, "lines", property(lambda _: 99))
    with pytest.raises(Internal, match="not accounted for"):
        convert_bytes(tmp_path, b"a,b\n1,2\n3\n")


def test_rows_lost_by_duckdb_on_the_careful_way_are_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = delimited.Table.write

    def write_one_less(self: delimited.Table, *arguments: object) -> object:
        parts = write(self, *arguments)  # type: ignore[arg-type]
        return [type(part)(part.path, part.sha256, part.size, part.rows - 1) for part in parts]

    monkeypatch.setattr(delimited.Table, "write", write_one_less)
    with pytest.raises(Internal, match="does not add up"):
        convert_bytes(tmp_path, b"a,b\n1,2\n3,4\n5\n")
