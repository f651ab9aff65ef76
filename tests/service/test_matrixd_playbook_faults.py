"""What may happen to the playbook over ASGI: callers who leave, models that change, odd ids."""

from __future__ import annotations

import asyncio
import threading
import time
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.matrixd.core.playbook import Playbook, book
from shared.journal import Journal
from tests.service.test_matrixd_playbook import DOCS, QUERY, record
from tests.support.matrixd import World, world
from tests.support.vectord import until

pytestmark = pytest.mark.anyio


class Gate:
    """Holds appends to the log once they are durable, until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()
        append = Journal.append

        async def hold(journal: Journal, payload: Any) -> int:
            seq = await append(journal, payload)
            self.reached.set()
            await self.opened.wait()
            return seq

        monkeypatch.setattr(Journal, "append", hold)


async def leave(w: World, gate: Gate, path: str, body: dict[str, Any], **more: Any) -> None:
    """Sends a request and goes away when what it asked for is in the log."""
    task = asyncio.create_task(w.matrix.post(path, json=body, **more))
    await gate.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def list_runs(w: World) -> list[str]:
    page = (await w.matrix.get("/matrix/playbook")).json()
    return [episode["run_id"] for episode in page["episodes"]]


async def test_an_episode_in_the_log_is_in_force_though_its_caller_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        await w.corpus("jobs", DOCS)
        gate = Gate(monkeypatch)
        body = {
            "query": QUERY,
            "ratings": [{"corpus": "jobs", "id": "d1", "rating": 1}],
            "run_id": "r0",
        }
        key = {"Idempotency-Key": "k"}
        await leave(w, gate, "/matrix/playbook", body, headers=key)
        # Meanwhile the key is taken, though nobody has had an answer yet.
        other = asyncio.create_task(
            w.matrix.post("/matrix/playbook", json={**body, "query": "x"}, headers=key)
        )
        await asyncio.sleep(0)
        gate.opened.set()
        assert (await other).status_code == 409

        async def is_there() -> bool:
            return await list_runs(w) == ["r0"]

        await until(is_there)
        asked = await w.search(QUERY, use_playbook=True, explain=True)
        again = await w.matrix.post("/matrix/playbook", json=body, headers=key)
        assert (again.status_code, again.json()["seq"]) == (200, 1)
        await w.restart()
        assert await w.search(QUERY, use_playbook=True, explain=True) == asked
        assert await list_runs(w) == ["r0"]


async def test_a_retirement_in_the_log_is_in_force_though_its_caller_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        await w.corpus("jobs", DOCS)
        cold = await w.search(QUERY, use_playbook=True)
        await record(w, ("d1", 1))
        gate = Gate(monkeypatch)
        await leave(w, gate, "/matrix/playbook/retire", {"all": True})
        gate.opened.set()

        async def is_gone() -> bool:
            return not await list_runs(w)

        await until(is_gone)
        assert await w.search(QUERY, use_playbook=True) == cold


async def test_retiring_all_takes_what_is_being_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        await w.corpus("jobs", DOCS)
        gate = Gate(monkeypatch)
        body = {"query": QUERY, "ratings": [{"corpus": "jobs", "id": "d1", "rating": 1}]}
        await leave(w, gate, "/matrix/playbook", body)
        retiring = asyncio.create_task(w.matrix.post("/matrix/playbook/retire", json={"all": True}))
        # Time enough to answer, if it did not wait for the other.
        await asyncio.wait([retiring], timeout=0.5)
        gate.opened.set()
        assert (await retiring).json()["retired"] == 1
        assert await list_runs(w) == []


async def test_what_several_retire_at_once_is_retired_by_one(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.corpus("jobs", DOCS)
        for n in range(3):
            await record(w, (f"d{n}", 1), run_id=f"r{n}")
        post = w.matrix.post
        told = [
            each.json()
            for each in await asyncio.gather(
                *(post("/matrix/playbook/retire", json={"all": True}) for _ in range(5))
            )
        ]
        assert sorted(each["retired"] for each in told) == [0, 0, 0, 0, 3]
        assert {each["retired"] + each["already"] for each in told} == {3}


async def test_a_model_whose_vectors_change_their_length_costs_no_episode(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.corpus("jobs", DOCS)
        await record(w, ("d1", 1), run_id="long")
        warm = await w.search(QUERY, use_playbook=True)
        embedd = w.peers["embedd"]
        plain = embedd.handle_async_request

        async def shorten(request: httpx.Request) -> httpx.Response:
            answer = await plain(request)
            if request.url.path != "/embed":
                return answer
            await answer.aread()
            found = answer.json()
            found["vectors"] = [vector[:32] for vector in found["vectors"]]
            return httpx.Response(200, json={**found, "dim": 32})

        embedd.handle_async_request = shorten  # type: ignore[method-assign]
        await w.matrix.post("/matrix/corpora/jobs/refresh", params={"wait": 30})
        assert (await w.job("jobs"))["dim"] == 32
        assert not (await w.search(QUERY, use_playbook=True))["playbook"]["activated"]
        made = await record(w, ("d2", 1), run_id="short")
        assert made["status"] == 201
        asked = await w.search(QUERY, use_playbook=True)
        assert asked["playbook"]["activated"]
        await w.restart()
        assert await list_runs(w) == ["short", "long"]
        assert await w.search(QUERY, use_playbook=True) == asked
        # Each of the two is retired for itself, and the first is there again with its vectors.
        await w.matrix.post(f"/matrix/playbook/{made['episode_id']}/retire")
        embedd.handle_async_request = plain  # type: ignore[method-assign]
        await w.matrix.post("/matrix/corpora/jobs/refresh", params={"wait": 30})
        await w.job("jobs")
        assert await w.search(QUERY, use_playbook=True) == warm


async def test_recording_leaves_the_daemon_free_to_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        await w.corpus("jobs", DOCS)
        await record(w, ("d1", 1), run_id="r0")
        reached, opened = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()
        rerank = Playbook.rerank

        def hold(*given: Any, **more: Any) -> Any:
            loop.call_soon_threadsafe(reached.set)
            assert opened.wait(10)
            return rerank(*given, **more)

        monkeypatch.setattr(Playbook, "rerank", hold)
        recording = asyncio.create_task(record(w, ("d2", 1), run_id="r1"))
        await reached.wait()
        assert (await w.matrix.get("/health")).status_code == 200
        assert len((await w.search(QUERY))["hits"]) == 10
        opened.set()
        assert (await recording)["status"] == 201


async def test_searches_have_threads_while_notes_are_worked_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        await w.corpus("jobs", DOCS)
        shown = await w.ids(QUERY)
        await record(w, (shown[1], 1), run_id="r0")
        opened, busy = threading.Event(), threading.Semaphore(0)

        def wait(real: Any) -> Any:
            calls = count()

            def held(*given: Any) -> Any:
                if next(calls) == 0:
                    busy.release()
                    assert opened.wait(10)
                return real(*given)

            return held

        for name in ("settle", "record"):
            monkeypatch.setattr(Playbook, name, wait(getattr(Playbook, name)))
        # One is being settled, another recorded: both hold a thread.
        await asyncio.to_thread(busy.acquire)
        recording = asyncio.create_task(record(w, ("d2", 1), run_id="r1"))
        await asyncio.to_thread(busy.acquire)
        async with asyncio.timeout(5):
            found = await w.search(QUERY, use_playbook=True)
        assert found["playbook"]["activated"]
        opened.set()
        assert (await recording)["status"] == 201


async def test_what_all_searches_need_is_worked_out_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        await w.corpus("jobs", DOCS)
        times: list[int] = []
        choose = book.choose_strictness

        def tell(losses: Any) -> float:
            times.append(len(losses))
            time.sleep(0.05)  # as many notes would take
            return choose(losses)

        monkeypatch.setattr(book, "choose_strictness", tell)
        shown = await w.ids(QUERY)
        await record(w, (shown[1], 1))
        await asyncio.gather(*(w.search(QUERY, use_playbook=True) for _ in range(6)))
        assert times == [1]


@pytest.mark.parametrize("cursor", ["²", "9" * 5000, "-1", "abc", ""])
async def test_a_cursor_that_was_never_given_is_refused(tmp_path: Path, cursor: str) -> None:
    async with world(tmp_path) as w:
        await w.corpus("jobs", DOCS)
        await record(w, ("d1", 1))
        answer = await w.matrix.get("/matrix/playbook", params={"cursor": cursor})
        assert answer.status_code == 400
        assert "next_cursor" in answer.text


async def test_ids_that_no_address_can_name_are_documents_like_others(tmp_path: Path) -> None:
    odd = ["..", ".", "a b", "é/ü", "%2F", "x?y#z", "a\x00b", "日本"]
    rows = [{"id": name, "text": f"odd thing number {n}"} for n, name in enumerate(odd)]
    async with world(tmp_path) as w:
        made = await w.corpus("jobs", DOCS + rows)
        assert (made["status"], made["job"]["status"]) == ("ready", "done")
        for name in odd:
            assert (await record(w, (name, 1)))["status"] == 201


async def test_a_record_whose_views_cannot_be_read_costs_only_itself(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.corpus("jobs", DOCS)
        await record(w, ("d1", 1), run_id="r0")
        await w.stop()
        folder = w.config.data_dir("matrixd") / "playbook"
        with Journal(folder) as journal:
            good = next(iter(journal.replay())).payload
            journal.append_many_sync([{**good, "id": "x", "views": []}])
        await w.start()
        assert await list_runs(w) == ["r0"]
        assert (await record(w, ("d2", 1), run_id="r1"))["status"] == 201


async def test_what_was_retired_is_recorded_anew_though_the_log_lost_its_first_record(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        await w.corpus("jobs", DOCS)
        retire = "/matrix/playbook/retire"
        await record(w, ("d1", 1))
        await w.matrix.post(retire, json={"all": True})
        second = await record(w, ("d1", 1))
        await w.stop()
        folder = w.config.data_dir("matrixd") / "playbook"
        log = next(p for p in sorted(folder.iterdir()) if p.stat().st_size > 3000)
        lines = log.read_bytes().split(b"\n")
        lines[0] = lines[0].replace(b'"query":"', b'"query":"X', 1)
        log.write_bytes(b"\n".join(lines))
        await w.start()
        # The second one is in force, and is what is meant.
        again = await record(w, ("d1", 1))
        assert (again["status"], again["episode_id"]) == (200, second["episode_id"])
        await w.matrix.post(retire, json={"all": True})
        anew = await record(w, ("d1", 1))
        assert (anew["status"], anew["retired"]) == (201, False)
