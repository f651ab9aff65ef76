"""Random tables written by Python's csv module: every cell comes back, every row counts."""

from __future__ import annotations

import csv
import io
import tempfile
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.ingestd.core.job import Limits
from tests.support.ingestd import Converted, convert_bytes

Table = list[list[str]]

WORDS = st.text(alphabet="abcdefghijklmnopqrstuvwxyzæøå ", min_size=1, max_size=12)
NASTY = st.text(
    alphabet=st.sampled_from(list("ab1 ,;\t|\"'\\\n\r#.-é€😀\u00a0\ufeff")), max_size=12
).filter(lambda text: not text.endswith("\r"))
NUMBERS = st.one_of(
    st.integers(-(10**20), 10**20).map(str),
    st.decimals(-1000, 1000, places=2).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(
        "007 +5 1_000 1e3 0x10 NaN inf -0 .5 5. 1.10 1.000 0.1e5 1,5 9223372036854775808 "
        "-9223372036854775809 100000000000000000000000000000000000000".split()
    ),
    st.just(" 12 "),
)
DATES = st.one_of(
    st.dates().map(str),
    st.datetimes().map(lambda moment: moment.isoformat(" ")),
    st.sampled_from(["2024-02-30", "01/02/2024", "infinity", "2024-1-5", "24:00:00", "true", "no"]),
)
CELLS = st.one_of(st.just(""), WORDS, NASTY, NUMBERS, DATES)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Some columns of one sort of cell each, some of all sorts."""
    width = draw(st.integers(1, 5))
    sorts = [draw(st.sampled_from([WORDS, NASTY, NUMBERS, DATES, CELLS])) for _ in range(width)]
    count = draw(st.integers(1, 8))
    return [[draw(sort) for sort in sorts] for _ in range(count)]


def write(table: Table, **dialect: object) -> bytes:
    text = io.StringIO()
    csv.writer(text, **dialect).writerows(table)  # type: ignore[arg-type]
    return text.getvalue().encode()


def is_recovered(kind: str, written: str, read: str | None) -> bool:
    """Whether the value in the table is the text in the file, or numerically equal to it."""
    if read is None:
        return not written
    if kind == "VARCHAR":
        return read == written
    if kind == "DOUBLE":
        return Decimal(repr(float(read))) == Decimal(written)
    if kind == "BIGINT" or kind.startswith("DECIMAL"):
        return Decimal(read) == Decimal(written)
    if kind == "BOOLEAN":
        return read == written.lower()
    if kind == "TIMESTAMP":
        ours, theirs = read.ljust(26, "0"), written.replace("T", " ").ljust(26, "0")
        return ours.replace(".", "0", 1) == theirs.replace(".", "0", 1)
    return read == written


def check_recovered(found: Converted, table: Table) -> None:
    assert found.rejects == []
    assert found.outcome.rows_in == len(table)
    assert len(found.rows) == len(table)
    for written, read in zip(table, found.rows, strict=True):
        for kind, cell, value in zip(found.types, written, read, strict=True):
            assert is_recovered(kind, cell, value), (kind, cell, value)


# The same examples each time: what fails once fails always.
FIXED = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.deep
@settings(FIXED, max_examples=60)
@given(
    table=tables(),
    delimiter=st.sampled_from([",", ";", "\t", "|", "^"]),
    quote=st.sampled_from(['"', "'"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    newline=st.sampled_from(["\n", "\r\n"]),
    escape=st.booleans(),
    mark=st.booleans(),
)
def test_every_cell_of_a_known_dialect_comes_back(
    table: Table,
    delimiter: str,
    quote: str,
    quoting: int,
    newline: str,
    escape: bool,
    mark: bool,
) -> None:
    header = [f"name{index}" for index in range(len(table[0]))]
    data = write(
        [header, *table],
        delimiter=delimiter,
        quotechar=quote,
        quoting=quoting,
        lineterminator=newline,
        doublequote=not escape,
        escapechar="\\" if escape else None,
    )
    with tempfile.TemporaryDirectory() as folder:
        found = convert_bytes(
            Path(folder),
            (b"\xef\xbb\xbf" if mark else b"") + data,
            delimiter=delimiter,
            quote=quote,
            escape="\\" if escape else quote,
            header=True,
            encoding="utf-8",
        )
        check_recovered(found, table)


@pytest.mark.deep
@settings(FIXED, max_examples=40)
@given(
    table=st.lists(
        st.tuples(st.integers(0, 10**6).map(str), WORDS, NUMBERS, DATES).map(list),
        min_size=3,
        max_size=12,
    ),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    newline=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_every_cell_comes_back_when_all_has_to_be_found_out(
    table: Table, delimiter: str, quoting: int, newline: str, encoding: str
) -> None:
    header = ["worker_id", "name", "amount", "day"]
    data = write([header, *table], delimiter=delimiter, quoting=quoting, lineterminator=newline)
    with tempfile.TemporaryDirectory() as folder:
        found = convert_bytes(Path(folder), data.decode().encode(encoding))
        assert found.names == header
        check_recovered(found, table)


@pytest.mark.parametrize("memory_mib", [128])
def test_cells_come_back_in_order_from_many_row_groups(tmp_path: Path, memory_mib: int) -> None:
    table = [[str(number), f"row {number}\nof\tmany", f"{number}.50"] for number in range(30_000)]
    data = write([["id", "text", "amount"], *table], lineterminator="\n")
    limits = Limits(row_group_rows=2048, memory_bytes=memory_mib * 1024 * 1024)
    found = convert_bytes(tmp_path, data, limits=limits)
    assert found.types == ["BIGINT", "VARCHAR", "DECIMAL(18,2)"]
    assert found.rows == [tuple(row) for row in table]
