"""What was acknowledged comes back: after restarts, with checkpoints, out of damaged logs."""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from services.pathwayd.app import create_app
from services.pathwayd.core.records import Retire, Write, decode_change, encode_change
from services.pathwayd.store import settling
from services.pathwayd.store.memory import Memory
from services.pathwayd.store.settling import write_checkpoint
from shared.config import Config
from shared.errors import Unavailable
from shared.journal import Journal
from tests.support.apps import running
from tests.support.pathwayd import Switch, World, config_of, embedd_running, pathwayd, until

pytestmark = pytest.mark.anyio

TRACES = "/pathway/traces"


async def fill(w: World, count: int = 30) -> None:
    """Traces of every kind: updated, revised, retired, with keys."""
    for n in range(count):
        await w.post(
            TRACES,
            {
                "content": {"task": f"story number {n}", "n": n},
                "id": f"t{n}",
                "tags": [f"m{n % 3}"],
            },
            201,
            {"Idempotency-Key": f"key{n}"},
        )
    for n in range(0, count, 5):
        await w.put(f"{TRACES}/t{n}", {"content": {"task": f"story changed {n}", "n": n}})
    for n in range(1, count, 7):
        await w.post(f"{TRACES}/t{n}/revise", {"content": {"task": f"new {n}"}, "id": f"r{n}"}, 201)
    for n in range(2, count, 9):
        await w.post(f"{TRACES}/t{n}/retire", {"reason": "because"})
    await w.until_embedded()


async def story(w: World) -> list[Any]:
    """All that a caller can see, scores to the last digit."""
    told: list[Any] = [await w.get(f"{TRACES}?limit=1000")]
    for body in (
        {"query": "story number 4", "k": 50, "explain": True},
        {"query": "changed", "mode": "lexical", "k": 50},
        {"query": "new story", "mode": "semantic", "k": 50, "include_superseded": True},
        {"filter": {"tags": {"contains": "m1"}}, "k": 50},
    ):
        told.append(await w.post("/pathway/search", body))
    for name in ("t0", "t1", "t2", "r1", "r8"):
        told.append(await w.get(f"{TRACES}/{name}/history"))
    return told


@asynccontextmanager
async def quiet(switch: Switch, config: Config) -> Any:
    """pathwayd over an embedd that must not be asked for any trace again."""
    before = switch.texts
    async with pathwayd(config, switch) as w:
        yield w
        queries = 2
        assert switch.texts <= before + queries, "traces were embedded again"


@pytest.mark.parametrize("keys", [{}, {"checkpoint_records": 10}])
async def test_the_same_answers_after_a_restart(tmp_path: Path, keys: Mapping[str, Any]) -> None:
    config = config_of(tmp_path, **keys)
    async with embedd_running(config) as switch:
        async with pathwayd(config, switch) as w:
            await fill(w)
            # Filters leave their fields in the checkpoint that comes after them.
            before = await story(w)
            await w.post(f"{TRACES}/t29/retire", {})
            last = (await w.get("/pathway/stats"))["log"]["last_seq"]
            for n in range(12 if keys else 0):
                await w.put(f"{TRACES}/t28", {"content": {"task": f"story number {n}"}})
            if keys:
                await until_checkpoint(w, last)
            before = await story(w)
        async with quiet(switch, config) as w:
            assert await story(w) == before
            stats = await w.get("/pathway/stats")
            assert (stats["problems"], stats["vectors"]["pending"]) == ([], 0)
            assert (stats["log"]["checkpoint_seq"] > 0) == bool(keys)
            repeated = await w.post(
                TRACES,
                {"content": {"task": "story number 3", "n": 3}, "id": "t3", "tags": ["m0"]},
                200,
                {"Idempotency-Key": "key3"},
            )
            assert (repeated["id"], repeated["duplicate"]) == ("t3", True)


async def until_checkpoint(w: World, seq: int) -> None:
    async def is_there() -> bool:
        log = (await w.get("/pathway/stats"))["log"]
        return log["checkpoint_seq"] >= seq

    await until(is_there)


async def until_checked(w: World) -> dict[str, Any]:
    async def is_checked() -> bool:
        return (await w.get("/pathway/stats"))["log"]["checked"]

    await until(is_checked)
    return await w.get("/pathway/stats")


async def test_a_checkpoint_that_fails_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.pathwayd.store.ledger.RETRY_S", 0.01)
    failures = iter([RuntimeError("odd"), OSError(28, "no space")])

    def refuse(*given: Any) -> None:
        if (error := next(failures, None)) is not None:
            raise error
        write_checkpoint(*given)

    monkeypatch.setattr("services.pathwayd.store.settling.write_checkpoint", refuse)
    config = config_of(tmp_path, checkpoint_records=10)
    async with embedd_running(config) as switch, pathwayd(config, switch) as w:
        await fill(w, 12)
        await until_checkpoint(w, 12)
        assert next(failures, None) is None
        assert len(await w.ids("story", k=50)) > 5


async def test_a_damaged_checkpoint_costs_nothing(tmp_path: Path) -> None:
    config = config_of(tmp_path, checkpoint_records=10)
    async with embedd_running(config) as switch:
        async with pathwayd(config, switch) as w:
            await fill(w)
            await until_checkpoint(w, 20)
            before = await story(w)
        for path in (tmp_path / "data/pathwayd/journal").glob("*.ckpt"):
            blob = bytearray(path.read_bytes())
            blob[len(blob) // 2] ^= 0x40
            path.write_bytes(blob)
        async with pathwayd(config, switch) as w:
            assert (await w.get("/pathway/stats"))["log"]["checkpoint_seq"] == 0
            assert await story(w) == before


async def test_a_checkpoint_of_another_form_is_passed_over(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    async with embedd_running(config) as switch:
        async with pathwayd(config, switch) as w:
            await fill(w, 5)
            before = await story_of(w)
        with Journal(tmp_path / "data/pathwayd/journal") as journal:
            journal.write_checkpoint(journal.last_seq, [b'{"form": 99}\n'])
        async with pathwayd(config, switch) as w:
            assert await story_of(w) == before
            assert "checkpoint" in (await w.get("/pathway/stats"))["problems"][0]


async def test_a_changed_setting_makes_the_words_anew(tmp_path: Path) -> None:
    async with embedd_running(config_of(tmp_path)) as switch:
        async with pathwayd(config_of(tmp_path, checkpoint_records=10), switch) as w:
            for n in range(12):
                await w.add({"task": "x" * 60 + f" behind {n}"}, id=f"t{n}")
            await until_checkpoint(w, 12)
        config = config_of(tmp_path, checkpoint_records=10, max_text_chars=64)
        async with pathwayd(config, switch) as w:
            assert await w.ids("behind", mode="lexical") == []
            await w.put(f"{TRACES}/t3", {"content": "short and behind"})
            assert await w.ids("behind", mode="lexical") == ["t3"]


async def story_of(w: World) -> Any:
    return await w.search("story", k=50)


@pytest.mark.parametrize("seed", range(6))
async def test_damage_costs_the_records_it_hits_and_is_told(tmp_path: Path, seed: int) -> None:
    config = config_of(tmp_path, embed_wait_s=0)
    journal = tmp_path / "data/pathwayd/journal"
    async with embedd_running(config) as switch:
        switch.down = True  # so that there are no records but the traces' own
        async with pathwayd(config, switch) as w:
            for n in range(60):
                await w.add({"task": f"story {n}", "pad": "x" * 50}, id=f"t{n}")
        path = next(journal.glob("0*.jsonl"))
        blob = bytearray(path.read_bytes())
        lines = path.read_bytes().split(b"\n")
        chance = random.Random(seed)
        hit: set[int] = set()
        ends, at = [], 0
        for line in lines[:-1]:
            at += len(line) + 1
            ends.append(at)
        for _ in range(chance.randint(1, 4)):
            where = chance.randrange(len(blob) - 200)
            for n in range(where, where + chance.randint(1, 150)):
                blob[n] = chance.randrange(256)
                hit.add(next(i for i, end in enumerate(ends) if n < end))
        path.write_bytes(blob)
        async with pathwayd(config, switch) as w:
            held = {t["id"] for t in (await w.get(f"{TRACES}?limit=100"))["traces"]}
            spared = {f"t{n}" for n in range(60) if n not in hit}
            assert spared <= held
            stats = await w.get("/pathway/stats")
            lost = 60 - len(held)
            assert stats["log"]["missing"] == lost
            if lost:
                assert f"{lost} records of the log cannot be read" in stats["problems"][0]
                assert (await w.get("/ready", 503))["error"]["details"]["checks"]
            found = await w.ids("story", mode="lexical", k=100)
            assert set(found) == held
            await w.add({"task": "afterwards"})


async def test_damage_under_a_checkpoint_is_found_and_told(tmp_path: Path) -> None:
    config = config_of(tmp_path, checkpoint_records=10)
    async with embedd_running(config) as switch:
        async with pathwayd(config, switch) as w:
            for n in range(12):
                await w.add({"v": n}, id=f"t{n}")
            await w.put(f"{TRACES}/t0", {"content": {"v": 100}})
            await until_checkpoint(w, 12)
        path = next((tmp_path / "data/pathwayd/journal").glob("0*.jsonl"))
        blob = path.read_bytes()
        path.write_bytes(blob.replace(b'"content":{"v":0}', b'"content":{"v":7}', 1))
        async with pathwayd(config, switch) as w:
            stats = await until_checked(w)
            assert stats["log"]["missing"] == 1
            assert "1 records of the log cannot be read (numbers 1)" in stats["problems"][0]
            assert (await w.get(f"{TRACES}/t0"))["content"] == {"v": 100}
            past = await w.get(f"{TRACES}/t0/history")
            assert [e["lost"] for e in past["entries"]] == [False, True]
            assert past["problems"] == ["version 1 of t0 is lost from the log"]
            gone = await w.get(f"{TRACES}/t0?version=1", 404)
            assert "lost" in gone["error"]["message"]


async def test_a_disk_that_fails_under_the_check_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise Unavailable("The log cannot be read: the disk reports an error.")

    config = config_of(tmp_path, checkpoint_records=10)
    async with embedd_running(config) as switch:
        async with pathwayd(config, switch) as w:
            for n in range(12):
                await w.add({"v": n})
            await until_checkpoint(w, 12)
        monkeypatch.setattr("services.pathwayd.store.loading.read_slice", fail)
        async with pathwayd(config, switch) as w:

            async def is_told() -> bool:
                return bool((await w.get("/pathway/stats"))["problems"])

            await until(is_told)
            stats = await w.get("/pathway/stats")
            assert (stats["log"]["checked"], stats["live"]) == (False, 12)
            assert "the disk reports an error" in stats["problems"][0]


async def test_a_lost_record_is_counted_once(tmp_path: Path) -> None:
    config = config_of(tmp_path, checkpoint_records=10)
    async with embedd_running(config) as switch:
        async with pathwayd(config, switch) as w:
            for n in range(12):
                await w.add({"v": n}, id=f"t{n}")
            await until_checkpoint(w, 12)
            await w.add({"v": "behind"}, id="behind")
            await w.add({"v": "last"}, id="last")
        path = next((tmp_path / "data/pathwayd/journal").glob("0*.jsonl"))
        blob = path.read_bytes()
        path.write_bytes(blob.replace(b'"content":{"v":"behind"}', b'"content":{"v":"BEHIND"}'))
        async with pathwayd(config, switch) as w:
            stats = await until_checked(w)
            assert (stats["log"]["missing"], stats["live"]) == (1, 13)
            told = (await w.client.get("/metrics")).text
            assert "lakehouse_pathwayd_lost_records_total 1.0" in told


def write(name: str, at: int, **more: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "version": 1,
        "content": b'{"n":1}',
        "digest": b"",
        "tags": (),
        "text": None,
        "supersedes": None,
        **more,
    }
    return encode_change(Write(id=name, at=at, surface="pathway", created=at, **fields))


async def test_a_cycle_in_damaged_data_is_detected(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    with Journal(tmp_path / "data/pathwayd/journal") as journal:
        journal.append_sync(write("a", 1, supersedes="c"))
        journal.append_sync(write("b", 2, supersedes="a"))
        journal.append_sync(write("c", 3, supersedes="b"))
        journal.append_sync(write("d", 4, supersedes="c"))
        journal.append_sync(write("alone", 5, supersedes="lost"))
        journal.append_sync(write("late", 6, version=3))
        journal.append_sync(encode_change(Retire(("nobody",), 7)))
        journal.append_sync({"op": "magic"})
        journal.append_sync({"op": "add", "id": "torn"})
    async with embedd_running(config) as switch, pathwayd(config, switch) as w:
        past = await w.get(f"{TRACES}/d/history")
        assert past["chain"] == ["d", "c", "b", "a"]
        assert past["cycle"] == ["c", "b", "a", "c"]
        assert "cycle" in past["problems"][0]
        assert (await w.get(f"{TRACES}/a/history"))["cycle"] == ["a", "c", "b", "a"]
        assert "lost" in (await w.get(f"{TRACES}/alone/history"))["problems"][0]
        late = await w.get(f"{TRACES}/late/history")
        assert [(e["version"], e["lost"]) for e in late["entries"]] == [
            (3, False),
            (2, True),
            (1, True),
        ]
        assert (await w.put(f"{TRACES}/late", {"content": 4}))["version"] == 4
        stats = await w.get("/pathway/stats")
        assert stats["log"]["unknown"] == 2
        assert any("no known kind" in p for p in stats["problems"])
        assert (await w.post(f"{TRACES}/d/revise", {"content": 1, "id": "a"}, 409))["error"]


async def test_a_checkpoint_from_behind_a_damaged_end_is_passed_over(tmp_path: Path) -> None:
    config = config_of(tmp_path, embed_wait_s=0)
    folder = tmp_path / "data/pathwayd/journal"
    memory = Memory(10, config.pathwayd.max_text_chars)
    records = [write("a", 1), write("a", 2, version=2, content=b'{"n":2}')]
    with Journal(folder) as journal:
        for seq, record in enumerate(records, start=1):
            memory.apply(seq, decode_change(orjson.loads(orjson.dumps(record))))
        journal.append_sync(records[0])
        taken = settling.begin(memory)
        settling.write_checkpoint(journal, 1, taken, settling.pack_taken(taken, taken.merge()))
    async with embedd_running(config) as switch, pathwayd(config, switch) as w:
        done = await w.put(f"{TRACES}/a", {"content": {"n": 3}})
        assert (done["version"], done["content"]) == (2, {"n": 3})
        assert (await w.get(f"{TRACES}/a"))["content"] == {"n": 3}
        assert any("checkpoint" in p for p in (await w.get("/pathway/stats"))["problems"])


async def test_a_log_that_cannot_be_loaded_is_not_served_as_if_it_were_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("odd")

    config = config_of(tmp_path)
    async with embedd_running(config) as switch:
        async with pathwayd(config, switch) as w:
            await w.add("one", id="a")
        app = create_app(config, transports={"embedd": switch})
        with monkeypatch.context() as patch:
            patch.setattr("services.pathwayd.store.loading.load_memory", fail)
            async with running(app) as transport:
                client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")
                async with client:
                    w = World(client, switch, config, app)
                    await until(lambda: is_failed(w))
                    assert "log" in (await w.add("two", 503, id="a"))["error"]["message"]
                    await w.get(f"{TRACES}/a", 503)
                    await w.get("/ready", 503)
        async with pathwayd(config, switch) as w:
            assert (await w.get(f"{TRACES}/a"))["content"] == "one"


async def is_failed(w: World) -> bool:
    return (await w.get("/pathway/stats"))["status"] != "loading"


async def test_a_second_daemon_is_kept_out(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    async with embedd_running(config) as switch, pathwayd(config, switch):
        with pytest.raises(Exception, match="in use by process"):
            async with pathwayd(config, switch):
                pass


async def test_a_full_disk_is_told_and_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path)
    async with embedd_running(config) as switch:
        async with pathwayd(config, switch) as w:
            await w.add({"n": 1}, id="kept")

            def refuse(*_: object) -> int:
                raise OSError(28, "no space")

            with monkeypatch.context() as patch:
                patch.setattr("shared.journal.tail.write_fully", refuse)
                refused = await w.add({"n": 2}, 507, id="lost")
            assert refused["error"]["code"] == "insufficient_storage"
            assert (await w.get("/ready", 503))["error"]["details"]["checks"]["journal"] != "ok"
            assert (await w.get(f"{TRACES}/kept"))["content"] == {"n": 1}
            await w.get(f"{TRACES}/lost", 404)
            assert await w.ids("kept", mode="lexical") == []
        async with pathwayd(config, switch) as w:
            assert len((await w.get(TRACES))["traces"]) == 1
            await w.add({"n": 2}, id="lost")


async def test_crowded_indexes_are_made_anew_while_serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.pathwayd.store.index.CROWDED_ROWS", 20)
    config = config_of(tmp_path, checkpoint_records=40)
    async with embedd_running(config) as switch:
        async with pathwayd(config, switch) as w:
            await fill(w, 20)
            for round in range(12):
                for n in (3, 4, 6):
                    content = {"task": f"story number {n} round {round}"}
                    await w.put(f"{TRACES}/t{n}", {"content": content})
                await w.add({"task": f"extra {round}"}, id=f"x{round}")

            async def is_packed() -> bool:
                rows = len(w.app.state.parts.ledger.memory.index.entries)
                return rows < 60

            await until(is_packed)
            await w.until_embedded()
            before = await story(w)
            assert await w.ids("round 11 number 4", mode="lexical", k=1) == ["t4"]
            assert (await w.search("story number 4 round 11"))["semantic"]["status"] == "ok"
        async with pathwayd(config, switch) as w:
            assert await story(w) == before


async def test_a_caller_who_leaves_does_not_stop_a_change(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    async with embedd_running(config) as switch, pathwayd(config, switch) as w:
        headers = {"x-deadline-ms": "1"}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("shared.journal.tail.write_fully", _slow(patch))
            answer = await w.client.post(TRACES, json={"content": 1, "id": "slow"}, headers=headers)
        assert answer.status_code == 504

        async def is_there() -> bool:
            response: httpx.Response = await w.client.get(f"{TRACES}/slow")
            return response.status_code == 200

        await until(is_there)


def _slow(_: object) -> Any:
    import time

    from shared.journal.disk import write_fully

    def write_slowly(*given: Any) -> None:
        time.sleep(0.3)
        write_fully(*given)

    return write_slowly
