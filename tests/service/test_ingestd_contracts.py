"""What the four contracts make of a file that does not go with its table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shared.errors import Conflict, Unprocessable
from tests.support.ingestd import convert_bytes

TABLE = (("id", "BIGINT"), ("name", "VARCHAR"), ("rate", "DECIMAL(18,2)"))
FITTING = b"id,name,rate\n1,x,1.5\n2,007,2.25\n"
MISFIT = b'ID,Name,RATE\n1,x,1.5\nfoo,y,2.255\n3,"z\nq",3\n'
CONTRACTS = ("freeze", "evolve", "discard_row", "discard_value")


def problems_of(error: Conflict) -> list[dict[str, Any]]:
    columns = error.details["columns"]
    assert isinstance(columns, list)
    return columns


@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_file_that_fits_takes_the_tables_names_and_types(contract: str, tmp_path: Path) -> None:
    found = convert_bytes(tmp_path, FITTING, table=TABLE, contract=contract)
    assert found.outcome.columns == TABLE
    assert found.rows == [("1", "x", "1.50"), ("2", "007", "2.25")]
    assert "normalise" not in found.outcome.seconds


@pytest.mark.parametrize("contract", CONTRACTS)
def test_columns_are_matched_by_name_whatever_their_order_and_case(
    contract: str, tmp_path: Path
) -> None:
    data = b"RATE,Id,NAME\n1.5,1,x\n"
    found = convert_bytes(tmp_path, data, table=TABLE, contract=contract)
    assert found.outcome.columns == TABLE
    assert found.rows == [("1", "x", "1.50")]


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_freeze_refuses_values_and_names_every_column(mode: str, tmp_path: Path) -> None:
    with pytest.raises(Conflict) as caught:
        convert_bytes(tmp_path, MISFIT, table=TABLE, mode=mode)
    assert problems_of(caught.value) == [
        {
            "column": "id",
            "problem": "does_not_fit",
            "expected": "BIGINT",
            "found": "VARCHAR",
            "count": 1,
            "example": "foo",
            "line": 3,
        },
        {
            "column": "rate",
            "problem": "does_not_fit",
            "expected": "DECIMAL(18,2)",
            "found": "DECIMAL(18,3)",
            "count": 1,
            "example": "2.255",
            "line": 3,
        },
    ]


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_freeze_refuses_new_and_missing_columns_by_name(mode: str, tmp_path: Path) -> None:
    with pytest.raises(Conflict) as caught:
        convert_bytes(tmp_path, b"id,city,name\n1,Oslo,x\n", table=TABLE, mode=mode)
    assert problems_of(caught.value) == [
        {"column": "city", "problem": "new", "expected": None},
        {"column": "rate", "problem": "missing", "expected": "DECIMAL(18,2)"},
    ]


def test_evolve_adds_columns_and_leaves_missing_ones_null(tmp_path: Path) -> None:
    data = b"city,id,n\nOslo,1,5\n,2,\n"
    found = convert_bytes(tmp_path, data, table=TABLE, contract="evolve")
    assert found.outcome.columns == (*TABLE, ("city", "VARCHAR"), ("n", "BIGINT"))
    assert found.rows == [("1", None, None, "Oslo", "5"), ("2", None, None, None, None)]
    assert any("'name', 'rate'" in warning for warning in found.outcome.warnings)


@pytest.mark.parametrize(
    ("expected", "value", "becomes", "read"),
    [
        ("INTEGER", "3000000000", "BIGINT", "3000000000"),
        ("FLOAT", "0.123456789", "DOUBLE", "0.123456789"),
        ("DECIMAL(18,2)", "12345678901234567890.5", "DECIMAL(38,2)", "12345678901234567890.50"),
        ("DECIMAL(9,2)", "12345678", "DECIMAL(38,2)", "12345678.00"),
    ],
)
def test_evolve_widens_a_type_where_nothing_is_lost(
    expected: str, value: str, becomes: str, read: str, tmp_path: Path
) -> None:
    data = f"n,t\n{value},x\n1,y\n".encode()
    table = (("n", expected), ("t", "VARCHAR"))
    found = convert_bytes(tmp_path, data, table=table, contract="evolve")
    assert found.types == [becomes, "VARCHAR"]
    assert found.rows[0][0] == read
    with pytest.raises(Conflict):
        convert_bytes(tmp_path, data, table=table, contract="freeze")


@pytest.mark.parametrize(
    ("expected", "value"),
    [
        ("BIGINT", "1.5"),
        ("BIGINT", "x"),
        ("BIGINT", "9223372036854775808"),
        ("INTEGER", "1.5"),
        ("DECIMAL(18,2)", "1.255"),
        ("FLOAT", "9223372036854775807"),
        ("DATE", "2024-01-05 10:00:00"),
        ("TIMESTAMP", "2024-01-05T10:00:00+02:00"),
        ("BOOLEAN", "yes"),
        ("BLOB", "x"),
    ],
)
def test_evolve_refuses_what_no_type_of_iceberg_would_hold(
    expected: str, value: str, tmp_path: Path
) -> None:
    with pytest.raises(Conflict) as caught:
        convert_bytes(
            tmp_path,
            f"n,t\n{value},x\n".encode(),
            table=(("n", expected), ("t", "VARCHAR")),
            contract="evolve",
        )
    assert problems_of(caught.value)[0]["column"] == "n"


@pytest.mark.parametrize(
    ("kind", "value", "read"),
    [
        ("BIGINT", "7.0", "7"),
        ("DECIMAL(18,1)", "1.10", "1.1"),
        ("DOUBLE", "12", "12.0"),
        ("BOOLEAN", "TRUE", "true"),
        ("TIME", "10:20:30.5", "10:20:30.5"),
        ("TIMESTAMP WITH TIME ZONE", "2024-01-05T10:00:00+02:00", "2024-01-05 08:00:00+00"),
        ("VARCHAR", "007", "007"),
    ],
)
def test_a_value_fits_when_it_is_the_same_in_the_tables_type(
    kind: str, value: str, read: str, tmp_path: Path
) -> None:
    found = convert_bytes(
        tmp_path, f"n,t\n{value},x\n".encode(), table=(("n", kind), ("t", "VARCHAR"))
    )
    assert found.rows == [(read, "x")]


def test_discard_row_keeps_rows_that_do_not_fit_as_rejects(tmp_path: Path) -> None:
    found = convert_bytes(tmp_path, MISFIT + b"4\n", table=TABLE, contract="discard_row")
    assert found.rows == [("1", "x", "1.50"), ("3", "z\nq", "3.00")]
    assert found.outcome.rejects == 2
    assert [(line, name, reason, raw) for line, name, reason, _, raw in found.rejects] == [
        (3, "id", "does_not_fit", "foo,y,2.255"),
        (6, None, "too_few_fields", "4"),
    ]
    assert "'foo'" in found.rejects[0][3]
    assert "'2.255'" in found.rejects[0][3]


def test_discard_row_keeps_rows_that_fill_unknown_columns_as_rejects(tmp_path: Path) -> None:
    data = b'id,name,rate,city\n1,x,1,\n2,y,2,"Os\nlo"\n3,z,3,\n'
    found = convert_bytes(tmp_path, data, table=TABLE, contract="discard_row")
    assert found.rows == [("1", "x", "1.00"), ("3", "z", "3.00")]
    assert [(line, name, raw) for line, name, _, _, raw in found.rejects] == [
        (3, "city", '2,y,2,"Os\nlo"')
    ]


def test_names_that_the_converter_uses_itself_are_no_trap(tmp_path: Path) -> None:
    table = (("c1", "BIGINT"), ("c0", "VARCHAR"), ("line", "BIGINT"))
    data = b"c1,c0,line,span\n1,x,7,\n2,y,oops,\n3,z,9,new\n"
    found = convert_bytes(tmp_path, data, table=table, contract="discard_row")
    assert found.rows == [("1", "x", "7")]
    assert [(line, name) for line, name, *_ in found.rejects] == [(3, "line"), (4, "span")]


def test_discard_value_makes_values_null_and_lists_them(tmp_path: Path) -> None:
    data = b"id,name,rate,city\nfoo,x,1,\n2,y,2.255,Oslo\n3\n"
    found = convert_bytes(tmp_path, data, table=TABLE, contract="discard_value")
    assert found.rows == [(None, "x", "1.00"), ("2", "y", None)]
    # Rows that were kept are no rejects, though the sidecar names what they lost.
    assert found.outcome.rejects == 1
    assert found.outcome.discarded == 3
    assert [(line, name, reason) for line, name, reason, _, _ in found.rejects] == [
        (2, "id", "discarded_value"),
        (3, "rate", "discarded_value"),
        (3, "city", "discarded_value"),
        (4, None, "too_few_fields"),
    ]
    assert any("3 values" in warning for warning in found.outcome.warnings)


def test_discard_row_with_nothing_left_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unprocessable) as caught:
        convert_bytes(tmp_path, b"id,name,rate\nx,x,y\n", table=TABLE, contract="discard_row")
    assert caught.value.details["rejects"][0]["column"] == "id"


def test_replace_with_evolve_takes_any_schema(tmp_path: Path) -> None:
    found = convert_bytes(tmp_path, b"a,b\n1,x\n", table=TABLE, mode="replace", contract="evolve")
    assert found.outcome.columns == (("a", "BIGINT"), ("b", "VARCHAR"))


def test_rows_without_a_header_take_the_tables_columns_by_position(tmp_path: Path) -> None:
    found = convert_bytes(tmp_path, b"1,x,1.5\n2,y,2\n", table=TABLE)
    assert found.outcome.columns == TABLE
    assert found.rows == [("1", "x", "1.50"), ("2", "y", "2.00")]
    assert any("table's in their order" in warning for warning in found.outcome.warnings)


def test_a_record_of_the_tables_names_is_a_header(tmp_path: Path) -> None:
    # By itself it might be a row of text like the others.
    table = (("red", "VARCHAR"), ("green", "VARCHAR"))
    found = convert_bytes(tmp_path, b"red,green\nred,blue\n", table=table)
    assert found.rows == [("red", "blue")]


def test_misfits_late_in_a_large_file_are_found_with_their_line(tmp_path: Path) -> None:
    data = b"id,name,rate\n" + b"1,x,1.5\n" * 50_000 + b"1,x,oops\n"
    with pytest.raises(Conflict) as caught:
        convert_bytes(tmp_path, data, table=TABLE)
    assert problems_of(caught.value)[0]["line"] == 50_002
    found = convert_bytes(tmp_path, data, table=TABLE, contract="discard_row")
    assert found.outcome.rows_out == 50_000
    assert [line for line, *_ in found.rejects] == [50_002]
