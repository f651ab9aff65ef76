"""Corpora over ASGI: built, brought up to date, taken up after a stop, refused clearly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from shared.clients.matrixd import MatrixdClient
from shared.errors import Conflict, NotFound, Unavailable
from shared.wire.matrixd import CorpusSpec, Tuning
from tests.support.matrixd import World, world
from tests.support.vectord import until

pytestmark = pytest.mark.anyio

JOBS = ["forklift operator", "night nurse", "welder", "line cook", "truck driver", "electrician"]


def rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {"id": n, "text": f"{JOBS[n % 6]} number {n}", "state": "IL" if n % 2 else "TX"}
        for n in range(start, start + count)
    ]


def spec(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "source": {"dataset": name}, "id": "id", "text": "{text}", **more}


async def items_in(world: World, info: dict[str, Any]) -> int:
    matrix = world.peers["vectord"]
    import httpx

    async with httpx.AsyncClient(transport=matrix, base_url="http://127.0.0.1") as client:
        return (await client.get(f"/vectors/indexes/{info['index']}")).json()["count"]


@pytest.fixture(scope="module")
async def still(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[World]:
    """Rows without a corpus, for tests whose requests are all refused."""
    async with world(tmp_path_factory.mktemp("still")) as w:
        w.tables.put("jobs", rows(2))
        yield w


@pytest.fixture(scope="module")
async def zoo(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[World]:
    """A corpus, for tests whose requests are all refused."""
    async with world(tmp_path_factory.mktemp("zoo")) as w:
        await w.corpus("zoo", [{"id": "1", "text": "a zebra"}])
        yield w


async def test_a_corpus_is_built_told_of_and_deleted(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        info = await w.corpus("jobs", rows(150), metadata=["state"])
        assert info["status"] == "ready"
        assert (info["documents"], info["items"], info["calibrated"]) == (150, 150, True)
        assert info["job"]["progress"] == 1.0
        assert info["snapshots"] == {"jobs": "1"}
        listed = (await w.matrix.get("/matrix/corpora")).json()["corpora"]
        assert [one["name"] for one in listed] == ["jobs"]
        assert (await w.matrix.get("/matrix/corpora/jobs")).json() == info
        hit = (await w.search("night nurse", k=1, filters={"state": {"eq": "IL"}}))["hits"][0]
        assert hit["text"].startswith("night nurse")
        assert hit["metadata"] == {"state": "IL"}
        assert (await w.matrix.delete("/matrix/corpora/jobs")).json()["deleted"]
        assert not (await w.matrix.delete("/matrix/corpora/jobs")).json()["deleted"]
        assert (await w.matrix.get("/matrix/corpora/jobs")).status_code == 404
        again = await w.corpus("jobs", rows(5))
        assert again["index"] != info["index"]


async def test_only_what_changed_is_embedded_and_what_vanished_goes(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        info = await w.corpus("jobs", rows(60))
        changed = rows(60)[10:]
        changed[0]["text"] = "astronaut"
        w.tables.put("jobs", changed + rows(2, start=100))
        done = await w.matrix.post("/matrix/corpora/jobs/refresh", params={"wait": 30})
        job = done.json()["job"]
        assert done.status_code == 200
        assert (job["total"], job["done"], job["unchanged"], job["deleted"]) == (3, 3, 49, 10)
        assert done.json()["documents"] == 52
        assert await items_in(w, info) == 52
        assert (await w.ids("astronaut", k=1)) == ["10"]
        assert "0" not in await w.ids("forklift operator number 0", k=50)
        nothing = await w.matrix.post("/matrix/corpora/jobs/refresh", params={"wait": 30})
        assert nothing.json()["job"]["total"] == 0


async def test_no_row_is_lost_without_a_word(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        bad: list[dict[str, Any]] = [
            {"id": None, "text": "no id", "state": None},
            {"id": 3, "text": "the same id again", "state": None},
            {"id": "x", "text": "   ", "state": None},
            {"id": "y" * 600, "text": "a long id", "state": None},
        ]
        report = (await w.corpus("jobs", rows(10) + bad))["report"]
        assert report["rows"] == 14
        assert report["documents"] == 10
        reasons = ("null_ids", "duplicate_ids", "empty_texts", "unusable")
        assert [report[reason] for reason in reasons] == [1, 1, 1, 1]
        assert report["examples"]["duplicate_ids"] == ["3"]
        assert "no id" in report["examples"]["null_ids"][0]
        # Of two rows with one id the first counts.
        assert (await w.search("line cook number 3", k=1))["hits"][0]["text"].startswith("line")


async def test_the_same_spec_again_is_the_same_corpus_and_another_is_refused(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        await w.corpus("jobs", rows(5))
        same = await w.matrix.post("/matrix/corpora", json=spec("jobs"))
        assert (same.status_code, same.json()["documents"]) == (200, 5)
        other = await w.matrix.post("/matrix/corpora", json=spec("jobs", text="a {text}"))
        assert other.status_code == 409
        assert other.json()["error"]["details"]["differences"]["text"]["asked"] == "a {text}"
        changed = await w.matrix.post(
            "/matrix/corpora",
            params={"replace": True, "wait": 30},
            json=spec("jobs", text="a {text}"),
        )
        assert (changed.status_code, changed.json()["job"]["done"]) == (200, 5)
        assert (await w.search("welder", k=1))["hits"][0]["text"].startswith("a ")


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"text": "{txet}"}, 400, "did you mean text"),
        ({"metadata": ["nope"]}, 400, "metadata names 'nope'"),
        ({"id": "{"}, 400, "lone"),
        ({"text": "no column"}, 400, "names no column"),
        ({"source": {"dataset": "missing"}}, 404, "no table"),
        ({"source": {}}, 400, "exactly one"),
        ({"source": {"objects": "none/"}, "text": "{text}"}, 404, "no object"),
        ({"source": {"objects": ["a.md", "b.md"]}, "text": "{text}"}, 404, "'a.md'"),
        ({"source": {"objects": [""]}, "text": "{text}"}, 400, "key ''"),
        ({"source": {"objects": ["../a"]}, "text": "{text}"}, 400, "key '../a'"),
        ({"source": {"objects": "\ud800"}, "text": "{text}"}, 400, "objects"),
        ({"source": {"objects": ["\ud800"]}, "text": "{text}"}, 400, "objects"),
        ({"metadata": ["nope", "nope"]}, 400, "metadata names 'nope'. It"),
        ({"name": "a b"}, 400, "name"),
        ({"typo": 1}, 400, "typo"),
        ({"chunking": {"words": 2}}, 400, "words"),
        ({"model": "no-such-model"}, 404, "no-such-model"),
    ],
)
async def test_bad_specs_are_refused_with_what_to_do(
    still: World, change: dict[str, Any], status: int, says: str
) -> None:
    # Escaped, so that half a character can be sent.
    body = json.dumps(spec("jobs") | change)
    answer = await still.matrix.post(
        "/matrix/corpora", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == status, answer.text
    assert says in answer.text
    assert (await still.matrix.get("/matrix/corpora")).json()["corpora"] == []


async def test_a_long_build_answers_at_once_and_tells_how_far_it_is(tmp_path: Path) -> None:
    async with world(tmp_path, matrixd={"batch_texts": 4, "retry_s": 30}) as w:
        w.tables.put("jobs", rows(40))
        w.peers["vectord"].down = True
        answer = await w.matrix.post(
            "/matrix/corpora", json=spec("jobs"), headers={"Prefer": "respond-async"}
        )
        assert (answer.status_code, answer.json()["status"]) == (202, "building")

        async def waits() -> bool:
            job = (await w.matrix.get("/matrix/corpora/jobs")).json()["job"]
            return job["status"] == "waiting" and "vectord cannot be reached" in job["error"]

        await until(waits)
        w.peers["vectord"].down = False
        info = await w.job("jobs")
        assert (info["status"], info["documents"], info["job"]["error"]) == ("ready", 40, None)


async def test_a_build_that_cannot_go_on_fails_and_is_begun_anew_when_asked_again(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, matrixd={"retry_s": 0.2}) as w:
        w.tables.put("jobs", rows(3))
        w.peers["vectord"].down = True
        answer = await w.matrix.post("/matrix/corpora", params={"wait": 30}, json=spec("jobs"))
        assert answer.json()["status"] == "failed"
        assert "vectord" in answer.json()["job"]["error"]
        w.peers["vectord"].down = False
        again = await w.matrix.post("/matrix/corpora", params={"wait": 30}, json=spec("jobs"))
        assert (again.status_code, again.json()["status"]) == (200, "ready")


async def test_a_build_goes_on_after_a_restart_without_repeating_what_was_written(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, matrixd={"batch_texts": 5, "retry_s": 60}) as w:
        w.tables.put("jobs", rows(100))
        await w.matrix.post("/matrix/corpora", params={"wait": 0}, json=spec("jobs"))

        async def begun() -> bool:
            return (await w.matrix.get("/matrix/corpora/jobs")).json()["documents"] >= 20

        await until(begun)
        await w.stop()
        reads = w.tables.reads
        await w.start()
        info = await w.job("jobs")
        assert (info["status"], info["documents"]) == ("ready", 100)
        assert await items_in(w, info) == 100
        assert w.tables.reads == reads  # the reading was done
        assert info["report"]["rows"] == 100


async def test_a_ready_corpus_is_there_after_a_restart(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        info = await w.corpus("jobs", rows(30))
        before = await w.search("night nurse")
        await w.restart()
        assert (await w.matrix.get("/matrix/corpora/jobs")).json() == info
        assert await w.search("night nurse") == before


async def test_an_index_that_was_lost_is_filled_anew(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        info = await w.corpus("jobs", rows(30))
        import httpx

        vectord = httpx.AsyncClient(transport=w.peers["vectord"], base_url="http://127.0.0.1")
        async with vectord:
            await vectord.delete(f"/vectors/indexes/{info['index']}")
        gone = await w.matrix.post("/matrix/search", json={"query": "nurse"})
        assert gone.status_code == 503
        done = await w.matrix.post("/matrix/corpora/jobs/refresh", params={"wait": 30})
        assert done.json()["job"]["done"] == 30
        assert await items_in(w, info) == 30


async def test_a_corpus_follows_its_dataset_when_so_configured(tmp_path: Path) -> None:
    async with world(tmp_path, matrixd={"poll_s": 0.05}) as w:
        await w.corpus("jobs", rows(5), refresh="on_ingest")
        await w.corpus("still", rows(5))
        w.tables.put("jobs", rows(8))
        w.tables.put("still", rows(8))

        async def followed() -> bool:
            return (await w.matrix.get("/matrix/corpora/jobs")).json()["documents"] == 8

        await until(followed)
        assert (await w.matrix.get("/matrix/corpora/still")).json()["documents"] == 5


async def test_long_texts_are_searched_by_their_chunks(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        filler = " ".join(f"filler{n}" for n in range(40))
        long = [{"id": "doc", "text": f"{filler} the crane inspection checklist", "state": None}]
        info = await w.corpus("docs", long, chunking={"words": 12, "overlap": 4})
        assert info["documents"] == 1
        assert info["items"] == 5
        hits = (await w.search("crane inspection checklist"))["hits"]
        assert [hit["id"] for hit in hits] == ["doc"]
        assert hits[0]["chunk"] == 4
        assert "checklist" in hits[0]["text"]
        w.tables.put("docs", [{**long[0], "text": "short now"}])
        await w.matrix.post("/matrix/corpora/docs/refresh", params={"wait": 30})
        assert await items_in(w, info) == 1


async def test_objects_become_documents(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        import httpx

        storaged = httpx.AsyncClient(transport=w.peers["storaged"], base_url="http://127.0.0.1")
        put = storaged.put
        lines = b'{"_id": "a", "text": "ladder safety"}\nnot json\n{"_id": "b", "text": "payroll"}'
        async with storaged:
            await put("/storage/objects/kb/a.md", content="how to file a timesheet")
            await put("/storage/objects/kb/b.bin", content=b"\xff\xfe\x00")
            await put("/storage/objects/set/corpus.jsonl", content=lines)
        files = {"name": "kb", "source": {"objects": "kb/"}, "text": "{text}", "metadata": ["size"]}
        info = (await w.matrix.post("/matrix/corpora", params={"wait": 30}, json=files)).json()
        assert (info["documents"], info["report"]["unusable"]) == (1, 1)
        assert "not UTF-8" in info["report"]["examples"]["unusable"][0]
        assert await w.ids("timesheet", corpora=["kb"]) == ["kb/a.md"]
        judged = {"source": {"objects": ["set/corpus.jsonl"]}, "id": "_id", "text": "{text}"}
        body = {"name": "set", **judged}
        info = (await w.matrix.post("/matrix/corpora", params={"wait": 30}, json=body)).json()
        assert (info["documents"], info["report"]["unusable"]) == (2, 1)
        assert await w.ids("ladder", corpora=["set"], k=1) == ["a"]
        wrong = {**judged, "name": "wrong", "text": "{title}"}
        info = (await w.matrix.post("/matrix/corpora", params={"wait": 30}, json=wrong)).json()
        assert info["status"] == "failed"
        assert "text names 'title'" in info["job"]["error"]


async def test_a_source_without_rows_is_a_corpus_without_documents(tmp_path: Path) -> None:
    async with world(tmp_path, matrixd={"poll_s": 0.05}) as w:
        await w.corpus("jobs", rows(3), refresh="on_ingest")
        w.tables.put("jobs", [])

        async def emptied() -> bool:
            return (await w.matrix.get("/matrix/corpora/jobs")).json()["documents"] == 0

        await until(emptied)
        assert (await w.search("welder"))["hits"] == []


async def test_a_damaged_ledger_is_told_and_never_begun_anew(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.corpus("jobs", rows(3))
        await w.stop()
        file = w.config.data_dir("matrixd") / "corpora.sqlite"
        kept = file.read_bytes()
        file.write_bytes(b"not a database" * 100)
        with pytest.raises(Unavailable, match="cannot be read"):
            await w.start()
        file.write_bytes(kept)
        await w.restart()
        assert (await w.matrix.get("/matrix/corpora/jobs")).json()["documents"] == 3


async def test_two_at_once_make_one_corpus(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.tables.put("jobs", rows(20))
        answers = await asyncio.gather(
            *(
                w.matrix.post("/matrix/corpora", params={"wait": 30}, json=spec("jobs"))
                for _ in range(5)
            )
        )
        assert sorted(a.status_code for a in answers) == [200, 200, 200, 200, 201]
        assert len({a.json()["index"] for a in answers}) == 1


async def test_the_client_speaks_the_routes(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = MatrixdClient(w.config, {"matrixd": w.matrix._transport})
        w.tables.put("jobs", rows(4))
        asked = CorpusSpec.model_validate(spec("jobs"))
        assert (await client.create_corpus(asked, wait_s=30)).status == "ready"
        with pytest.raises(Conflict):
            await client.create_corpus(CorpusSpec.model_validate(spec("jobs", text="x {text}")))
        assert (await client.refresh_corpus("jobs", wait_s=30)).job.unchanged == 4
        assert [one.name for one in (await client.list_corpora()).corpora] == ["jobs"]
        assert (await client.get_corpus("jobs")).documents == 4
        assert await client.delete_corpus("jobs")
        with pytest.raises(NotFound):
            await client.get_corpus("jobs")
        await client.aclose()


async def test_a_corpus_is_tuned_for_good_and_a_search_for_itself(tmp_path: Path) -> None:
    zoo = [
        {"id": "far", "text": "zebra crossing zebra crossing zebra"},
        *({"id": f"n{n}", "text": f"a horse number {n} in the stable"} for n in range(12)),
    ]
    async with world(tmp_path) as w:
        made = await w.corpus("zoo", zoo)
        assert made["tuning"] == {"lexical": None, "candidates": None}
        asked: dict[str, Any] = {"k": 20, "explain": True}
        usual = await w.search("zebra", **asked)
        put = await w.matrix.put("/matrix/corpora/zoo/tuning", json={"candidates": 10})
        assert (put.status_code, put.json()["tuning"]["candidates"]) == (200, 10)
        assert len((await w.search("zebra", **asked))["hits"]) < len(usual["hits"])
        assert await w.search("zebra", tuning={"candidates": 100}, **asked) == usual
        client = MatrixdClient(w.config, {"matrixd": w.matrix._transport})
        await client.tune_corpus("zoo", Tuning(lexical=0.0))
        await client.aclose()
        await w.restart()
        shown = (await w.matrix.get("/matrix/corpora/zoo")).json()["tuning"]
        assert shown == {"lexical": 0.0, "candidates": None}
        silent = {h["id"]: h["score"] for h in (await w.search("zebra", **asked))["hits"]}
        worded = {h["id"]: h["score"] for h in usual["hits"]}
        assert silent["far"] < worded["far"]
        assert await w.search("zebra", tuning={"lexical": 1.2}, **asked) == usual


@pytest.mark.parametrize(
    ("name", "body", "status"),
    [
        ("nobody", {"lexical": 1.0}, 404),
        ("zoo", {"lexical": -1}, 400),
        ("zoo", {"lexical": 11}, 400),
        ("zoo", {"candidates": 9}, 400),
        ("zoo", {"candidate": 20}, 400),
        ("zoo", [], 400),
    ],
)
async def test_a_tuning_that_makes_no_sense_is_refused(
    zoo: World, name: str, body: Any, status: int
) -> None:
    put = await zoo.matrix.put(f"/matrix/corpora/{name}/tuning", json=body)
    assert put.status_code == status, put.text
    shown = (await zoo.matrix.get("/matrix/corpora/zoo")).json()["tuning"]
    assert shown == {"lexical": None, "candidates": None}
