"""Hostile SQL: every way out is refused, every runaway is dead in time, neighbours live on."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest

from tests.support.queryd import NDJSON, Service, queryd

pytestmark = pytest.mark.anyio

# The most that a runaway may outlive its deadline, plus what a busy machine takes to notice.
GRACE_S = 0.25
SECRET = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Service]:
    os.environ["QUERYD_TEST_SECRET"] = SECRET
    folder = tmp_path_factory.mktemp("attacks")
    (folder / "secret.txt").write_text(SECRET)
    (folder / "secret.csv").write_text(f"a\n{SECRET}\n")
    async with queryd(folder, worker_memory_mb=512, worker_temp_mb=64) as made:
        made.catalogue.add("t", "SELECT i AS a, 'x' || i AS b FROM range(1000) AS t(i)")
        made.catalogue.add("hidden", f"SELECT '{SECRET}' AS secret")
        yield made
    del os.environ["QUERYD_TEST_SECRET"]


# {dir} is a folder the daemon can read, {hidden} a data file of another dataset, {scratch} a
# folder that a worker may write to.
ATTACKS = [
    # Reading files, by function.
    "SELECT * FROM read_csv('{dir}/secret.csv')",
    "SELECT * FROM read_csv_auto('{dir}/secret.csv')",
    "SELECT * FROM read_text('{dir}/secret.txt')",
    "SELECT * FROM read_blob('{dir}/secret.txt')",
    "SELECT * FROM read_json('{dir}/secret.txt')",
    "SELECT * FROM read_json_auto('{dir}/secret.txt')",
    "SELECT * FROM read_json_objects('{dir}/secret.txt')",
    "SELECT * FROM read_ndjson('{dir}/secret.txt')",
    "SELECT * FROM read_ndjson_auto('{dir}/secret.txt')",
    "SELECT * FROM read_ndjson_objects('{dir}/secret.txt')",
    "SELECT * FROM read_parquet('{hidden}')",
    "SELECT * FROM parquet_scan('{hidden}')",
    "SELECT * FROM parquet_metadata('{hidden}')",
    "SELECT * FROM parquet_schema('{hidden}')",
    "SELECT * FROM parquet_file_metadata('{hidden}')",
    "SELECT * FROM parquet_full_metadata('{hidden}')",
    "SELECT * FROM parquet_kv_metadata('{hidden}')",
    "SELECT * FROM parquet_bloom_probe('{hidden}', 'secret', 'x')",
    "SELECT * FROM read_duckdb('{dir}/x.db')",
    "SELECT * FROM sniff_csv('{dir}/secret.csv')",
    "SELECT * FROM glob('{dir}/*')",
    "SELECT read_text('{dir}/secret.txt')",
    # Reading files, by path.
    "SELECT * FROM '{dir}/secret.csv'",
    'SELECT * FROM "{dir}/secret.csv"',
    "SELECT * FROM '{hidden}'",
    "FROM '/etc/passwd'",
    "FROM 'https://example.com/x.csv'",
    "FROM 's3://bucket/x.parquet'",
    "FROM 'file:///etc/passwd'",
    "DESCRIBE '{dir}/secret.csv'",
    "SUMMARIZE '{dir}/secret.csv'",
    "SUMMARIZE FROM read_text('{dir}/secret.txt')",
    'WITH "{dir}/secret.csv" AS (SELECT 1) SELECT * FROM "{dir}/secret.csv"',
    # Reading files, hidden deeper.
    "SELECT (SELECT content FROM read_text('{dir}/secret.txt'))",
    "SELECT 1 WHERE EXISTS (FROM read_text('{dir}/secret.txt'))",
    "SELECT * FROM t, LATERAL (SELECT * FROM read_text('{dir}/secret.txt'))",
    "WITH x AS (FROM read_text('{dir}/secret.txt')) SELECT * FROM x",
    "WITH t AS (FROM read_text('{dir}/secret.txt')) SELECT * FROM t",
    "WITH RECURSIVE r AS (SELECT 1 UNION SELECT 1 FROM read_text('{dir}/secret.txt')) FROM r",
    "SELECT 1 UNION ALL SELECT content FROM read_text('{dir}/secret.txt')",
    "SELECT list_transform([1], lambda x: (SELECT content FROM read_text('{dir}/secret.txt')))",
    "SELECT 1 ORDER BY (SELECT content FROM read_text('{dir}/secret.txt'))",
    "SELECT * FROM t TABLESAMPLE 10% WHERE a IN (SELECT 1 FROM glob('/*'))",
    "EXPLAIN SELECT * FROM read_text('{dir}/secret.txt')",
    "EXPLAIN ANALYZE SELECT * FROM read_text('{dir}/secret.txt')",
    "SELECT * FROM (DESCRIBE FROM read_csv('{dir}/secret.csv'))",
    "PIVOT read_text('{dir}/secret.txt') ON size IN (1) USING max(content)",
    "SELECT main.read_text('x'), system.main.getvariable('y')",
    "SELECT * FROM \"read_text\"('{dir}/secret.txt')",
    "SELECT * FROM READ_TEXT('{dir}/secret.txt')",
    "SELECT * FROM main.read_text('{dir}/secret.txt')",
    "SELECT * FROM read_text/**/('{dir}/secret.txt')",
    "SELECT * FROM read_text\u00a0('{dir}/secret.txt')",
    "SELECT * FROM\u2003read_text('{dir}/secret.txt')",
    "SELECT * FROM rеad_text('{dir}/secret.txt')",  # noqa: RUF001 # the e is Cyrillic
    "SELECT * FROM U&\"read\\005ftext\"('{dir}/secret.txt')",
    # SQL as text.
    "SELECT * FROM query('SELECT * FROM read_text(''{dir}/secret.txt'')')",
    "SELECT * FROM query_table('hidden')",
    "SELECT * FROM query_table(['hidden'])",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
    "SELECT json_serialize_plan('FROM read_text(''{dir}/secret.txt'')')",
    "SELECT json_deserialize_sql('x')",
    "SELECT * FROM histogram('hidden', secret)",
    "SELECT * FROM histogram_values('hidden', secret)",
    # Writing.
    "COPY t TO '{scratch}/x.csv'",
    "COPY (SELECT 1) TO '{dir}/x.parquet'",
    "COPY t FROM '{dir}/secret.csv'",
    "EXPORT DATABASE '{scratch}'",
    "IMPORT DATABASE '{dir}'",
    "WITH x AS (COPY t TO '{scratch}/x.csv') SELECT 1",
    "WITH x AS (INSERT INTO t VALUES (1, 'x') RETURNING *) SELECT * FROM x",
    "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
    "CREATE TABLE x AS SELECT 1",
    "CREATE VIEW t AS SELECT 1",
    "CREATE OR REPLACE VIEW t AS SELECT 1",
    "CREATE TEMP TABLE x (a INTEGER)",
    "CREATE MACRO upper(x) AS 1",
    "CREATE MACRO f() AS TABLE FROM read_text('/etc/passwd')",
    "CREATE SEQUENCE s",
    "CREATE TYPE e AS ENUM (SELECT 'x')",
    "DROP VIEW t",
    "ALTER VIEW t RENAME TO u",
    "INSERT INTO t VALUES (1, 'x')",
    "UPDATE t SET a = 1",
    "DELETE FROM t",
    "TRUNCATE t",
    "MERGE INTO t USING t AS s ON true WHEN MATCHED THEN DELETE",
    "COMMENT ON VIEW t IS 'x'",
    # Databases, extensions, secrets.
    "ATTACH '{scratch}/x.db'",
    "ATTACH ':memory:' AS m",
    "DETACH memory",
    "USE memory",
    "INSTALL httpfs",
    "LOAD httpfs",
    "FORCE INSTALL httpfs",
    "CREATE SECRET s (TYPE s3, KEY_ID 'x', SECRET 'y')",
    "CREATE PERSISTENT SECRET s (TYPE s3)",
    "DROP SECRET s",
    "FROM duckdb_secrets()",
    "FROM which_secret('s3://x', 's3')",
    # Settings and state.
    "SET threads = 1",
    "SET GLOBAL memory_limit = '100GB'",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "SET allowed_directories = ['/']",
    "SET VARIABLE x = 1",
    "RESET ALL",
    "PRAGMA enable_profiling",
    "PRAGMA database_list",
    "PRAGMA import_database('{dir}')",
    "PRAGMA show_tables",
    "CALL pragma_version()",
    "CALL enable_logging()",
    "SELECT current_setting('allowed_paths')",
    "SELECT getvariable('x')",
    "SELECT getenv('QUERYD_TEST_SECRET')",
    "FROM duckdb_settings()",
    "FROM duckdb_variables()",
    "FROM duckdb_views()",
    "FROM duckdb_logs()",
    "FROM duckdb_temporary_files()",
    "FROM duckdb_settings",
    "FROM duckdb_views",
    "FROM information_schema.tables",
    "FROM pg_catalog.pg_views",
    "FROM sqlite_master",
    "FROM pragma_database_list",
    "SELECT pg_get_viewdef(1)",
    "SELECT nextval('s')",
    "SELECT sleep_ms(60000)",
    "SELECT pg_sleep(60)",
    "SELECT write_log('x')",
    "CHECKPOINT",
    "VACUUM",
    "ANALYZE",
    "SHOW TABLES",
    "SHOW ALL TABLES",
    # Objects of the process.
    "FROM arrow_scan(1, 2, 3)",
    "FROM pandas_scan(1)",
    "FROM python_map_function(1)",
    "SELECT * FROM sys",
    "SELECT * FROM settings",
    # Several statements, or one that is two.
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP VIEW t",
    "SELECT 1; COPY (SELECT 1) TO '{scratch}/x'",
    "SELECT 1;;COPY (SELECT 1) TO '{scratch}/x'",
    "SELECT 1 /* ; */; SET threads = 1",
    "/* SELECT 1 */ SET threads = 1",
    "-- SELECT\nSET threads = 1",
    "EXPLAIN SELECT 1; SET threads = 1",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{scratch}/x'",
    "EXPLAIN /* /* */ SELECT 1; */ SET threads = 1",
    "PIVOT t ON b USING sum(a)",
    "BEGIN",
    "COMMIT",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "DEALLOCATE p",
    "SELECT * FROM t AT (VERSION => 1)",
    "SELECT 1 INTO x",
    "SELECT \0",
    "",
    ";",
    "\u2028",
]


def fill(attack: str, service: Service) -> str:
    hidden = service.catalogue.tables["hidden"][-1].files[0].uri.removeprefix("file://")
    folder = str(service.config.base_dir)
    scratch = service.config.data_dir("queryd") / "tmp" / "1" / "scratch"
    for mark, value in {"dir": folder, "hidden": hidden, "scratch": str(scratch)}.items():
        attack = attack.replace(f"{{{mark}}}", value)
    return attack


def test_there_are_enough_of_them() -> None:
    assert len(set(ATTACKS)) == len(ATTACKS)
    assert len(ATTACKS) >= 120


@pytest.mark.parametrize("attack", ATTACKS)
async def test_an_attack_is_refused_with_an_envelope(service: Service, attack: str) -> None:
    response = await service.sql(fill(attack, service))
    assert 400 <= response.status_code < 500, response.text[:300]
    error = response.json()["error"]
    assert error["service"] == "queryd"
    assert error["message"]
    assert SECRET not in response.text
    if "{" not in attack:
        assert str(service.config.base_dir) not in response.text


async def test_the_attacks_left_nothing_behind(service: Service) -> None:
    assert await service.rows("SELECT count(*), sum(a) FROM t") == [[1000, 499500]]
    folder = service.config.data_dir("queryd") / "tmp"
    assert not [p for p in folder.rglob("*") if p.is_file() and p.name != "stderr"]


@pytest.mark.parametrize("accept", ["application/json", NDJSON])
async def test_what_a_query_says_cannot_break_out_of_the_answer(
    service: Service, accept: str
) -> None:
    """Names and values go into SQL that the worker writes; they must stay names and values."""
    name = "a', (SELECT content FROM read_text('/etc/passwd')), '\"}]"
    quoted = '"' + name.replace('"', '""') + '"'
    sql = f"SELECT 1 AS {quoted}, {{{quoted}: 2}} AS s, union_value({quoted} := 3) AS u"
    response = await service.sql(sql, accept=accept)
    assert response.status_code == 200, response.text
    body = response.json()
    if accept == NDJSON:
        assert body == {name: 1, "s": {name: 2}, "u": {name: 3}}
    else:
        assert body["columns"][0]["name"] == name
        assert body["rows"] == [[1, {name: 2}, {name: 3}]]


async def test_nothing_of_a_query_is_there_for_the_next(service: Service) -> None:
    """setseed is the one thing a query may set. On one database it would fix what follows."""
    drawn: list[float] = []
    for _ in range(6):
        await service.rows("SELECT setseed(0.5)")
        drawn.append((await service.rows("SELECT random()"))[0][0])
    assert len(set(drawn)) == 6


RUNAWAYS = {
    "cross joins": "SELECT sum(a.a * b.a * c.a * d.a) FROM t a, t b, t c, t d",
    "levenshtein": "SELECT max(levenshtein(repeat('ab', 9000 + a::INTEGER), repeat('ba', 9000))) "
    "FROM t",
    "endless recursion": "WITH RECURSIVE r AS (SELECT 1 n UNION ALL SELECT n + 1 FROM r) "
    "SELECT max(n) FROM r",
    "a long range": "SELECT sum(hash(i)) FROM range(1000000000000) AS t(i)",
    "a regular expression": "SELECT count(*) FROM range(1000000000) AS r(i) "
    "WHERE regexp_matches(md5(i::VARCHAR), '(a|b|c)+d.*e{3}')",
    "lambdas": "SELECT sum(list_sum(list_transform(range(1000), lambda x: x * a))) "
    "FROM t, range(1000000)",
}


async def run_beside_neighbours(
    service: Service, sql: str, timeout_s: float
) -> tuple[httpx.Response, float, int]:
    """Runs a query and, as long as it lasts, small ones beside it.

    Gives its answer, the seconds it took, and how many of the others were answered.
    """

    async def run() -> tuple[httpx.Response, float]:
        begun = time.monotonic()
        response = await service.sql(sql, timeout_s=timeout_s, max_rows=1)
        return response, time.monotonic() - begun

    await service.rows("SELECT 1")  # a worker is warm
    task = asyncio.create_task(run())
    answered = 0
    while not task.done():
        assert await service.rows("SELECT count(*) FROM t") == [[1000]]
        answered += 1
    return *(await task), answered


@pytest.mark.parametrize("name", RUNAWAYS)
async def test_a_runaway_is_dead_at_its_deadline_and_its_neighbour_lives(
    service: Service, name: str
) -> None:
    response, took, answered = await run_beside_neighbours(service, RUNAWAYS[name], 1.0)
    assert response.status_code == 504, response.text[:300]
    assert response.json()["error"]["code"] == "timeout"
    assert 1.0 <= took < 1.0 + GRACE_S
    assert answered >= 2


HOGS = {
    "one long string": "SELECT length(repeat('x', 2000000000))",
    "strings of strings": "SELECT repeat(repeat('x', 100000), 100000)",
    "a list of everything": "SELECT list(i) FROM range(10000000000) AS t(i)",
    "a long list": "SELECT range(10000000000)",
    "wide rows": "SELECT repeat('x', 1000000) || i FROM range(100000) AS t(i)",
    "a hash table": "SELECT count(DISTINCT md5(i::VARCHAR)) FROM range(100000000) AS t(i)",
    "a sort": "SELECT md5(i::VARCHAR) m FROM range(100000000) t(i) ORDER BY m",
    "padding": "SELECT lpad('x', 2000000000, 'y')",
    "a bitstring": "SELECT bitstring('1', 2000000000)",
    "aggregated strings": "SELECT string_agg(repeat('x', 100000), '') FROM range(1000000)",
}


@pytest.mark.parametrize("name", HOGS)
async def test_a_hog_is_refused_or_dead_and_its_neighbour_lives(
    service: Service, name: str
) -> None:
    response, took, answered = await run_beside_neighbours(service, HOGS[name], 0.8)
    assert response.status_code in (400, 422, 504), response.text[:300]
    assert response.json()["error"]["message"]
    assert took < 0.8 + GRACE_S
    assert answered >= 1


HEAVY_TEXTS = {
    "parentheses": "SELECT " + "(" * 100_000 + "1" + ")" * 100_000,
    "open parentheses": "SELECT " + "(" * 100_000,
    "subqueries": "SELECT * FROM (" * 20_000 + "SELECT 1" + ")" * 20_000,
    "lists": "SELECT " + "[" * 50_000 + "]" * 50_000,
    "operators": "SELECT 1" + "+1" * 400_000,
    "nots": "SELECT " + "NOT " * 200_000 + "true",
    "unions": "SELECT 1" + " UNION ALL SELECT 1" * 50_000,
    "columns": "SELECT " + ",".join(["1"] * 400_000),
    "cases": "SELECT " + "CASE WHEN true THEN " * 30_000 + "1" + " END" * 30_000,
    "casts": "SELECT 1" + "::INTEGER" * 100_000,
    "joins": "SELECT * FROM t " + "JOIN t USING (a) " * 50_000,
    "withs": "WITH " + ",".join(f"a{i} AS (SELECT 1)" for i in range(40_000)) + " SELECT 1",
    "a name": 'SELECT 1 AS "' + "x" * 900_000 + '"',
    "a string": "SELECT '" + "x" * 900_000 + "'",
    "a comment": "SELECT 1 /*" + "*" * 900_000 + "*/",
    "comment openings": "/*" * 400_000 + " SELECT 1",
    "dashes": "-" * 900_000,
    "quotes": "SELECT " + "'" * 900_001,
    "statements": "SELECT 1;" * 100_000,
}


@pytest.mark.parametrize("name", HEAVY_TEXTS)
async def test_a_heavy_text_harms_nobody(service: Service, name: str) -> None:
    sql = HEAVY_TEXTS[name]
    assert len(sql) <= 1_000_000
    response, took, answered = await run_beside_neighbours(service, sql, 0.8)
    assert response.status_code in (200, 400, 403, 422, 504), response.text[:300]
    assert took < 0.8 + GRACE_S
    assert answered >= 1


async def test_many_runaways_at_once_all_end_and_the_pool_recovers(service: Service) -> None:
    begun = time.monotonic()
    attacks = [service.sql(sql, timeout_s=0.5) for sql in list(RUNAWAYS.values()) * 2]
    responses = await asyncio.gather(*attacks)
    assert {r.status_code for r in responses} <= {504, 429}
    assert time.monotonic() - begun < 0.5 + GRACE_S + 0.5
    assert await service.rows("SELECT count(*) FROM t", timeout_s=20) == [[1000]]


async def test_temporary_files_of_the_dead_are_gone(service: Service) -> None:
    await service.rows("SELECT 1")
    folder: Path = service.config.data_dir("queryd") / "tmp"
    deadline = time.monotonic() + 10
    while True:
        left = [p for p in folder.rglob("*") if p.is_file() and p.name != "stderr"]
        homes = {path.name for path in folder.iterdir()} - {"template"}
        # A spare worker may be there still, for queries that waited beside long ones.
        if not left and 2 <= len(homes) <= 3:
            break
        assert time.monotonic() < deadline, (left, homes)
        await asyncio.sleep(0.01)
