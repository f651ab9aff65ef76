"""The pool for blocking work: limits that are true, work that is not torn."""

from __future__ import annotations

import asyncio
import threading

import pytest

from shared import context
from shared.errors import RateLimited
from shared.pool import BlockingPool

pytestmark = pytest.mark.anyio


async def test_gives_results_errors_and_the_callers_context() -> None:
    pool = BlockingPool("test", 2, 2)
    context.request_id.set("abc")
    assert await pool.run(lambda: context.request_id.get()) == "abc"
    with pytest.raises(ZeroDivisionError):
        await pool.run(lambda: 1 / 0)
    assert pool.in_flight == 0
    pool.close()


async def test_refuses_past_its_limit_and_recovers() -> None:
    pool = BlockingPool("test", 1, 1)
    gate = threading.Event()
    held = [asyncio.create_task(pool.run(gate.wait)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(RateLimited) as refused:
        await pool.run(lambda: None)
    assert refused.value.headers["Retry-After"] == "1"
    gate.set()
    await asyncio.gather(*held)
    assert await pool.run(lambda: 7) == 7
    pool.close()


async def test_a_cancelled_caller_leaves_the_work_whole_and_its_slot_taken() -> None:
    pool = BlockingPool("test", 1, 0)
    entered, gate, finished = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        entered.set()
        gate.wait()
        finished.set()

    caller = asyncio.create_task(pool.run(work))
    await asyncio.to_thread(entered.wait)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    with pytest.raises(RateLimited):
        await pool.run(lambda: None)
    gate.set()
    await asyncio.to_thread(finished.wait)
    while pool.in_flight:
        await asyncio.sleep(0)
    pool.close()


def test_makes_no_thread_before_its_first_call() -> None:
    before = threading.active_count()
    BlockingPool("test", 8, 8)
    assert threading.active_count() == before
