"""kill -9 of any daemon in the middle of an ingest: nothing acknowledged lost, nothing twice."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from scripts.private_fleet import PrivateFleet

ROUNDS = 12
ROWS = 4000
VICTIMS = ("ingestd", "catalogd", "storaged")


@pytest.fixture(scope="module")
def fleet() -> Iterator[PrivateFleet]:
    with PrivateFleet(settings={"FLEET__RESTART_BACKOFF_MAX_S": "0.5"}) as running:
        yield running


def make_csv(part: int) -> bytes:
    lines = ["id,part,name"]
    lines += [f"{part * ROWS + i},{part},name {i}" for i in range(ROWS)]
    return ("\n".join(lines) + "\n").encode()


def ingest(client: httpx.Client, body: bytes) -> httpx.Response | None:
    """One try; None when the connection broke."""
    try:
        return client.post(
            "/v1/ingest?dataset=killed", content=body, headers={"content-type": "text/csv"}
        )
    except httpx.HTTPError:
        return None


def ingest_until_acknowledged(client: httpx.Client, body: bytes) -> dict[str, object]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        answer = ingest(client, body)
        if answer is not None and answer.status_code == 200:
            found: dict[str, object] = answer.json()
            return found
        # Nothing but a broken dependency may come of a crash; a 4xx would be a lie.
        assert answer is None or answer.status_code >= 500, answer.text
        time.sleep(0.02)
    raise AssertionError("the ingest did not succeed within a minute of its daemon's death")


def test_every_file_is_in_the_table_exactly_once(fleet: PrivateFleet) -> None:
    dice = random.Random(11)
    with httpx.Client(base_url=fleet.urls["gateway"], timeout=30, trust_env=False) as client:
        begun = time.monotonic()
        ingest_until_acknowledged(client, make_csv(0))
        usual_s = time.monotonic() - begun
        for part in range(1, ROUNDS + 1):
            victim = VICTIMS[part % len(VICTIMS)]
            killer = threading.Timer(dice.uniform(0, usual_s), fleet.kill, [victim])
            killer.start()
            answer = ingest_until_acknowledged(client, make_csv(part))
            killer.join()
            assert answer["rows_in"] == answer["rows_out"] == ROWS
            # The same file again, after the crash, is known by what it is.
            assert ingest_until_acknowledged(client, make_csv(part))["duplicate"] is True
        rows = query(client, "select part, count(*), count(distinct id) from killed group by 1")
        assert sorted(rows) == [[part, ROWS, ROWS] for part in range(ROUNDS + 1)]
        leftovers = list((fleet.data_dir / "ingestd").rglob("*.parquet"))
        assert leftovers == [], "a crashed ingest left its files behind"


def query(client: httpx.Client, sql: str) -> list[list[int]]:
    deadline = time.monotonic() + 30
    while True:
        answer = client.post("/v1/sql", json={"sql": sql})
        if answer.status_code == 200:
            rows: list[list[int]] = answer.json()["rows"]
            return rows
        assert answer.status_code >= 500, answer.text
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.05)


def test_a_killed_query_engine_is_back_and_answers(fleet: PrivateFleet) -> None:
    with httpx.Client(base_url=fleet.urls["gateway"], timeout=30, trust_env=False) as client:
        for _ in range(3):
            fleet.kill("queryd")
            assert query(client, "select 1") == [[1]]


def test_the_gateway_comes_back_too(fleet: PrivateFleet) -> None:
    killed = fleet.kill("gateway")
    deadline = time.monotonic() + 20
    while True:
        try:
            answer = httpx.get(f"{fleet.urls['gateway']}/ready", timeout=5, trust_env=False)
            if answer.status_code == 200:
                break
        except httpx.HTTPError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert fleet.pid("gateway") != killed
