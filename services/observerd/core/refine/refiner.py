"""The refiner: an incumbent, its challengers, and what their paired replays have shown.

It is folded from events, so the same log gives the same state. Every decision says why, what
it changed and can be undone: a promotion by the watch that follows it, or by hand.

Guardrails: one knob at a time (the lattice); a part of the queries never counts for a
promotion and only measures it; a query counts once, however often it is asked, because its
differences are one observation and not many; a challenger slower than the ceiling is not
promoted; nothing is learnt while the scorer's drift alarm is on, and what was half learnt
then is forgotten.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from services.observerd.core.refine.contest import Contest, Replay, Watch
from services.observerd.core.refine.evidence import share_of_error
from services.observerd.core.refine.lattice import Configuration, Lattice
from shared.errors import Invalid

Kind = Literal["promoted", "rolled_back", "dropped", "held_back", "frozen", "thawed", "pinned"]


@dataclass(frozen=True, slots=True)
class Policy:
    """How bold the refiner is.

    Args:
        alpha: probability that a configuration which is no better is ever promoted.
        watch_length: runs that a promotion which does no harm is expected to stand before the
            watch takes it back by mistake.
        minimum: paired replays before anything is decided.
        held_out: share of the queries that only measure.
        latency_ms: p95 above which a challenger is not promoted.
    """

    alpha: float = 0.05
    watch_length: float = 2000.0
    minimum: int = 30
    held_out: float = 0.2
    latency_ms: float = 1000.0


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided, about which configuration, and why, in words and in figures."""

    number: int
    kind: Kind
    configuration: Configuration
    replaced: Configuration | None
    reason: str
    evidence: Mapping[str, float]


class Refiner:
    """The state; `observe` and the other events change it and give the decisions they led to.

    Args:
        lattice: what may be tried.
        start: the incumbent to begin with.
        policy: how bold to be.
    """

    def __init__(self, lattice: Lattice, start: Configuration, policy: Policy) -> None:
        self.lattice = lattice
        self.policy = policy
        self.incumbent = start
        self.decisions: list[Decision] = []
        self.frozen = ""
        self.runs = 0
        self.skipped = 0
        self.contests: list[Contest] = []
        self.watch: Watch | None = None
        self._generation = 0
        # A configuration that was taken back is not tried again from the same incumbent.
        self._failed: set[tuple[Configuration, Configuration]] = set()
        self._seen: set[str] = set()
        self._asked: set[bytes] = set()
        self._challenge()

    # --- what to replay

    def wanted(self) -> list[Configuration]:
        """What the next run is to be replayed with, the incumbent first."""
        found = [self.incumbent]
        found += [one.challenger for one in self.contests if not one.dropped]
        if self.watch and self.watch.replaced not in found:
            found.append(self.watch.replaced)
        return found

    def is_held_out(self, query: str) -> bool:
        """Whether a query only measures; for good, and for all who ask it alike."""
        return int.from_bytes(digest_query(query)[:8], "big") < self.policy.held_out * 2**64

    def knows(self, run_id: str) -> bool:
        """Whether a run was taken already."""
        return run_id in self._seen

    # --- events

    def observe(
        self, run_id: str, query: str, replays: Mapping[Configuration, Replay]
    ) -> list[Decision]:
        """Takes a run replayed with several configurations; the same run counts once.

        Raises:
            Invalid: the incumbent's replay is missing, or a score is none.
        """
        mine = replays.get(self.incumbent)
        if mine is None:
            raise Invalid("A run counts only beside the incumbent's own replay of it.")
        if not all(0.0 <= one.score <= 1.0 for one in replays.values()):
            raise Invalid("A score lies between 0 and 1.")
        if run_id in self._seen:
            return []
        self._seen.add(run_id)
        self.runs += 1
        if self.frozen:
            self.skipped += 1
            return []
        asked = digest_query(query)
        if asked in self._asked:
            self.skipped += 1
            return []
        self._asked.add(asked)
        learn = not self.is_held_out(query)
        for contest in self.contests:
            replay = replays.get(contest.challenger)
            if replay is not None and not contest.dropped:
                contest.take(replay, replay.score - mine.score, learn)
        if self.watch and (replay := replays.get(self.watch.replaced)) is not None and learn:
            self.watch.alarm.bet(replay.score - mine.score)
            self.watch.gain.take(mine.score - replay.score)
        return self._decide()

    def freeze(self, reason: str) -> list[Decision]:
        """Stops learning: the scores cannot be relied on."""
        if self.frozen:
            return []
        self.frozen = reason
        return [self._note("frozen", self.incumbent, None, reason, {})]

    def thaw(self, reason: str) -> list[Decision]:
        """Learns again, from nothing: scores from before and after are not of one kind."""
        if not self.frozen:
            return []
        self.frozen = ""
        self._challenge()
        if self.watch:
            self.watch = Watch(self.watch.replaced)
        return [self._note("thawed", self.incumbent, None, reason, {})]

    def pin(self, configuration: Configuration, reason: str) -> list[Decision]:
        """Makes a configuration the incumbent by hand, to undo a promotion or to begin anew."""
        if configuration == self.incumbent:
            return []
        replaced, self.incumbent, self.watch = self.incumbent, configuration, None
        self._failed.clear()
        self._challenge()
        return [self._note("pinned", configuration, replaced, reason, {})]

    # --- decisions

    def _challenge(self) -> None:
        self._asked.clear()
        self.contests = [
            Contest(one)
            for one in self.lattice.neighbours(self.incumbent)
            if (self.incumbent, one) not in self._failed
        ]

    @property
    def promotion_log(self) -> float:
        """The evidence that a promotion takes now, as a logarithm."""
        share = share_of_error(self.policy.alpha, self._generation)
        return math.log(max(1, len(self.contests)) / share)

    def _decide(self) -> list[Decision]:
        if (taken_back := self._check_watch()) is not None:
            return [taken_back]
        found = [one for c in self.contests if (one := self._check_contest(c)) is not None]
        ready = [
            contest
            for contest in self.contests
            if not contest.dropped and not contest.held_back and self._has_won(contest)
        ]
        if ready:
            found.append(self._promote(max(ready, key=lambda one: one.better.log)))
        return found

    def _has_won(self, contest: Contest) -> bool:
        enough = contest.learnt.count >= self.policy.minimum
        return enough and contest.better.log >= self.promotion_log

    def _check_contest(self, contest: Contest) -> Decision | None:
        if contest.dropped or contest.learnt.count < self.policy.minimum:
            return None
        if contest.worse.log >= self.promotion_log:
            contest.dropped = True
            reason = "its replays are worse; it is not tried again from this incumbent"
            return self._note("dropped", contest.challenger, None, reason, contest.figures())
        slow = contest.latency_p95() > self.policy.latency_ms
        if slow and not contest.held_back and self._has_won(contest):
            contest.held_back = True
            reason = f"it answers better but slower than {self.policy.latency_ms:g} ms at p95"
            return self._note("held_back", contest.challenger, None, reason, contest.figures())
        contest.held_back = contest.held_back and slow
        return None

    def _promote(self, contest: Contest) -> Decision:
        replaced, self.incumbent = self.incumbent, contest.challenger
        self._generation += 1
        self.watch = Watch(replaced)
        changed = [
            f"{name} {before!r} to {after!r}"
            for (name, before), (_, after) in zip(
                replaced.items, contest.challenger.items, strict=True
            )
            if before != after
        ]
        reason = f"{', '.join(changed)}: better on {contest.learnt.count} paired replays"
        done = self._note("promoted", contest.challenger, replaced, reason, contest.figures())
        self._challenge()
        return done

    def _check_watch(self) -> Decision | None:
        watch = self.watch
        if watch is None or watch.gain.count < self.policy.minimum:
            return None
        if watch.alarm.log < math.log(self.policy.watch_length):
            return None
        failed, self.incumbent, self.watch = self.incumbent, watch.replaced, None
        self._failed.add((watch.replaced, failed))
        figures = {"runs": watch.gain.count, "mean_gain": watch.gain.mean}
        reason = "what it replaced does better on the runs since"
        done = self._note("rolled_back", self.incumbent, failed, reason, figures)
        self._challenge()
        return done

    def _note(
        self,
        kind: Kind,
        configuration: Configuration,
        replaced: Configuration | None,
        reason: str,
        evidence: Mapping[str, float],
    ) -> Decision:
        number = len(self.decisions) + 1
        done = Decision(number, kind, configuration, replaced, reason, dict(evidence))
        self.decisions.append(done)
        return done


def digest_query(query: str) -> bytes:
    """What tells queries apart: their words, whatever the case and the spaces."""
    return hashlib.sha256(" ".join(query.casefold().split()).encode()).digest()
