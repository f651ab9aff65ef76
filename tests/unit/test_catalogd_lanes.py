"""One commit at a time per dataset, also when callers go away."""

from __future__ import annotations

import asyncio

import pytest

from services.catalogd.store.lanes import Lanes

pytestmark = pytest.mark.anyio


class Work:
    """Work that says when it began and ends when it is told."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.may_end = asyncio.Event()
        self.ended = False

    async def __call__(self) -> str:
        self.began.set()
        await self.may_end.wait()
        self.ended = True
        return "done"


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_work_of_one_name_comes_one_after_another() -> None:
    lanes, first, second = Lanes(), Work(), Work()
    tasks = [asyncio.create_task(lanes.run("a", work)) for work in (first, second)]
    await first.began.wait()
    await settle()
    assert not second.began.is_set()
    first.may_end.set()
    await second.began.wait()
    assert first.ended
    second.may_end.set()
    assert await asyncio.gather(*tasks) == ["done", "done"]


async def test_work_of_different_names_goes_side_by_side() -> None:
    lanes, first, second = Lanes(), Work(), Work()
    tasks = [
        asyncio.create_task(lanes.run(name, work)) for name, work in (("a", first), ("b", second))
    ]
    await first.began.wait()
    await second.began.wait()
    assert not first.ended
    first.may_end.set()
    second.may_end.set()
    assert await asyncio.gather(*tasks) == ["done", "done"]


async def test_a_caller_who_leaves_does_not_stop_its_work_nor_open_the_lane() -> None:
    lanes, first, second = Lanes(), Work(), Work()
    gone = asyncio.create_task(lanes.run("a", first))
    await first.began.wait()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    waiting = asyncio.create_task(lanes.run("a", second))
    await settle()
    assert not second.began.is_set()
    first.may_end.set()
    await second.began.wait()
    assert first.ended
    second.may_end.set()
    assert await waiting == "done"


async def test_a_caller_who_leaves_the_queue_is_skipped() -> None:
    lanes, first, second, third = Lanes(), Work(), Work(), Work()
    tasks = [asyncio.create_task(lanes.run("a", work)) for work in (first, second, third)]
    await first.began.wait()
    tasks[1].cancel()
    await settle()
    first.may_end.set()
    await third.began.wait()
    third.may_end.set()
    assert await tasks[2] == "done"
    assert not second.began.is_set()


async def test_a_failure_reaches_its_caller_and_opens_the_lane() -> None:
    async def fail() -> None:
        raise KeyError("x")

    lanes, work = Lanes(), Work()
    with pytest.raises(KeyError):
        await lanes.run("a", fail)
    work.may_end.set()
    assert await lanes.run("a", work) == "done"


async def test_a_lane_nobody_uses_is_forgotten() -> None:
    lanes, work = Lanes(), Work()
    work.may_end.set()
    await lanes.run("a", work)
    await settle()
    assert not lanes._locks
    assert not lanes._users
