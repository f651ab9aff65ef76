"""Builds over ASGI that are broken off, or overtaken by other requests."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.matrixd import World, gate, world
from tests.support.vectord import until

pytestmark = pytest.mark.anyio

Row = dict[str, Any]


def rows(count: int, start: int = 0, text: str = "the welder number {n} of the yard") -> list[Row]:
    return [{"id": str(n), "text": text.format(n=n)} for n in range(start, start + count)]


def spec(name: str, dataset: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "source": {"dataset": dataset or name},
        "id": "id",
        "text": "{text}",
        **more,
    }


async def ask_vectord(w: World, method: str, path: str, body: Any = None) -> Any:
    async with httpx.AsyncClient(
        transport=w.peers["vectord"], base_url="http://127.0.0.1"
    ) as client:
        answer = await client.request(method, f"/vectors/indexes/{path}", json=body)
        assert answer.is_success, answer.text
        return answer.json()


async def count_items(w: World, info: dict[str, Any]) -> int:
    return (await ask_vectord(w, "GET", info["index"]))["count"]


async def replace(w: World, body: dict[str, Any]) -> dict[str, Any]:
    asked = {"replace": True, "wait": 30}
    answer = await w.matrix.post("/matrix/corpora", params=asked, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def refresh(w: World, name: str) -> dict[str, Any]:
    answer = await w.matrix.post(f"/matrix/corpora/{name}/refresh", params={"wait": 30})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_chunks_and_whole_documents_never_mix(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        long = " ".join(f"word{n}" for n in range(40))
        w.tables.put("docs", rows(6, text=long + " {n}"))
        info = await w.corpus("docs", w.tables.rows["docs"], chunking={"words": 8, "overlap": 2})
        assert info["items"] > 30
        whole = await replace(w, spec("docs"))
        assert (whole["documents"], whole["items"]) == (6, 6)
        assert await count_items(w, whole) == 6
        assert sorted(await w.ids("word3", k=50)) == [str(n) for n in range(6)]
        await w.restart()
        cut = await replace(w, spec("docs", chunking={"words": 8, "overlap": 2}))
        assert (cut["documents"], cut["items"]) == (6, info["items"])
        assert await count_items(w, cut) == info["items"]
        assert sorted(await w.ids("word3", k=50)) == [str(n) for n in range(6)]


async def test_what_a_broken_off_job_wrote_goes_with_its_source(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.corpus("jobs", rows(4))
        w.tables.put("other", rows(3, start=100))
        held = gate(w)
        held.hold("PUT", "/items")
        w.tables.put("jobs", rows(9))
        await w.matrix.post("/matrix/corpora/jobs/refresh", params={"wait": 0})
        await held.waiting.wait()  # vectord has written them, matrixd does not know
        held.held = lambda _: False
        info = await replace(w, spec("jobs", "other"))
        assert await count_items(w, info) == 3
        assert sorted(await w.ids("welder", k=50)) == ["100", "101", "102"]


async def test_what_a_killed_job_wrote_goes_when_its_source_no_longer_has_it(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, matrixd={"retry_s": 0.05}) as w:
        w.tables.put("jobs", rows(9))
        held = gate(w)
        held.hold("PUT", "/items")
        await w.matrix.post("/matrix/corpora", params={"wait": 0}, json=spec("jobs"))
        await held.waiting.wait()
        await w.stop()
        # It goes on where it stopped, and fails: what it had in hand is still told of.
        w.peers["embedd"].down = True
        await w.start()
        assert (await w.job("jobs"))["job"]["status"] == "failed"
        w.peers["embedd"].down = False
        held.open()
        w.tables.put("jobs", rows(2))
        info = await refresh(w, "jobs")
        assert (info["documents"], await count_items(w, info)) == (2, 2)


async def test_an_index_that_lost_items_keeps_none_that_the_source_lost_too(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        info = await w.corpus("jobs", rows(20))
        await ask_vectord(w, "DELETE", f"{info['index']}/items", {"ids": ["3", "4"]})
        w.tables.put("jobs", rows(20)[1:])
        info = await refresh(w, "jobs")
        assert await count_items(w, info) == 19
        found = await w.ids("welder", k=50)
        assert "3" in found
        assert "0" not in found


async def test_what_was_done_before_a_restart_counts(tmp_path: Path) -> None:
    async with world(tmp_path, matrixd={"batch_texts": 5}) as w:
        w.tables.put("jobs", rows(30))
        held = gate(w, "embedd")
        await w.matrix.post("/matrix/corpora", params={"wait": 0}, json=spec("jobs"))

        async def begun() -> bool:
            return (await w.matrix.get("/matrix/corpora/jobs")).json()["documents"] >= 10

        await until(begun)
        held.hold("POST", "/embed")
        await held.waiting.wait()
        await w.stop()
        held.open()
        await w.start()
        job = (await w.job("jobs"))["job"]
        assert (job["total"], job["done"]) == (30, 30)


async def test_a_refresh_asked_for_while_a_build_fails_is_done(tmp_path: Path) -> None:
    async with world(tmp_path, matrixd={"retry_s": 0.4}) as w:
        w.tables.put("jobs", rows(3))
        w.peers["vectord"].down = True
        await w.matrix.post("/matrix/corpora", params={"wait": 0}, json=spec("jobs"))

        async def waits() -> bool:
            job = (await w.matrix.get("/matrix/corpora/jobs")).json()["job"]
            return job["status"] == "waiting"

        await until(waits)
        await w.matrix.post("/matrix/corpora/jobs/refresh", params={"wait": 0})

        async def failed() -> bool:
            text = (await w.matrix.get("/metrics")).text
            return "lakehouse_matrixd_job_failures_total 1.0" in text

        await until(failed)
        w.peers["vectord"].down = False
        info = await w.job("jobs")
        assert (info["status"], info["documents"]) == ("ready", 3)


async def test_who_waits_for_a_build_is_told_what_became_of_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.tables.put("jobs", rows(3))
        w.tables.put("gone", rows(3))
        held = gate(w)
        held.hold("PUT", "/items", early=True)
        path, asked = "/matrix/corpora", {"wait": 30}
        jobs = asyncio.create_task(w.matrix.post(path, params=asked, json=spec("jobs")))
        gone = asyncio.create_task(w.matrix.post(path, params=asked, json=spec("gone")))

        async def both() -> bool:
            listed = (await w.matrix.get(path)).json()["corpora"]
            return [one["job"]["phase"] for one in listed] == ["embed", "embed"]

        await until(both)
        assert (await w.matrix.delete("/matrix/corpora/gone")).json()["deleted"]
        changed = {"replace": True, "wait": 0}
        await w.matrix.post(path, params=changed, json=spec("jobs", text="a {text}"))
        held.open()
        told = (await jobs).json()
        assert (told["job"]["status"], told["text"]) == ("done", "a {text}")
        assert (await gone).status_code == 404
        assert "deleted" in (await gone).text


async def test_one_answer_that_nobody_can_read_does_not_end_the_watch(tmp_path: Path) -> None:
    class Garbled(httpx.AsyncBaseTransport):
        def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
            self.inner = inner
            self.left = 2

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path == "/catalog/datasets" and self.left:
                self.left -= 1
                return httpx.Response(200, content=b'{"datasets": [{"nam')
            return await self.inner.handle_async_request(request)

    async with world(tmp_path, matrixd={"poll_s": 0.05}) as w:
        await w.corpus("jobs", rows(3), refresh="on_ingest")
        garbled = Garbled(w.peers["catalogd"].inner)
        w.peers["catalogd"].inner = garbled

        async def garbage_was_read() -> bool:
            return garbled.left == 0

        await until(garbage_was_read)
        w.tables.put("jobs", rows(5))

        async def followed() -> bool:
            return (await w.matrix.get("/matrix/corpora/jobs")).json()["documents"] == 5

        await until(followed)
        assert await w.ids("welder number 4", k=1) == ["4"]


async def test_a_corpus_whose_index_is_made_anew_says_so_until_it_is_filled(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        await w.corpus("jobs", rows(5))
        held = gate(w)
        held.hold("PUT", "/items", early=True)
        body = spec("jobs", chunking={"words": 8, "overlap": 2})
        asked = {"replace": True, "wait": 0}
        await w.matrix.post("/matrix/corpora", params=asked, json=body)
        await held.waiting.wait()
        found = await w.search("welder")
        assert (found["corpora"]["jobs"]["status"], found["hits"]) == ("building", [])
        held.open()
        assert (await w.job("jobs"))["status"] == "ready"
        found = await w.search("welder")
        assert (found["corpora"]["jobs"]["status"], len(found["hits"])) == ("ok", 5)


async def test_documents_of_many_chunks_are_written_in_portions(tmp_path: Path) -> None:
    async with world(tmp_path, vectord={"max_items": 250}) as w:
        words = " ".join(f"word{n}" for n in range(8 * 150))
        docs = [{"id": str(n), "text": f"{n} {words}"} for n in range(3)]
        docs.append({"id": "long", "text": f"{words} {words} {words}"})
        info = await w.corpus("docs", docs, chunking={"words": 8, "overlap": 0})
        assert (info["status"], info["job"]["error"]) == ("ready", None)
        assert await count_items(w, info) == info["items"] > 850
