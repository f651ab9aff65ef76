"""How long queries make way for short ones.

A query's cost is not known when it starts, so all start alike, and one that has run for a while
goes behind those that come after it (a feedback queue of two levels, as in Corbató's scheduler
of 1962): it gets the processors that nobody else wants, and while a newcomer runs it is stopped
altogether, because one that only waits for a processor still fills caches, memory's wires and
the disk's queue. Where newcomers never end it gets a turn all the same. Alone it is as fast as
any.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

W = TypeVar("W")

# A query that has run this long is a long one. Seconds.
PATIENCE_S = 0.05
# The same for going behind where that cannot be undone, so that its worker has to be replaced
# afterwards: that takes a third of a second and is only worth it later. Seconds.
LONG_PATIENCE_S = 2.0
# How long after its start a query counts as a neighbour. Seconds.
NEIGHBOUR_S = 1.0
# A long query that was stopped for so long in all runs for so long, whoever else does. Seconds.
PAUSE_S, TURN_S = 2.0, 0.05
# How often to look again: while one is stopped, while there are long ones, and otherwise.
_STOPPED_REVIEW_S, _LONG_REVIEW_S = 0.05, 0.25


class Move(Enum):
    """What is to be done with a worker."""

    BEHIND = "behind"
    LEVEL = "level"
    STOP = "stop"
    GO = "go"


@dataclass(slots=True)
class _Standing:
    since: float
    behind: bool = False
    yields: bool = False
    stopped_at: float | None = None
    paused_s: float = 0.0
    turn_until: float = 0.0


class Manners(Generic[W]):
    """Who of the busy workers makes way; `W` stands for one.

    Args:
        restores: whether a worker that was put behind can be put level again.
    """

    def __init__(self, *, restores: bool) -> None:
        self._restores = restores
        self._running: dict[W, _Standing] = {}
        self._begun: dict[W, float] = {}

    def start(self, worker: W, now: float) -> None:
        """Notes that a query begins."""
        self._running[worker] = _Standing(now)
        self._begun[worker] = now

    def finish(self, worker: W) -> list[Move]:
        """Notes that a query has ended; gives what makes its worker as it was."""
        standing = self._running.pop(worker)
        moves = [Move.GO] if standing.stopped_at is not None else []
        return [*moves, Move.LEVEL] if standing.behind else moves

    def forget(self, worker: W) -> None:
        """Notes that a worker is gone."""
        self._begun.pop(worker, None)

    def count_long(self) -> int:
        """How many made way when this was last weighed."""
        return sum(standing.yields for standing in self._running.values())

    def weigh(self, now: float, *, waiting: bool) -> list[tuple[W, Move]]:
        """What is to change at this moment.

        Args:
            waiting: whether there are queries without a worker, which are neighbours too.
        """
        moves: list[tuple[W, Move]] = []
        newcomers = any(now - s.since < PATIENCE_S for s in self._running.values())
        for worker, standing in self._running.items():
            beside = waiting or any(
                now - begun < NEIGHBOUR_S
                for other, begun in self._begun.items()
                if other is not worker
            )
            standing.yields = beside and now - standing.since >= PATIENCE_S
            if standing.yields and not standing.behind:
                standing.behind = self._restores or now - standing.since >= LONG_PATIENCE_S
                if standing.behind:
                    moves.append((worker, Move.BEHIND))
            elif not standing.yields and standing.behind and self._restores:
                standing.behind = False
                moves.append((worker, Move.LEVEL))
            move = _weigh_pause(standing, now, newcomers=newcomers)
            if move is not None:
                moves.append((worker, move))
        return moves

    def next_s(self) -> float | None:
        """Seconds until this should be weighed again; None while nothing runs."""
        if not self._running:
            return None
        if any(s.stopped_at is not None or s.turn_until for s in self._running.values()):
            return _STOPPED_REVIEW_S
        return _LONG_REVIEW_S if self.count_long() else PATIENCE_S


def _weigh_pause(standing: _Standing, now: float, *, newcomers: bool) -> Move | None:
    if standing.turn_until and now >= standing.turn_until:
        standing.turn_until = 0.0
    wanted = standing.yields and newcomers and not standing.turn_until
    if standing.stopped_at is None:
        if not wanted:
            return None
        standing.stopped_at = now
        return Move.STOP
    paused = standing.paused_s + now - standing.stopped_at
    if wanted and paused < PAUSE_S:
        return None
    if wanted:
        standing.turn_until, paused = now + TURN_S, 0.0
    standing.stopped_at, standing.paused_s = None, paused
    return Move.GO
