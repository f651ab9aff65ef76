"""kill -9 in the middle of jobs and upserts: what was promised is done once, nothing is torn."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from scripts.private_fleet import PrivateFleet

# More with KILL_ROUNDS=300, for an hour without anything else to do.
ROUNDS = int(os.environ.get("KILL_ROUNDS", "9"))
ROWS = 3000
KEYS = 400
VICTIMS = ("ingestd", "ingestd", "catalogd", "storaged")
ASYNC = {"content-type": "text/csv", "prefer": "respond-async"}


@pytest.fixture(scope="module")
def fleet() -> Iterator[PrivateFleet]:
    with PrivateFleet(settings={"FLEET__RESTART_BACKOFF_MAX_S": "0.5"}) as running:
        yield running


@pytest.fixture
def client(fleet: PrivateFleet) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=fleet.urls["gateway"], timeout=40, trust_env=False) as client:
        yield client


def make_rows(part: int) -> bytes:
    lines = [f"{part * ROWS + i},{part},name {i}" for i in range(ROWS)]
    return ("id,part,name\n" + "\n".join(lines) + "\n").encode()


def ask(client: httpx.Client, method: str, path: str, **sent: Any) -> httpx.Response:
    """Until somebody answers who is not just being started again."""
    deadline = time.monotonic() + 60
    while True:
        try:
            answer = client.request(method, path, **sent)
            if answer.status_code < 500:
                return answer
            said = answer.text
        except httpx.HTTPError as error:
            said = str(error)
        assert time.monotonic() < deadline, said
        time.sleep(0.02)


def send_job(client: httpx.Client, query: str, body: bytes, key: str) -> str:
    """A job that was acknowledged; the key makes a repeated request the same one."""
    headers = {**ASYNC, "idempotency-key": key}
    answer = ask(client, "POST", f"/v1/ingest?{query}", content=body, headers=headers)
    assert answer.status_code in (200, 202), answer.text
    if answer.status_code == 202:
        return str(answer.json()["job_id"])
    jobs = ask(client, "GET", "/v1/ingest/jobs?limit=1").json()["jobs"]
    return str(jobs[0]["job_id"])


def finish(client: httpx.Client, job_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 90
    while True:
        answer = ask(client, "GET", f"/v1/ingest/jobs/{job_id}", params={"wait": 5})
        assert answer.status_code == 200, f"an acknowledged job is gone: {answer.text}"
        job: dict[str, Any] = answer.json()
        if job["status"] not in ("queued", "running"):
            return job
        assert time.monotonic() < deadline, job


def query(client: httpx.Client, sql: str) -> list[list[Any]]:
    rows: list[list[Any]] = ask(client, "POST", "/v1/sql", json={"sql": sql}).json()["rows"]
    return rows


def kill_soon(fleet: PrivateFleet, dice: random.Random, number: int, most_s: float) -> Any:
    victim = VICTIMS[number % len(VICTIMS)]
    killer = threading.Timer(dice.uniform(0, most_s), fleet.kill, [victim])
    killer.start()
    return killer


def test_acknowledged_jobs_are_done_once_whoever_is_killed(
    fleet: PrivateFleet, client: httpx.Client
) -> None:
    dice = random.Random(5)
    began = time.monotonic()
    first = finish(client, send_job(client, "dataset=jobs", make_rows(0), "part-0"))
    assert first["status"] == "done", first
    usual_s = time.monotonic() - began
    for part in range(1, ROUNDS + 1):
        killer = kill_soon(fleet, dice, part, usual_s)
        job = finish(client, send_job(client, "dataset=jobs", make_rows(part), f"part-{part}"))
        killer.join()
        assert job["status"] == "done", job
        assert job["result"]["rows_out"] == ROWS
    rows = query(client, "select part, count(*), count(distinct id) from jobs group by 1")
    assert sorted(rows) == [[part, ROWS, ROWS] for part in range(ROUNDS + 1)]
    wait_for_nothing_left(fleet)


def test_jobs_of_several_files_are_whole_or_not_there_whoever_is_killed(
    fleet: PrivateFleet, client: httpx.Client
) -> None:
    dice = random.Random(7)
    began = time.monotonic()
    usual_s = 1.0
    for number in range(ROUNDS + 1):
        # A part in two files, the second with a column that the first has not.
        rows = make_rows(number).splitlines(keepends=True)
        half = ROWS // 2 + 1
        second = [line.rstrip() + b",late\n" for line in rows[half:]]
        files = [b"".join(rows[:half]), b"id,part,name,note\n" + b"".join(second)]
        form = [("file", (f"{number}-{n}.csv", data)) for n, data in enumerate(files)]
        headers = {"prefer": "respond-async", "idempotency-key": f"several-{number}"}
        path = "/v1/ingest?dataset=several&contract=evolve"
        killer = kill_soon(fleet, dice, number, usual_s) if number else None
        answer = ask(client, "POST", path, files=form, headers=headers)
        assert answer.status_code in (200, 202), answer.text
        result = answer.json()
        if answer.status_code == 202:
            job = finish(client, result["job_id"])
            assert job["status"] == "done", job
            result = job["result"]
        if killer is not None:
            killer.join()
        assert [one["rows_out"] for one in result["files"]] == [ROWS // 2, ROWS - ROWS // 2]
        usual_s = (time.monotonic() - began) / (number + 1)
    rows = query(
        client, "select part, count(*), count(distinct id), count(note) from several group by 1"
    )
    assert sorted(rows) == [[part, ROWS, ROWS, ROWS - ROWS // 2] for part in range(ROUNDS + 1)]
    shots = ask(client, "GET", "/v1/catalog/datasets/several/snapshots").json()["snapshots"]
    assert len(shots) == ROUNDS + 1, "each is one commit"
    wait_for_nothing_left(fleet)


def test_upserts_are_whole_or_not_at_all_whoever_is_killed(
    fleet: PrivateFleet, client: httpx.Client
) -> None:
    dice = random.Random(6)
    began = time.monotonic()
    model: dict[int, int] = {}
    usual_s = 1.0
    for number in range(ROUNDS + 1):
        keys = dice.sample(range(KEYS), KEYS // 3)
        body = "id,v\n" + "".join(f"{key},{number}\n" for key in keys)
        killer = kill_soon(fleet, dice, number, usual_s) if number else None
        if number % 2:
            job_id = send_job(client, "dataset=u&mode=upsert&key=id", body.encode(), f"u{number}")
            done = finish(client, job_id)["result"]
        else:
            headers = {"content-type": "text/csv"}
            path = "/v1/ingest?dataset=u&mode=upsert&key=id"
            done = ask(client, "POST", path, content=body.encode(), headers=headers).json()
        if killer is not None:
            killer.join()
        known = len(set(keys) & model.keys())
        model |= dict.fromkeys(keys, number)
        assert (done["updated"], done["inserted"]) == (known, len(keys) - known), done
        rows = query(client, "select id, v from u")
        assert len(rows) == len(model), "a key is there twice, or gone"
        assert {row[0]: row[1] for row in rows} == model
        usual_s = (time.monotonic() - began) / (number + 1)
    wait_for_nothing_left(fleet)


def wait_for_nothing_left(fleet: PrivateFleet) -> None:
    folder = fleet.data_dir / "ingestd"
    deadline = time.monotonic() + 30
    while left := [one.name for one in folder.iterdir() if one.name not in (".lock", "jobs")]:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)
