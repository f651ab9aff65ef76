"""Files spoilt in one way each: more comes back than from DuckDB's automatic mode, and nearly all.

`bench/dialects.py` reads all of them; here is every fifth.
"""

from __future__ import annotations

from pathlib import Path
from statistics import mean

import pytest

from services.ingestd.core.dialect import sniff_dialect
from tests.support.pollution import Polluted, make_tables, pollute_all, score
from tests.support.pollution_readers import read_by_duckdb, read_by_duckdb_as_text, read_by_us

FILES = pollute_all()[::5]
# Of 10 points; all files together have more.
FLOOR = 9.7


def test_more_comes_back_than_from_duckdb_without_hints(tmp_path: Path) -> None:
    ours = [read_by_us(tmp_path, file) for file in FILES]
    for reader in (read_by_duckdb, read_by_duckdb_as_text):
        theirs = [reader(tmp_path, file) for file in FILES]
        worse = [
            (file.name, mine, other)
            for file, mine, other in zip(FILES, ours, theirs, strict=True)
            if mine < other - 0.001
        ]
        assert worse == []
        assert mean(ours) > mean(theirs)
    assert 10 * mean(ours) >= FLOOR


def test_the_score_counts_what_is_missing_and_what_is_made_up() -> None:
    table = make_tables()[1]
    file = Polluted("x", "y", b"", table.header, table.rows)
    whole = score(file, table.header, table.rows)
    assert whole == 1
    assert score(file, table.header, table.rows[1:]) < whole
    assert score(file, table.header, [*table.rows, ("a", "b", "c")]) < whole
    assert score(file, ("a", "b", "c"), table.rows) == pytest.approx(2 / 3)
    assert score(file, ("a",), []) == 0


# Delimiters that are punctuation of one column: nothing must be torn apart.
UNDIVIDED = [
    b"at\n10:20:30\n11:21:31\n12:22:32\n",
    b"10:20:30\n11:21:31\n12:22:32\n",
    b"name\nAnn Lee Moe\nBob Ray Sol\nKari Li Berg\n",
    b"Ann Lee Moe\nBob Ray Sol\nKari Li Berg\n",
    b"city of birth\nNew York City\nLos Angeles County\nSan Jose Costa\n",
    b"url\nhttp://a:1/x\nhttp://b:2/y\nhttp://c:3/z\n",
    b"approx\n~5\n~6\n~7\n",
]


@pytest.mark.parametrize("data", UNDIVIDED)
def test_punctuation_is_no_delimiter(data: bytes) -> None:
    assert sniff_dialect(data).width == 1


DIVIDED = [
    (b"a^b^c\n1^x^2\n3^y^4\n", b"^", 3),
    (b"a\x1fb\n1\x1fx\n3\x1fy\n", b"\x1f", 2),
    (b"id:name:rate\n1:x:2\n3:y:4\n", b":", 3),
    (b"station jan feb\nA 1 2\nB 3 4\n", b" ", 3),
    (b"a||b||c\n1||x, y||2\n3||||4\n", b"||", 3),
    (b"Title\nMore\nStill more\nAnd more\na,b,c\n1,2,3\n4,5,6\n7,8,9\n1,1,1\n2,2,2\n", b",", 3),
]


@pytest.mark.parametrize(("data", "delimiter", "width"), DIVIDED)
def test_rare_delimiters_are_found(data: bytes, delimiter: bytes, width: int) -> None:
    reading = sniff_dialect(data)
    assert (reading.dialect.delimiter, reading.width) == (delimiter, width)
