"""The statement gate on trees of the engine's own parser."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import pytest

from services.queryd.core.functions import (
    ALLOWED_FUNCTIONS,
    ALLOWED_TABLE_FUNCTIONS,
    REFUSED_FUNCTIONS,
    REFUSED_TABLE_FUNCTIONS,
    is_allowed,
)
from services.queryd.core.gate import DATASET, EXPRESSIONS, NODES, Refusal, find_datasets
from shared.errors import Forbidden, Invalid
from shared.wire.catalogd import DATASET_NAME


def parse(sql: str) -> dict[str, Any]:
    """The tree of one SELECT."""
    row = duckdb.execute("SELECT json_serialize_sql($1::VARCHAR)", [sql]).fetchone()
    assert row is not None
    reply = json.loads(row[0])
    assert not reply["error"], reply
    return reply["statements"][0]["node"]


def datasets(sql: str) -> set[str]:
    return set(find_datasets(parse(sql)))


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1", set()),
        ("SELECT * FROM workers", {"workers"}),
        ("FROM Workers", {"workers"}),
        ('FROM "WORKERS"', {"workers"}),
        ("FROM main.workers", {"workers"}),
        ("FROM memory.main.workers", {"workers"}),
        ("TABLE workers", {"workers"}),
        ("VALUES (1), ((SELECT max(a) FROM t))", {"t"}),
        ("DESCRIBE workers", {"workers"}),
        ("SUMMARIZE SELECT * FROM workers", {"workers"}),
        ("SELECT * FROM a JOIN b USING (x) LEFT JOIN c ON a.x = c.x", {"a", "b", "c"}),
        ("SELECT * FROM a, LATERAL (SELECT * FROM b WHERE b.x = a.x)", {"a", "b"}),
        ("SELECT * FROM a ASOF JOIN b ON a.t >= b.t", {"a", "b"}),
        ("SELECT * FROM a POSITIONAL JOIN b", {"a", "b"}),
        ("SELECT (SELECT max(x) FROM a), EXISTS (FROM b), 1 IN (FROM c)", {"a", "b", "c"}),
        ("SELECT ARRAY(SELECT x FROM a)", {"a"}),
        ("SELECT x FROM a UNION ALL SELECT x FROM b EXCEPT SELECT x FROM c", {"a", "b", "c"}),
        (
            "SELECT * FROM a ORDER BY (SELECT max(x) FROM b) LIMIT (SELECT 1 FROM c)",
            {"a", "b", "c"},
        ),
        ("SELECT x FROM a GROUP BY ALL HAVING count(*) > (SELECT 1 FROM b)", {"a", "b"}),
        ("FROM a QUALIFY row_number() OVER (ORDER BY (SELECT x FROM b)) = 1", {"a", "b"}),
        ("SELECT sum(x) FILTER (x > (SELECT 1 FROM b)) FROM a", {"a", "b"}),
        ("SELECT list_transform(l, lambda e: e + (SELECT 1 FROM b)) FROM a", {"a", "b"}),
        ("SELECT CASE WHEN (SELECT true FROM b) THEN 1 END FROM a", {"a", "b"}),
        ("PIVOT a ON c IN ('x', 'y') USING sum(v)", {"a"}),
        ("SELECT * FROM (UNPIVOT a ON x, y)", {"a"}),
        ("SELECT * FROM unnest((SELECT l FROM a))", {"a"}),
        ("FROM a TABLESAMPLE 10%", {"a"}),
        ("FROM a SELECT DISTINCT ON ((SELECT x FROM b)) *", {"a", "b"}),
        ("SELECT * REPLACE ((SELECT x FROM b) AS y) FROM a", {"a", "b"}),
        ("SELECT COLUMNS(c -> c LIKE 'a%') FROM a", {"a"}),
        ("SELECT {'a': (SELECT x FROM b)}, [(SELECT x FROM a)]", {"a", "b"}),
        ("SELECT x::STRUCT(a INTEGER[], b DECIMAL(9, 2)), y::ENUM('a') FROM a", {"a"}),
    ],
)
def test_every_place_that_names_a_dataset_is_found(sql: str, expected: set[str]) -> None:
    assert datasets(sql) == expected


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("WITH x AS (FROM a) SELECT * FROM x", {"a"}),
        ("WITH X AS (FROM a) SELECT * FROM x", {"a"}),
        # A CTE sees those before it, not itself and not those after it.
        ("WITH t AS (FROM t) SELECT * FROM t", {"t"}),
        ("WITH a AS (FROM b), b AS (SELECT 1) SELECT * FROM a", {"b"}),
        ("WITH a AS (SELECT 1), b AS (FROM a) SELECT * FROM b", set()),
        # Out of its query it names nothing.
        ("SELECT * FROM (WITH t AS (SELECT 1) FROM t), t", {"t"}),
        ("WITH x AS (WITH t AS (SELECT 1) FROM t) SELECT * FROM x, t", {"t"}),
        ("(WITH t AS (SELECT 1) FROM t) UNION ALL FROM t", {"t"}),
        # Inside of its query, subqueries see it, and inner ones shadow it.
        ("WITH t AS (SELECT 1) SELECT (FROM t), EXISTS (SELECT * FROM t)", set()),
        ("WITH t AS (SELECT 1) (FROM t) UNION ALL (FROM t)", set()),
        ("WITH t AS (SELECT 1) FROM (WITH t AS (FROM t) FROM t)", set()),
        # With a schema it is the dataset.
        ("WITH t AS (SELECT 1) FROM main.t", {"t"}),
        # Recursion reads itself in the second arm alone.
        ("WITH RECURSIVE r AS (SELECT 1 n UNION ALL SELECT n FROM r) FROM r", set()),
        ("WITH RECURSIVE r AS (FROM r UNION ALL SELECT n FROM r) FROM r", {"r"}),
        ("WITH RECURSIVE r AS (SELECT 1 n UNION SELECT n FROM r JOIN s USING (n)) FROM r", {"s"}),
        ("WITH RECURSIVE t AS (FROM t) SELECT * FROM t", {"t"}),
        (
            "WITH RECURSIVE r(a, b) USING KEY (a) AS (SELECT 1, 2 UNION ALL "
            "(SELECT r.a, r.b FROM r JOIN recurring.r AS q USING (a))) FROM r",
            set(),
        ),
    ],
)
def test_names_of_ctes_are_scoped_as_the_engine_scopes_them(sql: str, expected: set[str]) -> None:
    assert datasets(sql) == expected


@pytest.mark.parametrize(
    "sql",
    [
        "WITH t AS (FROM t) SELECT * FROM t",
        "WITH a AS (FROM b), b AS (SELECT 1) SELECT * FROM a",
        "SELECT * FROM (WITH t AS (SELECT 1) FROM t), t",
        "(WITH t AS (SELECT 1) FROM t) UNION ALL FROM t",
        "WITH t AS (SELECT 1 AS v) FROM main.t",
        "WITH RECURSIVE t AS (FROM t) SELECT * FROM t",
        "WITH t AS (SELECT 1 AS v) FROM (WITH t AS (FROM t) FROM t)",
        "WITH RECURSIVE r AS (SELECT 1 n UNION SELECT n FROM r JOIN s ON r.n = s.v) FROM r",
    ],
)
def test_the_engine_finds_what_the_gate_said_and_needs_no_more(sql: str) -> None:
    """With just the datasets that the gate names, the engine binds the query; with one less
    it does not."""
    found = sorted(datasets(sql))
    for missing in (None, *found):
        with duckdb.connect() as connection:
            for name in found:
                if name != missing:
                    connection.execute(f"CREATE TABLE {name} AS SELECT 1 AS v")
            if missing is None:
                connection.execute(sql)
            else:
                with pytest.raises((duckdb.CatalogException, duckdb.BinderException)):
                    connection.execute(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "FROM 'workers.csv'",
        'FROM "/etc/passwd"',
        "FROM 's3://bucket/x.parquet'",
        "FROM information_schema.tables",
        "FROM pg_catalog.pg_class",
        "FROM system.main.duckdb_settings",
        "FROM other.workers",
        "FROM other.main.workers",
        "FROM workers AT (VERSION => 1)",
        'FROM "a b"',
        'WITH "a.csv" AS (SELECT 1) FROM "a.csv"',
        'WITH "/etc/passwd" AS (SELECT 1) SELECT 1',
        "SHOW TABLES",
        "SELECT * FROM (SHOW ALL TABLES)",
        "SHOW DATABASES",
        "SELECT default",
    ],
)
def test_relations_that_are_no_datasets_are_refused(sql: str) -> None:
    with pytest.raises(Refusal) as caught:
        find_datasets(parse(sql))
    assert isinstance(caught.value.error, Forbidden)


PLACES = [
    "SELECT {0}",
    "SELECT 1 WHERE {0} IS NULL",
    "SELECT 1 ORDER BY {0}",
    "SELECT 1 LIMIT {0}",
    "SELECT 1 OFFSET {0}",
    "SELECT count(*) GROUP BY {0}",
    "SELECT 1 HAVING {0}",
    "SELECT 1 QUALIFY {0}",
    "SELECT DISTINCT ON ({0}) 1",
    "SELECT sum(1) OVER (PARTITION BY {0} ORDER BY 1)",
    "SELECT sum(1) OVER (ORDER BY {0})",
    "SELECT sum(1) OVER (ORDER BY 1 ROWS BETWEEN {0} PRECEDING AND CURRENT ROW)",
    "SELECT sum(1) FILTER ({0})",
    "SELECT lag(1, {0}) OVER ()",
    "SELECT string_agg('a', 'b' ORDER BY {0})",
    "SELECT * FROM (VALUES ({0}))",
    "SELECT * FROM (SELECT 1) JOIN (SELECT 2) ON {0}",
    "SELECT * FROM range({0})",
    "SELECT * FROM range(1, stop := {0})",
    "SELECT list_transform([1], lambda x: {0})",
    "SELECT CASE WHEN {0} THEN 1 END",
    "SELECT CASE {0} WHEN 1 THEN 1 ELSE {0} END",
    "SELECT [x FOR x IN [1] IF {0}]",
    "SELECT {{'a': {0}}}",
    "SELECT [{0}]",
    "SELECT MAP {{'a': {0}}}",
    "SELECT {0}::INTEGER",
    "SELECT TRY({0})",
    "SELECT {0} COLLATE nocase",
    "SELECT 1 BETWEEN {0} AND 2",
    "SELECT 1 IN ({0})",
    "SELECT 1 IN (SELECT {0})",
    "SELECT EXISTS (SELECT {0})",
    "SELECT NOT {0}",
    "SELECT [1][{0}]",
    "SELECT [1][1:{0}]",
    "SELECT ({0}).a",
    "SELECT COLUMNS(c -> {0} = c) FROM (SELECT 1)",
    "SELECT * REPLACE ({0} AS a) FROM (SELECT 1 AS a)",
    "SELECT upper({0})",
    "WITH a AS (SELECT {0}) FROM a",
    "WITH RECURSIVE a AS (SELECT 1 UNION SELECT {0} FROM a) FROM a",
    "WITH a AS (SELECT 1) SELECT (WITH b AS (SELECT {0}) FROM b)",
    "SELECT 1 UNION ALL SELECT {0}",
    "SELECT * FROM (SELECT 1 AS a, 2 AS b) PIVOT (sum({0}) FOR a IN (1))",
    "DESCRIBE SELECT {0}",
    "SUMMARIZE SELECT {0}",
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("call", ["getvariable('x')", "main.GetVariable('x')"])
def test_a_refused_function_is_found_wherever_an_expression_can_stand(
    place: str, call: str
) -> None:
    with pytest.raises(Refusal, match=r"getvariable\(\) cannot be used"):
        find_datasets(parse(place.format(call)))


@pytest.mark.parametrize("place", PLACES)
def test_the_same_places_take_an_allowed_function(place: str) -> None:
    assert find_datasets(parse(place.format("abs(1)"))) == ()


FROM_PLACES = [
    "FROM {0}",
    "SELECT * FROM (SELECT 1), {0}",
    "SELECT * FROM (SELECT 1) LEFT JOIN {0} ON true",
    "SELECT (SELECT x FROM {0})",
    "WITH a AS (FROM {0}) SELECT 1",
    "SELECT 1 UNION ALL FROM {0}",
    "SELECT * FROM (SELECT 1), LATERAL (FROM {0})",
    "SELECT * FROM (FROM {0}) PIVOT (sum(a) FOR b IN (1))",
    "DESCRIBE FROM {0}",
    "SELECT 1 WHERE 1 IN (FROM {0})",
    "SELECT list_transform([1], lambda x: (FROM {0}))",
    "WITH RECURSIVE a AS (SELECT 1 UNION FROM {0}) FROM a",
    "FROM {0} WITH ORDINALITY",
    "FROM {0} TABLESAMPLE 10%",
]


@pytest.mark.parametrize("place", FROM_PLACES)
@pytest.mark.parametrize("name", ["read_csv", "Read_Text", "main.read_blob", "system.main.glob"])
def test_a_refused_table_function_is_found_wherever_a_table_can_stand(
    place: str, name: str
) -> None:
    with pytest.raises(Refusal, match="reads or writes files"):
        find_datasets(parse(place.format(f"{name}('/etc/passwd')")))


@pytest.mark.parametrize("name", sorted(REFUSED_TABLE_FUNCTIONS))
def test_every_refused_table_function_is_refused_with_its_reason(name: str) -> None:
    with pytest.raises(Refusal) as caught:
        find_datasets(parse(f"FROM {name}('x')"))
    assert isinstance(caught.value.error, Forbidden)
    assert REFUSED_TABLE_FUNCTIONS[name] in caught.value.error.message


@pytest.mark.parametrize("name", sorted(REFUSED_FUNCTIONS))
def test_every_refused_function_is_refused_with_its_reason(name: str) -> None:
    with pytest.raises(Refusal) as caught:
        find_datasets(parse(f"SELECT {name}(1)"))
    assert isinstance(caught.value.error, Forbidden)
    assert REFUSED_FUNCTIONS[name] in caught.value.error.message


def test_an_unknown_function_is_the_callers_mistake_and_is_told_what_is_near() -> None:
    with pytest.raises(Refusal) as caught:
        find_datasets(parse("SELECT 1, uper('a')"))
    assert isinstance(caught.value.error, Invalid)
    assert "Did you mean upper()?" in caught.value.error.message
    assert caught.value.offset == 10


@pytest.mark.parametrize(
    ("sql", "told"),
    [("SELECT json_each('[]')", "call it in FROM"), ("FROM upper('a')", "cannot stand in FROM")],
)
def test_a_function_in_the_wrong_place_is_told_apart(sql: str, told: str) -> None:
    with pytest.raises(Refusal, match=told):
        find_datasets(parse(sql))


def engine_functions(*kinds: str) -> set[str]:
    rows = duckdb.execute(
        "SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE function_type IN ?",
        [list(kinds)],
    ).fetchall()
    return {row[0] for row in rows}


def test_every_function_of_the_engine_is_on_one_list_and_none_other() -> None:
    scalar = engine_functions("scalar", "aggregate", "macro")
    table = engine_functions("table", "table_macro")
    assert {n for n in scalar if not is_allowed(n)} == set(REFUSED_FUNCTIONS)
    # unnest in a SELECT list is known to the binder, not to the catalogue of functions.
    assert ALLOWED_FUNCTIONS - {"unnest"} <= scalar
    assert table == set(ALLOWED_TABLE_FUNCTIONS) | set(REFUSED_TABLE_FUNCTIONS)
    assert not ALLOWED_FUNCTIONS & set(REFUSED_FUNCTIONS)
    assert not ALLOWED_TABLE_FUNCTIONS & set(REFUSED_TABLE_FUNCTIONS)


def test_no_allowed_macro_leads_to_a_refused_function() -> None:
    """A macro is replaced by its body after the gate, so its body must pass the gate too."""
    rows = duckdb.execute(
        "SELECT function_name, macro_definition FROM duckdb_functions() "
        "WHERE function_type = 'macro' AND macro_definition IS NOT NULL"
    ).fetchall()
    bodies = [(name, body) for name, body in rows if is_allowed(name)]
    assert len(bodies) > 50
    for name, body in bodies:
        assert find_datasets(parse(f"SELECT {body}")) == (), name


@pytest.mark.parametrize(
    "change",
    [
        {"class": "BOUND_FUNCTION"},
        {"type": "COLUMN_DATA"},
        {"type": "NEW_NODE"},
        {"class": "NEW_EXPRESSION", "type": "NEW"},
    ],
)
def test_what_the_gate_does_not_know_is_refused(change: dict[str, str]) -> None:
    node = parse("SELECT * FROM t")
    node["qualify"] = change
    with pytest.raises(Refusal, match="cannot be used in queries"):
        find_datasets(node)
    assert not {*change.values()} & (EXPRESSIONS | NODES)


def test_a_tree_of_any_depth_is_walked_without_recursion() -> None:
    node: dict[str, Any] = {"type": "BASE_TABLE", "table_name": "t", "schema_name": "",
                            "catalog_name": ""}  # fmt: skip
    for _ in range(50_000):
        node = {"type": "SUBQUERY", "subquery": {"node": node}}
    assert find_datasets(node) == ("t",)


def test_workers_and_the_catalogue_mean_the_same_by_a_name() -> None:
    assert DATASET.pattern == DATASET_NAME
