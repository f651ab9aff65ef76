"""Refiners fed from what was observed, and frozen while the scorer drifts.

A refiner remembers, durably, how far in the event log it has come; a run that was learnt
counts once, so that a draw which broke off begins again where the last one ended.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from services.observerd.core.feeding.drawing import Lesson, NoLesson, is_rated, read_lesson
from services.observerd.store.events import EventLog
from services.observerd.store.judging import Judging
from services.observerd.store.refining import Held, Refiners
from shared.wire.observerd import RecordedEvent
from shared.wire.observerd_feed import Drawn, DrawRequest, GuardAnswer
from shared.wire.observerd_judging import ScorerDriftRequest
from shared.wire.observerd_refine import DecisionView, Judged, LoggedRun

_PAGE = 1000
# Events of one run that are looked through for its search.
_RUN_EVENTS = 1000
# A rated run waits so long for its search, which another daemon reports in its own time.
_LATE_S = 5.0


class Drawing:
    """Draws lessons out of the event log.

    Args:
        log: what was observed.
        refiners: who learns.
        judging: tells whether the scorer drifted.
    """

    def __init__(self, log: EventLog, refiners: Refiners, judging: Judging) -> None:
        self._log = log
        self._refiners = refiners
        self._judging = judging
        # One draw at a time: two would replay the same runs for nothing.
        self._turn = asyncio.Lock()

    async def draw(self, name: str, request: DrawRequest) -> Drawn:
        """Learns from rated runs behind the place that the refiner has come to.

        A frozen refiner takes nothing and stays where it is, so that nothing is lost on it.

        Raises:
            NotFound: no such refiner, or a corpus of it is gone.
            Unavailable: matrixd cannot replay; the rest is taken by the next draw.
        """
        async with self._turn:
            return await self._draw(self._refiners.find(name), name, request.limit)

    async def _draw(self, held: Held, name: str, limit: int) -> Drawn:
        learnt = duplicates = looked = 0
        skipped: Counter[str] = Counter()
        decisions: list[DecisionView] = []
        after, more = held.drawn, False
        try:
            while not held.refiner.frozen:
                page = await self._log.list(after, _PAGE, None)
                for recorded in page.events:
                    if is_rated(recorded.event):
                        if looked == limit or held.refiner.frozen:
                            more = True
                            break
                        lesson = await self._read(held, recorded)
                        if lesson is None:
                            more = True
                            break
                        looked += 1
                        if isinstance(lesson, NoLesson):
                            skipped[lesson.reason] += 1
                        else:
                            done = await self._refiners.learn(name, _to_run(lesson))
                            learnt += not done.duplicate
                            duplicates += done.duplicate
                            decisions += done.decisions
                    after = recorded.seq
                if more or page.next_after is None:
                    break
                after = max(after, page.next_after)
        finally:
            # Also when matrixd went away half way: what was learnt need not be looked at again.
            await self._refiners.note_drawn(name, after)
        return Drawn(
            looked=looked,
            learnt=learnt,
            duplicates=duplicates,
            skipped=dict(sorted(skipped.items())),
            decisions=decisions,
            after=after,
            more=more,
            frozen=held.refiner.frozen or None,
        )

    async def _read(self, held: Held, recorded: RecordedEvent) -> Lesson | NoLesson | None:
        """The lesson of a rated event; None while its search may still be reported."""
        run_id = str(recorded.event["run_id"])
        known = await self._log.list(None, _RUN_EVENTS, run_id)
        events: Sequence[dict[str, Any]] = [one.event for one in known.events]
        source = held.spec.observed
        lesson = read_lesson(
            recorded.event,
            events,
            mode=source.mode,
            task_signature=source.task_signature,
            corpora=held.spec.corpora,
        )
        young = time.time() - recorded.t / 1e6 < _LATE_S
        if isinstance(lesson, NoLesson) and lesson.early and young:
            return None
        return lesson

    async def guard(self, name: str, request: ScorerDriftRequest) -> GuardAnswer:
        """Freezes a refiner while the scorer that rates its runs drifts.

        `judge` and `system` freeze it; `none` thaws what drift had frozen, never what a hand
        did; `insufficient` changes nothing, for it says nothing.

        Raises:
            NotFound: no such refiner. Invalid: two anchors have one id.
        """
        held = self._refiners.find(name)
        drift = await self._judging.check_scorer(request)
        said = f"the scorer's drift test says {drift.verdict}: {' '.join(drift.reasons)}"[:1000]
        action = "none"
        if drift.verdict in ("judge", "system") and not held.refiner.frozen:
            await self._refiners.freeze(name, said, by="drift")
            action = "frozen"
        elif drift.verdict == "none" and held.frozen_by_drift:
            await self._refiners.thaw(name, said)
            action = "thawed"
        return GuardAnswer(
            drift=drift, action=action, reason=said, refiner=self._refiners.show(name)
        )


def _to_run(lesson: Lesson) -> LoggedRun:
    relevant = [Judged(corpus=corpus, id=identifier) for corpus, identifier in lesson.relevant]
    return LoggedRun(run_id=lesson.run_id, query=lesson.query, relevant=relevant)
