"""How long queries make way for short ones.

A query's cost is not known when it starts, so all start alike, and one that has run for a while
goes behind those that come after it (a feedback queue, as in Corbató's scheduler of 1962): it
gets the processors that nobody else wants. What goes on and on, or comes from a caller of whom
that is known, is a runaway: it is stopped altogether while a newcomer runs, because even one
that only waits for a processor fills caches, memory's wires and the disk's queue. Where
newcomers never end both still get turns; alone they are as fast as any.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

W = TypeVar("W")

# A query that has run this long is a long one, one whose place is to be filled by a spare worker,
# and a runaway. Seconds.
PATIENCE_S, LASTING_S, RUNAWAY_S = 0.05, 0.5, 2.0
# A caller whose queries take this long on average sends runaways. Seconds.
SUSPECT_S = 0.3
# How long after its start a query counts as a neighbour. Seconds.
NEIGHBOUR_S = 1.0
# Who makes way for so long runs level with all others for so long. Seconds.
WAY_S, TURN_S = 2.0, 0.05


class Move(Enum):
    """What is to be done with a worker."""

    BEHIND = "behind"
    LEVEL = "level"
    STOP = "stop"
    GO = "go"


@dataclass(slots=True)
class _Standing:
    since: float
    suspect: bool
    lasting: bool = False
    yields_since: float | None = None
    behind: bool = False
    stopped: bool = False


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

    def start(self, worker: W, now: float, usual_s: float = 0.0) -> None:
        """Notes that a query begins.

        Args:
            usual_s: what its caller's queries take.
        """
        self._running[worker] = _Standing(now, usual_s >= SUSPECT_S)
        self._begun[worker] = now

    def finish(self, worker: W) -> list[Move]:
        """Notes that a query has ended; gives what makes its worker as it was."""
        standing = self._running.pop(worker)
        moves = [Move.GO] if standing.stopped else []
        return [*moves, Move.LEVEL] if standing.behind else moves

    def forget(self, worker: W) -> None:
        """Notes that a worker is gone."""
        self._begun.pop(worker, None)

    def count_lasting(self) -> int:
        """For how many a spare worker was worth while when this was last weighed."""
        return sum(standing.lasting for standing in self._running.values())

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
            steps = self._weigh_one(standing, now, beside=beside, newcomers=newcomers)
            moves += [(worker, step) for step in steps]
        return moves

    def next_s(self) -> float | None:
        """Seconds until this should be weighed again; None while nothing runs."""
        return TURN_S if self._running else None

    def _weigh_one(
        self, standing: _Standing, now: float, *, beside: bool, newcomers: bool
    ) -> list[Move]:
        age = now - standing.since
        if not beside or age < PATIENCE_S:
            standing.yields_since = None
        elif standing.yields_since is None:
            standing.yields_since = now
        since = standing.yields_since
        away = since is not None and (now - since) % (WAY_S + TURN_S) < WAY_S
        runaway = standing.suspect or age >= RUNAWAY_S
        standing.lasting = since is not None and (standing.suspect or age >= LASTING_S)
        behind = away if self._restores else standing.behind or (away and runaway)
        stopped = away and runaway and newcomers
        moves: list[Move] = []
        if stopped != standing.stopped:
            moves.append(Move.STOP if stopped else Move.GO)
        if behind != standing.behind:
            moves.append(Move.BEHIND if behind else Move.LEVEL)
        standing.behind, standing.stopped = behind, stopped
        return moves
