"""Refiners over the journal: runs are replayed through matrixd, what comes of it is folded.

A run is durable before it counts, with the scores of its replays; so a restart gives the same
decisions without asking anybody. A promotion is applied to the corpora after it, again and
again until it has been: a process that dies in between applies it at its next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.observerd.core.events.letters import is_worth_keeping
from services.observerd.core.refine.contest import Replay
from services.observerd.core.refine.knobs import declare, search_of, tuning_of
from services.observerd.core.refine.lattice import Configuration
from services.observerd.core.refine.refiner import Decision, Policy, Refiner
from services.observerd.core.refine.scoring import score_ranking
from services.observerd.store.kept import Kept
from services.observerd.store.letters import Letters
from shared.clients.matrixd import MatrixdClient
from shared.errors import Conflict, LakehouseError, NotFound
from shared.wire.observerd_refine import (
    ContestView,
    DecisionView,
    Learnt,
    LoggedRun,
    Pin,
    RefinerList,
    RefinerSpec,
    RefinerView,
    Replayed,
)

logger = logging.getLogger("lakehouse.observerd")

_APPLY_RETRY_S = 5.0


class Held:
    """A refiner with its spec; one change at a time."""

    def __init__(self, spec: RefinerSpec) -> None:
        self.spec = spec
        lattice = declare(spec.knobs)
        start = lattice.configure(spec.start)
        self.refiner = Refiner(lattice, start, Policy(**spec.policy.model_dump()))
        self.lock = asyncio.Lock()
        self.applied: Configuration | None = None
        # Place in the event log up to which observed runs were taken.
        self.drawn = spec.observed.after
        # Whether the scorer's drift froze it, which its recovery may undo; a hand's freeze stays.
        self.frozen_by_drift = False


class Refiners(Kept):
    """All refiners by name.

    Args:
        folder: of their journal.
        matrixd: where runs are replayed and corpora are tuned.
        letters: keeps runs that could not be replayed.
    """

    def __init__(self, folder: Path, matrixd: MatrixdClient, letters: Letters) -> None:
        super().__init__("refiners", folder)
        self._letters = letters
        letters.handle("refine", self._relearn)
        self._matrixd = matrixd
        self._held: dict[str, Held] = {}
        self._declaring = asyncio.Lock()
        self._applying: asyncio.Task[None] | None = None

    # --- start and stop

    async def open(self) -> None:
        """Reads the journal, and applies what was promoted and may not have been applied."""
        await super().open()
        self._apply_soon()

    async def close(self) -> None:
        """Closes the journal."""
        if self._applying is not None:
            self._applying.cancel()
            await asyncio.gather(self._applying, return_exceptions=True)
        await super().close()

    def _load(self) -> None:
        for record in self._journal.replay():
            try:
                self._fold(record.payload)
            except (KeyError, TypeError, ValueError, LakehouseError):
                # One record that cannot be read must not cost the others.
                logger.exception("Record %d of the refiners cannot be read", record.seq)

    def _fold(self, payload: Mapping[str, Any]) -> list[Decision]:
        kind, name = payload["kind"], payload["refiner"]
        if kind == "declared":
            self._held.setdefault(name, Held(RefinerSpec.model_validate(payload["spec"])))
            return []
        refiner = self._held[name].refiner
        if kind == "observed":
            replays = {
                refiner.lattice.configure(one["values"]): Replay(one["score"], one["latency_ms"])
                for one in payload["replays"]
            }
            return refiner.observe(payload["run_id"], payload["query"], replays)
        if kind == "drawn":
            self._held[name].drawn = int(payload["after"])
            return []
        if kind == "frozen":
            done = refiner.freeze(payload["reason"])
            if done:
                self._held[name].frozen_by_drift = payload.get("by") == "drift"
            return done
        if kind == "thawed":
            self._held[name].frozen_by_drift = False
            return refiner.thaw(payload["reason"])
        if kind == "pinned":
            return refiner.pin(refiner.lattice.configure(payload["values"]), payload["reason"])
        raise ValueError(f"no event is of the kind {kind!r}")

    async def _keep(self, name: str, payload: dict[str, Any]) -> list[Decision]:
        await self._journal.append({**payload, "refiner": name})
        decisions = self._fold({**payload, "refiner": name})
        held = self._held[name]
        if held.refiner.incumbent != held.applied:
            self._apply_soon()
        return decisions

    # --- routes

    async def declare(self, name: str, spec: RefinerSpec) -> tuple[RefinerView, bool]:
        """Makes a refiner; gives it, and whether it is new. The same spec again changes nothing.

        Raises:
            Invalid: the spec. Conflict: one of this name has another.
        """
        Held(spec)
        made = await asyncio.shield(asyncio.ensure_future(self._declare(name, spec)))
        return self.show(name), made

    async def _declare(self, name: str, spec: RefinerSpec) -> bool:
        async with self._declaring:
            known = self._held.get(name)
            if known is None:
                body = spec.model_dump(mode="json")
                await self._keep(name, {"kind": "declared", "spec": body})
            elif known.spec != spec:
                old, new = known.spec.model_dump(mode="json"), spec.model_dump(mode="json")
                differ = {f: {"existing": old[f], "asked": new[f]} for f in old if old[f] != new[f]}
                raise Conflict(
                    f"Refiner {name!r} exists with another {', '.join(differ)}. What it has learnt "
                    "holds for that one alone; choose another name.",
                    details={"differences": differ},
                )
            return known is None

    async def learn(self, name: str, run: LoggedRun) -> Learnt:
        """Replays a logged run with the incumbent and its challengers, and learns from it.

        Raises:
            NotFound: no such refiner or corpus. Unavailable: matrixd cannot answer; the run then
                waits as a dead letter, which the error's details name.
        """
        # Whoever leaves meanwhile: what is durable must also be in memory, in the same order.
        work = asyncio.ensure_future(self._learn_or_keep(self.find(name), name, run))
        return await asyncio.shield(work)

    async def _learn_or_keep(self, held: Held, name: str, run: LoggedRun) -> Learnt:
        key = (name, run.run_id)
        try:
            learnt = await self._learn(held, name, run)
        except LakehouseError as error:
            if is_worth_keeping(error):
                work = {"refiner": name, "run": run.model_dump(mode="json")}
                error.details["letter"] = await self._letters.keep(
                    "refine", key, run.run_id, work, error
                )
            raise
        await self._letters.settle("refine", key, learnt.model_dump(mode="json"))
        return learnt

    async def _relearn(self, work: Mapping[str, Any]) -> Any:
        """A letter's work. A run that was learnt meanwhile counts once."""
        name, run = work["refiner"], LoggedRun.model_validate(work["run"])
        learnt = await asyncio.shield(
            asyncio.ensure_future(self._learn(self.find(name), name, run))
        )
        return learnt.model_dump(mode="json")

    async def _learn(self, held: Held, name: str, run: LoggedRun) -> Learnt:
        async with held.lock:
            refiner = held.refiner
            held_out = refiner.is_held_out(run.query)
            if refiner.knows(run.run_id):
                return Learnt(duplicate=True, held_out=held_out, replays=[], decisions=[])
            replays = [await self._replay_run(held, run, one) for one in refiner.wanted()]
            # All of them are here before anything is kept: half a run would say nothing.
            decisions = await self._keep(
                name,
                {
                    "kind": "observed",
                    "run_id": run.run_id,
                    "query": run.query,
                    "replays": [one.model_dump(mode="json") for one in replays],
                },
            )
        shown = [_show(one) for one in decisions]
        return Learnt(duplicate=False, held_out=held_out, replays=replays, decisions=shown)

    async def _replay_run(
        self, held: Held, run: LoggedRun, configuration: Configuration
    ) -> Replayed:
        begun = time.perf_counter()
        answer = await self._matrixd.search(search_of(configuration, run.query, held.spec.corpora))
        took = (time.perf_counter() - begun) * 1e3
        grades = {(one.corpus, one.id): one.grade for one in run.relevant}
        score = score_ranking([(hit.corpus, hit.id) for hit in answer.hits], grades)
        return Replayed(values=configuration.values, score=score, latency_ms=took)

    async def pin(self, name: str, pin: Pin) -> RefinerView:
        """Makes a configuration the incumbent by hand.

        Raises:
            NotFound: no such refiner. Invalid: the values were not declared.
        """
        self.find(name).refiner.lattice.configure(pin.values)
        return await self._by_hand(name, {"kind": "pinned", **pin.model_dump(mode="json")})

    async def freeze(self, name: str, reason: str, *, by: str = "hand") -> RefinerView:
        """Stops learning until `thaw`.

        Args:
            by: "drift" where the scorer's drift is the reason, which its recovery undoes.

        Raises:
            NotFound: no such refiner.
        """
        return await self._by_hand(name, {"kind": "frozen", "reason": reason, "by": by})

    async def thaw(self, name: str, reason: str) -> RefinerView:
        """Learns again, from nothing.

        Raises:
            NotFound: no such refiner.
        """
        return await self._by_hand(name, {"kind": "thawed", "reason": reason})

    async def note_drawn(self, name: str, after: int) -> None:
        """Keeps how far in the event log observed runs were taken.

        Raises:
            NotFound: no such refiner.
        """
        if after > self.find(name).drawn:
            await self._by_hand(name, {"kind": "drawn", "after": after})

    async def _by_hand(self, name: str, payload: dict[str, Any]) -> RefinerView:
        work = asyncio.ensure_future(self._keep_in_turn(self.find(name), name, payload))
        await asyncio.shield(work)
        return self.show(name)

    async def _keep_in_turn(self, held: Held, name: str, payload: dict[str, Any]) -> None:
        async with held.lock:
            await self._keep(name, payload)

    def find(self, name: str) -> Held:
        """One refiner.

        Raises:
            NotFound: there is none of this name.
        """
        held = self._held.get(name)
        if held is None:
            known = ", ".join(sorted(self._held)) or "none yet"
            raise NotFound(f"There is no refiner {name!r}. There are: {known}.")
        return held

    def show(self, name: str) -> RefinerView:
        """One refiner as it is answered.

        Raises:
            NotFound: there is none of this name.
        """
        held = self.find(name)
        refiner = held.refiner
        needed = refiner.promotion_log
        return RefinerView(
            name=name,
            spec=held.spec,
            incumbent=refiner.incumbent.values,
            config_hash=refiner.incumbent.hash,
            runs=refiner.runs,
            skipped=refiner.skipped,
            frozen=refiner.frozen or None,
            applied=not held.spec.apply or held.applied == refiner.incumbent,
            drawn=held.drawn,
            challengers=[
                ContestView(
                    values=one.challenger.values,
                    log_needed=needed,
                    dropped=one.dropped,
                    **one.figures(),  # pyright: ignore[reportArgumentType]
                )
                for one in refiner.contests
            ],
            decisions=[_show(one) for one in refiner.decisions],
        )

    def list(self) -> RefinerList:
        """All refiners by name."""
        return RefinerList(refiners=[self.show(name) for name in sorted(self._held)])

    # --- applying

    def _apply_soon(self) -> None:
        if self._applying is None or self._applying.done():
            # A context of its own: the request's deadline is not this work's.
            self._applying = asyncio.get_running_loop().create_task(
                self._apply_all(), context=contextvars.Context()
            )

    async def _apply_all(self) -> None:
        """Tunes the corpora of every refiner to its incumbent, until all are."""
        while behind := [h for h in self._held.values() if h.applied != h.refiner.incumbent]:
            for held in behind:
                wanted = held.refiner.incumbent
                try:
                    if held.spec.apply:
                        await self._tune(held, wanted)
                except LakehouseError as error:
                    logger.info("Corpora cannot be tuned now: %s", error.message)
                    await asyncio.sleep(_APPLY_RETRY_S)
                else:
                    held.applied = wanted

    async def _tune(self, held: Held, wanted: Configuration) -> None:
        for corpus in held.spec.corpora:
            # One that is gone meanwhile has nothing to be tuned.
            with contextlib.suppress(NotFound):
                await self._matrixd.tune_corpus(corpus, tuning_of(wanted))


def _show(decision: Decision) -> DecisionView:
    return DecisionView(
        number=decision.number,
        kind=decision.kind,
        values=decision.configuration.values,
        replaced=decision.replaced.values if decision.replaced else None,
        reason=decision.reason,
        evidence=dict(decision.evidence),
    )
