"""matrixd as a real process: killed while it builds, records and retires."""

from __future__ import annotations

import concurrent.futures
import random
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripts.private_fleet import PrivateFleet

DAEMONS = (
    "gateway",
    "storaged",
    "catalogd",
    "ingestd",
    "queryd",
    "vectord",
    "embedd",
    "fake_ollama",
    "matrixd",
)
ROWS = 300
WORDS = "dock yard kitchen ward office depot garage plant store clinic".split()


@pytest.fixture(scope="module")
def fleet() -> Any:
    # The fake's vectors come at once, so that the kills hit writing, not waiting.
    settings = {"EMBEDD__DEFAULT_MODEL": "fake", "MATRIXD__BATCH_TEXTS": "8"}
    with PrivateFleet(DAEMONS, settings) as running:
        yield running


def make_csv(first: int, word: str) -> bytes:
    lines = [f"{n},{WORDS[n % 10]} work number {n} {word}" for n in range(first, first + ROWS)]
    return "\n".join(["id,text", *lines]).encode()


def insist(client: httpx.Client, method: str, path: str, **more: Any) -> httpx.Response:
    """Sends a request again until the daemon, killed meanwhile, answers it."""
    deadline = time.monotonic() + 60
    while True:
        try:
            answer = client.request(method, path, **more)
        except httpx.TransportError:
            answer = None
        if answer is not None and answer.status_code < 500:
            return answer
        assert time.monotonic() < deadline, answer and answer.text
        time.sleep(0.02)


def ingest(client: httpx.Client, table: str, content: bytes) -> None:
    answer = insist(
        client,
        "POST",
        "/v1/ingest",
        params={"dataset": table, "mode": "replace"},
        content=content,
        headers={"content-type": "text/csv"},
    )
    assert answer.status_code == 200, answer.text


def wait_until_done(client: httpx.Client, name: str) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while True:
        info = insist(client, "GET", f"/v1/matrix/corpora/{name}").json()
        if info["job"]["status"] in ("done", "failed"):
            return info
        assert time.monotonic() < deadline, info
        time.sleep(0.05)


def test_a_build_survives_kills_at_any_moment(fleet: PrivateFleet) -> None:
    dice = random.Random(7)
    with httpx.Client(base_url=fleet.urls["gateway"], timeout=60, trust_env=False) as client:
        ingest(client, "kills", make_csv(0, "first"))
        spec = {"name": "kills", "source": {"dataset": "kills"}, "id": "id", "text": "{text}"}
        made = insist(client, "POST", "/v1/matrix/corpora", params={"wait": 0}, json=spec)
        assert made.status_code in (200, 201, 202), made.text
        for _ in range(4):
            time.sleep(dice.uniform(0.02, 0.4))
            fleet.kill("matrixd")
        info = wait_until_done(client, "kills")
        assert (info["status"], info["documents"]) == ("ready", ROWS)
        # A third of the rows vanish, a third change, and as many are new.
        rows = make_csv(100, "first").replace(b"number 3", b"number three")
        ingest(client, "kills", rows)
        insist(client, "POST", "/v1/matrix/corpora/kills/refresh", params={"wait": 0})
        for _ in range(3):
            time.sleep(dice.uniform(0.02, 0.3))
            fleet.kill("matrixd")
        wait_until_done(client, "kills")
        last = insist(client, "POST", "/v1/matrix/corpora/kills/refresh", params={"wait": 60})
        assert last.json()["job"]["total"] == 0  # nothing was left to do
        info = last.json()
        assert (info["documents"], info["items"]) == (ROWS, ROWS)
        index = client.get(f"/v1/vectors/indexes/{info['index']}").json()
        assert index["count"] == ROWS
        found = client.post("/v1/matrix/search", json={"query": "dock work", "k": 200}).json()
        ids = [int(hit["id"]) for hit in found["hits"]]
        assert min(ids) >= 100
        assert len(set(ids)) == len(ids)


def test_what_the_playbook_acknowledged_is_there_once_after_kills(fleet: PrivateFleet) -> None:
    with httpx.Client(base_url=fleet.urls["gateway"], timeout=60, trust_env=False) as client:
        ingest(client, "notes", make_csv(0, "notes"))
        spec = {"name": "notes", "source": {"dataset": "notes"}, "id": "id", "text": "{text}"}
        insist(client, "POST", "/v1/matrix/corpora", params={"wait": 60}, json=spec)
        wait_until_done(client, "notes")

        def record(number: int) -> str:
            body = {
                "query": f"{WORDS[number % 10]} work",
                "ratings": [{"corpus": "notes", "id": str(number), "rating": 1}],
                "run_id": f"r{number}",
                "corpora": ["notes"],
            }
            answer = insist(client, "POST", "/v1/matrix/playbook", json=body)
            assert answer.status_code in (200, 201), answer.text
            return answer.json()["episode_id"]

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(record, number) for number in range(60)]
            for _ in range(3):
                time.sleep(0.3)
                fleet.kill("matrixd")
            names = [future.result() for future in futures]
        assert len(set(names)) == 60
        page = insist(client, "GET", "/v1/matrix/playbook", params={"limit": 1000}).json()
        assert sorted(e["run_id"] for e in page["episodes"]) == sorted(f"r{n}" for n in range(60))
        asked = {"query": "dock work", "corpora": ["notes"], "use_playbook": True, "explain": True}
        warm = insist(client, "POST", "/v1/matrix/search", json=asked).json()
        fleet.kill("matrixd")
        assert insist(client, "POST", "/v1/matrix/search", json=asked).json() == warm
        cold = insist(client, "POST", "/v1/matrix/search", json={**asked, "use_playbook": False})
        retired = insist(client, "POST", "/v1/matrix/playbook/retire", json={"all": True}).json()
        assert retired["retired"] + retired["already"] == 60
        fleet.kill("matrixd")
        after = insist(client, "POST", "/v1/matrix/search", json=asked).json()
        assert after == cold.json()


def test_a_corpus_follows_ingests_through_the_gateway(fleet: PrivateFleet, tmp_path: Path) -> None:
    with httpx.Client(base_url=fleet.urls["gateway"], timeout=60, trust_env=False) as client:
        ingest(client, "follow", make_csv(0, "old"))
        spec = {"name": "follow", "source": {"sql": "select id, text from follow -- all"}}
        body = {**spec, "id": "id", "text": "{text}", "refresh": "on_ingest"}
        made = client.post("/v1/matrix/corpora", params={"wait": 60}, json=body)
        assert made.json()["status"] == "ready", made.text
        ingest(client, "follow", make_csv(50, "new"))
        deadline = time.monotonic() + 30
        while client.get("/v1/matrix/corpora/follow").json()["job"]["deleted"] != 50:
            assert time.monotonic() < deadline
            time.sleep(0.1)
