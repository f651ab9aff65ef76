"""The line of work to one model: computed once, in turn, and dropped when nobody waits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

import pytest
from prometheus_client import CollectorRegistry

from services.embedd.core.lru import Entry
from services.embedd.store.figures import Figures
from services.embedd.store.lane import PREPARE_AT_ONCE, Lane
from shared import context
from shared.errors import Internal, Invalid, LakehouseError, Unavailable

pytestmark = pytest.mark.anyio


class Model:
    """A model that computes when it is let, and remembers what it was given."""

    def __init__(self, can_break_off: bool = False, at_once: int = 1, max_items: int = 4) -> None:
        self.batches: list[list[str]] = []
        self.kept: dict[bytes, Entry] = {}
        self.gate = asyncio.Event()
        self.failures: dict[str, Exception] = {}
        self.broken_off = 0
        self.prepared = 0
        self.registry = CollectorRegistry()
        self.lane: Lane[str] = Lane(
            prepare=self.prepare,
            compute=self.compute,
            keep=self.kept.__setitem__,
            figures=Figures(self.registry).of_provider("test"),
            at_once=at_once,
            max_items=max_items,
            can_break_off=can_break_off,
        )

    async def prepare(self, texts: Sequence[str]) -> list[tuple[str, int]]:
        self.prepared += len(texts)
        assert "unpreparable" not in texts
        return [(text, len(text)) for text in texts]

    async def compute(self, texts: list[str]) -> list[Entry]:
        self.batches.append(texts)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.broken_off += 1
            raise
        for text in texts:
            if text in self.failures:
                raise self.failures[text]
        return [Entry(text.encode(), 1, False) for text in texts]

    def start(self, *texts: str) -> asyncio.Task[dict[bytes, Entry]]:
        wanted = {text.encode(): text for text in texts}
        return asyncio.create_task(self.lane.fetch(wanted))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def cancel(task: asyncio.Task[dict[bytes, Entry]]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_text_asked_for_by_a_hundred_at_once_is_computed_once() -> None:
    model = Model()
    asking = [model.start("same") for _ in range(100)]
    await until(lambda: len(model.batches) == 1)
    late = model.start("same")
    model.gate.set()
    answers = await asyncio.gather(*asking, late)
    assert model.batches == [["same"]]
    assert answers == [{b"same": Entry(b"same", 1, False)}] * 101
    assert model.lane.is_idle
    assert list(model.kept) == [b"same"]


async def test_who_leaves_does_not_cancel_what_others_wait_for() -> None:
    model = Model(can_break_off=True)
    first, second = model.start("same"), model.start("same")
    await until(lambda: len(model.batches) == 1)
    await cancel(first)
    model.gate.set()
    assert await second == {b"same": Entry(b"same", 1, False)}
    assert model.broken_off == 0


async def test_queued_texts_of_who_left_are_never_computed() -> None:
    model = Model()
    holder = model.start("held")
    await until(lambda: len(model.batches) == 1)
    leaver, stayer = model.start("left", "both"), model.start("both", "stays")
    await until(lambda: model.prepared == 4)
    await cancel(leaver)
    model.gate.set()
    await asyncio.gather(holder, stayer)
    assert sorted(text for batch in model.batches for text in batch) == ["both", "held", "stays"]
    assert model.lane.is_idle


async def test_a_batch_under_way_for_nobody_is_kept_or_broken_off() -> None:
    for can_break_off in (False, True):
        model = Model(can_break_off=can_break_off)
        leaver = model.start("a")
        await until(lambda model=model: len(model.batches) == 1)
        await cancel(leaver)
        model.gate.set()
        await until(lambda model=model: model.lane.is_idle)
        assert model.broken_off == int(can_break_off)
        assert (b"a" in model.kept) is not can_break_off


async def test_asked_for_again_while_it_is_being_broken_off() -> None:
    model = Model(can_break_off=True)
    leaver = model.start("a")
    await until(lambda: len(model.batches) == 1)
    leaver.cancel()
    await asyncio.sleep(0)
    again = model.start("a")
    model.gate.set()
    assert await asyncio.wait_for(again, 5) == {b"a": Entry(b"a", 1, False)}


async def test_the_bad_text_is_found_and_harms_no_one_else() -> None:
    model = Model(max_items=100)
    model.failures["bad"] = Invalid("too long")
    model.gate.set()
    good = model.start(*(f"good{i}" for i in range(9)))
    bad = model.start("fine", "bad", "well")
    other = model.start("other")
    assert len(await good) == 9
    assert len(await other) == 1
    with pytest.raises(Invalid, match="too long"):
        await bad
    assert model.lane.is_idle


async def test_a_request_that_failed_is_not_searched_for_more_bad_texts() -> None:
    model = Model(max_items=100)
    model.gate.set()
    texts = [f"t{i:02}" for i in range(64)]
    model.failures = {text: Invalid("refused") for text in texts}
    with pytest.raises(Invalid):
        await model.start(*texts)
    await until(lambda: model.lane.is_idle)
    assert [len(batch) for batch in model.batches] == [64, 32, 16, 8, 4, 2, 1]


async def test_a_provider_that_goes_away_fails_the_request_and_keeps_what_is_done() -> None:
    model = Model(max_items=2)
    model.failures["c3"] = Unavailable("gone")
    model.gate.set()
    with pytest.raises(Unavailable, match="gone"):
        await model.start("a1", "b2", "c3", "d4", "e5", "f6")
    await until(lambda: model.lane.is_idle)
    assert set(model.kept) == {b"a1", b"b2"}
    assert len(model.batches) == 2
    model.failures.clear()
    assert set(await model.start("c3", "d4")) == {b"c3", b"d4"}


@pytest.mark.parametrize("text", ["unpreparable", "crash"])
async def test_a_fault_of_ours_is_an_internal_error(text: str) -> None:
    model = Model()
    model.failures["crash"] = RuntimeError("secret inside")
    model.gate.set()
    with pytest.raises(Internal) as failed:
        await model.start(text)
    assert "secret" not in failed.value.message
    assert model.lane.is_idle
    assert set(await model.start("fine")) == {b"fine"}


async def test_work_that_is_shared_has_no_ones_deadline() -> None:
    seen: list[object] = []
    model = Model()

    async def compute(texts: list[str]) -> list[Entry]:
        seen.extend([context.deadline.get(), context.request_id.get()])
        return [Entry(b"", 1, False) for _ in texts]

    model.lane._compute = compute
    context.deadline.set(5.0)
    context.request_id.set("mine")
    await model.lane.fetch({b"a": "a"})
    assert seen == [None, ""]


async def test_a_large_request_is_prepared_in_parts_and_small_ones_pass() -> None:
    model = Model(max_items=1)
    bulk = model.start(*(f"{i:06}" for i in range(3 * PREPARE_AT_ONCE)))
    await until(lambda: len(model.batches) == 1)
    query = model.start("q")
    await until(lambda: model.prepared == 3 * PREPARE_AT_ONCE + 1)
    model.gate.set()
    await query
    assert model.batches.index(["q"]) <= 2
    assert len(await bulk) == 3 * PREPARE_AT_ONCE


async def test_closing_ends_the_work_and_tells_who_waits() -> None:
    model = Model()
    waiting = [model.start("a"), model.start("b", "c")]
    await until(lambda: len(model.batches) == 1)
    await model.lane.aclose()
    for task in waiting:
        with pytest.raises(LakehouseError, match="stopping"):
            await task


async def test_what_is_in_hand_is_counted() -> None:
    model = Model()
    task = model.start("a", "b")
    await asyncio.sleep(0)
    assert model.lane.in_hand == 2
    assert model.lane.count_new([b"a", b"c", b"d"]) == 2
    model.gate.set()
    await task
    assert model.registry.get_sample_value("embedd_texts_total", {"provider": "test"}) == 2


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens_everyone_is_answered_and_nothing_is_left(seed: int) -> None:
    dice = random.Random(seed)
    model = Model(can_break_off=seed % 2 == 0, at_once=1 + seed % 3, max_items=1 + seed % 5)

    async def compute(texts: list[str]) -> list[Entry]:
        for _ in range(dice.randrange(4)):
            await asyncio.sleep(0)
        if dice.random() < 0.1:
            raise Unavailable("gone")
        if any(text.startswith("bad") for text in texts):
            raise Invalid("refused")
        return [Entry(text.encode(), 1, False) for text in texts]

    model.lane._compute = compute
    tasks: list[asyncio.Task[dict[bytes, Entry]]] = []
    for _ in range(60):
        names = [f"{dice.choice(['bad', 'a', 'bb'])}{dice.randrange(12)}" for _ in range(4)]
        tasks.append(model.start(*dict.fromkeys(names)))
        for _ in range(dice.randrange(4)):
            await asyncio.sleep(0)
        if dice.random() < 0.3:
            dice.choice(tasks).cancel()
    ended = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
    for answer in ended:
        if isinstance(answer, dict):
            assert all(entry.vector == key for key, entry in answer.items())
        else:
            assert isinstance(answer, Invalid | Unavailable | asyncio.CancelledError)
    await until(lambda: model.lane.is_idle)
    assert model.lane._queue._heap == []
