"""What the text of a statement is: EXPLAIN, places, parameters, refusals."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import pytest

from services.queryd.core.statement import (
    check_parameters,
    locate,
    only_statement,
    parameter_names,
    read_statement,
    refuse_unserialized,
)
from shared.errors import Forbidden, Invalid


def serialize(sql: str) -> dict[str, Any]:
    row = duckdb.execute("SELECT json_serialize_sql($1::VARCHAR)", [sql]).fetchone()
    assert row is not None
    return json.loads(row[0])


@pytest.mark.parametrize(
    ("sql", "prefix", "text"),
    [
        ("SELECT 1", "", "SELECT 1"),
        ("  SELECT 1", "", "  SELECT 1"),
        ("EXPLAIN SELECT 1", "EXPLAIN ", " SELECT 1"),
        ("explain analyze\nSELECT 1", "EXPLAIN ANALYZE ", "\nSELECT 1"),
        ("-- EXPLAIN\nSELECT 1", "", "-- EXPLAIN\nSELECT 1"),
        ("/* a */ -- b\n EXPLAIN(SELECT 1)", "EXPLAIN ", "(SELECT 1)"),
        ("EXPLAIN/**/SELECT 1", "EXPLAIN ", "/**/SELECT 1"),
        ("EXPLAIN -- c\n SELECT 1", "EXPLAIN ", " -- c\n SELECT 1"),
        ("explained", "", "explained"),
        ("EXPLAIN_ SELECT", "", "EXPLAIN_ SELECT"),
        ("EXPLAIN analyzes SELECT 1", "EXPLAIN ", " analyzes SELECT 1"),
    ],
)
def test_a_leading_explain_is_cut_off(sql: str, prefix: str, text: str) -> None:
    found = read_statement(sql)
    assert (found.prefix, found.text) == (prefix, text)
    assert sql.encode()[found.offset :] == text.encode()


@pytest.mark.parametrize("sql", ["EXPLAIN SELECT 42", "EXPLAIN ANALYZE SELECT 42"])
def test_what_runs_is_the_prefix_and_what_was_gated(sql: str) -> None:
    statement = read_statement(sql)
    assert not serialize(statement.text)["error"]
    assert duckdb.execute(statement.runnable).fetchall()
    assert statement.profiles == ("ANALYZE" in sql)


@pytest.mark.parametrize(
    "sql",
    [
        "EXPLAIN COPY t TO 'x'",
        "EXPLAIN EXPLAIN SELECT 1",
        "EXPLAIN (FORMAT json) SELECT 1",
        "EXPLAIN ANALYZE DELETE FROM t",
        "EXPLAIN CREATE TABLE x AS SELECT 1",
    ],
)
def test_explain_carries_nothing_but_a_select_past_the_gate(sql: str) -> None:
    statement = read_statement(sql)
    reply = serialize(statement.text)
    assert reply["error"]
    assert isinstance(refuse_unserialized(reply, sql, statement), Forbidden | Invalid)


@pytest.mark.parametrize(
    "sql", ["", "   ", "-- nothing\n", "/* nothing */", "SELECT \0 1", "\ud800"]
)
def test_text_without_a_statement_is_invalid(sql: str) -> None:
    with pytest.raises(Invalid):
        read_statement(sql)


def test_several_statements_are_refused_and_none_is_invalid() -> None:
    with pytest.raises(Forbidden, match="2 statements"):
        only_statement(serialize("SELECT 1; SELECT 2"))
    with pytest.raises(Invalid, match="empty"):
        only_statement(serialize(";;"))
    assert only_statement(serialize("SELECT 1;"))["node"]["type"] == "SELECT_NODE"


def test_a_syntax_error_tells_the_line_and_column_of_the_callers_text() -> None:
    sql = "EXPLAIN SELECT a,\n  FROM WHERE é x"
    statement = read_statement(sql)
    error = refuse_unserialized(serialize(statement.text), sql, statement)
    assert isinstance(error, Invalid)
    assert error.details == {"line": 2, "column": 8}
    assert "line 2, column 8" in error.message


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("INSERT INTO t VALUES (1)", "POST /ingest"),
        ("DROP TABLE t", "DELETE /catalog/datasets"),
        ("PRAGMA show_tables", "[queryd]"),
        ("PIVOT t ON a USING sum(b)", "must name its values"),
        ("SELECT * FROM (PIVOT t ON a USING sum(b))", "must name its values"),
        ("/* x */ SET threads = 1", "not SET"),
    ],
)
def test_a_statement_that_is_no_select_is_told_what_to_do_instead(sql: str, told: str) -> None:
    error = refuse_unserialized(serialize(sql), sql, read_statement(sql))
    assert isinstance(error, Forbidden)
    assert told in error.message


def test_places_count_characters_not_bytes() -> None:
    assert locate("é\nçà x", len("é\nçà ".encode())) == {"line": 2, "column": 4}
    assert locate("abc", 0) == {"line": 1, "column": 1}


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("SELECT 1", ()),
        ("SELECT ?, ?", ("1", "2")),
        ("SELECT $2, $1, $10", ("1", "2", "10")),
        ("SELECT $b, $a, $b", ("a", "b")),
    ],
)
def test_parameters_are_read_from_the_tree(sql: str, names: tuple[str, ...]) -> None:
    assert parameter_names(only_statement(serialize(sql))) == names


@pytest.mark.parametrize(
    ("names", "given"),
    [
        ((), []),
        ((), {}),
        (("1", "2"), [1, None]),
        (("a",), {"a": 1}),
        (("2",), [1, 2]),
    ],
)
def test_params_that_fit_pass(names: tuple[str, ...], given: list[Any] | dict[str, Any]) -> None:
    check_parameters(names, given)


@pytest.mark.parametrize(
    ("names", "given", "told"),
    [
        (("1", "2"), [1], "has 2 parameters; 1 was given"),
        (("1",), [1, 2], "has 1 parameter; 2 were given"),
        ((), [1], "has 0 parameters; 1 was given"),
        (("1",), {"a": 1}, "positional"),
        (("a",), [1], "names its parameters (a)"),
        (("a",), [], "names its parameters (a)"),
        (("a", "b"), {"a": 1, "c": 2}, "missing: b; not in the statement: c"),
        ((), {"a": 1}, "not in the statement: a"),
    ],
)
def test_params_that_do_not_fit_are_told_how(
    names: tuple[str, ...], given: list[Any] | dict[str, Any], told: str
) -> None:
    with pytest.raises(Invalid) as caught:
        check_parameters(names, given)
    assert told in caught.value.message
