"""Jobs: taken on durably, followed, cancelled, gone on with, and each done once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.ingestd.app import create_app
from services.ingestd.store import running, spool
from services.ingestd.store.jobs import Jobs
from services.ingestd.store.workers import Workers
from shared.clients.ingestd import IngestdClient
from shared.errors import Conflict, InsufficientStorage, Unprocessable
from shared.journal import Journal
from tests.support.apps import make_config  # one name is taken
from tests.support.apps import running as run_app
from tests.support.ingestd import Trio, run_trio
from tests.support.sockets import until

pytestmark = pytest.mark.anyio

CSV = b"id,name\n1,Ann\n2,Bob\n"
ASYNC = {"prefer": "respond-async"}


@pytest.fixture
async def trio(tmp_path: Path) -> AsyncGenerator[Trio]:
    async with run_trio(make_config(tmp_path)) as trio:
        yield trio


async def send(
    trio: Trio, query: str, data: bytes = CSV, headers: dict[str, str] | None = None
) -> httpx.Response:
    given = {"content-type": "text/csv", **ASYNC, **(headers or {})}
    return await trio.ingestd.post(f"/ingest?{query}", content=data, headers=given)


async def ended(trio: Trio, response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 202, response.text
    job = (await trio.ingestd.get(f"/ingest/jobs/{response.json()['job_id']}?wait=30")).json()
    assert job["status"] in ("done", "failed", "cancelled"), job
    return job


async def hang(trio: Trio) -> int:
    """Has a worker started and stopped in its tracks, so that the next job hangs in it."""
    workers = trio.app.state.workers
    assert isinstance(workers, Workers)
    workers.warm()
    await until(lambda: bool(workers.idle_pids()), 20)
    (pid,) = workers.idle_pids()
    os.kill(pid, signal.SIGSTOP)
    return pid


async def taken(trio: Trio, pid: int) -> None:
    """Waits until the worker has been given a job."""
    workers = trio.app.state.workers
    assert isinstance(workers, Workers)
    await until(lambda: pid not in workers.idle_pids(), 20)


async def status_of(trio: Trio, job_id: str) -> str:
    return str((await trio.ingestd.get(f"/ingest/jobs/{job_id}")).json()["status"])


async def reach(trio: Trio, job_id: str, status: str) -> None:
    async with asyncio.timeout(20):
        while await status_of(trio, job_id) != status:
            await asyncio.sleep(0.01)


async def read_events(
    trio: Trio, job_id: str, last_id: str | None = None
) -> list[tuple[str, str, dict[str, Any]]]:
    headers = {} if last_id is None else {"last-event-id": last_id}
    answer = await trio.ingestd.get(f"/ingest/jobs/{job_id}/events", headers=headers)
    assert answer.headers["content-type"].startswith("text/event-stream")
    return parse_events(answer.text)


def parse_events(text: str) -> list[tuple[str, str, dict[str, Any]]]:
    found: list[tuple[str, str, dict[str, Any]]] = []
    for frame in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in frame.splitlines() if line[:1] != ":")
        if lines:
            found.append((lines["event"], lines["id"], json.loads(lines["data"])))
    return found


async def test_a_preference_makes_a_job_that_ends_in_the_answer(trio: Trio) -> None:
    response = await send(trio, "dataset=workers", CSV + b"oops\n")
    assert response.headers["preference-applied"] == "respond-async"
    first = response.json()
    assert first["dataset"] == "workers"
    assert first["source"] == {"bytes": 25, "object": None, "files": 1}
    # Relative to the request's path, so that it is right behind the gateway too.
    assert response.headers["location"] == f"ingest/jobs/{first['job_id']}"
    job = await ended(trio, response)
    assert job["status"] == "done"
    assert job["result"]["rows_in"] == 3
    assert job["result"]["rejects"]["count"] == 1
    assert job["result"]["duplicate"] is False
    assert job["progress"]["stage"] == "done"
    assert (job["progress"]["rows"], job["progress"]["rejects"]) == (2, 1)
    assert job["progress"]["parts_stored"] == job["progress"]["parts_total"] == 2
    assert await trio.read_rows("workers") == [("1", "Ann"), ("2", "Bob")]
    assert trio.leftovers() == []


async def test_a_client_that_waits_gets_the_answer_itself(trio: Trio) -> None:
    response = await send(trio, "dataset=workers", headers={"prefer": "respond-async, wait=20"})
    assert response.status_code == 200
    assert response.headers["preference-applied"] == "respond-async, wait=20"
    assert response.json()["rows_out"] == 2
    refused = await send(trio, "dataset=others", b"id\n", {"prefer": "wait=20, respond-async"})
    assert refused.status_code == 422


async def test_a_large_file_becomes_a_job_unasked(tmp_path: Path) -> None:
    config = make_config(tmp_path, ingestd={"job_from_mb": 1})
    rows = b"".join(b"%d,name %d\n" % (number, number) for number in range(80_000))
    async with run_trio(config) as trio:
        declared = await trio.post("dataset=declared", b"id,name\n" + rows)
        assert (await ended(trio, declared))["result"]["rows_out"] == 80_000

        async def pieces() -> AsyncGenerator[bytes]:
            yield b"id,name\n"
            yield rows

        counted = await trio.ingestd.post(
            "/ingest?dataset=counted", content=pieces(), headers={"content-type": "text/csv"}
        )
        assert (await ended(trio, counted))["result"]["rows_out"] == 80_000
        small = await trio.post("dataset=small", CSV)
        assert small.status_code == 200
        # The client of ours follows the job to its end by itself.
        client = IngestdClient(config, {"ingestd": httpx.ASGITransport(trio.app)})
        assert (await client.ingest("declared", b"id,name\n" + rows)).duplicate is True
        with pytest.raises(Conflict) as refused:
            await client.ingest("declared", b"other\n" + b"x\n" * 600_000)
        assert refused.value.details["columns"]
        await client.aclose()


async def test_an_object_is_fetched_by_its_job(trio: Trio) -> None:
    await trio.storaged.put("/storage/objects/uploads/staff.csv", content=CSV)
    body = json.dumps({"object": "uploads/staff.csv"}).encode()
    headers = {"content-type": "application/json"}
    response = await send(trio, "dataset=workers", body, headers)
    source = {"bytes": len(CSV), "object": "uploads/staff.csv", "files": 1}
    assert response.json()["source"] == source
    job = await ended(trio, response)
    assert job["result"]["rows_out"] == 2
    assert [name for name, _, _ in await read_events(trio, job["job_id"])] == ["end"]
    missing = json.dumps({"object": "uploads/none.csv"}).encode()
    assert (await send(trio, "dataset=workers", missing, headers)).status_code == 404


async def test_an_object_that_was_replaced_meanwhile_is_not_another(tmp_path: Path) -> None:
    async with run_trio(make_config(tmp_path, ingestd={"workers": 1})) as trio:
        pid = await hang(trio)
        first = (await send(trio, "dataset=first")).json()["job_id"]
        await trio.storaged.put("/storage/objects/uploads/staff.csv", content=CSV)
        body = json.dumps({"object": "uploads/staff.csv"}).encode()
        second = await send(trio, "dataset=second", body, {"content-type": "application/json"})
        await trio.storaged.put("/storage/objects/uploads/staff.csv", content=b"id\n7\n")
        os.kill(pid, signal.SIGCONT)
        await reach(trio, first, "done")
        job = await ended(trio, second)
        assert (job["status"], job["error"]["code"]) == ("failed", "conflict")


async def test_a_failed_job_says_what_the_request_would_have_been_told(trio: Trio) -> None:
    job = await ended(trio, await send(trio, "dataset=workers", b"id,name\n"))
    assert (job["status"], job["result"]) == ("failed", None)
    assert (job["error"]["code"], job["error"]["status"]) == ("unprocessable", 422)
    assert "header and no rows" in job["error"]["message"]
    assert trio.leftovers() == []


async def test_progress_is_streamed_from_its_beginning_to_the_result(trio: Trio) -> None:
    pid = await hang(trio)
    job_id = (await send(trio, "dataset=workers")).json()["job_id"]
    reading = asyncio.create_task(read_events(trio, job_id))
    await reach(trio, job_id, "running")
    os.kill(pid, signal.SIGCONT)
    async with asyncio.timeout(5):
        # The end is told at once, not with the next heartbeat.
        events = await reading
    assert [name for name, _, _ in events][-1] == "end"
    stages = [data["stage"] for name, _, data in events if name == "progress"]
    assert stages[0] == "queued"
    assert [stage for stage in stages if stage in ("sampling", "converting", "storing")]
    ends = events[-1][2]
    assert (ends["status"], ends["result"]["rows_out"]) == ("done", 2)
    # Whoever comes back after the end is told the end.
    assert await read_events(trio, job_id, events[0][1]) == [events[-1]]


async def test_a_reader_who_was_away_gets_the_stages_it_missed() -> None:
    track = running.FollowedTrack()
    track.enter("sampling")
    seen = track.version
    track.enter("converting", bytes_total=100)
    track.update(bytes_read=10)
    track.update(bytes_read=60, rows=6)
    found = track.since(seen)
    assert [figures["stage"] for _, figures in found] == ["converting", "converting"]
    assert [figures["bytes_read"] for _, figures in found] == [0, 60]
    assert track.since(track.version) == []


async def test_a_stream_goes_on_after_the_last_event(trio: Trio) -> None:
    pid = await hang(trio)
    job_id = (await send(trio, "dataset=workers")).json()["job_id"]
    await reach(trio, job_id, "running")
    jobs = trio.app.state.jobs
    assert isinstance(jobs, Jobs)
    first = jobs.watch(job_id, "")
    seen = parse_events((await anext(first)).decode())[0]
    await first.aclose()
    again = jobs.watch(job_id, seen[1])
    following = asyncio.create_task(anext(again))
    os.kill(pid, signal.SIGCONT)
    later = parse_events((await following).decode())[0]
    assert int(later[1].rpartition("-")[2]) > int(seen[1].rpartition("-")[2])
    await again.aclose()
    # Of another life of the daemon: everything.
    await reach(trio, job_id, "done")
    assert (await read_events(trio, job_id, "0-5"))[-1][0] == "end"


async def test_a_silent_stream_has_a_heartbeat(trio: Trio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "BEAT_S", 0.05)
    pid = await hang(trio)
    job_id = (await send(trio, "dataset=workers")).json()["job_id"]
    reading = asyncio.create_task(trio.ingestd.get(f"/ingest/jobs/{job_id}/events"))
    jobs = trio.app.state.jobs
    assert isinstance(jobs, Jobs)
    stream = jobs.watch(job_id, "")
    pieces: list[bytes] = []
    async for piece in stream:
        pieces.append(piece)
        if piece.startswith(b":"):
            break
    await stream.aclose()
    assert pieces[-1] == b": still under way\n\n"
    os.kill(pid, signal.SIGCONT)
    assert "event: end" in (await reading).text


async def test_a_running_job_is_cancelled_with_its_worker(trio: Trio) -> None:
    pid = await hang(trio)
    job_id = (await send(trio, "dataset=workers")).json()["job_id"]
    await taken(trio, pid)
    answer = await trio.ingestd.delete(f"/ingest/jobs/{job_id}")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    await until(lambda: not Path(f"/proc/{pid}").exists())
    assert trio.leftovers() == []
    assert await trio.list_keys() == []
    again = await trio.ingestd.post(f"/ingest/jobs/{job_id}/cancel")
    assert (again.status_code, again.json()["status"]) == (200, "cancelled")
    assert (await read_events(trio, job_id))[-1][2]["status"] == "cancelled"
    # It is not remembered as done.
    assert (await ended(trio, await send(trio, "dataset=workers")))["result"]["duplicate"] is False


async def test_a_waiting_job_is_cancelled_before_its_turn(trio: Trio) -> None:
    pid = await hang(trio)
    first = (await send(trio, "dataset=one")).json()["job_id"]
    second = (await send(trio, "dataset=two")).json()["job_id"]
    assert (await trio.ingestd.delete(f"/ingest/jobs/{second}")).json()["status"] == "cancelled"
    os.kill(pid, signal.SIGCONT)
    await reach(trio, first, "done")
    assert await trio.read_rows("one") == [("1", "Ann"), ("2", "Bob")]
    assert (await trio.catalogd.get("/catalog/datasets/two")).status_code == 404
    assert trio.leftovers() == []


async def test_what_has_ended_or_is_being_registered_cannot_be_cancelled(
    trio: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await ended(trio, await send(trio, "dataset=workers"))
    refused = await trio.ingestd.delete(f"/ingest/jobs/{job['job_id']}")
    assert refused.status_code == 409
    assert "is done" in refused.json()["error"]["message"]
    reached, going = asyncio.Event(), asyncio.Event()
    register = running.RunningJob.register_as

    async def slow(self: running.RunningJob, ingest_id: str) -> None:
        await register(self, ingest_id)
        reached.set()
        await going.wait()

    monkeypatch.setattr(running.RunningJob, "register_as", slow)
    second = await send(trio, "dataset=others")
    await reached.wait()
    late = await trio.ingestd.delete(f"/ingest/jobs/{second.json()['job_id']}")
    assert late.status_code == 409
    assert "being registered" in late.json()["error"]["message"]
    going.set()
    assert (await ended(trio, second))["status"] == "done"


async def test_jobs_go_on_after_a_restart_and_are_done_once(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    async with run_trio(config) as trio:
        pid = await hang(trio)
        ids = [(await send(trio, f"dataset=d{number}")).json()["job_id"] for number in range(3)]
        await taken(trio, pid)
    async with run_trio(config) as trio:
        for number, job_id in enumerate(ids):
            await reach(trio, job_id, "done")
            job = (await trio.ingestd.get(f"/ingest/jobs/{job_id}")).json()
            assert (job["result"]["duplicate"], job["result"]["rows_out"]) == (False, 2)
            assert await trio.read_rows(f"d{number}") == [("1", "Ann"), ("2", "Bob")]
        assert trio.leftovers() == []
    async with run_trio(config) as trio:
        # Still known, and not run again.
        assert await status_of(trio, ids[0]) == "done"


async def test_a_job_that_died_after_its_register_knows_its_own_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tmp_path)

    async def die(self: Jobs, job: running.RunningJob, status: str, end: bytes) -> None:
        """As a kill would have it: registered, and nobody noted it."""

    async with run_trio(config) as trio:
        with monkeypatch.context() as patched:
            patched.setattr(Jobs, "_end", die)
            job_id = (await send(trio, "dataset=workers")).json()["job_id"]
            async with asyncio.timeout(20):
                while (await trio.catalogd.get("/catalog/datasets/workers")).status_code != 200:
                    await asyncio.sleep(0.01)
        # A replace takes its rows away before it is asked again.
        await trio.post("dataset=workers&mode=replace", b"id,name\n9,Zoe\n")
    async with run_trio(config) as trio:
        await reach(trio, job_id, "done")
        job = (await trio.ingestd.get(f"/ingest/jobs/{job_id}")).json()
        assert job["result"]["duplicate"] is False
        assert await trio.read_rows("workers") == [("9", "Zoe")]


async def test_the_same_file_twice_is_two_jobs_and_one_ingest(trio: Trio) -> None:
    first = await ended(trio, await send(trio, "dataset=workers"))
    second = await ended(trio, await send(trio, "dataset=workers"))
    assert first["job_id"] != second["job_id"]
    assert second["result"] == {**first["result"], "duplicate": True}


async def test_an_idempotency_key_gives_the_same_job(trio: Trio) -> None:
    key = {"idempotency-key": "nightly-2026-11-23"}
    answers = await asyncio.gather(*(send(trio, "dataset=workers", headers=key) for _ in range(3)))
    assert len({answer.json()["job_id"] for answer in answers}) == 1
    await ended(trio, answers[0])
    again = await send(trio, "dataset=workers", headers=key)
    assert (again.status_code, again.json()["duplicate"]) == (200, False) or (
        again.json()["job_id"] == answers[0].json()["job_id"]
    )
    for query, data in (("dataset=others", CSV), ("dataset=workers", CSV + b"3,Cy\n")):
        other = await send(trio, query, data, key)
        assert other.status_code == 422
        assert "belongs to job" in other.json()["error"]["message"]
    assert (await send(trio, "dataset=x", headers={"idempotency-key": "\t"})).status_code == 400
    assert len((await trio.ingestd.get("/ingest/jobs")).json()["jobs"]) == 1


async def test_a_full_queue_is_told_before_the_body_is_read(tmp_path: Path) -> None:
    async with run_trio(make_config(tmp_path, ingestd={"job_queue": 1})) as trio:
        pid = await hang(trio)
        first = await send(trio, "dataset=one")
        second = await send(trio, "dataset=two")
        assert (second.status_code, second.headers["retry-after"]) == (429, "10")
        os.kill(pid, signal.SIGCONT)
        assert (await ended(trio, first))["status"] == "done"
        assert (await ended(trio, await send(trio, "dataset=two")))["status"] == "done"


async def test_datasets_take_turns_and_one_dataset_keeps_its_order(tmp_path: Path) -> None:
    async with run_trio(make_config(tmp_path)) as trio:
        pid = await hang(trio)
        names = ["a", "a", "a", "b", "c"]
        ids: list[str] = []
        for number, name in enumerate(names):
            data = b"id,name\n%d,x\n" % number
            ids.append((await send(trio, f"dataset={name}", data)).json()["job_id"])
        os.kill(pid, signal.SIGCONT)
        for job_id in ids:
            await reach(trio, job_id, "done")
        jobs = (await trio.ingestd.get("/ingest/jobs")).json()["jobs"]
        order = sorted(jobs, key=lambda job: job["started_at"])
        assert [job["dataset"] for job in order] == ["a", "b", "c", "a", "a"]
        of_a = [job["job_id"] for job in order if job["dataset"] == "a"]
        assert of_a == ids[:3]


async def test_short_requests_do_not_wait_for_jobs(trio: Trio) -> None:
    pid = await hang(trio)
    job_id = (await send(trio, "dataset=long")).json()["job_id"]
    await taken(trio, pid)
    assert (await trio.post("dataset=short", CSV)).status_code == 200
    assert await status_of(trio, job_id) == "running"
    os.kill(pid, signal.SIGCONT)
    await reach(trio, job_id, "done")


async def test_jobs_are_listed_newest_first_in_pages(trio: Trio) -> None:
    ids = [
        (await ended(trio, await send(trio, "dataset=workers", b"id\n%d\n" % number)))["job_id"]
        for number in range(5)
    ]
    ids.append((await ended(trio, await send(trio, "dataset=others", b"id\n")))["job_id"])
    first = (await trio.ingestd.get("/ingest/jobs?limit=4")).json()
    assert [job["job_id"] for job in first["jobs"]] == ids[:1:-1]
    assert "result" not in first["jobs"][0] or first["jobs"][0]["result"] is None
    cursor = first["next_cursor"]
    second = (await trio.ingestd.get(f"/ingest/jobs?limit=4&cursor={cursor}")).json()
    assert [job["job_id"] for job in second["jobs"]] == ids[1::-1]
    assert second["next_cursor"] is None
    failed = (await trio.ingestd.get("/ingest/jobs?status=failed")).json()["jobs"]
    assert [job["job_id"] for job in failed] == ids[-1:]
    one = (await trio.ingestd.get("/ingest/jobs?dataset=others")).json()["jobs"]
    assert [job["dataset"] for job in one] == ["others"]
    for path in ("/ingest/jobs/j0123456789abcdef", "/ingest/jobs/j0123456789abcdef/events"):
        assert (await trio.ingestd.get(path)).status_code == 404
    assert (await trio.ingestd.delete("/ingest/jobs/j0123456789abcdef")).status_code == 404
    assert (await trio.ingestd.get("/ingest/jobs/else")).status_code == 400


async def test_finished_jobs_are_forgotten_within_bounds(tmp_path: Path) -> None:
    config = make_config(tmp_path, ingestd={"keep_jobs": 2})
    async with run_trio(config) as trio:
        ids = [
            (await ended(trio, await send(trio, "dataset=w", b"id\n%d\n" % number)))["job_id"]
            for number in range(4)
        ]
    async with run_trio(config) as trio:
        jobs = (await trio.ingestd.get("/ingest/jobs")).json()["jobs"]
        assert [job["job_id"] for job in jobs] == ids[:1:-1]


async def test_a_full_disk_leaves_nothing(trio: Trio, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    async def refuse(*_: object) -> int:
        raise InsufficientStorage("The log's disk is full.")

    with monkeypatch.context() as patched:
        patched.setattr(spool.os, "fsync", full)
        refused = await send(trio, "dataset=workers")
    assert refused.status_code == 507
    assert trio.leftovers() == []
    assert (await trio.ingestd.get("/ingest/jobs")).json()["jobs"] == []
    with monkeypatch.context() as patched:
        patched.setattr(Journal, "append", refuse)
        refused = await send(trio, "dataset=workers")
    assert refused.status_code == 507
    assert trio.leftovers() == []
    # What needs no promise goes on.
    assert (await trio.post("dataset=workers", CSV)).status_code == 200


async def test_a_job_waits_for_a_daemon_that_is_down(tmp_path: Path) -> None:
    config = make_config(tmp_path)

    class Shaky(httpx.AsyncBaseTransport):
        """Fails as a daemon does that starts again."""

        down = False

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if self.down:
                raise httpx.ConnectError("refused")
            return await inner[0].handle_async_request(request)

    inner: list[httpx.AsyncBaseTransport] = []
    shaky = Shaky()
    async with run_trio(config) as outer:
        inner.append(outer.transports["catalogd"])
        transports = {**outer.transports, "catalogd": shaky}
        other = config.model_copy(
            update={"fleet": config.fleet.model_copy(update={"data_dir": tmp_path / "other"})}
        )
        app = create_app(other, transports=transports)
        async with (
            run_app(app) as transport,
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
        ):
            workers = app.state.workers
            workers.warm()
            await until(lambda: bool(workers.idle_pids()), 20)
            os.kill(workers.idle_pids()[0], signal.SIGSTOP)
            pid = workers.idle_pids()[0]
            headers = {"content-type": "text/csv", **ASYNC}
            sent = await client.post("/ingest?dataset=workers", content=CSV, headers=headers)
            await until(lambda: not workers.idle_pids())
            shaky.down = True
            os.kill(pid, signal.SIGCONT)
            path = f"/ingest/jobs/{sent.json()['job_id']}"
            async with asyncio.timeout(20):
                while not (job := (await client.get(path)).json())["progress"]["note"]:
                    await asyncio.sleep(0.01)
            assert "Trying again" in job["progress"]["note"]
            shaky.down = False
            assert (await client.get(f"{path}?wait=20")).json()["status"] == "done"


async def test_the_client_follows_and_cancels(trio: Trio) -> None:
    client = IngestdClient(trio.config, {"ingestd": httpx.ASGITransport(trio.app)})
    job = await client.start("workers", CSV)
    told = [event async for event in client.watch_job(job.job_id)]
    assert told[-1].result is not None
    assert told[-1].result.rows_out == 2
    failed = await client.start("workers", b"id,name\n")
    with pytest.raises(Unprocessable):
        await client.finish_job(failed.job_id)
    assert [one.job_id for one in (await client.list_jobs()).jobs] == [failed.job_id, job.job_id]
    with pytest.raises(Conflict):
        await client.cancel_job(job.job_id)
    assert (await client.get_job(job.job_id)).status == "done"
    await client.aclose()
