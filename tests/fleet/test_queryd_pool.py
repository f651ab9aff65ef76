"""Workers as processes: what they may do, how they end, who waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import uvicorn
from prometheus_client import CollectorRegistry

from services.queryd.app import create_app
from services.queryd.core.frames import Kind
from services.queryd.core.yielding import Move
from services.queryd.store.figures import Figures
from services.queryd.store.pool import WorkerPool
from services.queryd.store.priority import can_restore
from services.queryd.worker.channel import Channel, Hangup
from services.queryd.worker.sandbox import MemoryGauge
from services.queryd.worker.session import Session
from services.queryd.worker.settings import WorkerSettings
from shared.context import DEADLINE_HEADER
from shared.daemons import ROOT
from shared.errors import Unavailable
from shared.http1 import make_protocol
from tests.support.apps import make_config
from tests.support.queryd import ARROW, CSV, NDJSON, PARQUET, FakeCatalogue, Service, queryd

pytestmark = pytest.mark.anyio

ENDLESS = "SELECT sum(hash(i)) FROM range(1000000000000) AS t(i)"
# More bytes than all buffers between a worker and a client hold.
LONG = "SELECT i, repeat('x', 1000) AS t FROM range(3000000) AS r(i)"


async def until(check: Callable[[], object], seconds: float = 10.0) -> None:
    """Waits until the check gives something true."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "waited too long"
        await asyncio.sleep(0.005)


def children(pid: int) -> list[int]:
    """Process ids of a process's children."""
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def command_line(pid: int) -> bytes:
    """A process's arguments; empty once it has ended, also between listing it and looking."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # FileNotFoundError, or ProcessLookupError when it ends while being read
        return b""


def templates() -> list[int]:
    """Process ids of this process's living templates of query workers."""
    return [p for p in children(os.getpid()) if b"services.queryd.worker" in command_line(p)]


def workers() -> list[int]:
    """Process ids of this process's living query workers."""
    found = [pid for template in templates() for pid in children(template)]
    return sorted(pid for pid in found if command_line(pid))


async def warm(service: Service) -> list[int]:
    """Waits until /ready; gives the workers' process ids."""
    await wait_ready(service.client)
    return workers()


async def wait_ready(client: httpx.AsyncClient) -> None:
    """Waits until /ready answers 200."""
    deadline = time.monotonic() + 20
    while (await client.get("/ready")).status_code != 200:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def figure(service: Service, name: str) -> float:
    """One figure of /metrics by its full name; 0 while it is not there."""
    for line in (await service.client.get("/metrics")).text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.rpartition(" ")[2])
    return 0.0


async def test_the_daemon_is_ready_when_a_worker_is_warm(tmp_path: Path) -> None:
    async with queryd(tmp_path) as service:
        response = await service.client.get("/ready")
        assert response.status_code == 503
        assert response.json()["error"]["details"]["checks"]["workers"] == "no worker is warm yet"
        await warm(service)
        assert (await service.client.get("/health")).status_code == 200
    assert service.catalogue.closed


async def test_a_worker_has_an_empty_environment_one_socket_and_its_limits(tmp_path: Path) -> None:
    os.environ["QUERYD_TEST_TOKEN"] = "not for workers"
    try:
        async with queryd(
            tmp_path, workers=1, worker_memory_mb=300, worker_temp_mb=77, worker_files=123
        ) as service:
            [pid] = await warm(service)
            process = Path(f"/proc/{pid}")
            environment = process.joinpath("environ").read_bytes()
            assert b"QUERYD_TEST_TOKEN" not in environment
            assert b"PATH=" not in environment
            opened = [os.readlink(fd) for fd in process.joinpath("fd").iterdir()]
            assert sum("socket:" in name for name in opened) == 1
            foreign = [
                name
                for name in opened
                if "socket:" not in name
                and not name.startswith(("/proc/", "/dev/null"))
                and str(tmp_path / "data" / "queryd") not in name
                and "eventfd" not in name
            ]
            assert foreign == []
            limits = {
                line[:26].strip(): line[26:].split()[0]
                for line in process.joinpath("limits").read_text().splitlines()[1:]
            }
            assert limits["Max core file size"] == "0"
            assert limits["Max open files"] == "123"
            assert limits["Max file size"] == str(77 << 20)
            assert limits["Max processes"] != "unlimited"
            size = int(process.joinpath("statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
            assert size < int(limits["Max address space"]) < size + (600 << 20)
            status = process.joinpath("status").read_text()
            assert "NoNewPrivs:\t1" in status
            assert process.joinpath("oom_score_adj").read_text().strip() == "1000"
            assert os.getpgid(pid) == pid
    finally:
        del os.environ["QUERYD_TEST_TOKEN"]


async def test_workers_are_gone_with_their_daemon(tmp_path: Path) -> None:
    async with queryd(tmp_path) as service:
        pids = await warm(service)
        assert len(pids) == 2
        folder = service.config.data_dir("queryd") / "tmp"
        assert sorted(path.name for path in folder.iterdir()) == ["1", "2", "template"]
    assert workers() == templates() == []
    assert not folder.exists()


async def test_two_daemons_cannot_share_a_data_directory(tmp_path: Path) -> None:
    async with queryd(tmp_path) as service:
        await warm(service)
        second = create_app(service.config, catalogue=FakeCatalogue(tmp_path / "other"))
        with pytest.raises(Unavailable, match="in use"):
            async with second.router.lifespan_context(second):
                pass
        assert await service.rows("SELECT 1") == [[1]]


async def test_an_idle_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    async with queryd(tmp_path, workers=1) as service:
        [pid] = await warm(service)
        os.kill(pid, signal.SIGKILL)
        while command_line(pid):
            continue  # dead, but the loop has not been told
        assert await service.rows("SELECT 1") == [[1]]
        assert workers() != [pid]
        ended = 'lakehouse_queryd_workers_ended_total{reason="crashed"}'
        assert await figure(service, ended) == 1


async def test_a_worker_that_dies_in_a_query_is_told_and_replaced(tmp_path: Path) -> None:
    async with queryd(tmp_path, workers=1) as service:
        [pid] = await warm(service)
        running = asyncio.create_task(service.sql(ENDLESS))
        await until(lambda: is_busy(pid))
        os.kill(pid, signal.SIGSEGV)
        response = await running
        assert response.status_code == 422
        assert "ended the process" in response.json()["error"]["message"]
        assert await service.rows("SELECT 1") == [[1]]


def is_busy(pid: int) -> bool:
    """Whether a process has used a tenth of a second of processor time since it was warm."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    used = int(fields[11]) + int(fields[12])
    begun = is_busy.__dict__.setdefault(str(pid), used)
    return used - begun >= 10


async def test_a_worker_stops_with_a_killed_daemon(tmp_path: Path) -> None:
    """The worker asks the kernel to die with its parent, even in the middle of a query."""
    script = (
        "import asyncio, sys, pathlib\n"
        "from tests.support.queryd import queryd\n"
        "async def main():\n"
        "    async with queryd(pathlib.Path(sys.argv[1]), workers=1) as service:\n"
        f"        await service.sql({ENDLESS!r})\n"
        "asyncio.run(main())\n"
    )
    daemon = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path), cwd=ROOT
    )

    def family() -> list[int]:
        return [pid for child in children(daemon.pid) for pid in (child, *children(child))]

    await until(lambda: len(family()) == 2, 20)
    template, worker = family()
    await until(lambda: is_busy(worker))
    daemon.kill()
    await daemon.wait()
    await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in (template, worker)))
    assert not Path(f"/proc/{template}").exists()


async def test_a_template_that_dies_takes_its_workers_along_and_is_started_anew(
    tmp_path: Path,
) -> None:
    async with queryd(tmp_path) as service:
        await until_figure(service, 'lakehouse_queryd_workers{state="idle"}', 2)
        before = {*templates(), *workers()}
        running = asyncio.create_task(service.sql(ENDLESS))
        # Not before its query has begun: one that has not is asked again of a new worker.
        await until(lambda: any(is_busy(pid) for pid in workers()))
        os.kill(templates()[0], signal.SIGKILL)
        assert (await running).status_code == 422
        assert await service.rows("SELECT 1") == [[1]]
        assert not before & {*templates(), *workers()}
        await until_figure(service, 'lakehouse_queryd_workers{state="idle"}', 2)


async def test_a_template_holds_no_thread_and_no_descriptor_of_its_workers(
    tmp_path: Path,
) -> None:
    async with queryd(tmp_path) as service:
        await warm(service)
        await until_figure(service, 'lakehouse_queryd_workers{state="idle"}', 2)
        [template] = templates()
        assert len(os.listdir(f"/proc/{template}/task")) == 1
        before = len(os.listdir(f"/proc/{template}/fd"))
        for _ in range(3):
            gone = workers()[0]
            os.kill(gone, signal.SIGKILL)
            await until(lambda gone=gone: gone not in workers() and len(workers()) == 2)
        await until(lambda: len(os.listdir(f"/proc/{template}/fd")) == before)
        assert Path(f"/proc/{template}/comm").read_text().strip() == "query-template"
        assert Path(f"/proc/{workers()[0]}/comm").read_text().strip() == "query-worker"


async def test_queries_wait_their_turn_and_the_queue_has_an_end(tmp_path: Path) -> None:
    async with queryd(tmp_path, workers=1, queue_length=2) as service:
        await warm(service)
        running = [asyncio.create_task(service.sql(ENDLESS, timeout_s=1)) for _ in range(1)]
        await until_figure(service, 'lakehouse_queryd_workers{state="idle"}', 0)
        waiting = [asyncio.create_task(service.sql("SELECT 1")) for _ in range(2)]
        await until_figure(service, "lakehouse_queryd_queue", 2)
        refused = await service.sql("SELECT 1")
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["code"] == "rate_limited"
        assert [r.status_code for r in await asyncio.gather(*running)] == [504]
        assert [r.status_code for r in await asyncio.gather(*waiting)] == [200, 200]
        assert await figure(service, "lakehouse_queryd_queue") == 0


async def test_a_caller_with_one_query_passes_anothers_many(tmp_path: Path) -> None:
    async with queryd(tmp_path, workers=1, spare_workers=0, queue_length=4) as service:
        await warm(service)
        order: list[str] = []

        async def ask(caller: str, sql: str = "SELECT 1", **body: Any) -> int:
            response = await service.sql(sql, headers={"x-caller": caller}, **body)
            order.append(f"{caller} {response.status_code}")
            return response.status_code

        running = asyncio.create_task(ask("many", ENDLESS, timeout_s=1))
        await until_figure(service, 'lakehouse_queryd_workers{state="idle"}', 0)
        many = [asyncio.create_task(ask("many")) for _ in range(4)]
        await until_figure(service, "lakehouse_queryd_queue", 4)
        # No place is left: one of the many makes room, and is told.
        one = asyncio.create_task(ask("one"))
        done, _ = await asyncio.wait(many, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result() for task in done] == [429]
        assert await ask("many") == 429  # who crowds the queue does not crowd out others
        assert await one == 200
        await asyncio.gather(running, *many)
        assert order[:3] == ["many 429", "many 429", "many 504"]
        assert order[3] == "one 200"
        assert order[4:] == ["many 200"] * 3


def policies_of(pid: int) -> set[int]:
    """The scheduling policies of all threads of a process."""
    return {os.sched_getscheduler(int(thread)) for thread in os.listdir(f"/proc/{pid}/task")}


def state_of(pid: int) -> str:
    """A process's state: R, S, T (stopped), Z."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


SUM = "SELECT sum(hash(i)) FROM range({rows}) AS t(i)"
USUAL, BEHIND = {os.SCHED_OTHER}, {os.SCHED_IDLE}


@pytest.mark.skipif(not can_restore(), reason="giving priority back needs root or LimitNICE")
async def test_a_long_query_goes_behind_neighbours_and_alone_at_full_speed(tmp_path: Path) -> None:
    async with queryd(tmp_path, workers=2, spare_workers=0) as service:
        await until_figure(service, 'lakehouse_queryd_workers{state="idle"}', 2)
        task = asyncio.create_task(service.sql(ENDLESS, timeout_s=8))
        await asyncio.sleep(0.4)
        assert [policies_of(pid) for pid in workers()] == [USUAL, USUAL]

        async def behind() -> bool:
            assert (await service.sql("SELECT 1")).status_code == 200
            return sorted(map(max, map(policies_of, workers()))) == [os.SCHED_OTHER, os.SCHED_IDLE]

        deadline = time.monotonic() + 3
        while not await behind():
            assert time.monotonic() < deadline
        # Nobody comes any more.
        await until(lambda: [policies_of(pid) for pid in workers()] == [USUAL, USUAL], 4.0)
        assert not task.done()
        task.cancel()


async def test_a_long_query_stands_still_while_a_newcomer_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Time enough to look, on a busy machine too.
    monkeypatch.setattr("services.queryd.core.yielding.PATIENCE_S", 0.8)
    monkeypatch.setattr("services.queryd.core.yielding.RUNAWAY_S", 0.8)
    async with queryd(tmp_path, workers=2, spare_workers=0) as service:
        await until_figure(service, 'lakehouse_queryd_workers{state="idle"}', 2)
        task = asyncio.create_task(service.sql(ENDLESS, timeout_s=20))
        await asyncio.sleep(0.9)
        service.catalogue.add("t", "SELECT 1 AS a")
        service.catalogue.delay_s = 0.5
        newcomer = asyncio.create_task(service.sql("FROM t"))
        await until(lambda: "T" in map(state_of, workers()), 2.0)
        assert (await newcomer).status_code == 200
        await until(lambda: "T" not in map(state_of, workers()), 2.0)
        # A stopped one obeys its deadline, and a caller that leaves, as any other does.
        before = set(workers())
        # One that is not known to take half a second, as the first is by now.
        newcomer = asyncio.create_task(service.sql("SELECT * FROM t"))
        await until(lambda: "T" in map(state_of, workers()), 2.0)
        [stopped] = [pid for pid in workers() if state_of(pid) == "T"]
        task.cancel()
        await until(lambda: stopped not in workers(), 1.0)
        assert (await newcomer).status_code == 200
        assert before - set(workers()) == {stopped}


async def test_long_queries_do_not_shut_others_out(tmp_path: Path) -> None:
    async with queryd(tmp_path, workers=2, spare_workers=1) as service:
        await until_figure(service, 'lakehouse_queryd_workers{state="idle"}', 2)
        long = [asyncio.create_task(service.sql(ENDLESS, timeout_s=8)) for _ in range(2)]
        await until_figure(service, 'lakehouse_queryd_workers{state="idle"}', 0)
        # The spare is not for who has as many as there are without it.
        third = asyncio.create_task(service.sql("SELECT 3"))
        await until_figure(service, "lakehouse_queryd_queue", 1)
        for _ in range(3):
            response = await service.sql("SELECT 1", timeout_s=6, headers={"x-caller": "other"})
            assert response.status_code == 200, response.text
        assert len(workers()) == 3
        assert not third.done()
        assert not any(task.done() for task in long)
        long[0].cancel()
        assert (await third).status_code == 200
        long[1].cancel()
        # The spare takes the place of the one that was killed last.
        await until(lambda: len(workers()) == 2)


async def test_what_is_known_to_be_brief_has_the_spare_worker_too(tmp_path: Path) -> None:
    """Whose runaways hold all workers is still answered what was always answered at once."""
    async with queryd(tmp_path, workers=2, spare_workers=1) as service:
        await until_figure(service, 'lakehouse_queryd_workers{state="idle"}', 2)
        assert await service.rows("SELECT 1") == [[1]]
        await until_figure(service, 'lakehouse_queryd_workers{state="idle"}', 2)
        long = [asyncio.create_task(service.sql(ENDLESS, timeout_s=8)) for _ in range(2)]
        await until_figure(service, 'lakehouse_queryd_workers{state="idle"}', 0)
        unknown = asyncio.create_task(service.sql("SELECT 2"))
        await until_figure(service, "lakehouse_queryd_queue", 1)
        assert (await service.sql("SELECT 1", timeout_s=6)).status_code == 200
        assert not any(task.done() for task in (*long, unknown))
        for task in (*long, unknown):
            task.cancel()


async def test_a_spare_worker_goes_when_it_is_not_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.queryd.store.pool._SPARE_S", 0.2)
    monkeypatch.setattr("services.queryd.core.yielding.LASTING_S", 0.1)
    async with queryd(tmp_path, workers=1, spare_workers=1) as service:
        await warm(service)
        task = asyncio.create_task(service.sql(SUM.format(rows=500_000_000)))
        await until_figure(service, 'lakehouse_queryd_workers{state="idle"}', 0)
        response = await service.sql("SELECT 1", headers={"x-caller": "other"})
        assert response.status_code == 200
        assert len(workers()) == 2
        assert (await task).status_code == 200
        await until_figure(service, 'lakehouse_queryd_workers_ended_total{reason="spare"}', 1)
        await until(lambda: len(workers()) == 1)
        assert await service.rows("SELECT 1") == [[1]]


async def test_a_worker_that_cannot_be_given_its_priority_back_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Move] = []

    def refuse_level(pid: int, step: Move) -> bool:
        # Nothing is really changed: on a busy machine the query would not come to its end.
        asked.append(step)
        return step is not Move.LEVEL

    monkeypatch.setattr("services.queryd.store.process.move", refuse_level)
    monkeypatch.setattr("services.queryd.store.pool.can_restore", lambda: False)
    monkeypatch.setattr("services.queryd.core.yielding.RUNAWAY_S", 0.2)
    async with queryd(tmp_path, workers=2, spare_workers=0) as service:
        await until_figure(service, 'lakehouse_queryd_workers{state="idle"}', 2)
        before = set(workers())
        task = asyncio.create_task(service.sql(SUM.format(rows=300_000_000)))
        while not task.done():
            assert (await service.sql("SELECT 1")).status_code == 200
        assert (await task).status_code == 200
        await until(lambda: set(workers()) - before, 5.0)
        assert asked.count(Move.BEHIND) == asked.count(Move.LEVEL) >= 1
        assert (await service.sql("SELECT 1")).status_code == 200


async def until_figure(service: Service, name: str, value: float) -> None:
    deadline = time.monotonic() + 10
    while await figure(service, name) != value:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def test_a_query_that_waits_past_its_deadline_is_told_so(tmp_path: Path) -> None:
    async with queryd(tmp_path, workers=1) as service:
        await warm(service)
        running = asyncio.create_task(service.sql(ENDLESS, timeout_s=1.5))
        await until_figure(service, 'lakehouse_queryd_workers{state="idle"}', 0)
        begun = time.monotonic()
        response = await service.sql("SELECT 1", timeout_s=0.3)
        assert response.status_code == 504
        assert 0.3 <= time.monotonic() - begun < 0.55
        assert (await running).status_code == 504


@pytest.mark.parametrize(
    ("section", "body", "headers"),
    [
        ({}, {"timeout_s": 0.5}, {}),
        ({"query_timeout_s": 0.5}, {}, {}),
        ({"query_timeout_s": 0.5}, {"timeout_s": 30}, {}),
        ({}, {}, {DEADLINE_HEADER: "500"}),
        ({}, {"timeout_s": 30}, {DEADLINE_HEADER: "500"}),
        ({"request_timeout_s": 0.5}, {}, {}),
    ],
)
async def test_the_first_deadline_kills_within_a_quarter_of_a_second(
    tmp_path: Path, section: dict[str, Any], body: dict[str, Any], headers: dict[str, str]
) -> None:
    async with queryd(tmp_path, workers=1, **section) as service:
        [pid] = await warm(service)
        begun = time.monotonic()
        response = await service.sql(ENDLESS, headers=headers, **body)
        took = time.monotonic() - begun
        assert response.status_code == 504
        assert response.json()["error"]["code"] == "timeout"
        assert 0.5 <= took < 0.75
        await until(lambda: pid not in workers(), 0.25)
        await warm(service)


async def test_a_deadline_already_over_starts_nothing(tmp_path: Path) -> None:
    async with queryd(tmp_path, workers=1) as service:
        await warm(service)
        response = await service.sql("SELECT 1", headers={DEADLINE_HEADER: "0"})
        assert response.status_code == 504


async def test_the_time_of_the_catalogue_counts(tmp_path: Path) -> None:
    async with queryd(tmp_path, workers=1) as service:
        await warm(service)
        service.catalogue.add("t", "SELECT 1 AS a")
        service.catalogue.delay_s = 30
        begun = time.monotonic()
        response = await service.sql("FROM t", timeout_s=0.5)
        assert response.status_code == 504
        assert time.monotonic() - begun < 0.75
        service.catalogue.delay_s = 0
        assert await service.rows("FROM t", timeout_s=20) == [[1]]


async def test_datasets_are_looked_up_side_by_side(tmp_path: Path) -> None:
    async with queryd(tmp_path, workers=1) as service:
        await warm(service)
        for name in ("a", "b", "c", "d"):
            service.catalogue.add(name, "SELECT 1 AS x")
        service.catalogue.delay_s = 0.3
        begun = time.monotonic()
        assert await service.rows("SELECT * FROM a, b, c, d") == [[1, 1, 1, 1]]
        assert time.monotonic() - begun < 0.9


async def test_a_caller_that_gives_up_frees_its_worker(tmp_path: Path) -> None:
    async with queryd(tmp_path, workers=1) as service:
        [pid] = await warm(service)
        running = asyncio.create_task(service.sql(ENDLESS))
        await until(lambda: is_busy(pid))
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await until(lambda: pid not in workers(), 0.5)
        assert await service.rows("SELECT 1") == [[1]]
        gone = 'lakehouse_queryd_queries_total{format="json",outcome="gone"}'
        assert await figure(service, gone) == 1


async def test_a_waiting_caller_that_gives_up_leaves_the_queue(tmp_path: Path) -> None:
    async with queryd(tmp_path, workers=1) as service:
        await warm(service)
        running = asyncio.create_task(service.sql(ENDLESS, timeout_s=1))
        await until_figure(service, 'lakehouse_queryd_workers{state="idle"}', 0)
        waiting = asyncio.create_task(service.sql("SELECT 1"))
        await until_figure(service, "lakehouse_queryd_queue", 1)
        waiting.cancel()
        await until_figure(service, "lakehouse_queryd_queue", 0)
        assert (await running).status_code == 504
        assert await service.rows("SELECT 1") == [[1]]


async def test_a_query_spills_to_its_own_folder(tmp_path: Path) -> None:
    async with queryd(tmp_path, workers=1, worker_memory_mb=192) as service:
        await warm(service)
        folder = service.config.data_dir("queryd") / "tmp"
        running = asyncio.create_task(service.sql(SORT.format(rows=1_600_000)))
        await until(lambda: running.done() or scratch_bytes(folder) > 1 << 20, 30)
        assert scratch_bytes(folder) > 0
        response = await running
        assert response.status_code == 200, response.text
        assert response.json()["rows"] == [[1_600_000]]
        await service.rows("SELECT 1")
        await until(lambda: scratch_bytes(folder) == 0)


SORT = (
    "SELECT max(r) FROM "
    "(SELECT row_number() OVER (ORDER BY md5(i::VARCHAR)) AS r FROM range({rows}) AS t(i))"
)


def scratch_bytes(folder: Path) -> int:
    """Bytes that workers have spilled."""
    total = 0
    for path in folder.glob("*/scratch/*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


async def test_a_query_spills_no_more_than_it_may(tmp_path: Path) -> None:
    async with queryd(tmp_path, workers=1, worker_memory_mb=192, worker_temp_mb=16) as service:
        await warm(service)
        response = await service.sql(SORT.format(rows=4_000_000))
        assert response.status_code == 422
        assert "temporary disk space than the 16 MB" in response.json()["error"]["message"]
        assert await service.rows("SELECT 1") == [[1]]


# A template whose first worker is no good.
STUB = """#!{python}
import os, sys
sys.path.insert(0, {root!r})
sys.modules["numpy"] = None
from services.queryd.core.frames import HEADER_SIZE, Kind, pack, unpack_header
from services.queryd.worker import template
run_worker = template.run_worker
def run(settings):
    if not settings.scratch.endswith("/1/scratch"):
        run_worker(settings)
    fd = settings.fd
    def send(kind, payload):
        os.write(fd, pack(kind, payload))
    def receive():
        kind, length = unpack_header(os.read(fd, HEADER_SIZE))
        os.read(fd, length)
        return kind
    send(Kind.READY, {{"worn": False}})
    receive()
    {rest}
    os.read(fd, 1)
    os._exit(0)
template.run_worker = run
template.main(sys.argv[3])
"""


@pytest.mark.parametrize(
    ("rest", "status", "reason"),
    [
        # It says that it is worn after its query.
        (
            "send(Kind.PLAN, {'datasets': []}); receive(); send(Kind.HEAD, {'truncated': None}); "
            "send(Kind.END, {'rows': 0}); send(Kind.READY, {'worn': True})",
            200,
            "worn",
        ),
        # It speaks out of turn, or nonsense.
        ("send(Kind.READY, {'worn': False})", 500, "spoke out of turn"),
        ("os.write(fd, b'?' * HEADER_SIZE)", 422, "spoke out of turn"),
        # It dies with its last words unread.
        (
            "send(Kind.ERROR, {'code': 'unprocessable', 'message': 'too much'}); os._exit(0)",
            422,
            "worn",
        ),
        ("os._exit(3)", 422, "crashed"),
    ],
)
async def test_a_worker_that_is_no_good_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rest: str, status: int, reason: str
) -> None:
    stub = tmp_path / "stub"
    stub.write_text(STUB.format(python=sys.executable, root=str(ROOT), rest=rest))
    stub.chmod(0o755)
    monkeypatch.setattr("services.queryd.store.template.sys.executable", str(stub))
    async with queryd(tmp_path, workers=1) as service:
        await warm(service)
        response = await service.sql("SELECT 1")
        assert response.status_code == status, response.text
        await until_figure(service, f'lakehouse_queryd_workers_ended_total{{reason="{reason}"}}', 1)
        assert await service.rows("SELECT 1") == [[1]]


async def test_a_worker_that_does_not_come_back_from_a_query_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = tmp_path / "stub"
    rest = "send(Kind.ERROR, {'code': 'invalid', 'message': 'x'})"
    stub.write_text(STUB.format(python=sys.executable, root=str(ROOT), rest=rest))
    stub.chmod(0o755)
    monkeypatch.setattr("services.queryd.store.template.sys.executable", str(stub))
    monkeypatch.setattr("services.queryd.store.pool._RENEW_S", 0.3)
    async with queryd(tmp_path, workers=1) as service:
        await warm(service)
        assert (await service.sql("SELECT 1")).status_code == 400
        await until_figure(service, 'lakehouse_queryd_workers_ended_total{reason="stuck"}', 1)
        assert await service.rows("SELECT 1") == [[1]]


def test_a_worker_that_a_query_left_swollen_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker's own loop, in a thread, with a gauge that shows what it likes."""
    sizes = iter([0, 10 << 20, 10 << 20, 600 << 20])

    class Gauge:
        def read(self) -> tuple[int, int]:
            return 0, next(sizes)

    ours, theirs = socket.socketpair()
    monkeypatch.chdir(tmp_path)
    settings = WorkerSettings(theirs.fileno(), 0, 512, 64, 1, 64, str(tmp_path), ())
    channel = Channel(theirs.detach())
    session = Session(settings, channel, cast("MemoryGauge", Gauge()))

    def serve() -> None:
        with contextlib.suppress(Hangup):
            session.serve()
        channel.close()

    thread = threading.Thread(target=serve)
    thread.start()
    daemon = Channel(ours.detach())
    for worn in (False, False, True):
        assert daemon.receive() == (Kind.READY, {"worn": worn})
        if not worn:
            daemon.send(Kind.OPEN, {"sql": "SELEC", "params": []})
            assert daemon.receive()[0] is Kind.ERROR
    daemon.close()
    thread.join(10)
    assert not thread.is_alive()


async def test_a_worker_that_cannot_start_is_told_by_ready_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.queryd.store.template.sys.executable", "/bin/false")
    async with queryd(tmp_path, workers=1) as service:
        deadline = time.monotonic() + 10
        while True:
            error = (await service.client.get("/ready")).json()["error"]
            if "no worker starts" in error["details"]["checks"]["workers"]:
                break
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        response = await service.sql("SELECT 1", timeout_s=0.3)
        assert response.status_code == 504
        monkeypatch.undo()
        await warm(service)
        assert await service.rows("SELECT 1") == [[1]]


@asynccontextmanager
async def real_queryd(tmp_path: Path, **section: Any) -> AsyncGenerator[tuple[int, FakeCatalogue]]:
    """queryd behind a real socket; gives its port and its catalogue."""
    config = make_config(tmp_path, queryd=section)
    catalogue = FakeCatalogue(config.data_dir("storaged") / "datasets" / "it")
    app = create_app(config, catalogue=catalogue)
    protocol = make_protocol("queryd", config.http.max_header_bytes)
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, http=protocol, log_config=None, lifespan="on")
    )
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        await wait_ready(client)
    try:
        yield port, catalogue
    finally:
        server.should_exit = True
        await task


async def post(
    port: int, sql: str, accept: str, **more: object
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Sends a query over a plain socket."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps({"sql": sql, **more}).encode()
    writer.write(
        f"POST /sql HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    await writer.drain()
    return reader, writer


@pytest.mark.parametrize("accept", [ARROW, NDJSON])
async def test_a_slow_reader_holds_the_query_back_and_not_its_rows(
    tmp_path: Path, accept: str
) -> None:
    """Rows that nobody takes stay unmade: neither daemon nor worker grows with them."""
    async with real_queryd(tmp_path, workers=1) as (port, _):
        reader, writer = await post(port, LONG, accept)
        assert b"200" in await reader.readline()
        await reader.readexactly(1 << 20)
        pid = workers()[0]
        own = os.getpid()
        before = resident(own)
        sizes: list[int] = []
        calm = time.monotonic()
        while time.monotonic() - calm < 0.7:
            used = processor_time(pid)
            sizes.append(resident(pid))
            await asyncio.sleep(0.05)
            if processor_time(pid) != used:
                calm = time.monotonic()  # it is still filling the buffers
        assert resident(own) - before < 64 << 20
        assert max(sizes) < 400 << 20
        writer.close()
        await until(lambda: pid not in workers(), 1.0)


def resident(pid: int) -> int:
    """Bytes of a process in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def processor_time(pid: int) -> int:
    """Ticks that a process has run."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@pytest.mark.parametrize("sql", [ENDLESS, LONG])
async def test_a_client_that_leaves_frees_its_worker(tmp_path: Path, sql: str) -> None:
    async with real_queryd(tmp_path, workers=1) as (port, _):
        [pid] = workers()
        reader, writer = await post(port, sql, ARROW)
        if sql is ENDLESS:
            await until(lambda: is_busy(pid))
        else:
            await reader.readexactly(1 << 20)
        begun = time.monotonic()
        writer.close()
        await until(lambda: pid not in workers(), 2.0)
        assert time.monotonic() - begun < 0.5


@pytest.mark.parametrize("accept", [ARROW, NDJSON, "application/json", CSV, PARQUET])
async def test_a_failure_in_the_middle_breaks_the_connection_off(
    tmp_path: Path, accept: str
) -> None:
    """The client must not take what came before the failure for the whole answer."""
    sql = (
        "SELECT CASE WHEN i = 900000 THEN 'x' ELSE i::VARCHAR END::BIGINT AS n, "
        "repeat('y', 50) AS t FROM range(1000000) AS r(i)"
    )
    async with real_queryd(tmp_path, workers=1, json_rows=10_000_000) as (port, _):
        reader, writer = await post(port, sql, accept)
        assert b"200 OK" in await reader.readline()
        body = await reader.read()
        # A Parquet file is written a row group at a time, and packs this text well.
        assert len(body) > (100_000 if accept == PARQUET else 1_000_000)
        assert not body.endswith(b"\r\n0\r\n\r\n")
        writer.close()


@pytest.mark.parametrize(("asked", "whole"), [(None, False), (100_000, True), (200_000, False)])
async def test_csv_that_the_server_cuts_is_not_taken_for_the_whole(
    tmp_path: Path, asked: int | None, whole: bool
) -> None:
    """CSV cannot say that rows were left out; only who asked for as many knows."""
    sql = "SELECT repeat('x', 20) || i AS a FROM range(150000) AS t(i)"
    async with real_queryd(tmp_path, workers=1, max_rows=100_000) as (port, _):
        limit = {} if asked is None else {"max_rows": asked}
        reader, writer = await post(port, sql, CSV, **limit)
        assert b"200 OK" in await reader.readline()
        body = await reader.read()
        assert len(body) > 1_000_000
        assert b"x-truncated" not in body
        assert body.endswith(b"\r\n0\r\n\r\n") is whole
        writer.close()


async def test_a_deadline_in_the_middle_breaks_the_connection_off(tmp_path: Path) -> None:
    async with real_queryd(tmp_path, workers=1, query_timeout_s=1.0) as (port, _):
        reader, writer = await post(port, "SELECT * FROM range(100000000000) AS r(i)", NDJSON)
        begun = time.monotonic()
        assert b"200 OK" in await reader.readline()
        received, last = 0, b""
        while piece := await reader.read(1 << 20):
            received += len(piece)
            last = piece
        assert 0.7 < time.monotonic() - begun < 1.6
        assert received > 0
        assert not last.endswith(b"\r\n0\r\n\r\n")
        writer.close()


async def test_a_pool_that_closes_lets_go_of_those_who_wait(tmp_path: Path) -> None:
    async with queryd(tmp_path, workers=1) as service:
        await warm(service)
        pool = WorkerPool(
            service.config.queryd, tmp_path / "pool", (), Figures(CollectorRegistry())
        )
        pool.start()
        first = await pool.acquire()
        waiting = asyncio.create_task(pool.acquire())
        await asyncio.sleep(0)
        await pool.close()
        with pytest.raises(Unavailable, match="shutting down"):
            await waiting
        assert not first.alive
        first.let_go()
