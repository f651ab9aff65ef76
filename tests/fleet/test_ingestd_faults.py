"""What becomes of an ingest when something goes wrong in the middle of it."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import duckdb
import httpx
import pytest
from fastapi import FastAPI

from services.ingestd.app import create_app
from services.ingestd.core.job import Job, Limits
from services.ingestd.core.options import Options
from services.ingestd.store import spool as spooling
from services.ingestd.store.workers import Worker, WorkerGone, Workers
from services.ingestd.worker import duck
from shared.errors import InsufficientStorage, Unavailable
from tests.support.apps import make_config, running
from tests.support.ingestd import Trio, run_trio
from tests.support.sockets import serving, until

pytestmark = pytest.mark.anyio

CSV = b"id,name\n1,Ann\n2,Bob\n"


@pytest.fixture
async def trio(tmp_path: Path) -> AsyncGenerator[Trio]:
    async with run_trio(make_config(tmp_path)) as trio:
        yield trio


def workers_of(trio: Trio) -> Workers:
    workers = trio.app.state.workers
    assert isinstance(workers, Workers)
    return workers


async def frozen_worker(trio: Trio) -> int:
    """Has a worker started and stopped in its tracks, so that it hangs in the next job."""
    workers = workers_of(trio)
    workers.warm()
    await until(lambda: bool(workers.idle_pids()), 20)
    (pid,) = workers.idle_pids()
    os.kill(pid, signal.SIGSTOP)
    return pid


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def figure(trio: Trio, line: str) -> bool:
    return line in (await trio.ingestd.get("/metrics")).text


async def test_a_worker_that_dies_fails_its_own_ingest_only(trio: Trio) -> None:
    pid = await frozen_worker(trio)
    request = asyncio.create_task(trio.post("dataset=workers", CSV))
    await until(lambda: not workers_of(trio).idle_pids())
    os.kill(pid, signal.SIGKILL)
    response = await request
    assert response.status_code == 500
    assert "Send the file again" in response.json()["error"]["message"]
    assert trio.leftovers() == []
    again = await trio.post("dataset=workers", CSV)
    assert (again.status_code, again.json()["duplicate"]) == (200, False)
    assert await figure(trio, 'lakehouse_ingestd_workers_ended_total{reason="crashed"} 1.0')


async def test_a_worker_that_died_idle_is_replaced(trio: Trio) -> None:
    await trio.post("dataset=workers", CSV)
    (pid,) = workers_of(trio).idle_pids()
    os.kill(pid, signal.SIGKILL)
    await until(lambda: is_gone(pid))
    response = await trio.post("dataset=workers", b"id,name\n3,Cy\n")
    assert response.status_code == 200


async def test_a_client_that_leaves_ends_the_work(trio: Trio) -> None:
    pid = await frozen_worker(trio)
    request = asyncio.create_task(trio.post("dataset=workers", CSV))
    await until(lambda: not workers_of(trio).idle_pids())
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    await until(lambda: is_gone(pid))
    await until(lambda: trio.leftovers() == [])
    assert (await trio.post("dataset=workers", CSV)).status_code == 200
    assert await figure(trio, 'lakehouse_ingestd_ingests_total{outcome="gone"} 1.0')


async def test_the_deadline_ends_the_work(trio: Trio) -> None:
    pid = await frozen_worker(trio)
    response = await trio.ingestd.post(
        "/ingest?dataset=workers",
        content=CSV,
        headers={"content-type": "text/csv", "x-deadline-ms": "700"},
    )
    assert response.status_code == 504
    await until(lambda: is_gone(pid))
    assert trio.leftovers() == []


async def test_a_full_queue_is_told(tmp_path: Path) -> None:
    config = make_config(tmp_path, ingestd={"workers": 1, "queue_length": 0})
    async with run_trio(config) as trio:
        pid = await frozen_worker(trio)
        first = asyncio.create_task(trio.post("dataset=workers", CSV))
        await until(lambda: not workers_of(trio).idle_pids())
        second = await trio.post("dataset=others", CSV)
        assert second.status_code == 429
        assert second.headers["retry-after"] == "5"
        os.kill(pid, signal.SIGCONT)
        assert (await first).status_code == 200


async def test_the_next_in_the_queue_gets_the_worker(tmp_path: Path) -> None:
    async with run_trio(make_config(tmp_path, ingestd={"workers": 1})) as trio:
        data = [f"id,name\n{number},x\n".encode() for number in range(6)]
        answers = await asyncio.gather(
            *(trio.post(f"dataset=d{number}", one) for number, one in enumerate(data))
        )
        assert [answer.status_code for answer in answers] == [200] * 6
        assert await figure(trio, "lakehouse_ingestd_workers_started_total 1.0")


async def test_an_idle_worker_gives_its_memory_back(tmp_path: Path) -> None:
    async with run_trio(make_config(tmp_path, ingestd={"worker_idle_s": 0.05})) as trio:
        await trio.post("dataset=workers", CSV)
        await until(lambda: not workers_of(trio).idle_pids())
        reason = 'lakehouse_ingestd_workers_ended_total{reason="idle"} 1.0'
        async with asyncio.timeout(20):
            while not await figure(trio, reason):
                await asyncio.sleep(0.01)
        assert (await trio.post("dataset=workers", b"id,name\n3,Cy\n")).status_code == 200


async def test_no_worker_outlives_the_daemon(tmp_path: Path) -> None:
    async with run_trio(make_config(tmp_path)) as trio:
        await trio.post("dataset=workers", CSV)
        (pid,) = workers_of(trio).idle_pids()
    assert is_gone(pid)


async def test_a_worker_ends_with_its_input_in_the_middle_of_a_job(tmp_path: Path) -> None:
    # As when the daemon is killed: nobody is left to end the worker.
    source = tmp_path / "source"
    source.write_bytes(b"id,name\n" + b"1,Ann\n" * 4_000_000)
    (tmp_path / "work").mkdir()
    worker = await Worker.start(make_config(tmp_path).ingestd)
    job = Job(str(source), str(tmp_path / "work"), "i", Options(), None, Limits())
    converting = asyncio.create_task(worker.do(job.to_json()))
    await until(lambda: any((tmp_path / "work").iterdir()), 30)
    worker.close_input()
    with pytest.raises(WorkerGone):
        await converting
    await until(lambda: is_gone(worker.pid))
    await worker.end()


class Altered(httpx.AsyncBaseTransport):
    """Passes requests on, but for those that `alter` answers or breaks."""

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport | None,
        alter: Callable[[httpx.Request], httpx.Response | None],
    ) -> None:
        self.inner = inner
        self.alter = alter

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = self.alter(request)
        if answer is not None:
            return answer
        assert self.inner is not None
        return await self.inner.handle_async_request(request)


def refuse_connection(request: httpx.Request) -> httpx.Response | None:
    raise httpx.ConnectError("refused", request=request)


async def test_storage_that_is_down_fails_the_ingest_and_leaves_nothing(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    async with run_trio(config, storaged=Altered(None, refuse_connection)) as trio:
        response = await trio.post("dataset=workers", CSV)
        assert response.status_code == 503
        assert (await trio.catalogd.get("/catalog/datasets/workers")).status_code == 404
        assert trio.leftovers() == []
        ready = await trio.ingestd.get("/ready")
        assert ready.status_code == 503
        assert ready.json()["error"]["details"]["checks"]["catalogd"] == "ok"


async def test_storage_that_is_full_says_so(tmp_path: Path) -> None:
    def refuse_put(request: httpx.Request) -> httpx.Response | None:
        if request.method != "PUT":
            return None
        return httpx.Response(507, json={"error": {"code": "insufficient_storage", "message": "F"}})

    config = make_config(tmp_path)
    async with run_trio(config) as plain:
        inner = plain.transports["storaged"]
        async with alone(plain, storaged=Altered(inner, refuse_put)) as client:
            response = await client.post("/ingest?dataset=workers", content=CSV)
            assert response.status_code == 507


def second_app(trio: Trio, **transports: httpx.AsyncBaseTransport) -> FastAPI:
    """Another ingestd in a data directory of its own beside the same two daemons."""
    other = make_config(trio.config.data_dir().parent / "other")
    return create_app(other, transports={**trio.transports, **transports})


@asynccontextmanager
async def alone(
    trio: Trio, **transports: httpx.AsyncBaseTransport
) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of such an ingestd."""
    async with (
        running(second_app(trio, **transports)) as transport,
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60) as client,
    ):
        yield client


async def test_a_catalogue_that_is_down_is_told_before_the_body_is_read(tmp_path: Path) -> None:
    taken = 0

    async def pieces() -> AsyncGenerator[bytes]:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield b"1,x\n" * 1000

    config = make_config(tmp_path)
    async with run_trio(config, catalogd=Altered(None, refuse_connection)) as trio:
        response = await trio.ingestd.post(
            "/ingest?dataset=workers", content=pieces(), headers={"content-type": "text/csv"}
        )
        assert response.status_code == 503
        assert taken <= 1


async def test_a_table_that_changes_meanwhile_is_converted_to_anew(trio: Trio) -> None:
    await trio.post("dataset=workers", CSV)
    others: list[asyncio.Task[httpx.Response]] = []
    registers = 0

    def interfere(request: httpx.Request) -> httpx.Response | None:
        nonlocal registers
        if request.method == "POST" and request.url.path == "/catalog/datasets":
            registers += 1
            if registers == 1:
                # What catalogd would say had another write just widened the table.
                return httpx.Response(409, json={"error": {"code": "conflict", "message": "C"}})
        if registers == 1 and request.method == "GET" and not others:
            others.append(
                asyncio.create_task(
                    trio.post("dataset=workers&contract=evolve", b"id,name,city\n9,Z,Oslo\n")
                )
            )
        return None

    class Waiting(Altered):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            answer = self.alter(request)
            if answer is not None:
                return answer
            if others:
                await others[0]
            assert self.inner is not None
            return await self.inner.handle_async_request(request)

    catalogd = Waiting(trio.transports["catalogd"], interfere)
    async with alone(trio, catalogd=catalogd) as client:
        response = await client.post(
            "/ingest?dataset=workers&contract=discard_row", content=b"id,name\n3,Cy\n"
        )
    assert response.status_code == 200
    assert registers == 2
    assert [column["name"] for column in response.json()["schema"]] == ["id", "name", "city"]
    assert len(await trio.read_rows("workers")) == 4


async def test_a_conflict_that_stays_is_passed_on(trio: Trio) -> None:
    registers = 0

    def refuse(request: httpx.Request) -> httpx.Response | None:
        nonlocal registers
        if request.method == "POST":
            registers += 1
            return httpx.Response(409, json={"error": {"code": "conflict", "message": "C"}})
        return None

    catalogd = Altered(trio.transports["catalogd"], refuse)
    async with alone(trio, catalogd=catalogd) as client:
        response = await client.post("/ingest?dataset=workers", content=CSV)
    assert (response.status_code, registers) == (409, 1)


async def test_another_daemons_answer_to_the_same_ingest_is_the_answer(trio: Trio) -> None:
    # Both ask before either has registered; the catalogue lets one in.
    first = await trio.post("dataset=workers", CSV)

    def forget(request: httpx.Request) -> httpx.Response | None:
        if "/ingests/" in request.url.path:
            return httpx.Response(404, json={"error": {"code": "not_found", "message": "N"}})
        return None

    catalogd = Altered(trio.transports["catalogd"], forget)
    async with alone(trio, catalogd=catalogd) as client:
        second = await client.post("/ingest?dataset=workers", content=CSV)
    assert second.json() == {**first.json(), "duplicate": True}
    assert len(await trio.read_rows("workers")) == 2


async def test_what_a_dead_daemon_left_is_removed_at_the_start(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    left = config.data_dir("ingestd") / "ingest-abc"
    left.mkdir(parents=True)
    (left / "source").write_bytes(b"half a file")
    (config.data_dir("ingestd") / "stray").write_bytes(b"x")
    async with run_trio(config) as trio:
        assert trio.leftovers() == []


async def test_two_daemons_do_not_share_a_directory(trio: Trio) -> None:
    app = create_app(trio.config)
    with pytest.raises(Unavailable, match="in use"):
        async with app.router.lifespan_context(app):
            pass


async def test_a_full_disk_while_receiving_is_507(
    trio: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(fd: int, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", "/secret/path")

    monkeypatch.setattr(spooling.os, "write", write)
    response = await trio.post("dataset=workers", CSV)
    assert response.status_code == 507
    assert "secret" not in response.text
    monkeypatch.undo()
    assert trio.leftovers() == []


def test_a_full_disk_in_the_worker_is_known() -> None:
    full = duckdb.IOException("Could not write file: No space left on device")
    assert isinstance(duck.explain(full), InsufficientStorage)
    assert duck.is_disk_full(OSError(errno.EDQUOT, "quota"))
    assert not duck.is_disk_full(OSError(errno.EACCES, "denied"))


async def test_a_client_that_hangs_up_in_the_middle_of_the_body_leaves_nothing(
    tmp_path: Path,
) -> None:
    config = make_config(tmp_path)
    async with run_trio(config) as trio, serving(second_app(trio)) as port:
        folder = trio.config.data_dir().parent / "other" / "data" / "ingestd"
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST /ingest?dataset=workers HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Content-Type: text/csv\r\nContent-Length: 100000000\r\n\r\nid,name\n"
        )
        writer.write(b"1,x\n" * 500_000)
        await writer.drain()
        await until(lambda: any(folder.glob("ingest-*/source")), 20)
        writer.close()
        await writer.wait_closed()
        await until(lambda: not any(folder.glob("ingest-*")), 20)
        assert (await trio.catalogd.get("/catalog/datasets/workers")).status_code == 404
