"""What is guessed in Python and what is checked in SQL mean the same, value by value."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest

from services.ingestd.core.checks import (
    MACROS,
    Target,
    convert_or,
    expect_null,
    fits,
    profile_column,
)
from services.ingestd.core.ladder import Profile, choose_type, profile_values

VALUES = [
    *"0 -0 1 -1 007 00 +5 5. .5 -.5 . - 1.10 1.1 1.0 1.00 1.999 1e3 1E3 1e+3 1.5e7 1e-07".split(),
    *"1.e5 .5e3 -0.0 -0.00 0x10 1_000 1,000 NaN nan inf infinity -infinity true True".split(),
    *"FALSE t yes 9223372036854775807 9223372036854775808 -9223372036854775808".split(),
    *"-9223372036854775809 9999999999999999 9007199254740993 0.1 0.30000000000000004".split(),
    *"0.1000000000000000055511151231257827 123456789.123456789 1e400 1e-400".split(),
    *"1.7976931348623157e+308 2.5e-320 4.9e-324 16777217 3.4028235e+38 2024-01-05".split(),
    *"2024-1-5 2024-02-30 0000-01-01 0001-01-01 10000-01-01 9999-12-31".split(),
    *"2024-01-05T10:20:30 2024-01-05T10:20 2024-01-05T10:20:30.120".split(),
    *"2024-01-05T10:20:30.1234567 2024-01-05T10:20:30.1234560 2024-01-05T24:00:00".split(),
    *"2024-01-05T10:20:60 2024-01-05T10:20:30Z 2024-01-05T10:20:30+02:00".split(),
    *"2024-01-05T10:20:30+0230 2024-01-05T10:20:30+02 2024-01-05T10:20:30-00:00".split(),
    *"2024-01-05T10:20:30+15:00 0001-01-01T00:00:00Z 10000-01-01T00:00:00".split(),
    *"10:20:30 24:00:00 10:20 epoch today now".split(),
    *("9" * 38, "9" * 39, "0." + "1" * 40, " 12", "12 ", "12\n", "12\0", "\u0661", "12\u00a0"),
    *("2024-01-05 10:20:30", "2024-01-05 10:20:30.5", "2024-01-05 10:20:30 Europe/Oslo"),
    *("2024-01-05 10:20:30 +02:00", "0044-03-15 (BC)", "0044-03-15 00:00:00 (BC)"),
    *("10000-01-01 00:00:00", "2024-01-05 10:20:30+00", "", "x", "é"),
]
TYPES = (
    "BOOLEAN BIGINT INTEGER DECIMAL(18,2) DECIMAL(18,1) DECIMAL(38,0) DECIMAL(38,20) DOUBLE FLOAT "
    "DATE TIME TIMESTAMP TIMESTAMPTZ BLOB"
).split()


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for macro in MACROS:
            connection.execute(macro)
        connection.execute("CREATE TABLE t (x VARCHAR)")
        connection.executemany("INSERT INTO t VALUES (?)", [(value,) for value in VALUES])
        yield connection


@pytest.mark.parametrize("value", VALUES)
def test_sql_and_python_see_the_same_forms(
    connection: duckdb.DuckDBPyConnection, value: str
) -> None:
    wanted = ", ".join(profile_column("x"))
    row = connection.execute(f"SELECT {wanted} FROM (SELECT ?::VARCHAR AS x)", [value]).fetchone()
    assert row is not None
    assert Profile(tuple(row[:3]), *row[3:]) == profile_values([value])


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("kind", TYPES)
def test_a_value_converts_exactly_where_it_fits(
    connection: duckdb.DuckDBPyConnection, kind: str, exact: bool
) -> None:
    target = Target(kind, exact=exact)
    found = connection.execute(
        f"SELECT x, {fits(target, 'x')}, {convert_or(target, 'x', 'NULL')} IS NOT NULL FROM t"
    ).fetchall()
    assert all(fit in (True, False) for _, fit, _ in found)
    assert [(x, fit) for x, fit, _ in found if x] == [(x, there) for x, _, there in found if x]


@pytest.mark.parametrize("value", VALUES)
def test_the_type_of_one_value_holds_it(connection: duckdb.DuckDBPyConnection, value: str) -> None:
    kind = choose_type(profile_values([value]))
    target = Target(kind, exact=True)
    row = connection.execute(
        f"SELECT {fits(target, 'x')} FROM (SELECT ?::VARCHAR AS x)", [value]
    ).fetchone()
    assert row == (True,)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("BIGINT", "1.5"),
        ("BIGINT", "1_000"),
        ("BIGINT", "1e3"),
        ("BIGINT", " 12"),
        ("BIGINT", "0x10"),
        ("BIGINT", "007"),
        ("DECIMAL(18,2)", "1.999"),
        ("DECIMAL(18,2)", "1."),
        ("DOUBLE", "9007199254740993"),
        ("DOUBLE", "inf"),
        ("DATE", "infinity"),
        ("DATE", "2024-1-5"),
        ("TIMESTAMP", "2024-01-05T10:20:30+02:00"),
        ("TIMESTAMP", "2024-01-05"),
        ("TIMESTAMPTZ", "2024-01-05T10:20:30"),
        ("BOOLEAN", "t"),
        ("BOOLEAN", "1"),
    ],
)
def test_what_duckdb_would_take_and_change_does_not_fit(
    connection: duckdb.DuckDBPyConnection, kind: str, value: str
) -> None:
    row = connection.execute(
        f"SELECT CAST(x AS {kind}) IS NOT NULL, {fits(Target(kind), 'x')} "
        "FROM (SELECT ?::VARCHAR AS x)",
        [value],
    ).fetchone()
    assert row == (True, False)


def test_one_spelling_of_truth_can_be_asked_for(connection: duckdb.DuckDBPyConnection) -> None:
    target = Target("BOOLEAN", booleans=("true", "false"))
    row = connection.execute(
        f"SELECT {fits(target, 'x')}, {fits(target, 'y')} FROM (SELECT 'true' AS x, 'True' AS y)"
    ).fetchone()
    assert row == (True, False)


def test_a_column_that_was_never_filled_is_watched(connection: duckdb.DuckDBPyConnection) -> None:
    watched = expect_null("x", "error('filled')")
    rows = connection.execute(f"SELECT {watched} FROM (SELECT NULL::VARCHAR AS x)").fetchall()
    assert rows == [(None,)]
    with pytest.raises(duckdb.Error, match="filled"):
        connection.execute(f"SELECT {watched} FROM (SELECT 'a' AS x)").fetchall()
