"""queryd over a bucket: right answers, keys that nobody sees, and no way to other objects."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from scripts.seaweed import BUCKET, READER, WRITER, Seaweed
from services.queryd.core.problems import hide_addresses
from services.queryd.core.views import make_secret
from services.queryd.store.bucket import find_extension
from shared.daemons import ROOT
from tests.support.queryd import ARROW, NDJSON, Service
from tests.support.queryd_s3 import BucketCatalogue, queryd_on_s3
from tests.support.s3_faults import faulty_proxy

pytestmark = pytest.mark.anyio

HIDDEN = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def service(
    tmp_path_factory: pytest.TempPathFactory, seaweed: Seaweed
) -> AsyncGenerator[Service]:
    async with queryd_on_s3(tmp_path_factory.mktemp("queryd-s3"), seaweed) as made:
        made.catalogue.add(
            "t",
            "SELECT i AS a, 'x' || i AS b FROM range(70000) AS r(i)",
            "SELECT i AS a, 'x' || i AS b FROM range(70000, 100000) AS r(i)",
        )
        made.catalogue.add("hidden", f"SELECT '{HIDDEN}' AS secret")
        yield made


def place_of(service: Service) -> BucketCatalogue:
    assert isinstance(service.catalogue, BucketCatalogue)
    return service.catalogue


async def test_answers_are_right_in_every_format(service: Service) -> None:
    assert await service.rows("SELECT count(*), sum(a), max(b) FROM t") == [
        [100000, 4999950000, "x99999"]
    ]
    text = (await service.sql("SELECT a FROM t", accept=NDJSON)).text
    assert text.count('{"a":') == 100000
    arrow = await service.sql("SELECT a FROM t", accept=ARROW)
    assert pa.ipc.open_stream(arrow.content).read_all().num_rows == 100000
    service.catalogue.add(
        "evolved",
        "SELECT 1 AS a",
        "SELECT 2 AS a, 'n' AS b",
        columns={"a": "BIGINT", "b": "VARCHAR"},
    )
    assert await service.rows("FROM evolved ORDER BY a") == [[1, None], [2, "n"]]


# {own} is the address of a file that the query may read, {other} of one that it may not.
ATTACKS = [
    "FROM duckdb_secrets()",
    "FROM duckdb_secrets(redact => false)",
    "FROM which_secret('{own}', 's3')",
    "SELECT * FROM duckdb_settings()",
    "SELECT current_setting('s3_secret_access_key')",
    "SELECT current_setting('s3_access_key_id')",
    "SELECT * FROM duckdb_logs",
    "FROM duckdb_logs_parsed('HTTP')",
    "PRAGMA database_list",
    "SET s3_endpoint = 'evil.example'",
    "SET http_proxy = 'evil.example:80'",
    "CREATE SECRET (TYPE s3, KEY_ID 'a', SECRET 'b', ENDPOINT 'evil.example')",
    "DROP SECRET __default_s3",
    "CALL enable_logging('HTTP')",
    "SELECT * FROM '{other}'",
    "SELECT * FROM '{own}'",
    "SELECT * FROM read_parquet('{other}')",
    "SELECT * FROM read_text('{other}')",
    "SELECT * FROM read_blob('{own}')",
    "SELECT * FROM parquet_metadata('{own}')",
    "SELECT * FROM parquet_kv_metadata('{own}')",
    "SELECT * FROM glob('s3://lake/**')",
    "SELECT * FROM 'http://127.0.0.1:1/x.parquet'",
    "COPY t TO '{own}'",
    "COPY (SELECT 1) TO 's3://lake/new.parquet'",
    "ATTACH 's3://lake/x.db'",
    "EXPORT DATABASE 's3://lake/all'",
    "LOAD httpfs",
    "INSTALL aws",
    "SELECT getenv('AWS_SECRET_ACCESS_KEY')",
    "SELECT getvariable('secret')",
    "SELECT * FROM t, duckdb_secrets()",
    "SELECT (SELECT secret_string FROM duckdb_secrets())",
    "SELECT * FROM pragma_storage_info('t')",
    "SELECT * FROM duckdb_views()",
    "SELECT sql FROM sqlite_master",
    "SELECT view_definition FROM information_schema.views",
    "SHOW ALL TABLES",
    "SELECT filename FROM t",
    "SELECT * FROM query('FROM duckdb_secrets()')",
]

# What is allowed or merely wrong, and may tell as little.
TELLING = [
    "EXPLAIN SELECT * FROM t WHERE a > 5",
    "EXPLAIN ANALYZE SELECT sum(a) FROM t",
    "EXPLAIN (FORMAT json) SELECT * FROM t",
    "EXPLAIN ANALYZE SELECT b FROM t LIMIT 3",
    "DESCRIBE t",
    "SUMMARIZE t",
    "SELECT a + b FROM t",
    "SELECT CAST(b AS INTEGER) FROM t",
    "SELECT nothing FROM t",
    "SELECT error('s3') FROM t",
]


def assert_tells_nothing(text: str, *, named: bool = False) -> None:
    # A profile names its files, as the catalogue does for everybody; never the server or keys.
    address = () if named else (f"{BUCKET}/", "s3://lake")
    for word in (READER[1], WRITER[1], "127.0.0.1", HIDDEN, *address):
        assert word not in text


@pytest.mark.parametrize("attack", ATTACKS)
async def test_no_query_reaches_keys_or_other_objects(service: Service, attack: str) -> None:
    own = service.catalogue.tables["t"][-1].files[0].uri
    other = service.catalogue.tables["hidden"][-1].files[0].uri
    answer = await service.sql(attack.format(own=own, other=other))
    assert 400 <= answer.status_code < 500, answer.text
    shown = answer.text.replace(own, "").replace(other, "")
    for word in (READER[0], READER[1], WRITER[1], HIDDEN):
        assert word not in shown.replace("reader.", "")


@pytest.mark.parametrize("sql", TELLING)
async def test_plans_and_errors_do_not_tell_where_data_lies(service: Service, sql: str) -> None:
    answer = await service.sql(sql)
    assert answer.status_code < 500, answer.text
    assert_tells_nothing(answer.text, named="ANALYZE" in sql)


async def test_workers_are_started_without_keys(service: Service) -> None:
    await service.rows("SELECT count(*) FROM t")
    found = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            if b"services.queryd.worker" not in command:
                continue
            environment = (process / "environ").read_bytes()
        except OSError:
            continue
        found += str(place_of(service).place.tmp_path).encode() in command
        for key in (READER[1], WRITER[1]):
            assert key.encode() not in command + environment
    assert found


async def test_a_missing_object_and_a_server_that_is_gone_are_told_as_such(
    tmp_path: Path, seaweed: Seaweed
) -> None:
    with faulty_proxy(seaweed.endpoint) as proxy:
        async with queryd_on_s3(tmp_path, seaweed, proxy.endpoint) as service:
            made = service.catalogue.add("t", "SELECT 1 AS a", "SELECT 2 AS a")
            # A moment's trouble is not the query's.
            proxy.add("status", method="GET", status=503, code="SlowDown")
            assert await service.rows("SELECT sum(a) FROM t") == [[3]]
            proxy.down = True
            gone = await service.sql("SELECT sum(a) FROM t", timeout_s=20)
            assert gone.status_code == 503, gone.text
            assert_tells_nothing(gone.text)
            proxy.down = False
            assert await service.rows("SELECT sum(a) FROM t") == [[3]]
            place = place_of(service).place
            key = made.files[0].uri.removeprefix(f"s3://{BUCKET}/")
            place.client.delete_object(Bucket=BUCKET, Key=key)
            missing = await service.sql("SELECT sum(a) FROM t")
            assert missing.status_code == 503, missing.text
            assert "data file" in missing.json()["error"]["message"]
            assert_tells_nothing(missing.text)
            begun = time.monotonic()
            proxy.add("hang", times=99)
            late = await service.sql("SELECT sum(a) FROM t", timeout_s=1)
            assert late.status_code == 504
            assert time.monotonic() - begun < 2.5


async def test_an_object_elsewhere_is_refused(service: Service) -> None:
    made = service.catalogue.add("elsewhere", "SELECT 1 AS a")
    uri = made.files[0].uri.replace("s3://lake/", "s3://other/")
    made.files[0] = made.files[0].model_copy(update={"uri": uri})
    refused = await service.sql("FROM elsewhere")
    assert refused.status_code == 422
    assert "elsewhere" in refused.text


async def test_a_locked_database_opens_only_its_own_files_even_without_the_gate(
    service: Service,
) -> None:
    own = service.catalogue.tables["t"][-1].files[0].uri
    other = service.catalogue.tables["hidden"][-1].files[0].uri
    facts: dict[str, str | bool] = {
        "key_id": READER[0],
        "secret": READER[1],
        "session_token": "",
        "endpoint": place_of(service).place.server.endpoint.removeprefix("http://"),
        "region": "us-east-1",
        "url_style": "path",
        "use_ssl": False,
    }
    with duckdb.connect(config={"allow_persistent_secrets": "false"}) as connection:
        run = connection.execute
        run(f"LOAD '{find_extension()}'")
        run(make_secret(facts, [own]))
        run(f"CREATE VIEW t AS SELECT * FROM read_parquet(['{own}'])")
        run(f"SET allowed_paths = ['{own}']")
        run("SET enable_external_access = false")
        run("SET lock_configuration = true")
        assert run("SELECT count(*) FROM t").fetchall() == [(70000,)]
        for refused in (
            f"FROM '{other}'",
            f"SELECT * FROM read_text('{other}')",
            "SELECT * FROM glob('s3://lake/**')",
            f"COPY (SELECT 1) TO '{own}'",
            f"COPY (SELECT 1) TO '{own}.new'",
            "SET allowed_paths = []",
            "FROM duckdb_secrets(redact => false)",
        ):
            with pytest.raises(duckdb.Error) as caught:
                run(refused)
            assert READER[1] not in str(caught.value)
        assert READER[1] not in str(run("FROM duckdb_secrets()").fetchall())


SCRIPT = """
import os, socket, sys
from services.queryd.worker import sandbox

allowed, refused, scratch = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
print(sandbox.close_file_system((), scratch, (allowed,)))
for port in (allowed, refused):
    try:
        socket.create_connection(("127.0.0.1", port), 2).close()
        print("connected")
    except OSError as error:
        print(type(error).__name__)
try:
    socket.create_server(("127.0.0.1", 0))
    print("bound")
except OSError as error:
    print(type(error).__name__)
print(open("/etc/hosts").read() != "")
"""


def test_a_worker_connects_to_the_servers_port_alone(tmp_path: Path, seaweed: Seaweed) -> None:
    from tests.fleet.test_queryd_sandbox import landlock_abi

    if landlock_abi() < 4:
        pytest.skip("this kernel's Landlock knows no TCP")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            SCRIPT,
            str(seaweed.ports[0]),
            str(seaweed.ports[2]),
            str(tmp_path),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [
        "True",
        "connected",
        "PermissionError",
        "PermissionError",
        "True",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Unable to connect to URL s3://lake/a/b.parquet: 403",
        "HTTP HEAD to 'https://lake.s3.eu-west-1.amazonaws.com/a'",
        "Could not reach 10.0.0.7:8333 now",
    ],
)
def test_addresses_are_taken_out_of_messages(text: str) -> None:
    shown = hide_addresses(text)
    assert "its address" in shown
    for word in ("lake", "amazonaws", "10.0.0.7", "8333"):
        assert word not in shown
