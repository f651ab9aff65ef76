"""The playbook over ASGI: recorded once, durable, used, explained, retired without a trace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import orjson
import pytest

from shared.clients.matrixd import MatrixdClient
from shared.errors import NotFound
from shared.journal import Journal
from shared.wire.matrixd_playbook import RecordRequest, RetireRequest
from tests.support.matrixd import World, world

pytestmark = pytest.mark.anyio

TASKS = "loading unloading packing sorting welding cooking cleaning driving typing filing".split()
PLACES = "dock yard kitchen ward office depot garage".split()
DOCS = [
    {"id": f"d{n}", "text": f"{TASKS[n % 10]} at the {PLACES[n % 7]} in area {n}"}
    for n in range(70)
]
QUERY = "someone for packing at the depot"


@pytest.fixture(scope="module")
async def still(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[World]:
    """For tests whose requests are all refused."""
    async with world(tmp_path_factory.mktemp("still")) as w:
        await w.corpus("jobs", DOCS)
        yield w


async def record(w: World, *ratings: tuple[str, int], **more: Any) -> dict[str, Any]:
    found = [{"corpus": "jobs", "id": name, "rating": rating} for name, rating in ratings]
    body = {"query": QUERY, "ratings": found, **more}
    answer = await w.matrix.post("/matrix/playbook", json=body)
    assert answer.status_code in (200, 201), answer.text
    return answer.json() | {"status": answer.status_code}


async def test_what_worked_is_found_first_next_time_and_says_why(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.corpus("jobs", DOCS)
        cold = await w.search(QUERY, k=10)
        wanted = cold["hits"][5]["id"]
        made = await record(w, (wanted, 1), (cold["hits"][0]["id"], -1))
        assert (made["status"], made["duplicate"]) == (201, False)
        warm = await w.search(QUERY, k=10, use_playbook=True, explain=True)
        assert warm["playbook"]["activated"]
        note = warm["playbook"]["notes"][0]
        assert note["episode_id"] == made["episode_id"]
        assert note["similarity"] == pytest.approx(1.0, abs=1e-5)
        ranks = {hit["id"]: hit for hit in warm["hits"]}
        assert ranks[wanted]["rank"] < 6
        moved = ranks[wanted]["explain"]["playbook"]
        assert moved[0]["episode_id"] == made["episode_id"]
        assert moved[0]["delta"] > 0
        # Unasked, or for another need, nothing changes.
        assert await w.search(QUERY, k=10) == cold
        other = "typing letters in the office"
        plain, asked = await w.search(other), await w.search(other, use_playbook=True)
        assert plain["hits"] == asked["hits"]


async def test_run_after_run_an_answer_from_far_down_is_found(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.corpus("jobs", DOCS)
        cold = [hit["id"] for hit in (await w.search(QUERY, k=60))["hits"]]
        answer = cold[28]
        for number in range(12):
            hits = (await w.search(QUERY, k=10, use_playbook=True))["hits"]
            ids = [hit["id"] for hit in hits]
            await record(
                w, *((name, 1 if name == answer else -1) for name in ids), run_id=f"run {number}"
            )
            if answer in ids:
                break
        assert number >= 1
        after = await w.search(QUERY, k=10, use_playbook=True)
        assert after["hits"][0]["id"] == answer
        # What only the playbook showed counts like the rest.
        episodes = (await w.matrix.get("/matrix/playbook")).json()["episodes"]
        assert len(episodes) == number + 1
        assert {each["note"]["ignored"] for each in episodes} == {0}
        await w.restart()
        assert await w.search(QUERY, k=10, use_playbook=True) == after


async def test_recording_twice_is_recording_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.corpus("jobs", DOCS)
        first = await record(w, ("d3", 1), ("d4", 0))
        again = await record(w, ("d4", 0), ("d3", 1), ("d3", 1))
        assert (again["status"], again["duplicate"]) == (200, True)
        assert again["episode_id"] == first["episode_id"]
        assert (await record(w, ("d3", 1), run_id="r2"))["status"] == 201
        many = await asyncio.gather(*(record(w, ("d9", 1)) for _ in range(6)))
        assert sorted(one["status"] for one in many) == [200] * 5 + [201]
        listed = (await w.matrix.get("/matrix/playbook")).json()
        assert listed["total"] == 3


async def test_a_key_means_one_episode(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.corpus("jobs", DOCS)
        key = {"Idempotency-Key": "k1"}
        body = {"query": QUERY, "ratings": [{"corpus": "jobs", "id": "d1", "rating": 1}]}
        post = w.matrix.post
        first = await post("/matrix/playbook", json=body, headers=key)
        again = await post("/matrix/playbook", json=body, headers=key)
        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json()["episode_id"] == again.json()["episode_id"]
        other = await post("/matrix/playbook", json={**body, "query": "x"}, headers=key)
        assert (other.status_code, "Idempotency-Key" in other.text) == (409, True)
        # The same content under no key, or another one, is an episode of its own.
        assert (await post("/matrix/playbook", json=body)).status_code == 201


async def test_a_retired_episode_leaves_no_trace_in_searches(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.corpus("jobs", DOCS)
        await record(w, ("d2", 1), source="good")
        before = await w.search(QUERY, use_playbook=True, explain=True)
        poison = await record(w, ("d60", 1), ("d2", -1), source="bad")
        assert await w.search(QUERY, use_playbook=True, explain=True) != before
        name = poison["episode_id"]
        answer = await w.matrix.post(f"/matrix/playbook/{name}/retire", json={"reason": "poison"})
        assert answer.json() == {"retired": 1, "already": 0, "episode_ids": [name]}
        assert await w.search(QUERY, use_playbook=True, explain=True) == before
        again = await w.matrix.post(f"/matrix/playbook/{name}/retire")
        assert (again.json()["retired"], again.json()["already"]) == (0, 1)
        shown = (await w.matrix.get(f"/matrix/playbook/{name}")).json()
        assert (shown["retire_reason"], shown["note"]) == ("poison", None)
        assert shown["retired_at"] is not None
        fresh = await record(w, ("d60", 1), ("d2", -1), source="bad")
        assert (fresh["status"], fresh["episode_id"] != name) == (201, True)


async def test_retiring_all_is_as_if_nothing_was_ever_recorded(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.corpus("jobs", DOCS)
        cold = await w.search(QUERY, use_playbook=True)
        for n in range(4):
            await record(w, (f"d{n}", 1), run_id=f"r{n}", source=f"s{n % 2}")
        retire = "/matrix/playbook/retire"
        by_source = await w.matrix.post(retire, json={"source": "s1"})
        assert by_source.json()["retired"] == 2
        assert (await w.matrix.post(retire, json={"run_id": "r0"})).json()["retired"] == 1
        assert (await w.matrix.post(retire, json={"all": True})).json()["retired"] == 1
        assert await w.search(QUERY, use_playbook=True) == cold
        assert (await w.matrix.get("/matrix/playbook")).json()["episodes"] == []
        assert (await w.matrix.post(retire, json={})).status_code == 400
        unknown = await w.matrix.post(retire, json={"episode_ids": ["ep-none"]})
        assert unknown.status_code == 404


async def test_a_restart_changes_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.corpus("jobs", DOCS)
        for n in range(5):
            await record(w, (f"d{n}", 1), (f"d{n + 20}", -1), run_id=f"r{n}")
        gone = await record(w, ("d50", 1))
        await w.matrix.post(f"/matrix/playbook/{gone['episode_id']}/retire")
        queries = [QUERY, "packing in the yard", "cooking at the kitchen"]
        asked = [await w.search(q, use_playbook=True, explain=True) for q in queries]
        listed = (await w.matrix.get("/matrix/playbook", params={"retired": True})).json()
        exported = (await w.matrix.get("/matrix/playbook/export")).content
        await w.restart()
        assert [await w.search(q, use_playbook=True, explain=True) for q in queries] == asked
        again = (await w.matrix.get("/matrix/playbook", params={"retired": True})).json()
        assert again == listed
        assert (await w.matrix.get("/matrix/playbook/export")).content == exported


async def test_episodes_are_listed_in_pages_and_exported(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.corpus("jobs", DOCS)
        for n in range(5):
            await record(w, (f"d{n}", 1), run_id=f"r{n}", source="a" if n else "b")
        page = (await w.matrix.get("/matrix/playbook", params={"limit": 3})).json()
        assert [e["run_id"] for e in page["episodes"]] == ["r4", "r3", "r2"]
        assert (page["total"], set(page["sources"])) == (5, {"a", "b"})
        assert page["episodes"][0]["note"]["source"] == "a"
        cursor = {"limit": 3, "cursor": page["next_cursor"]}
        rest = (await w.matrix.get("/matrix/playbook", params=cursor)).json()
        assert [e["run_id"] for e in rest["episodes"]] == ["r1", "r0"]
        assert rest["next_cursor"] is None
        of_b = (await w.matrix.get("/matrix/playbook", params={"source": "b"})).json()
        assert [e["run_id"] for e in of_b["episodes"]] == ["r0"]
        exported = await w.matrix.get("/matrix/playbook/export")
        lines = [orjson.loads(line) for line in exported.content.splitlines()]
        assert [line["run_id"] for line in lines] == [f"r{n}" for n in range(5)]
        assert lines[0]["ratings"] == [{"corpus": "jobs", "id": "d0", "rating": 1}]
        assert exported.headers["content-type"].startswith("application/x-ndjson")


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"ratings": []}, 400, "ratings"),
        ({"ratings": [{"corpus": "jobs", "id": "d1", "rating": 2}]}, 400, "rating"),
        ({"ratings": [{"corpus": "jobs", "id": "d1", "rating": 1, "x": 1}]}, 400, "x"),
        ({"ratings": [{"corpus": "none", "id": "d1", "rating": 1}]}, 422, "no corpus 'none'"),
        ({"ratings": [{"corpus": "jobs", "id": "nope", "rating": 1}]}, 422, "no document 'nope'"),
        ({"ratings": [{"corpus": "jobs", "id": "a/../b", "rating": 1}]}, 422, "no document"),
        ({"corpora": ["none"]}, 422, "no corpus 'none'"),
        ({"query": " "}, 400, "blank"),
        ({"source": ""}, 400, "source"),
        ({"accuracy": 1.0}, 400, "accuracy"),
    ],
)
async def test_episodes_that_cannot_be_are_refused_and_leave_nothing(
    still: World, change: dict[str, Any], status: int, says: str
) -> None:
    body = {"query": QUERY, "ratings": [{"corpus": "jobs", "id": "d1", "rating": 1}]}
    answer = await still.matrix.post("/matrix/playbook", json=body | change)
    assert answer.status_code == status, answer.text
    assert says in answer.text
    assert (await still.matrix.get("/matrix/playbook")).json()["total"] == 0


async def test_nothing_is_recorded_while_its_corpus_cannot_be_reached(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.corpus("jobs", DOCS)
        w.peers["vectord"].down = True
        body = {"query": QUERY, "ratings": [{"corpus": "jobs", "id": "d1", "rating": 1}]}
        assert (await w.matrix.post("/matrix/playbook", json=body)).status_code == 503
        w.peers["vectord"].down = False
        assert (await w.matrix.get("/matrix/playbook")).json()["total"] == 0
        assert (await w.matrix.post("/matrix/playbook", json=body)).status_code == 201


async def test_a_damaged_log_costs_only_what_was_hit(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.corpus("jobs", DOCS)
        for n in range(3):
            await record(w, (f"d{n}", 1), run_id=f"r{n}")
        await w.stop()
        folder = w.config.data_dir("matrixd") / "playbook"
        log = next(p for p in sorted(folder.iterdir()) if p.stat().st_size > 3000)
        lines = log.read_bytes().split(b"\n")
        lines[1] = lines[1].replace(b'"query":"', b'"query":"X', 1)
        log.write_bytes(b"\n".join(lines))
        await w.start()
        left = (await w.matrix.get("/matrix/playbook")).json()["episodes"]
        assert [e["run_id"] for e in left] == ["r2", "r0"]
        assert (await record(w, ("d7", 1)))["status"] == 201


async def test_a_record_of_another_kind_costs_only_itself(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.corpus("jobs", DOCS)
        await record(w, ("d1", 1), run_id="r0")
        await w.stop()
        with Journal(w.config.data_dir("matrixd") / "playbook") as journal:
            journal.append_many_sync([{"kind": "episode", "id": "x"}, {"kind": "later"}])
        await w.start()
        await record(w, ("d2", 1), run_id="r1")
        left = (await w.matrix.get("/matrix/playbook")).json()["episodes"]
        assert [e["run_id"] for e in left] == ["r1", "r0"]
        text = (await w.matrix.get("/metrics")).text
        assert "lakehouse_matrixd_records_unreadable_total 1.0" in text


async def test_the_client_speaks_these_routes(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.corpus("jobs", DOCS)
        client = MatrixdClient(w.config, {"matrixd": w.matrix._transport})
        asked = RecordRequest.model_validate(
            {"query": QUERY, "ratings": [{"corpus": "jobs", "id": "d1", "rating": 1}]}
        )
        made = await client.record(asked, key="k")
        assert (await client.record(asked, key="k")).duplicate
        assert (await client.get_episode(made.episode_id)).query == QUERY
        assert (await client.list_episodes(limit=5)).total == 1
        assert (await client.retire(RetireRequest(all=True))).retired == 1
        with pytest.raises(NotFound):
            await client.get_episode("ep-none")
        await client.aclose()
