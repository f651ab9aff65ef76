"""Whose query runs next: simulations of the queue with workers whose queries take known times."""

from __future__ import annotations

import heapq
import random
from itertools import count

import pytest

from services.queryd.core.fairness import FairQueue, Turn, name_caller


def simulate(
    arrivals: list[tuple[float, str, float]], workers: int, until: float = 1e9
) -> list[tuple[str, float, float]]:
    """Serves (when, caller, seconds) and gives (caller, arrived, began) in order of beginning."""
    queue: FairQueue[tuple[float, str, float]] = FairQueue()
    order = count()
    events: list[tuple[float, int, tuple[float, str, float] | None, Turn | None, float]] = [
        (arrival[0], next(order), arrival, None, 0.0) for arrival in arrivals
    ]
    heapq.heapify(events)
    free, served = workers, list[tuple[str, float, float]]()
    while events:
        now, _, arrival, turn, seconds = heapq.heappop(events)
        if now > until:
            break
        if turn is not None:
            queue.finish(turn, seconds)
            free += 1
        elif arrival is not None:
            queue.push(arrival[1], arrival)
        while free and (found := queue.pop()) is not None:
            turn, (came, caller, cost) = found
            free -= 1
            served.append((caller, came, now))
            heapq.heappush(events, (now + cost, next(order), None, turn, cost))
    return served


def waits(served: list[tuple[str, float, float]], caller: str) -> list[float]:
    return [began - came for name, came, began in served if name == caller]


def test_alone_a_caller_is_served_in_order() -> None:
    served = simulate([(i / 10, "a", 1.0) for i in range(5)], workers=1)
    assert [came for _, came, _ in served] == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert [began for _, _, began in served] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_one_query_does_not_wait_behind_anothers_hundred() -> None:
    arrivals = [(0.0, "many", 1.0) for _ in range(100)] + [(0.5, "one", 0.1)]
    assert waits(simulate(arrivals, workers=2), "one") == [0.5]


def test_callers_who_want_more_get_equal_seconds_whatever_a_query_takes() -> None:
    arrivals = [(0.0, "long", 4.0) for _ in range(50)] + [(0.0, "short", 0.5) for _ in range(400)]
    served = simulate(arrivals, workers=2, until=80.0)
    spent = {
        name: sum(cost for caller, _, _ in served if caller == name)
        for name, cost in (("long", 4.0), ("short", 0.5))
    }
    assert spent["long"] == pytest.approx(spent["short"], rel=0.15)


def test_idleness_saves_nothing_up() -> None:
    busy = [(i * 1.0, "steady", 1.0) for i in range(60)]
    burst = [(30.0, "late", 1.0) for _ in range(30)]
    served = simulate(busy + burst, workers=1)
    after = [caller for caller, _, began in served if 31 <= began < 51]
    assert 8 <= after.count("late") <= 12


def test_a_debt_has_an_end() -> None:
    # An hour alone, then both want all: the first is back within the most it can owe.
    arrivals = [(0.0, "first", 3600.0)]
    arrivals += [(3599.0, "first", 1.0)] * 30 + [(3599.0, "second", 1.0)] * 30
    served = simulate(arrivals, workers=1)
    assert [caller for caller, _, began in served if began < 3615].count("first") >= 2


def test_nobody_starves() -> None:
    rng = random.Random(5)
    arrivals = [
        (rng.uniform(0, 100), f"c{rng.randrange(6)}", rng.expovariate(1 / 0.3)) for _ in range(600)
    ]
    served = simulate(arrivals, workers=2)
    assert len(served) == 600
    for caller in range(6):
        name = f"c{caller}"
        came = [c for who, c, _ in served if who == name]
        assert came == sorted(came)


def test_nothing_is_kept_of_callers_when_all_is_quiet() -> None:
    queue: FairQueue[int] = FairQueue()
    for i in range(1000):
        turn = queue.start(f"c{i}")
        queue.finish(turn, 1.0)
    assert queue.__dict__["_accounts"] == {}


def test_whoever_waits_with_the_most_makes_room() -> None:
    queue: FairQueue[int] = FairQueue()
    for i in range(5):
        queue.push("many", i)
    queue.push("few", 10)
    assert queue.crowd_out("new") == 4
    assert queue.crowd_out("many") is None
    assert len(queue) == 5
    assert sorted(queue.items()) == [0, 1, 2, 3, 10]
    for i in (11, 12):
        queue.push("few", i)
    assert queue.crowd_out("few") is None  # it would be the one with the most


def test_one_that_waits_no_longer_is_not_served() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push("a", "x")
    queue.push("a", "y")
    assert queue.drop("a", "x")
    assert not queue.drop("a", "x")
    assert not queue.drop("b", "x")
    found = queue.pop()
    assert found is not None
    assert found[1] == "y"
    assert queue.pop() is None


@pytest.mark.parametrize(
    ("named", "forwarded", "peer", "caller"),
    [
        (" nightly ", "10.0.0.1", "127.0.0.1", "name nightly"),
        (None, "10.9.9.9, 10.0.0.1", "127.0.0.1", "address 10.0.0.1"),
        ("", None, "127.0.0.1", "address 127.0.0.1"),
        (None, None, None, "address "),
        ("x" * 500, None, None, "name " + "x" * 64),
    ],
)
def test_a_caller_is_who_it_says_or_whence_it_comes(
    named: str | None, forwarded: str | None, peer: str | None, caller: str
) -> None:
    assert name_caller(named, forwarded, peer) == caller


def test_one_caller_leaves_the_workers_beyond_its_share_to_others() -> None:
    queue: FairQueue[str] = FairQueue(most=2)
    turns = [queue.start("many"), queue.start("many")]
    assert not queue.may_start("many")
    assert queue.may_start("one")
    queue.push("many", "third")
    assert not queue.has_ready()
    assert queue.pop() is None
    queue.push("one", "first")
    assert queue.has_ready()
    found = queue.pop()
    assert found is not None
    assert found[1] == "first"
    assert queue.pop() is None
    queue.finish(turns[0], 1.0)
    found = queue.pop()
    assert found is not None
    assert found[1] == "third"


def test_what_is_known_to_be_brief_passes_its_callers_share() -> None:
    queue: FairQueue[str] = FairQueue(most=1)
    long = queue.start("a")
    assert not queue.may_start("a")
    assert queue.may_start("a", brief=True)
    queue.push("a", "unknown")
    queue.push("a", "brief", brief=True)
    found = queue.pop()
    assert found is not None
    assert found[1] == "brief"
    assert not queue.has_ready()
    # Its end does not free the place that it never took.
    queue.finish(found[0], 0.01)
    assert queue.pop() is None
    queue.finish(long, 1.0)
    found = queue.pop()
    assert found is not None
    assert found[1] == "unknown"
