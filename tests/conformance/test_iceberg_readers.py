"""Tables read by engines nobody here wrote, through the gateway's Iceberg REST catalogue."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError
from pyiceberg.schema import Schema

from scripts.private_fleet import PrivateFleet
from scripts.seaweed import READER, WRITER, Seaweed
from tests.support.postgres import Postgres

DAEMONS = ("gateway", "storaged", "catalogd", "ingestd")
NAMESPACE = "lakehouse"


@dataclass
class House:
    """A fleet with a dataset of three versions, the last with one more column."""

    url: str
    snapshots: list[str]
    server: Seaweed | None

    @property
    def iceberg(self) -> str:
        """What a client is given."""
        return f"{self.url}/v1/iceberg"


FIRST = [(1, "Kari", None), (2, "Ola", None)]
SECOND = [*FIRST, (3, "Åse", None)]
THIRD = [*SECOND, (4, "Liv", "Oslo")]


def ingest(url: str, body: str, **params: str) -> str:
    answer = httpx.post(
        f"{url}/v1/ingest",
        params={"dataset": "workers", "mode": "append", **params},
        content=body.encode(),
        headers={"content-type": "text/csv"},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["snapshot_id"])


@pytest.fixture(scope="module", params=["local", "s3", "postgres"])
def house(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Generator[House]:
    server: Seaweed | None = None
    settings: dict[str, str] = {}
    if request.param == "s3":
        server = request.getfixturevalue("seaweed")
        assert isinstance(server, Seaweed)
        settings = server.environment("iceberg")
    elif request.param == "postgres":
        postgres = request.getfixturevalue("postgres")
        assert isinstance(postgres, Postgres)
        settings = {"CATALOGD__DATABASE_URI": postgres.uri(postgres.make_database())}
    with PrivateFleet(DAEMONS, settings, tmp_path_factory.mktemp("house")) as fleet:
        url = fleet.urls["gateway"]
        snapshots = [
            ingest(url, "id,name\n1,Kari\n2,Ola\n"),
            ingest(url, "id,name\n3,Åse\n"),
            ingest(url, "id,name,city\n4,Liv,Oslo\n", contract="evolve"),
        ]
        yield House(url, snapshots, server)


def open_pyiceberg(house: House) -> RestCatalog:
    """pyiceberg's own catalogue, given the address and a reader's keys."""
    keys: dict[str, str] = {}
    if house.server is not None:
        keys = {
            "s3.endpoint": house.server.endpoint,
            "s3.region": "us-east-1",
            "s3.access-key-id": READER[0],
            "s3.secret-access-key": READER[1],
        }
    return RestCatalog("house", uri=house.iceberg, **keys)


def rows_of(table: Any) -> list[tuple[Any, ...]]:
    found = table.to_pylist()
    return sorted((row["id"], row["name"], row.get("city")) for row in found)


def test_pyiceberg_finds_and_reads_every_version(house: House) -> None:
    catalog = open_pyiceberg(house)
    assert catalog.list_namespaces() == [(NAMESPACE,)]
    assert catalog.list_tables(NAMESPACE) == [(NAMESPACE, "workers")]
    assert catalog.table_exists((NAMESPACE, "workers"))
    assert not catalog.table_exists((NAMESPACE, "nobody"))
    table = catalog.load_table((NAMESPACE, "workers"))
    assert [str(one.snapshot_id) for one in table.snapshots()] == house.snapshots
    assert rows_of(table.scan().to_arrow()) == THIRD
    for snapshot, rows in zip(house.snapshots, (FIRST, SECOND, THIRD), strict=True):
        assert rows_of(table.scan(snapshot_id=int(snapshot)).to_arrow()) == rows
    assert rows_of(table.scan(row_filter="id >= 3").to_arrow()) == THIRD[2:]


def test_pyiceberg_is_told_of_what_is_not_there(house: House) -> None:
    catalog = open_pyiceberg(house)
    with pytest.raises(NoSuchTableError):
        catalog.load_table((NAMESPACE, "nobody"))
    with pytest.raises((NoSuchNamespaceError, NoSuchTableError)):
        catalog.list_tables("elsewhere")


def test_pyiceberg_cannot_write(house: House) -> None:
    """The endpoints that catalogd names have none for it, so the client does not even ask; a
    request that is sent all the same is refused (`tests/service/test_catalogd_iceberg.py`)."""
    catalog = open_pyiceberg(house)
    writes: list[Callable[[], object]] = [
        lambda: catalog.create_namespace("mine"),
        lambda: catalog.create_table((NAMESPACE, "mine"), Schema()),
        lambda: catalog.drop_table((NAMESPACE, "workers")),
    ]
    for write in writes:
        with pytest.raises(NotImplementedError, match="does not support"):
            write()
    assert catalog.list_namespaces() == [(NAMESPACE,)]
    assert catalog.list_tables(NAMESPACE) == [(NAMESPACE, "workers")]


def extension(name: str) -> str:
    """The path of one of DuckDB's extensions, from its wheel."""
    package = importlib.import_module(f"duckdb_extension_{name}")
    assert package.__file__ is not None
    folder = Path(package.__file__).parent
    (path,) = folder.glob(f"extensions/v{duckdb.__version__}/{name}.duckdb_extension")
    return str(path)


@pytest.fixture
def attached(house: House, tmp_path: Path) -> Generator[duckdb.DuckDBPyConnection]:
    """DuckDB with the catalogue attached, as its users do it."""
    config: dict[str, Any] = {
        "extension_directory": str(tmp_path),
        "autoinstall_known_extensions": "false",
    }
    with duckdb.connect(config=config) as connection:
        for name in ("avro", "httpfs", "iceberg"):
            connection.execute(f"LOAD '{extension(name)}'")
        if house.server is not None:
            host = house.server.endpoint.removeprefix("http://")
            connection.execute(
                f"CREATE SECRET (TYPE s3, KEY_ID '{READER[0]}', SECRET '{READER[1]}', "
                f"ENDPOINT '{host}', URL_STYLE 'path', USE_SSL false)"
            )
        connection.execute(
            f"ATTACH 'house' AS house (TYPE iceberg, ENDPOINT '{house.iceberg}', "
            "AUTHORIZATION_TYPE 'none')"
        )
        yield connection


def test_duckdb_reads_every_version(house: House, attached: duckdb.DuckDBPyConnection) -> None:
    run = attached.execute
    table = f"house.{NAMESPACE}.workers"
    assert run(f"SELECT * FROM {table} ORDER BY id").fetchall() == THIRD
    assert run(f"SELECT name FROM {table} WHERE id = 3").fetchall() == [("Åse",)]
    found = run("SELECT table_name FROM duckdb_tables() WHERE database_name = 'house'").fetchall()
    assert found == [("workers",)]
    for snapshot, rows in zip(house.snapshots[:2], (FIRST, SECOND), strict=True):
        past = f"{table} AT (VERSION => {snapshot})"
        assert run(f"SELECT id, name FROM {past} ORDER BY id").fetchall() == [
            row[:2] for row in rows
        ]


def test_duckdb_cannot_write(attached: duckdb.DuckDBPyConnection) -> None:
    for attempt in (
        f"CREATE TABLE house.{NAMESPACE}.mine (a INTEGER)",
        f"DROP TABLE house.{NAMESPACE}.workers",
        "CREATE SCHEMA house.mine",
    ):
        with pytest.raises(duckdb.Error):
            attached.execute(attempt)
    assert attached.execute(f"SELECT count(*) FROM house.{NAMESPACE}.workers").fetchall() == [(4,)]


def test_readers_follow_a_tag_a_compaction_and_a_rollback(
    house: House, attached: duckdb.DuckDBPyConnection
) -> None:
    base = f"{house.url}/v1/catalog/datasets/kept"

    def ask(method: str, url: str, **fields: Any) -> dict[str, Any]:
        answer = httpx.request(method, url, timeout=60, **fields)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    def read(snapshot: str | None = None) -> list[int]:
        """What both readers see, which must be one."""
        version = f" AT (VERSION => {snapshot})" if snapshot else ""
        query = f"SELECT id FROM house.{NAMESPACE}.kept{version} ORDER BY id"
        # DuckDB keeps what it knows of a table until its transaction ends.
        found = [row[0] for row in attached.execute(query).fetchall()]
        table = open_pyiceberg(house).load_table((NAMESPACE, "kept"))
        scan = table.scan(snapshot_id=int(snapshot) if snapshot else None)
        assert sorted(scan.to_arrow()["id"].to_pylist()) == found
        return found

    made = [ingest(house.url, f"id\n{n}\n", dataset="kept") for n in range(5)]
    try:
        ask("PUT", f"{base}/tags/v1", json={"snapshot": made[1]})
        merged = ask("POST", f"{base}/compact")
        assert (merged["files_before"], merged["files_after"]) == (5, 1)
        assert read() == [0, 1, 2, 3, 4]
        assert read(made[2]) == [0, 1, 2]
        back = ask("POST", f"{base}/rollback", json={"snapshot": "v1"})
        assert read() == [0, 1]
        assert read(merged["snapshot_id"]) == [0, 1, 2, 3, 4]
        tagged = open_pyiceberg(house).load_table((NAMESPACE, "kept")).scan().use_ref("v1")
        assert sorted(tagged.to_arrow()["id"].to_pylist()) == [0, 1]
        ask("POST", f"{base}/rollback", json={"snapshot": back["previous"]})
        # What expires goes, and what a tag or a snapshot keeps is still read.
        ask("POST", f"{base}/expire", json={"keep": 1})
        done = ask("POST", f"{house.url}/v1/catalog/collect", json={"grace_s": 0})
        assert (done["status"], done["removed_objects"]) == ("done", 3)
        assert done["removed_metadata"] > 0
        assert read() == [0, 1, 2, 3, 4]
        assert read(made[1]) == [0, 1]
    finally:
        ask("DELETE", base)
    ask("POST", f"{house.url}/v1/catalog/collect", json={"grace_s": 0})
    left = ask("GET", f"{house.url}/v1/storage/objects", params={"prefix": "datasets/"})
    table = open_pyiceberg(house).load_table((NAMESPACE, "workers"))
    assert len(left["objects"]) == len(table.inspect.files())


def test_no_reader_is_given_keys(house: House) -> None:
    answer = httpx.get(f"{house.iceberg}/v1/namespaces/{NAMESPACE}/tables/workers")
    assert answer.status_code == 200
    assert answer.json()["config"] == {}
    start = "file:///" if house.server is None else "s3://lake/iceberg/_catalog/"
    assert answer.json()["metadata-location"].startswith(start)
    for key in (READER[0], READER[1], WRITER[1]):
        assert key not in answer.text


SAIL = """
import json, sys
from pysail.spark import SparkConnectServer
from pyspark.sql import SparkSession

server = SparkConnectServer("127.0.0.1", 0)
server.start(background=True)
_, port = server.listening_address
spark = SparkSession.builder.remote(f"sc://127.0.0.1:{port}").getOrCreate()
for sql in sys.argv[1:]:
    print(json.dumps([list(row) for row in spark.sql(sql).collect()]))
spark.stop()
server.stop()
"""


def ask_sail(house: House, folder: Path, *queries: str) -> list[Any]:
    """The rows of each query, as a Spark client gets them from Sail in a process of its own."""
    settings = {
        **os.environ,
        "SAIL_CATALOG__LIST": f'[{{name="house", type="iceberg-rest", uri="{house.iceberg}"}}]',
        "SAIL_CATALOG__DEFAULT_CATALOG": "house",
        "SAIL_CATALOG__DEFAULT_DATABASE": f'["{NAMESPACE}"]',
    }
    if house.server is not None:
        settings |= {
            "AWS_ENDPOINT": house.server.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": READER[0],
            "AWS_SECRET_ACCESS_KEY": READER[1],
        }
    # In a file: Spark's client finds itself again only from one.
    script = folder / "ask.py"
    script.write_text(SAIL)
    done = subprocess.run(
        [sys.executable, str(script), *queries],
        env=settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_sail_reads_every_version(house: House, tmp_path: Path) -> None:
    tables, whole, some, first = ask_sail(
        house,
        tmp_path,
        f"SHOW TABLES IN {NAMESPACE}",
        f"SELECT * FROM house.{NAMESPACE}.workers ORDER BY id",
        "SELECT count(*), max(name) FROM workers WHERE id >= 3",
        f"SELECT * FROM workers VERSION AS OF {house.snapshots[0]} ORDER BY id",
    )
    assert [row[1] for row in tables] == ["workers"]
    assert [tuple(row) for row in whole] == THIRD
    assert some == [[2, "Åse"]]
    assert first == [[1, "Kari"], [2, "Ola"]]
