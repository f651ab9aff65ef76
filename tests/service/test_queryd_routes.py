"""Every route of queryd, over a catalogue that is a dictionary."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncGenerator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.clients.queryd import QuerydClient
from shared.errors import Invalid, NotFound, Unavailable, Upstream
from shared.wire.queryd import (
    ARROW_ROW_COUNT,
    ARROW_TRUNCATED,
    ARROW_TYPE,
    CSV_TYPE,
    NDJSON_TYPE,
    PARQUET_TYPE,
    TRUNCATED_HEADER,
    SqlRequest,
)
from tests.support.queryd import Service, queryd

pytestmark = pytest.mark.anyio

WORKERS = """
    SELECT i::BIGINT AS id, 'Worker ' || i AS name, (15 + i % 100 / 10)::DECIMAL(9, 2) AS rate,
    DATE '2026-01-01' + (i % 28)::INTEGER AS hired FROM range({}) AS t(i)"""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Service]:
    async with queryd(tmp_path_factory.mktemp("queryd"), json_rows=100) as made:
        made.catalogue.add("workers", WORKERS.format(1000))
        made.catalogue.add(
            "big", "SELECT i AS a, i / 3 AS b, 'x' || i AS c FROM range(100000) t(i)"
        )
        yield made


def read_arrow(body: bytes) -> tuple[pa.Table, dict[str, str]]:
    """The rows of an Arrow answer, and what its last batch tells."""
    reader = pa.ipc.open_stream(body)
    batches: list[pa.RecordBatch] = []
    told: dict[str, str] = {}
    while True:
        try:
            batch, metadata = reader.read_next_batch_with_custom_metadata()
        except StopIteration:
            return pa.Table.from_batches(batches, reader.schema), told
        batches.append(batch)
        if metadata is not None:
            assert batch.num_rows == 0
            told = {k.decode(): v.decode() for k, v in metadata.items()}


async def test_a_query_answers_json(service: Service) -> None:
    response = await service.sql("SELECT id, name, rate, hired FROM workers ORDER BY id LIMIT 2")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    body = json.loads(response.content, parse_float=Decimal)
    assert body.pop("elapsed_ms") > 0
    assert body == {
        "columns": [
            {"name": "id", "type": "BIGINT"},
            {"name": "name", "type": "VARCHAR"},
            {"name": "rate", "type": "DECIMAL(9,2)"},
            {"name": "hired", "type": "DATE"},
        ],
        "rows": [
            [0, "Worker 0", Decimal("15.00"), "2026-01-01"],
            [1, "Worker 1", Decimal("15.10"), "2026-01-02"],
        ],
        "row_count": 2,
        "truncated": False,
    }


async def test_no_rows_are_an_answer_in_every_format(service: Service) -> None:
    sql = "SELECT id, rate FROM workers WHERE false"
    body = (await service.sql(sql)).json()
    assert (body["rows"], body["row_count"], body["truncated"]) == ([], 0, False)
    assert [c["type"] for c in body["columns"]] == ["BIGINT", "DECIMAL(9,2)"]
    table, told = read_arrow((await service.sql(sql, accept=ARROW_TYPE)).content)
    assert (table.num_rows, table.column_names) == (0, ["id", "rate"])
    assert told == {ARROW_TRUNCATED: "false", ARROW_ROW_COUNT: "0"}
    assert (await service.sql(sql, accept=NDJSON_TYPE)).content == b""


async def test_all_rows_come_in_arrow_in_order(service: Service) -> None:
    response = await service.sql("FROM big", accept=ARROW_TYPE)
    assert response.headers["content-type"] == ARROW_TYPE
    table, told = read_arrow(response.content)
    assert table.column("a").to_pylist() == list(range(100_000))
    assert table.schema.types == [pa.int64(), pa.float64(), pa.string()]
    assert told == {ARROW_TRUNCATED: "false", ARROW_ROW_COUNT: "100000"}


async def test_all_rows_come_as_lines_in_order(service: Service) -> None:
    response = await service.sql("FROM big", accept=NDJSON_TYPE)
    assert response.headers["content-type"] == NDJSON_TYPE
    lines = response.text.splitlines()
    assert len(lines) == 100_000
    assert [json.loads(line)["a"] for line in lines[::997]] == list(range(0, 100_000, 997))
    assert json.loads(lines[3]) == {"a": 3, "b": 1.0, "c": "x3"}


@pytest.mark.parametrize("accept", ["application/json", NDJSON_TYPE, ARROW_TYPE])
async def test_an_order_holds_in_every_format(service: Service, accept: str) -> None:
    sql = "SELECT a FROM big ORDER BY hash(a) DESC"
    response = await service.sql(sql, accept=accept, max_rows=100_000)
    if accept == ARROW_TYPE:
        found = read_arrow(response.content)[0].column("a").to_pylist()
    elif accept == NDJSON_TYPE:
        found = [json.loads(line)["a"] for line in response.text.splitlines()]
    else:
        found = [row[0] for row in response.json()["rows"]]
    ranks = await service.rows(
        "SELECT list(a ORDER BY hash(a) DESC) FROM big", params=[], max_rows=1
    )
    assert found == ranks[0][0]


async def test_rows_beyond_the_limit_are_cut_and_said_to_be(service: Service) -> None:
    body = (await service.sql("FROM big", max_rows=3)).json()
    assert (len(body["rows"]), body["row_count"], body["truncated"]) == (3, 3, True)
    table, told = read_arrow((await service.sql("FROM big", accept=ARROW_TYPE, max_rows=3)).content)
    assert table.num_rows == 3
    assert told == {ARROW_TRUNCATED: "true", ARROW_ROW_COUNT: "3"}
    lines = (await service.sql("FROM big", accept=NDJSON_TYPE, max_rows=3)).text.splitlines()
    assert json.loads(lines[-1]) == {"$truncated": True, "$row_count": 3}
    assert len(lines) == 4


async def test_a_json_body_has_a_limit_of_its_own(service: Service) -> None:
    body = (await service.sql("FROM big")).json()
    assert (body["row_count"], body["truncated"]) == (100, True)
    body = (await service.sql("FROM big LIMIT 100")).json()
    assert (body["row_count"], body["truncated"]) == (100, False)
    body = (await service.sql("FROM big", max_rows=101)).json()
    assert (body["row_count"], body["truncated"]) == (101, True)


async def test_no_rows_can_be_asked_for(service: Service) -> None:
    body = (await service.sql("FROM big", max_rows=0)).json()
    assert (body["rows"], body["truncated"], len(body["columns"])) == ([], True, 3)
    table, told = read_arrow((await service.sql("FROM big", accept=ARROW_TYPE, max_rows=0)).content)
    assert (table.num_rows, told[ARROW_TRUNCATED]) == (0, "true")


async def test_the_servers_limit_holds_for_every_format(tmp_path: Path) -> None:
    async with queryd(tmp_path, max_rows=50, workers=1) as service:
        body = (await service.sql("SELECT * FROM range(60)", max_rows=60)).json()
        assert (body["row_count"], body["truncated"]) == (50, True)
        answer = await service.sql("SELECT * FROM range(60)", accept=ARROW_TYPE)
        assert read_arrow(answer.content)[1][ARROW_TRUNCATED] == "true"


@pytest.mark.parametrize(
    ("sql", "params", "row"),
    [
        ("SELECT ?, ? + 1", ["a", 1], ["a", 2]),
        ("SELECT $2, $1", ["a", "b"], ["b", "a"]),
        ("SELECT $x || $x", {"x": "ab"}, ["abab"]),
        ("SELECT ?::DATE, DATE '2026-01-31' > ?", ["2026-01-30"] * 2, ["2026-01-30", True]),
        ("SELECT count(*) FROM workers WHERE id < ?", [10], [10]),
        ("SELECT ?", [2**100], [2**100]),
        ("SELECT ?", [-(2**63)], [-(2**63)]),
        ("SELECT ?", [None], [None]),
        ("SELECT ?, ?", [[1, 2], {"k": [True]}], [[1, 2], {"k": [True]}]),
        ("SELECT ?", ["it's \u0000 \"é😀"], ["it's \u0000 \"é😀"]),
        ("SELECT count(*) FROM workers LIMIT ?", [1], [1000]),
    ],
)  # fmt: skip
async def test_params_bind_by_place_or_name(
    service: Service, sql: str, params: Any, row: list[Any]
) -> None:
    assert await service.rows(sql, params=params) == [row]


@pytest.mark.parametrize(
    ("sql", "params"),
    [
        ("SELECT ?", []),
        ("SELECT ?", [1, 2]),
        ("SELECT $a", {"b": 1}),
        ("SELECT $a", [1]),
        ("SELECT 1", [1]),
        ("SELECT ?", [2**200]),
        ("SELECT ?", "x"),
        ("SELECT id FROM workers WHERE id = ?", ["no number"]),
    ],
)
async def test_params_that_do_not_fit_are_invalid(service: Service, sql: str, params: Any) -> None:
    response = await service.sql(sql, params=params)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid"


async def test_text_that_is_no_text_is_invalid(service: Service) -> None:
    for body in (b'{"sql": "SELECT \\ud800"}', b'{"sql": "SELECT ?", "params": ["\\ud800"]}'):
        response = await service.client.post("/sql", content=body)
        assert response.status_code == 400, response.text
    assert await service.rows("SELECT 1") == [[1]]


async def test_columns_of_one_name_all_come(service: Service) -> None:
    sql = "SELECT 1 AS a, 2 AS a, 3 AS a"
    body = (await service.sql(sql)).json()
    assert ([c["name"] for c in body["columns"]], body["rows"]) == (["a"] * 3, [[1, 2, 3]])
    line = (await service.sql(sql, accept=NDJSON_TYPE)).text
    assert json.loads(line) == {"a": 1, "a_1": 2, "a_2": 3}
    table, _ = read_arrow((await service.sql(sql, accept=ARROW_TYPE)).content)
    assert table.column_names == ["a"] * 3


async def test_enums_come_in_arrow_with_their_dictionaries(service: Service) -> None:
    sql = "SELECT ['a', 'b'][1 + i % 2]::ENUM('a', 'b') AS e FROM range(40000) AS t(i)"
    table, _ = read_arrow((await service.sql(sql, accept=ARROW_TYPE)).content)
    assert table.column("e").to_pylist() == ["a", "b"] * 20_000


@pytest.mark.parametrize(
    ("sql", "first"),
    [
        ("DESCRIBE workers", ["id", "BIGINT", "YES", None, None, None]),
        ("SELECT column_name FROM (DESCRIBE workers)", ["id"]),
        ("SELECT column_name, max FROM (SUMMARIZE workers)", ["id", "999"]),
        ("-- why\nSELECT 1 -- because", [1]),
        ("SELECT 1;", [1]),
        ("VALUES (1, 'x')", [1, "x"]),
        ("FROM workers SELECT max(id)", [999]),
        ("WITH t AS (SELECT id FROM workers) SELECT sum(id) FROM t", [499500]),
        ("WITH RECURSIVE r AS (SELECT 1 n UNION ALL SELECT n + 1 FROM r WHERE n < 5) "
         "SELECT sum(n) FROM r", [15]),
        ("SELECT [x * 2 FOR x IN [1, 2] IF x > 1]", [[4]]),
        ("PIVOT workers ON hired IN ('2026-01-01') USING count(*)", None),
        ("SELECT * FROM WORKERS w JOIN workers v USING (id) WHERE id = 1", None),
        ("SELECT current_date > DATE '2020-01-01', now() > TIMESTAMPTZ '2020-01-01 00:00:00Z'",
         [True, True]),
        ("SELECT row_number() OVER (ORDER BY id DESC) FROM workers QUALIFY row_number() OVER "
         "(ORDER BY id) = 1", [1000]),
        ("SELECT json_extract('{\"a\": [1]}', '$.a[0]')", [1]),
        ("SELECT 'a' COLLATE nocase = 'A'", [True]),
        ("SELECT unnest([1, 2])", [1]),
        ("SELECT regexp_extract('abc', 'b(.)', 1), 'x'.upper()", None),
    ],
)  # fmt: skip
async def test_sql_of_many_kinds_runs(service: Service, sql: str, first: list[Any] | None) -> None:
    response = await service.sql(sql)
    if "'x'.upper" in sql:  # the engine's grammar wants a column there
        assert response.status_code == 400
        return
    assert response.status_code == 200, response.text
    if first is not None:
        assert response.json()["rows"][0] == first


@pytest.mark.parametrize("accept", ["application/json", NDJSON_TYPE, ARROW_TYPE])
async def test_explain_tells_the_plan_and_no_path_of_the_server(
    service: Service, accept: str
) -> None:
    for sql in (
        "EXPLAIN SELECT id FROM workers",
        "EXPLAIN ANALYZE SELECT count(*), max(id) FROM workers WHERE id > 5",
    ):
        response = await service.sql(sql, accept=accept)
        assert response.status_code == 200
        assert b"READ_PARQUET" in response.content
        assert str(service.config.base_dir).encode() not in response.content
        assert b"/datasets/" not in response.content


async def test_a_syntax_error_tells_its_place(service: Service) -> None:
    response = await service.sql("SELECT id\n  FORM workers")
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["service"] == "queryd"
    assert error["details"] == {"line": 2, "column": 8}


async def test_a_column_that_is_not_there_tells_what_is_near(service: Service) -> None:
    response = await service.sql("SELECT 1,\n       nam FROM workers")
    assert response.status_code == 400
    error = response.json()["error"]
    assert '"name"' in error["message"]
    assert error["details"] == {"line": 2, "column": 8}


async def test_an_unknown_dataset_is_404_and_told_what_is_near(service: Service) -> None:
    response = await service.sql("SELECT * FROM worker")
    assert response.status_code == 404
    error = response.json()["error"]
    assert "'worker'" in error["message"]
    assert error["details"] == {"dataset": "worker", "did_you_mean": ["workers"]}
    response = await service.sql("FROM nothing_like_it")
    assert "GET /sql/tables" in response.json()["error"]["message"]


async def test_csv_has_a_header_and_says_that_it_is_whole(service: Service) -> None:
    sql = "SELECT id, name, rate, hired FROM workers ORDER BY id LIMIT 2"
    response = await service.sql(sql, accept=CSV_TYPE)
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert response.headers[TRUNCATED_HEADER] == "false"
    assert response.text == (
        "id,name,rate,hired\n0,Worker 0,15.00,2026-01-01\n1,Worker 1,15.10,2026-01-02\n"
    )
    none = await service.sql("SELECT id, rate FROM workers WHERE false", accept=CSV_TYPE)
    assert none.text == "id,rate\n"


async def test_csv_of_many_rows_reads_back_whole(service: Service, tmp_path: Path) -> None:
    # Longer than what is held back to see its end, so no header tells.
    response = await service.sql("SELECT a, b, c FROM big ORDER BY a", accept=CSV_TYPE)
    assert TRUNCATED_HEADER not in response.headers
    (tmp_path / "big.csv").write_bytes(response.content)
    read = duckdb.sql(f"SELECT count(*), sum(a), max(c) FROM '{tmp_path}/big.csv'").fetchone()
    assert read == (100_000, 4_999_950_000, "x99999")


async def test_csv_that_was_cut_says_so_when_it_is_short(service: Service) -> None:
    response = await service.sql("SELECT a FROM big ORDER BY a", accept=CSV_TYPE, max_rows=3)
    assert response.text == "a\n0\n1\n2\n"
    assert response.headers[TRUNCATED_HEADER] == "true"


async def test_parquet_reads_back_with_its_types(service: Service) -> None:
    sql = "SELECT id, name, rate, hired, [id, 1] AS l, id AS id FROM workers ORDER BY id"
    response = await service.sql(sql, accept=PARQUET_TYPE)
    assert response.headers["content-type"] == PARQUET_TYPE
    file = pq.ParquetFile(io.BytesIO(response.content))
    table = file.read()
    assert table.column_names == ["id", "name", "rate", "hired", "l", "id_1"]
    assert table.num_rows == 1000
    assert table.slice(1, 1).to_pylist() == [
        {
            "id": 1,
            "name": "Worker 1",
            "rate": Decimal("15.10"),
            "hired": date(2026, 1, 2),
            "l": [1, 1],
            "id_1": 1,
        }
    ]
    told = file.metadata.metadata
    assert told[ARROW_TRUNCATED.encode()] == b"false"
    assert told[ARROW_ROW_COUNT.encode()] == b"1000"


async def test_parquet_comes_in_row_groups_and_says_that_it_was_cut(service: Service) -> None:
    sql = "SELECT x.a, y.a AS n FROM big AS x, (FROM big LIMIT 3) AS y"
    response = await service.sql(sql, accept=PARQUET_TYPE, max_rows=250_000)
    file = pq.ParquetFile(io.BytesIO(response.content))
    assert file.metadata.num_rows == 250_000
    assert file.metadata.num_row_groups > 1
    assert file.metadata.metadata[ARROW_TRUNCATED.encode()] == b"true"
    none = await service.sql("SELECT id FROM workers WHERE false", accept=PARQUET_TYPE)
    assert pq.read_table(io.BytesIO(none.content)).num_rows == 0


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("INTERVAL 1 DAY", "INTERVAL"),
        ("[{'a': INTERVAL 1 DAY}]", "INTERVAL"),
        ("union_value(n := 1)", "UNION"),
    ],
)
async def test_what_parquet_cannot_hold_is_told(service: Service, value: str, told: str) -> None:
    response = await service.sql(f"SELECT 1 AS a, {value} AS odd", accept=PARQUET_TYPE)
    assert response.status_code == 422
    assert told in response.json()["error"]["message"]
    assert response.json()["error"]["details"] == {"column": "odd"}
    # The worker is as good as before.
    assert (await service.sql("SELECT 1")).json()["rows"] == [[1]]


@pytest.mark.parametrize("accept", [ARROW_TYPE, PARQUET_TYPE])
@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("(2::UHUGEINT << 126)::UHUGEINT", "UHUGEINT"),
        ("'12:00:00+02'::TIMETZ", "TIME WITH TIME ZONE"),
        ("[{'a': MAP {'k': '12:00:00+02'::TIMETZ}}]", "TIME WITH TIME ZONE"),
    ],
)
async def test_what_arrow_would_change_is_told_and_not_changed(
    service: Service, accept: str, value: str, told: str
) -> None:
    """DuckDB gives Arrow a negative number for the first and the others without their offset."""
    response = await service.sql(f"SELECT 1 AS a, {value} AS odd", accept=accept)
    assert response.status_code == 422
    assert told in response.json()["error"]["message"]
    assert response.json()["error"]["details"] == {"column": "odd"}
    response = await service.sql(f"SELECT ({value})::VARCHAR AS odd", accept=accept)
    assert response.status_code == 200


async def test_a_query_failing_at_its_data_is_told(service: Service) -> None:
    response = await service.sql("SELECT name::INTEGER FROM workers")
    assert response.status_code == 400
    assert "Worker 0" in response.json()["error"]["message"]


async def test_formats_of_later_steps_and_other_engines_are_refused_clearly(
    service: Service,
) -> None:
    response = await service.sql("SELECT 1", accept="application/xml")
    assert response.status_code == 406
    assert ARROW_TYPE in response.json()["error"]["message"]
    response = await service.sql("SELECT 1", engine="spark")
    assert response.status_code == 422
    assert "not configured" in response.json()["error"]["message"]
    response = await service.sql("SELECT 1", engine="oracle")
    assert response.status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"sql": ""},
        {"sql": 1},
        {"sql": "SELECT 1", "timeout_s": 0},
        {"sql": "SELECT 1", "timeout_s": -1},
        {"sql": "SELECT 1", "max_rows": -1},
        {"sql": "SELECT 1", "params": 5},
        {"sql": "SELECT 1", "typo": 5},
        {"sql": "x" * 1_000_001},
    ],
)
async def test_a_malformed_request_is_invalid(service: Service, body: dict[str, Any]) -> None:
    response = await service.client.post("/sql", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid"


async def test_a_new_snapshot_is_there_for_the_next_query(service: Service) -> None:
    service.catalogue.add("fresh", "SELECT 1 AS a")
    assert await service.rows("FROM fresh") == [[1]]
    service.catalogue.add("fresh", "SELECT 2 AS a", "SELECT 3 AS a")
    assert sorted(await service.rows("FROM fresh")) == [[2], [3]]
    assert await service.rows("FROM fresh", as_of="1") == [[1]]
    response = await service.sql("FROM fresh", as_of="9")
    assert response.status_code == 404
    assert "The oldest is 1" in response.json()["error"]["message"]


async def test_an_evolved_dataset_reads_as_the_catalogue_types_it(service: Service) -> None:
    columns = {
        "id": "BIGINT",
        "name": "VARCHAR",
        "late": "DATE",
        "s": "STRUCT(a BIGINT, b VARCHAR)",
    }
    service.catalogue.add(
        "evolved",
        "SELECT 1::INTEGER AS id, {'a': 1::INTEGER} AS s",
        "SELECT 'n' AS name, 2::BIGINT AS id, 9 AS forgotten, {'b': 'x', 'a': 2::BIGINT} AS s",
        columns=columns,
    )
    body = (await service.sql("FROM evolved ORDER BY id")).json()
    assert {c["name"]: c["type"] for c in body["columns"]} == columns
    assert body["rows"] == [
        [1, None, None, {"a": 1, "b": None}],
        [2, "n", None, {"a": 2, "b": "x"}],
    ]


async def test_a_dataset_without_files_is_an_empty_table(service: Service) -> None:
    service.catalogue.add("empty", columns={"a": "INTEGER", "t": "TIMESTAMP WITH TIME ZONE"})
    body = (await service.sql("FROM empty")).json()
    assert (body["rows"], [c["type"] for c in body["columns"]]) == (
        [],
        ["INTEGER", "TIMESTAMP WITH TIME ZONE"],
    )
    assert await service.rows("SELECT count(*), max(a) FROM empty") == [[0, None]]


async def test_a_type_that_is_more_than_a_type_is_not_run(service: Service) -> None:
    service.catalogue.add(
        "evil", "SELECT 1 AS a", columns={"a": "INTEGER), read_text('/etc/passwd'"}
    )
    response = await service.sql("FROM evil")
    assert response.status_code == 500
    assert "root:" not in response.text
    assert await service.rows("SELECT 1") == [[1]]


async def test_many_files_make_one_table(service: Service) -> None:
    made = service.catalogue.add("many", *(f"SELECT {i} AS a, 'x' AS b" for i in range(60)))
    assert len(made.files) == 60
    assert await service.rows("SELECT count(*), sum(a) FROM many") == [[60, 1770]]


@pytest.mark.parametrize("accept", ["application/json", NDJSON_TYPE, ARROW_TYPE])
async def test_long_texts_stream_within_a_workers_memory(service: Service, accept: str) -> None:
    """200 MB of texts, 20 KB each, far more than is held of them at a time."""
    text = "string_agg(md5((i * 1000 + j)::VARCHAR), '')"
    made = service.catalogue.add(
        "texts",
        f"SELECT i, {text} AS t FROM range(1000) a(i), range(625) b(j) GROUP BY i",
    )
    assert made.files[0].size > 10 << 20
    sql = "SELECT t FROM texts, range(10)"
    response = await service.sql(sql, accept=accept, max_rows=100_000)
    assert response.status_code == 200
    assert len(response.content) > 200_000_000


async def test_a_lost_file_is_told_without_its_path(service: Service) -> None:
    made = service.catalogue.add("lost", "SELECT 1 AS a")
    Path(made.files[0].uri.removeprefix("file://")).unlink()
    response = await service.sql("FROM lost")
    assert response.status_code == 503
    assert str(service.config.base_dir) not in response.text
    assert await service.rows("SELECT 1") == [[1]]


async def test_a_damaged_file_is_told_without_its_path(service: Service) -> None:
    made = service.catalogue.add("damaged", "SELECT 1 AS a")
    Path(made.files[0].uri.removeprefix("file://")).write_bytes(b"PAR1 no parquet at all PAR1")
    response = await service.sql("FROM damaged")
    assert 400 <= response.status_code < 600
    assert response.status_code != 500
    assert str(service.config.base_dir) not in response.text
    assert await service.rows("SELECT 1") == [[1]]


async def test_a_file_elsewhere_is_told(service: Service) -> None:
    made = service.catalogue.add("remote", "SELECT 1 AS a")
    remote = made.files[0].model_copy(update={"uri": "s3://bucket/key.parquet"})
    service.catalogue.tables["remote"][-1] = made.model_copy(update={"files": [remote]})
    response = await service.sql("FROM remote")
    assert response.status_code == 422
    assert "s3" in response.json()["error"]["message"]


async def test_a_file_outside_of_the_data_folder_cannot_be_read(
    service: Service, tmp_path: Path
) -> None:
    made = service.catalogue.add("outside", "SELECT 'secret' AS a")
    inside = Path(made.files[0].uri.removeprefix("file://"))
    outside = tmp_path / "outside.parquet"
    inside.rename(outside)
    moved = made.files[0].model_copy(update={"uri": f"file://{outside}"})
    service.catalogue.tables["outside"][-1] = made.model_copy(update={"files": [moved]})
    response = await service.sql("FROM outside")
    assert response.status_code >= 400
    assert "secret" not in response.text


async def test_tables_are_listed_and_described(service: Service) -> None:
    tables = (await service.client.get("/sql/tables")).json()["tables"]
    assert tables == sorted(service.catalogue.tables)
    response = await service.client.get("/sql/tables/workers")
    assert response.status_code == 200
    body = response.json()
    assert body["name"] == "workers"
    assert body["rows"] == 1000
    assert body["columns"][2] == {"name": "rate", "type": "DECIMAL(9,2)"}
    assert len(body["sample"]) == 5
    assert body["sample"][1] == [1, "Worker 1", 15.1, "2026-01-02"]
    assert (body["files"], body["snapshot_id"]) == (1, "1")
    response = await service.client.get("/sql/tables/worker")
    assert response.status_code == 404
    assert response.json()["error"]["details"]["did_you_mean"] == ["workers"]


async def test_statistics_are_exact_and_of_every_kind_of_column(service: Service) -> None:
    service.catalogue.add(
        "mixed",
        """SELECT CASE WHEN i % 4 > 0 THEN i END AS n, repeat('x', 150) || i % 7 AS t,
        DATE '2026-01-01' + i::INTEGER AS d, 'nan'::DOUBLE AS f, [i] AS l, i > 5 AS b,
        TIMESTAMPTZ '2026-01-01 00:00:00+00' AS z, 9007199254740993 + i AS w, '\\xFF'::BLOB AS o
        FROM range(100) AS t(i)""",
    )
    body = (await service.client.get("/sql/tables/mixed")).json()
    found = {column["name"]: column for column in body["statistics"]}
    assert found["n"] == {
        **{"name": "n", "nulls": 25, "min": 1, "max": 99, "mean": 50.0},
        "distinct": pytest.approx(75, rel=0.15),
    }
    assert (found["t"]["min"], found["t"]["mean"]) == ("x" * 100, None)
    assert found["t"]["distinct"] == 7
    assert (found["d"]["min"], found["d"]["max"]) == ("2026-01-01", "2026-04-10")
    assert (found["f"]["max"], found["f"]["mean"]) == ("NaN", None)
    assert found["l"] == {
        **{"name": "l", "nulls": 0, "distinct": None},
        **{"min": None, "max": None, "mean": None},
    }
    assert (found["b"]["min"], found["b"]["max"]) == (False, True)
    assert found["z"]["min"] == "2026-01-01T00:00:00Z"
    assert found["w"]["min"] == 9007199254740993
    assert found["o"]["nulls"] == 0
    # A new snapshot has statistics of its own.
    service.catalogue.add("mixed", "SELECT 7 AS n", columns={"n": "INTEGER"})
    body = (await service.client.get("/sql/tables/mixed")).json()
    assert [(c["name"], c["min"]) for c in body["statistics"]] == [("n", 7)]
    none = (await service.client.get("/sql/tables/mixed?statistics=false")).json()
    assert none["statistics"] is None


async def test_statistics_of_a_large_table_are_made_when_asked_for(service: Service) -> None:
    made = service.catalogue.add("large", "SELECT i AS a FROM range(1000) AS t(i)")
    made.files[0] = made.files[0].model_copy(update={"size": 100 << 20})
    assert (await service.client.get("/sql/tables/large")).json()["statistics"] is None
    asked = (await service.client.get("/sql/tables/large?statistics=true")).json()
    assert asked["statistics"][0]["max"] == 999
    assert (await service.client.get("/sql/tables/large")).json()["statistics"] is not None
    empty = service.catalogue.add("void", "SELECT 1 AS a")
    empty.files.clear()
    found = (await service.client.get("/sql/tables/void")).json()["statistics"]
    assert (found[0]["nulls"], found[0]["distinct"], found[0]["min"]) == (0, 0, None)


async def test_queries_are_counted(service: Service) -> None:
    await service.rows("SELECT 1")
    await service.sql("SELECT getvariable('x')")
    text = (await service.client.get("/metrics")).text
    assert 'lakehouse_queryd_queries_total{format="json",outcome="ok"}' in text
    assert 'lakehouse_queryd_queries_total{format="json",outcome="forbidden"}' in text
    assert "lakehouse_queryd_rows_total" in text
    assert 'lakehouse_queryd_workers{state="idle"}' in text


async def test_a_catalogue_that_is_down_is_told_and_harms_no_worker(service: Service) -> None:
    before = (await service.client.get("/ready")).json()
    assert before["checks"] == {"catalogd": "ok", "workers": "ok"}
    service.catalogue.failure = Unavailable("catalogd cannot be reached.")
    try:
        response = await service.sql("FROM workers")
        assert response.status_code == 503
        assert (await service.client.get("/ready")).status_code == 503
        assert await service.rows("SELECT 1") == [[1]]
    finally:
        service.catalogue.failure = None
    assert await service.rows("SELECT count(*) FROM workers") == [[1000]]


async def test_the_client_reads_every_route(service: Service) -> None:
    client = QuerydClient(service.config, {"queryd": service.transport})
    found = await client.run_query(SqlRequest(sql="SELECT ? AS a", params=[5]))
    assert (found.rows, found.columns[0].name, found.truncated) == ([[5]], "a", False)
    assert "workers" in await client.list_tables()
    assert (await client.get_table("workers")).rows == 1000
    with pytest.raises(NotFound, match="Did you mean workers"):
        await client.get_table("worker")
    with pytest.raises(Invalid):
        await client.run_query(SqlRequest(sql="SELEC"))
    async with client.stream_arrow(SqlRequest(sql="FROM big")) as pieces:
        body = b"".join([piece async for piece in pieces])
    assert read_arrow(body)[0].num_rows == 100_000
    async with client.stream_rows(SqlRequest(sql="FROM workers")) as rows:
        assert [row["id"] async for row in rows] == list(range(1000))
    async with client.stream_rows(SqlRequest(sql="FROM workers", max_rows=2)) as rows:
        assert [row["id"] async for row in rows] == [0, 1]
    await client.aclose()


async def test_the_client_tells_rows_that_the_server_cut(tmp_path: Path) -> None:
    async with queryd(tmp_path, max_rows=5, workers=1) as small:
        client = QuerydClient(small.config, {"queryd": small.transport})
        async with client.stream_rows(SqlRequest(sql="FROM range(9)")) as rows:
            with pytest.raises(Upstream, match="row limit"):
                [row async for row in rows]
        await client.aclose()
