"""What a PostgreSQL behind the catalogue brings with it: its locks, its settings, its refusals."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from services.catalogd.store.orphans import Orphans
from services.catalogd.store.pointers import Pointers
from shared.daemons import ROOT
from shared.errors import LakehouseError, NotFound, Unavailable
from tests.support import catalogd as support
from tests.support.catalogd import DATASETS, Store, catalogd_pair
from tests.support.postgres import PASSWORD, Postgres

ROUNDS = 15


@pytest.fixture(scope="module")
def common(postgres: Postgres) -> str:
    """A database that takes a tenth of a second to make and thousands of files."""
    return postgres.make_database()


@pytest.fixture
def database(postgres: Postgres) -> str:
    """An empty database, for tests that change it itself."""
    return postgres.make_database()


@pytest.fixture
def uri(postgres: Postgres, common: str) -> str:
    """The address of an empty schema."""
    return postgres.make_schema(common)


@pytest.fixture
def open_store(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], Store]]:
    """Opens stores on one folder and one database, as that many catalogd would."""
    monkeypatch.setattr(support, "choose_database", lambda _: uri)
    opened: list[Store] = []

    def make() -> Store:
        opened.append(Store(tmp_path))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """The results of all, begun at one moment."""
    barrier = threading.Barrier(len(works))

    def begin(work: Callable[[], Any]) -> Any:
        barrier.wait(30)
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(begin, works))


def test_tables_are_made_by_many_at_once(postgres: Postgres, common: str) -> None:
    for _ in range(3):
        uri = postgres.make_schema(common)
        opened = [Pointers(uri) for _ in range(8)]
        try:
            at_once(*(pointers.create_tables for pointers in opened))
            assert all(pointers.read_epoch() == 0 for pointers in opened)
        finally:
            for pointers in opened:
                pointers.close()


def test_the_servers_own_settings_do_not_matter(
    uri: str, monkeypatch: pytest.MonkeyPatch, open_store: Callable[[], Store]
) -> None:
    # As an administrator would set them for the role, here for these connections alone.
    ways = " -cdefault_transaction_isolation=serializable -csynchronous_commit=off"
    monkeypatch.setattr(support, "choose_database", lambda _: uri + quote(ways))
    stores = [open_store(), open_store()]
    pointers = stores[0].pointers
    expected = {"read committed": pointers.writer, "repeatable read": pointers.engine}
    for isolation, engine in expected.items():
        with engine.connect() as connection:
            shown = [
                connection.exec_driver_sql(f"SHOW {name}").scalar()
                for name in ("transaction_isolation", "synchronous_commit", "lock_timeout")
            ]
        assert shown == [isolation, "on", "15s"]

    def register(number: int) -> str:
        store = stores[number % 2]
        info = store.write(f"k{number:02}", {"x": [number]})
        # Two at a time to each of two datasets.
        return store.register(f"t{number // 2 % 2}", info, ingest_id=f"i{number}").status

    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(register, range(24)))
    assert sorted(statuses) == ["created"] * 2 + ["updated"] * 22
    assert [stores[0].reader.describe(name).rows for name in ("t0", "t1")] == [12, 12]


def test_a_stricter_durability_than_asked_stays(uri: str) -> None:
    pointers = Pointers(uri + quote(" -csynchronous_commit=remote_apply"))
    with pointers.writer.connect() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "remote_apply"
    pointers.close()


def test_commits_and_deletions_of_one_dataset_never_block_each_other_for_good(
    open_store: Callable[[], Store],
) -> None:
    store, rival = open_store(), open_store()
    info = store.write("k", {"x": [1]})
    deleted = 0

    def delete() -> bool:
        return rival.pointers.drop("t", 0) is not None

    for number in range(ROUNDS):
        store.register("t", info, ingest_id=f"before {number}")
        done, gone = at_once(
            lambda number=number: store.register("t", info, ingest_id=f"i{number}"), delete
        )
        assert done.status in ("created", "updated")
        deleted += gone
    assert deleted == ROUNDS


def test_who_waits_for_a_lock_in_vain_is_told(
    open_store: Callable[[], Store],
) -> None:
    store, rival = open_store(), open_store()
    store.register("t", store.write("a", {"x": [1]}))
    more = store.write("b", {"x": [2]})
    with store.pointers.writer.connect() as connection:
        # Every connection of the pool is this one.
        connection.exec_driver_sql("SET lock_timeout = '50ms'")
        connection.commit()
    with rival.pointers.writer.begin() as other:
        other.exec_driver_sql("SELECT * FROM iceberg_tables FOR UPDATE")
        with pytest.raises(Unavailable, match="busy") as caught:
            store.register("t", more, ingest_id="i")
        assert caught.value.headers["Retry-After"] == "1"
    assert store.register("t", more, ingest_id="i").status == "updated"


def test_datasets_are_listed_as_sqlite_lists_them(
    open_store: Callable[[], Store],
) -> None:
    store = open_store()
    names = ["t1", "t_1", "ta", "t_a"]
    info = store.write("a", {"x": [1]})
    for name in names:
        store.register(name, info)
    with store.pointers.engine.connect() as connection:
        query = "SELECT table_name FROM iceberg_tables ORDER BY 1"
        found = connection.exec_driver_sql(query).scalars().all()
    assert found != sorted(names), "a server that sorts bytes shows nothing"
    assert [pointer.name for pointer in store.pointers.list_pointers()] == sorted(names)


def test_a_name_that_is_reserved_by_two_at_once_has_one_identity(
    open_store: Callable[[], Store],
) -> None:
    one, other = open_store(), open_store()
    for number in range(ROUNDS):
        fresh = [f"{number:08}-0000-4000-8000-{side:012}" for side in range(2)]
        first, second = at_once(
            *(
                partial(store.pointers.reserve_uuid, f"t{number}", mine)
                for store, mine in zip((one, other), fresh, strict=True)
            )
        )
        assert first == second
        assert first in fresh


def test_a_collection_that_is_taken_over_is_told_and_not_torn(
    open_store: Callable[[], Store],
) -> None:
    sides = [Orphans(open_store().pointers) for _ in range(2)]
    places = [f"object:{number}" for number in range(2000)]
    outcomes: list[str] = []

    def note(side: Orphans) -> None:
        try:
            side.note_seen(places, 1)
            outcomes.append("noted")
        except Unavailable as error:
            outcomes.append(error.message)

    at_once(*(lambda side=side: note(side) for side in sides))
    assert "noted" in outcomes
    assert all(one == "noted" or "faster" in one for one in outcomes)
    assert sides[0].count() == len(places)


def drop_tables(connection: psycopg.Connection[Any], _: str) -> None:
    connection.execute("DROP TABLE iceberg_tables, lakehouse_datasets, lakehouse_ingests")


def make_read_only(connection: psycopg.Connection[Any], database: str) -> None:
    connection.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")


def take_login(connection: psycopg.Connection[Any], database: str) -> None:
    connection.execute(f"REVOKE CONNECT ON DATABASE {database} FROM PUBLIC, lakehouse")


def take_rights(connection: psycopg.Connection[Any], _: str) -> None:
    connection.execute("ALTER TABLE iceberg_tables OWNER TO postgres")


def close_door(connection: psycopg.Connection[Any], database: str) -> None:
    connection.execute(f"ALTER DATABASE {database} CONNECTION LIMIT 0")


def rename(connection: psycopg.Connection[Any], database: str) -> None:
    connection.execute(f"ALTER DATABASE {database} RENAME TO {database}_away")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (drop_tables, "tables are gone"),
        (make_read_only, "takes no writes"),
        (take_login, "lacks a right"),
        (take_rights, "lacks a right"),
        (close_door, "no connection left"),
        (rename, "does not exist"),
    ],
)
@pytest.mark.anyio
async def test_what_is_wrong_is_told_and_never_where(
    postgres: Postgres,
    database: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    harm: Callable[[psycopg.Connection[Any], str], None],
    words: str,
) -> None:
    async with catalogd_pair(tmp_path, database_uri=postgres.uri(database)) as pair:
        key = await pair.put("a", {"x": [1]})
        await pair.register("t", key)
        other = "postgres" if harm is rename else database
        with postgres.connect("postgres", "postgres") as connection:
            # Its connections are cut, as by a restart: it has to come in anew.
            ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
            with postgres.connect(other, "postgres") as there:
                if harm is rename:
                    connection.execute(ended, (database,))
                harm(there, database)
            connection.execute(ended, (database,))
        caplog.clear()
        answers = [
            await pair.send("t", key, ingest_id="i"),
            await pair.catalog.delete(f"{DATASETS}/t"),
            await pair.catalog.get("/ready"),
        ]
        for answer in answers:
            assert answer.status_code == 503, answer.text
            assert words in answer.json()["error"]["message"]
            assert answer.headers.get("Retry-After") or answer.request.url.path == "/ready"
            for secret in (PASSWORD, database, str(postgres.port), "psycopg"):
                assert secret not in answer.text
        said = [r for r in caplog.records if r.name == "lakehouse.catalogd.database"]
        assert said, "the log has the server's own words"
        assert {record.levelno for record in said} == {logging.WARNING}
        assert PASSWORD not in caplog.text


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"password": "wrong-secret"}, "refuses catalogd's login"),
        ({"password": ""}, "refuses catalogd's login"),
        ({"user": "nobody_here", "password": "wrong-secret"}, "refuses catalogd's login"),
        ({"port": "1"}, "does not answer"),
        ({"host": "nowhere.invalid"}, "does not answer"),
    ],
)
def test_a_way_in_that_is_wrong_is_told(
    postgres: Postgres,
    common: str,
    caplog: pytest.LogCaptureFixture,
    parts: dict[str, str],
    words: str,
) -> None:
    pointers = Pointers(postgres.uri(common, **parts))
    with pytest.raises(LakehouseError, match=words):
        pointers.create_tables()
    pointers.close()
    assert "The database said" in caplog.text
    assert "wrong-secret" not in caplog.text


def test_a_password_can_come_from_a_file(postgres: Postgres, common: str, tmp_path: Path) -> None:
    file = tmp_path / "pgpass"
    file.touch(mode=0o600)
    escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    file.write_text(f"127.0.0.1:{postgres.port}:*:lakehouse:{escaped}\n")
    pointers = Pointers(f"{postgres.uri(common, password='')}?passfile={file}")
    pointers.create_tables()
    assert pointers.count_datasets() == 0
    pointers.close()


def test_of_several_hosts_the_one_that_takes_writes_is_used(
    postgres: Postgres, common: str
) -> None:
    login, _, _ = postgres.uri(common).rpartition("@")
    hosts = f"host=127.0.0.1:1&host=127.0.0.1:{postgres.port}&target_session_attrs=read-write"
    pointers = Pointers(f"{login}@/{common}?{hosts}")
    pointers.create_tables()
    pointers.check_writable()
    pointers.close()


def test_an_ingest_id_that_no_database_can_hold_is_not_there(
    open_store: Callable[[], Store],
) -> None:
    store = open_store()
    done = store.register("t", store.write("a", {"x": [1]}), ingest_id="\U0001f600" * 200)
    assert store.pointers.find_ingest(done.uuid, "\U0001f600" * 200) is not None
    for strange in ("\x00", "a\x00b", "\t", "x" * 5000):
        assert store.pointers.find_ingest(done.uuid, strange) is None


def test_a_time_far_from_now_is_kept(open_store: Callable[[], Store]) -> None:
    store = open_store()
    store.register("t", store.write("a", {"x": [1]}))
    moment = 253_402_300_799_000
    assert store.pointers.drop("t", moment) is not None
    with store.pointers.engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT dropped_ms FROM lakehouse_dropped").scalars()
        assert found.all() == [moment]
    with pytest.raises(NotFound):
        store.reader.describe("t")


def test_the_driver_is_loaded_for_a_server_alone() -> None:
    code = (
        "import sys\n"
        "from services.catalogd.store.database import open_engine\n"
        "open_engine('sqlite://')\n"
        "print('psycopg' in sys.modules)\n"
        "open_engine('postgresql://u@h/d')\n"
        "print('psycopg' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True"]
