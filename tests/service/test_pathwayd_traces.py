"""pathwayd's traces over ASGI: every route, its rules, and what it refuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest

from services.pathwayd.store import reading
from shared.journal import Journal, Record
from tests.support.pathwayd import World, config_of, world

pytestmark = pytest.mark.anyio

TRACES = "/pathway/traces"


@pytest.fixture
async def w(tmp_path: Path) -> AsyncGenerator[World]:
    async with world(config_of(tmp_path)) as made:
        yield made


@pytest.fixture(scope="module")
async def still(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[World]:
    """The same for tests whose requests are all refused."""
    async with world(config_of(tmp_path_factory.mktemp("still"))) as made:
        yield made


async def test_is_alive_and_ready(w: World) -> None:
    assert (await w.get("/health"))["service"] == "pathwayd"
    assert (await w.get("/ready"))["checks"] == {"traces": "ok", "journal": "ok", "embedd": "ok"}
    w.embedd.down = True
    assert "embedd" in (await w.get("/ready", 503))["error"]["message"]
    await w.add({"n": 1})
    figures = (await w.client.get("/metrics")).text
    assert 'lakehouse_pathwayd_traces{status="live"} 1.0' in figures
    assert "lakehouse_pathwayd_writes_total 1.0" in figures


async def test_a_trace_is_added_and_comes_back_as_it_was(w: World) -> None:
    content = {"task": "match a nurse", "n": 2**63, "deep": [{"x": [1.5, None, True]}], "é": "å"}
    answer = await w.client.post(TRACES, json={"content": content, "tags": ["a", "b", "a"]})
    assert answer.status_code == 201
    made = answer.json()
    assert answer.headers["etag"] == '"1"'
    assert (made["version"], made["status"], made["tags"]) == (1, "live", ["a", "b"])
    assert made["embedded"] is True
    got = await w.get(f"{TRACES}/{made['id']}")
    assert got["content"] == content
    assert got["created_at"] == got["updated_at"] == made["created_at"]
    assert got["created_at"].endswith("Z")
    for odd in ("a text", ["a", "list"], 7, {}, False):
        again = await w.add(odd)
        assert (await w.get(f"{TRACES}/{again['id']}"))["content"] == odd


async def test_adds_are_idempotent_by_content_key_and_id(w: World) -> None:
    first = await w.add({"a": 1, "b": [1, 2]}, dedupe=True)
    same = await w.add({"b": [1, 2], "a": 1}, 200, dedupe=True)
    assert (same["id"], same["duplicate"]) == (first["id"], True)
    assert (await w.add({"a": 1, "b": [1, 2]}))["id"] != first["id"], "not asked for"
    assert (await w.add({"a": True, "b": [1, 2]}, dedupe=True))["id"] != first["id"]

    key = {"Idempotency-Key": "once"}
    one = await w.post(TRACES, {"content": "x"}, 201, key)
    two = await w.post(TRACES, {"content": "x"}, 200, key)
    assert (two["id"], two["duplicate"]) == (one["id"], True)
    other = await w.post(TRACES, {"content": "y"}, 409, key)
    assert "another request" in other["error"]["message"]
    await w.post(TRACES, {"content": "x"}, 400, {"Idempotency-Key": "k" * 256})

    named = await w.add({"c": 1}, id="mine", tags=["t"])
    assert (await w.add({"c": 1}, 200, id="mine", tags=["t"]))["duplicate"] is True
    assert (await w.add({"c": 2}, 409, id="mine"))["error"]["details"]["id"] == named["id"]
    await w.add({"c": 2}, 400, id="../etc")


async def test_dedupe_lets_a_retired_trace_rest(w: World) -> None:
    first = await w.add({"a": 1}, dedupe=True)
    await w.post(f"{TRACES}/{first['id']}/retire", {})
    again = await w.add({"a": 1}, dedupe=True)
    assert again["id"] != first["id"]


async def test_many_at_once_with_one_content_make_one_trace(w: World) -> None:
    body = {"content": {"same": "thing"}, "dedupe": True}
    answers = await asyncio.gather(*(w.client.post(TRACES, json=body) for _ in range(12)))
    assert sorted(a.status_code for a in answers) == [200] * 11 + [201]
    assert len({a.json()["id"] for a in answers}) == 1


async def test_an_update_is_a_new_version_in_place(w: World) -> None:
    made = await w.add({"v": 1}, tags=["t"])
    url = f"{TRACES}/{made['id']}"
    two = await w.put(url, {"content": {"v": 2}})
    assert (two["version"], two["tags"], two["created_at"]) == (2, ["t"], made["created_at"])
    three = await w.put(url, {"content": {"v": 3}, "tags": []}, headers={"If-Match": '"2"'})
    assert (three["version"], three["tags"]) == (3, [])
    stale = await w.put(url, {"content": {"v": 9}}, 412, {"If-Match": '"2"'})
    assert stale["error"]["details"]["version"] == 3
    stale = await w.put(url, {"content": {"v": 9}, "expected_version": 2}, 409)
    assert stale["error"]["details"] == {"id": made["id"], "version": 3, "expected_version": 2}
    await w.put(url, {"content": {"v": 9}}, 400, {"If-Match": "3"})
    assert (await w.put(url, {"content": {"v": 4}}, headers={"If-Match": '"1", "3"'}))["version"]
    assert (await w.put(url, {"content": {"v": 5}}, headers={"If-Match": "*"}))["version"] == 5
    old = await w.get(f"{url}?version=2")
    assert (old["version"], old["content"], old["tags"]) == (2, {"v": 2}, ["t"])
    await w.get(f"{url}?version=6", 404)
    await w.put(f"{TRACES}/none", {"content": 1}, 404)
    key = {"Idempotency-Key": "u", "If-Match": '"5"'}
    assert (await w.put(url, {"content": {"v": 6}}, 200, key))["version"] == 6
    repeated = await w.put(url, {"content": {"v": 6}}, 200, key)
    assert (repeated["version"], repeated["duplicate"]) == (6, True)


async def test_of_two_updates_at_once_with_one_version_one_wins(w: World) -> None:
    made = await w.add({"v": 1})
    url = f"{TRACES}/{made['id']}"
    answers = await asyncio.gather(
        *(
            w.client.put(url, json={"content": {"by": n}}, headers={"If-Match": '"1"'})
            for n in range(8)
        )
    )
    assert sorted(a.status_code for a in answers) == [200] + [412] * 7
    assert (await w.get(url))["version"] == 2


async def test_a_revision_supersedes(w: World) -> None:
    made = await w.add({"plan": "first"}, tags=["t"])
    url = f"{TRACES}/{made['id']}"
    new = await w.post(f"{url}/revise", {"content": {"plan": "second"}}, 201)
    assert (new["supersedes"], new["version"], new["tags"]) == (made["id"], 1, ["t"])
    old = await w.get(url)
    assert (old["status"], old["superseded_by"]) == ("superseded", new["id"])
    again = await w.post(f"{url}/revise", {"content": {"plan": "third"}}, 409)
    assert again["error"]["details"]["superseded_by"] == new["id"]
    await w.put(url, {"content": {}}, 409)
    assert await w.ids("plan") == [new["id"]]
    found = await w.ids("plan", include_superseded=True)
    assert set(found) == {made["id"], new["id"]}


async def test_a_revision_with_an_id_can_be_sent_again(w: World) -> None:
    await w.add({"v": 1}, id="a", tags=["t"])
    body = {"content": {"v": 2}, "id": "b"}
    done = await w.post(f"{TRACES}/a/revise", body, 201)
    again = await w.post(f"{TRACES}/a/revise", body, 200)
    assert (again["id"], again["version"], again["duplicate"]) == (done["id"], 1, True)
    for other in ({"content": {"v": 3}}, {"content": {"v": 2}, "tags": []}):
        await w.post(f"{TRACES}/a/revise", {**other, "id": "b"}, 409)
    await w.add({"v": 2}, id="c")
    await w.post(f"{TRACES}/c/revise", body, 409)
    longest = {"Idempotency-Key": "k" * 255}
    await w.post(f"{TRACES}/batch", {"traces": [{"content": 1}, {"content": 2}]}, 201, longest)


async def test_of_two_revisions_at_once_one_wins(w: World) -> None:
    made = await w.add({"plan": "first"})
    path = f"{TRACES}/{made['id']}/revise"
    answers = await asyncio.gather(
        *(w.client.post(path, json={"content": {"by": n}}) for n in range(8))
    )
    assert sorted(a.status_code for a in answers) == [201] + [409] * 7
    won = next(a.json() for a in answers if a.status_code == 201)
    lost = next(a.json() for a in answers if a.status_code == 409)
    assert lost["error"]["details"]["superseded_by"] == won["id"]


async def test_a_cycle_is_refused(w: World) -> None:
    await w.add({"n": 1}, id="a")
    await w.post(f"{TRACES}/a/revise", {"content": {"n": 2}, "id": "b"}, 201)
    await w.post(f"{TRACES}/b/revise", {"content": {"n": 3}, "id": "c"}, 201)
    refused = await w.post(f"{TRACES}/c/revise", {"content": {"n": 4}, "id": "a"}, 409)
    assert refused["error"]["details"]["cycle"] == ["c", "b", "a", "c"]
    itself = await w.post(f"{TRACES}/c/revise", {"content": {"n": 4}, "id": "c"}, 409)
    assert itself["error"]["details"]["cycle"] == ["c", "c"]
    assert (await w.get(f"{TRACES}/c"))["status"] == "live"


async def test_a_retired_trace_is_never_found_and_keeps_its_history(w: World) -> None:
    made = await w.add({"text": "purple elephants"}, tags=["t"])
    url = f"{TRACES}/{made['id']}"
    assert await w.ids("purple elephants") == [made["id"]]
    gone = await w.post(f"{url}/retire", {"reason": "it was wrong"})
    assert (gone["status"], gone["reason"]) == ("retired", "it was wrong")
    for mode in ("hybrid", "semantic", "lexical"):
        assert await w.ids("purple elephants", mode=mode, include_superseded=True) == []
    assert await w.ids(filter={"tags": {"contains": "t"}}, include_superseded=True) == []
    assert (await w.get(url))["retired_at"] == gone["retired_at"]
    again = await w.client.post(f"{url}/retire")
    assert (again.status_code, again.json()["duplicate"]) == (200, True)
    assert again.json()["reason"] == "it was wrong"
    assert "retired" in (await w.put(url, {"content": {}}, 409))["error"]["message"]
    assert (await w.post(f"{url}/revise", {"content": {}}, 409))["error"]["code"] == "conflict"
    past = await w.get(f"{url}/history")
    assert [(e["event"], e["reason"]) for e in past["entries"]] == [
        ("retire", "it was wrong"),
        ("add", None),
    ]
    await w.post(f"{TRACES}/none/retire", {}, 404)


async def test_history_walks_backwards_through_the_chain(w: World) -> None:
    await w.add({"n": 1}, id="a", tags=["first"])
    await w.put(f"{TRACES}/a", {"content": {"n": 2}})
    await w.post(f"{TRACES}/a/revise", {"content": {"n": 3}, "id": "b"}, 201)
    await w.put(f"{TRACES}/b", {"content": {"n": 4}})
    past = await w.get(f"{TRACES}/b/history")
    assert past["chain"] == ["b", "a"]
    told = [(e["id"], e["version"], e["event"], e["content"]["n"]) for e in past["entries"]]
    assert told == [
        ("b", 2, "update", 4),
        ("b", 1, "revise", 3),
        ("a", 2, "update", 2),
        ("a", 1, "add", 1),
    ]
    assert (past["cycle"], past["problems"], past["truncated"]) == (None, [], False)
    assert (await w.get(f"{TRACES}/a/history"))["chain"] == ["a"]
    short = await w.get(f"{TRACES}/b/history?limit=2")
    assert (len(short["entries"]), short["truncated"]) == (2, True)
    await w.get(f"{TRACES}/none/history", 404)


async def test_a_long_history_is_read_in_few_goes(
    w: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await w.add({"n": 0}, id="busy")
    for n in range(1, 121):
        await w.put(f"{TRACES}/busy", {"content": {"n": n}})
    replays: list[int | None] = []
    replay = Journal.replay

    def count(journal: Journal, start: int | None = None, **more: Any) -> Iterator[Record]:
        replays.append(start)
        return replay(journal, start, **more)

    monkeypatch.setattr(Journal, "replay", count)
    past = await w.get(f"{TRACES}/busy/history?limit=1000")
    assert [e["content"]["n"] for e in past["entries"]] == list(range(120, -1, -1))
    assert (past["problems"], past["truncated"]) == ([], False)
    assert len(replays) <= 5


async def test_pages_are_bounded_in_bytes(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_PAGE_BYTES", 2500)
    for n in range(6):
        await w.add({"n": n, "long": "x" * 1000}, id=f"t{n}")
        await w.put(f"{TRACES}/t0", {"content": {"n": n, "long": "x" * 1000}})
    path, seen = f"{TRACES}?limit=100", []
    while path:
        page = await w.get(path)
        assert len(page["traces"]) <= 3
        seen += [t["id"] for t in page["traces"]]
        path = f"{TRACES}?limit=100&cursor={page['cursor']}" if page["cursor"] else ""
    assert seen == ["t0", "t5", "t4", "t3", "t2", "t1"]
    past = await w.get(f"{TRACES}/t0/history?limit=100")
    assert ([e["version"] for e in past["entries"]], past["truncated"]) == ([7, 6, 5], True)


async def test_lists_newest_first_page_by_page(w: World) -> None:
    for n in range(7):
        await w.add({"n": n}, id=f"t{n}", tags=["even" if n % 2 == 0 else "odd"])
    await w.put(f"{TRACES}/t0", {"content": {"n": 0.5}})
    seen: list[str] = []
    path = f"{TRACES}?limit=3"
    for _ in range(3):
        page = await w.get(path)
        seen += [t["id"] for t in page["traces"]]
        path = f"{TRACES}?limit=3&cursor={page['cursor']}"
    assert seen == ["t0", "t6", "t5", "t4", "t3", "t2", "t1"]
    assert page["cursor"] is None
    even = await w.get(f"{TRACES}?tag=even&status=live")
    assert [t["id"] for t in even["traces"]] == ["t0", "t6", "t4", "t2"]
    await w.get(f"{TRACES}?cursor=x", 400)
    assert "cursor" in (await w.get(f"{TRACES}?cursor={'9' * 5000}.t0", 400))["error"]["message"]
    await w.get(f"{TRACES}?limit=0", 400)


async def test_an_id_that_is_taken_is_told_what_can_be_done_with_it(w: World) -> None:
    await w.add("one", id="a")
    assert "PUT it" in (await w.add("two", 409, id="a"))["error"]["message"]
    await w.post(f"{TRACES}/a/retire", {})
    said = (await w.add("two", 409, id="a"))["error"]["message"]
    assert ("retired" in said, "PUT" in said) == (True, False), said


async def test_a_batch_is_checked_whole_and_answers_in_order(w: World) -> None:
    items: list[dict[str, Any]] = [{"content": {"n": n}, "id": f"b{n}"} for n in range(20)]
    body = {"traces": [*items, {"content": {"n": 3}, "dedupe": True}]}
    done = await w.post(f"{TRACES}/batch", body, 201, {"Idempotency-Key": "bulk"})
    assert [t["id"] for t in done["traces"]] == [*(f"b{n}" for n in range(20)), "b3"]
    again = await w.post(f"{TRACES}/batch", body, 201, {"Idempotency-Key": "bulk"})
    assert [t["id"] for t in again["traces"]] == [t["id"] for t in done["traces"]]
    assert all(t["duplicate"] for t in again["traces"])
    assert (await w.get("/pathway/stats"))["live"] == 20
    # Under one key another batch is another request, however much of it is the same.
    for other in ([*items, {"content": "more"}], items[:3], items[:1], items[::-1]):
        await w.post(f"{TRACES}/batch", {"traces": other}, 409, {"Idempotency-Key": "bulk"})
    await w.post(TRACES, items[0], 409, {"Idempotency-Key": "bulk"})
    bad = {"traces": [{"content": 1}, {"content": None}]}
    await w.post(f"{TRACES}/batch", bad, 400)
    await w.post(f"{TRACES}/batch", {"traces": []}, 400)
    twice = {"traces": [{"content": 1, "id": "q"}, {"content": 2, "id": "q"}]}
    await w.post(f"{TRACES}/batch", twice, 409)
    assert (await w.get("/pathway/stats"))["live"] == 20
    same = {"traces": [{"content": "s", "dedupe": True}, {"content": "s", "dedupe": True}]}
    found = (await w.post(f"{TRACES}/batch", same, 201))["traces"]
    assert found[0]["id"] == found[1]["id"]
    assert [t["duplicate"] for t in found] == [False, True]


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{", 400, "JSON"),
        (b"", 400, "JSON"),
        (b"[]", 400, "object"),
        (b"{}", 400, "content"),
        (b'{"content": null}', 400, "null"),
        (b'{"content": {"x": NaN}}', 400, "content"),
        (b'{"content": 1e999}', 400, "infinity"),
        (b'{"content": {"x": 18446744073709551616}}', 400, "64 bit"),
        (b'{"content": "\\ud800"}', 400, "JSON"),
        (b'{"content": {"\\udfff": 1}}', 400, "JSON"),
        (b'{"content": "\xff"}', 400, "JSON"),
        (b'{"content": 1, "contents": 2}', 400, "contents"),
        (b'{"content": 1, "tags": [""]}', 400, "tags"),
        (b'{"content": 1, "tags": "a"}', 400, "tags"),
        (b'{"content": 1, "tags": [1]}', 400, "tags"),
        (b'{"content": 1, "vector": [0, 0]}', 400, "direction"),
        (b'{"content": 1, "vector": "?"}', 400, "base64"),
        (b'{"content": 1, "vector": []}', 400, "numbers"),
        (b'{"content": ' + b"[" * 70 + b"]" * 70 + b"}", 400, "deep"),
        (b'{"content": ' + b"[" * 5000 + b"]" * 5000 + b"}", 400, "JSON"),
        (b'{"content": "' + b"x" * 1_100_000 + b'"}', 413, "1048576"),
    ],
)
async def test_what_cannot_be_kept_is_refused(
    still: World, body: bytes, status: int, says: str
) -> None:
    answer = await still.client.post(TRACES, content=body)
    assert answer.status_code == status, answer.text
    assert says in answer.json()["error"]["message"]
    assert json.loads(answer.content)["error"]["service"] == "pathwayd"
    assert (await still.get("/pathway/stats"))["live"] == 0


async def test_a_method_that_is_not_taken_is_told_all_that_are(w: World) -> None:
    answer = await w.client.delete(f"{TRACES}/a")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, PUT")
    assert "takes GET, PUT, not DELETE" in answer.json()["error"]["message"]


async def test_unknown_things_are_404(w: World) -> None:
    for path in (f"{TRACES}/none", f"{TRACES}/%00", f"{TRACES}/{'x' * 500}"):
        assert "POST /pathway/search" in (await w.get(path, 404))["error"]["message"]
    await w.post(f"{TRACES}/none/revise", {"content": 1}, 404)
    assert "no route" in (await w.post(f"{TRACES}/", {"content": 1}, 404))["error"]["message"]
