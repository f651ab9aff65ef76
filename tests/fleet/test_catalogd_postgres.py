"""Real catalogd on a real PostgreSQL: two of them, killed, and with the server away."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from scripts.private_fleet import PrivateFleet
from tests.fleet.test_catalogd_daemon import PATIENCE_S, Sender, wait_for_more
from tests.support.catalogd import DATASETS, parquet_bytes
from tests.support.postgres import PASSWORD, Postgres

# Registers of each of four clients, to a dataset that all write and to one of each daemon.
EACH = 8
KILLS = 4
QUICK = {"FLEET__RESTART_BACKOFF_S": "0.05", "FLEET__RESTART_BACKOFF_MAX_S": "0.2"}


@pytest.fixture(scope="module")
def server() -> Generator[Postgres]:
    """A server that these tests may stop."""
    with Postgres() as running:
        yield running


class Two:
    """Two catalogd over one database, one storaged and one folder of metadata."""

    def __init__(self, folder: Path, uri: str) -> None:
        shared = {
            **QUICK,
            "CATALOGD__DATABASE_URI": uri,
            "CATALOGD__WAREHOUSE": f"file://{folder / 'warehouse'}",
        }
        self.one = PrivateFleet(("storaged", "catalogd"), shared, folder / "one")
        self.shared = {**shared, "STORAGED__URL": self.one.urls["storaged"]}
        self.folder = folder
        self.other: PrivateFleet | None = None

    def __enter__(self) -> Two:
        self.one.__enter__()
        try:
            # Its ports are chosen now, that the first has bound its own.
            self.other = PrivateFleet(("catalogd",), self.shared, self.folder / "two")
            self.other.__enter__()
        except BaseException:
            self.one.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self.other is not None
        self.other.__exit__()
        self.one.__exit__()

    @property
    def fleets(self) -> list[PrivateFleet]:
        """Both, by whose `kill` a catalogd dies."""
        assert self.other is not None
        return [self.one, self.other]

    @property
    def urls(self) -> list[dict[str, str]]:
        """What a client of each is given."""
        storaged = self.one.urls["storaged"]
        return [{"storaged": storaged, "catalogd": f.urls["catalogd"]} for f in self.fleets]

    def logs(self) -> str:
        """All that both have logged."""
        return "".join(fleet.command("logs", "-n", "100000").stdout for fleet in self.fleets)


@contextmanager
def sending(*senders: Sender) -> Generator[None]:
    """Lets them register, each in a thread, and ends them."""
    threads = [threading.Thread(target=sender.run) for sender in senders]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for sender in senders:
            sender.stop.set()
        for thread in threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
        for sender in senders:
            sender.client.close()


def check_exactly(url: str, senders: list[Sender], *, retry: bool = True) -> None:
    """What was acknowledged is there, once, in one line of snapshots; a retry changes nothing."""
    numbers = sorted(number for sender in senders for number in sender.acknowledged)
    for sender in senders:
        assert sender.failure is None, sender.failure
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
        files = client.get(f"{DATASETS}/t/files").json()["files"]
        found = Counter(file["uri"].rpartition("/")[2] for file in files)
        assert found == Counter(f"k{number}" for number in numbers)
        assert client.get(f"{DATASETS}/t").json()["rows"] == len(numbers)
        snapshots = client.get(f"{DATASETS}/t/snapshots").json()["snapshots"]
        parents = [one["parent_id"] for one in snapshots[1:]]
        assert parents == [one["snapshot_id"] for one in snapshots[:-1]]
        for number in numbers[::5] if retry else ():
            body = {"name": "t", "objects": [f"k{number}"], "ingest_id": f"i{number}"}
            again = client.post(DATASETS, json=body)
            assert (again.status_code, again.json()["status"]) == (200, "unchanged")


def test_two_over_one_database_lose_nothing_and_double_nothing(
    server: Postgres, tmp_path: Path
) -> None:
    uri = server.uri(server.make_database())
    with Two(tmp_path, uri) as two, httpx.Client(trust_env=False, timeout=60) as client:
        storage = f"{two.one.urls['storaged']}/storage/objects"
        for number in range(4 * EACH + 1):
            content = parquet_bytes({"x": [number]})
            client.put(f"{storage}/k{number}", content=content).raise_for_status()

        def register(side: int, name: str, number: int, **more: Any) -> httpx.Response:
            body = {"name": name, "objects": [f"k{number}"], "ingest_id": f"i{number}", **more}
            return client.post(f"{two.fleets[side].urls['catalogd']}{DATASETS}", json=body)

        def work(place: int) -> list[str]:
            said: list[str] = []
            for number in range(place * EACH, (place + 1) * EACH):
                for name in ("t", f"own{place}"):
                    answer = register(place % 2, name, number)
                    assert answer.status_code in (200, 201), answer.text
                    said.append(answer.json()["status"])
            return said

        with ThreadPoolExecutor(8) as pool:
            said = [status for part in pool.map(work, range(4)) for status in part]
            assert Counter(said) == {"created": 5, "updated": 8 * EACH - 5}
            for name, count in [("t", 4 * EACH), *((f"own{n}", EACH) for n in range(4))]:
                url = f"{two.fleets[1].urls['catalogd']}{DATASETS}/{name}"
                files = client.get(f"{url}/files").json()["files"]
                assert len({file["uri"] for file in files}) == len(files) == count
                snapshots = client.get(f"{url}/snapshots").json()["snapshots"]
                assert sorted(one["rows"] for one in snapshots) == list(range(1, count + 1))
            # Sent again, to the other one, nothing changes.
            again = list(pool.map(lambda n: register(1 - n // EACH % 2, "t", n), range(4 * EACH)))
            assert {answer.json()["status"] for answer in again} == {"unchanged"}
            # One ingest at both at once counts once, also of a dataset that is new.
            for name in ("t", "new"):
                both = list(pool.map(lambda s, n=name: register(s % 2, n, 4 * EACH), range(6)))
                statuses = Counter(answer.json()["status"] for answer in both)
                assert statuses["unchanged"] == 5
                assert len({answer.json()["snapshot_id"] for answer in both}) == 1
            # Who planned on one snapshot and comes second is told, and changes nothing.
            base = client.get(f"{two.fleets[0].urls['catalogd']}{DATASETS}/t").json()
            fields = {"mode": "replace", "base_snapshot": base["snapshot_id"]}
            raced = list(
                pool.map(lambda s: register(s, "t", s, **{**fields, "ingest_id": f"r{s}"}), (0, 1))
            )
            assert sorted(answer.status_code for answer in raced) == [200, 409]
            (won,) = (answer.json() for answer in raced if answer.status_code == 200)
            for fleet in two.fleets:
                shown = client.get(f"{fleet.urls['catalogd']}{DATASETS}/t").json()
                assert (shown["rows"], shown["snapshot_id"]) == (1, won["snapshot_id"])
            # A deletion at one is seen at the other at once.
            gone = client.delete(f"{two.fleets[0].urls['catalogd']}{DATASETS}/t")
            assert gone.status_code == 200
            assert register(1, "t", 0).json()["status"] == "created"
            collected = list(
                pool.map(
                    lambda f: client.post(
                        f"{f.urls['catalogd']}/catalog/collect", json={"grace_s": 0}
                    ),
                    two.fleets * 2,
                )
            )
            assert {answer.status_code for answer in collected} == {200}
        logs = two.logs()
    assert "Traceback" not in logs
    assert "The database said" not in logs


def test_killed_in_the_middle_of_commits_the_other_goes_on_and_nothing_is_lost(
    server: Postgres, tmp_path: Path
) -> None:
    instants = random.Random(20261123)
    database = server.make_database()
    with Two(tmp_path, server.uri(database)) as two:
        senders = [Sender(urls, range(n * 10_000, 10**6)) for n, urls in enumerate(two.urls)]
        with sending(*senders):
            for number in range(KILLS):
                for sender in senders:
                    wait_for_more(sender, 2)
                time.sleep(instants.uniform(0, 0.05))
                two.fleets[number % 2].kill("catalogd")
                # The one that lives is not kept waiting by what the dead one held.
                wait_for_more(senders[1 - number % 2], 2)
            for sender in senders:
                wait_for_more(sender, 2)
        for number, urls in enumerate(two.urls):
            check_exactly(urls["catalogd"], senders, retry=number == 0)
        assert all(sender.retried for sender in senders)
        with server.connect(database) as connection:
            held = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
            assert connection.execute(held).fetchone() == (0,)


ROUTES: list[tuple[str, str, dict[str, Any] | None]] = [
    ("GET", DATASETS, None),
    ("GET", f"{DATASETS}/t", None),
    ("GET", f"{DATASETS}/t/files", None),
    ("GET", f"{DATASETS}/t/snapshots", None),
    ("GET", f"{DATASETS}/t/ingests/i0", None),
    ("PUT", f"{DATASETS}/t/identity", None),
    ("PUT", f"{DATASETS}/t/tags/v1", {}),
    ("POST", f"{DATASETS}/t/rollback", {"snapshot": "v1"}),
    ("POST", f"{DATASETS}/t/expire", {"keep": 1}),
    ("POST", f"{DATASETS}/t/compact", {}),
    ("POST", "/catalog/collect", {}),
    ("POST", DATASETS, {"name": "t", "objects": ["k0"], "ingest_id": "other"}),
    ("POST", DATASETS, {"name": "new", "objects": ["k0"]}),
    ("DELETE", f"{DATASETS}/t", None),
    ("GET", "/iceberg/v1/namespaces/lakehouse/tables", None),
    ("GET", "/iceberg/v1/namespaces/lakehouse/tables/t", None),
    ("GET", "/ready", None),
]


def check_refused(client: httpx.Client, server: Postgres) -> None:
    """Every route says what is wrong, and not where."""
    for method, path, body in ROUTES:
        answer = client.request(method, path, json=body)
        assert answer.status_code == 503, (method, path, answer.text)
        assert "catalogue's database" in answer.text
        assert "does not answer" in answer.text or "stopped or started" in answer.text
        for secret in (PASSWORD, quote(PASSWORD, safe=""), "psycopg", str(server.port)):
            assert secret not in answer.text
    assert client.get("/health").status_code == 200


def test_the_server_goes_away_in_the_middle_and_comes_back(
    server: Postgres, tmp_path: Path
) -> None:
    uri = server.uri(server.make_database())
    settings = {**QUICK, "CATALOGD__DATABASE_URI": uri}
    with PrivateFleet(("storaged", "catalogd"), settings, tmp_path) as fleet:
        url = fleet.urls["catalogd"]
        pid = fleet.pid("catalogd")
        # Stopped before catalogd has loaded what commits need, then crashed in the middle of them.
        server.stop()
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
            check_refused(client, server)
        server.start()
        senders = [Sender(fleet.urls, range(n * 10_000, 10**6)) for n in range(2)]
        with sending(*senders), httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
            for sender in senders:
                wait_for_more(sender, 3)
            server.crash()
            check_refused(client, server)
            server.start()
            for sender in senders:
                wait_for_more(sender, 3)
            assert client.get("/ready").status_code == 200
        assert fleet.pid("catalogd") == pid, "it was restarted"
        assert all(sender.retried for sender in senders)
        check_exactly(url, senders, retry=False)
        # One that dies while the server is away comes up once it is back.
        server.stop()
        fleet.kill("catalogd")
        deadline = time.monotonic() + PATIENCE_S
        while "catalogue's database does not answer" not in fleet.command("logs").stdout:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        server.start()
        sender = Sender(fleet.urls, range(500_000, 10**6))
        with sending(sender):
            wait_for_more(sender, 1)
        check_exactly(url, [*senders, sender])
        logs = fleet.command("logs", "-n", "100000").stdout
    assert "The database said: connection failed" in logs
    for secret in (PASSWORD, quote(PASSWORD, safe="")):
        assert secret not in logs
