"""How long queries make way for short ones.

A query's cost is seldom known when it starts, so all start alike, and one that has run for a
while goes behind those that come after it (a feedback queue, as in Corbató's scheduler of 1962):
it gets the processors that nobody else wants. What lasts, or has lasted before (see
`expectation`), is stopped altogether while a newcomer runs, because even one that only waits for
a processor fills caches, memory's wires and the disk's queue. Where newcomers leave it no gaps it
still gets turns, long ones far apart, which fewer newcomers meet than short ones close together.
Alone a long query is as fast as any.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from services.queryd.core.expectation import LONG_S

W = TypeVar("W")

# A query that has run this long is a long one, one that lasts, and a runaway. Seconds.
PATIENCE_S, LASTING_S, RUNAWAY_S = 0.05, 0.25, 2.0
# How long after its start a query counts as a neighbour, and after a query was seen waiting a
# spare worker is worth while. Seconds.
NEIGHBOUR_S, CROWDED_S = 1.0, 1.0
# Who had less than a turn's time without newcomers in so long runs level with them for a turn.
# Seconds.
WAY_S, TURN_S = 4.0, 0.1
# After one newcomer comes the next: for so long what was stopped stays so. Seconds.
HOLD_S = 0.012
# How often all this is to be looked at anew. Seconds.
LOOK_S = 0.05


class Move(Enum):
    """What is to be done with a worker."""

    BEHIND = "behind"
    LEVEL = "level"
    STOP = "stop"
    GO = "go"


@dataclass(slots=True)
class _Standing:
    """One running query.

    Attributes:
        since: when it began.
        suspect: it is expected to be long.
        crowds: a spare worker is worth while, for those that come while it runs.
        hungry_since: since when it has made way and not had a turn's time; None beside nobody.
        free_s: time without newcomers since then.
    """

    since: float
    suspect: bool
    crowds: bool = False
    hungry_since: float | None = None
    free_s: float = 0.0
    behind: bool = False
    stopped: bool = False
    stopped_since: float = 0.0
    stopped_s: float = 0.0

    def is_long(self, now: float) -> bool:
        """Whether it goes behind newcomers."""
        return self.suspect or now - self.since >= PATIENCE_S

    def is_lasting(self, now: float) -> bool:
        """Whether it is one that is stopped for newcomers."""
        return self.suspect or now - self.since >= LASTING_S


class Manners(Generic[W]):
    """Who of the busy workers makes way; `W` stands for one.

    Args:
        restores: whether a worker that was put behind can be put level again. Where it cannot,
            it has to be replaced afterwards, which takes a third of a second and is only worth
            it for runaways.
    """

    def __init__(self, *, restores: bool) -> None:
        self._restores = restores
        self._running: dict[W, _Standing] = {}
        self._begun: dict[W, float] = {}
        self._weighed = 0.0
        # Until when newcomers are taken to run since this was weighed.
        self._held_until = 0.0
        self._newcomers = False
        self._crowded_until = 0.0

    def start(self, worker: W, now: float, expected_s: float = 0.0) -> None:
        """Notes that a query begins.

        Args:
            expected_s: what it should take; 0 where nothing is known. What should take long is
                taken for a runaway from its start.
        """
        self._running[worker] = _Standing(now, expected_s >= LONG_S)
        self._begun[worker] = now

    def read_own_s(self, worker: W, now: float) -> float:
        """Seconds since a query began in which it was not stopped."""
        standing = self._running[worker]
        stopping_s = now - standing.stopped_since if standing.stopped else 0.0
        return now - standing.since - standing.stopped_s - stopping_s

    def finish(self, worker: W, now: float) -> list[Move]:
        """Notes that a query has ended; gives what makes its worker as it was."""
        standing = self._running.pop(worker)
        if not standing.is_lasting(now):
            self._held_until = now + HOLD_S
        moves = [Move.GO] if standing.stopped else []
        return [*moves, Move.LEVEL] if standing.behind else moves

    def forget(self, worker: W) -> None:
        """Notes that a worker is gone."""
        self._begun.pop(worker, None)

    def count_crowding(self) -> int:
        """For how many a spare worker was worth while when this was last weighed."""
        return sum(standing.crowds for standing in self._running.values())

    def all_last(self, now: float) -> bool:
        """Whether something runs, and nothing that will soon have its worker free."""
        running = self._running.values()
        return bool(running) and all(standing.is_lasting(now) for standing in running)

    def weigh(self, now: float, *, waiting: bool) -> list[tuple[W, Move]]:
        """What is to change at this moment.

        Args:
            waiting: whether there are queries without a worker, which are neighbours too.
        """
        passed_s = 0.0 if self._newcomers else now - self._weighed
        self._weighed = now
        young = any(not standing.is_long(now) for standing in self._running.values())
        self._newcomers = young or now < self._held_until
        if waiting:
            self._crowded_until = now + CROWDED_S
        moves: list[tuple[W, Move]] = []
        for worker, standing in self._running.items():
            beside = waiting or any(
                now - begun < NEIGHBOUR_S
                for other, begun in self._begun.items()
                if other is not worker
            )
            standing.free_s += passed_s
            steps = self._weigh_one(standing, now, beside=beside)
            moves += [(worker, step) for step in steps]
        return moves

    def next_s(self) -> float | None:
        """Seconds until this should be weighed again; None while nothing runs."""
        if not self._running:
            return None
        held_s = self._held_until - self._weighed
        return held_s if 0 < held_s < LOOK_S else LOOK_S

    def _weigh_one(self, standing: _Standing, now: float, *, beside: bool) -> list[Move]:
        away = beside and standing.is_long(now) and not self._is_its_turn(standing, now)
        if not beside:
            standing.hungry_since = None
        lasting = standing.is_lasting(now)
        standing.crowds = beside and standing.is_long(now) and now < self._crowded_until
        runaway = standing.suspect or now - standing.since >= RUNAWAY_S
        behind = away if self._restores else standing.behind or (away and runaway)
        stopped = away and lasting and self._newcomers
        moves: list[Move] = []
        if stopped and not standing.stopped:
            moves.append(Move.STOP)
            standing.stopped_since = now
        elif standing.stopped and not stopped:
            moves.append(Move.GO)
            standing.stopped_s += now - standing.stopped_since
        if behind != standing.behind:
            moves.append(Move.BEHIND if behind else Move.LEVEL)
        standing.behind, standing.stopped = behind, stopped
        return moves

    def _is_its_turn(self, standing: _Standing, now: float) -> bool:
        since = standing.hungry_since
        if since is None or standing.free_s >= TURN_S or now - since >= WAY_S + TURN_S:
            standing.hungry_since, standing.free_s = now, 0.0
            return False
        return now - since >= WAY_S
