"""Exports of judged runs, and the chain of audits over the journal."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

from services.observerd.core.auditing import describe_sample, find_audit
from services.observerd.core.distill.baselines import (
    Baseline,
    check_chain,
    extend_chain,
    load_baseline,
    measure_audit,
)
from services.observerd.core.distill.export import Run, export_runs
from services.observerd.core.distill.scores import load_score
from services.observerd.store.firewalling import read_pairs, show_hit
from services.observerd.store.kept import Kept
from shared.errors import Invalid
from shared.wire.observerd_distill import (
    AuditRequest,
    BaselineList,
    BaselineView,
    ExportAnswer,
    ExportRequest,
    Withheld,
)

logger = logging.getLogger("lakehouse.observerd")


class Distilling(Kept):
    """What leaves as training data, and how the scorer was audited.

    Args:
        folder: of the audits' journal.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__("distill", folder)
        self._chain: list[Baseline] = []
        self._adding = asyncio.Lock()

    def _load(self) -> None:
        for record in self._journal.replay():
            try:
                self._chain.append(load_baseline(record.payload))
            except Invalid:
                # The chain tells that one is missing.
                logger.exception("Record %d of the audits cannot be read", record.seq)

    async def export(self, request: ExportRequest) -> ExportAnswer:
        """Rows of the runs that may leave, past the firewall.

        Raises:
            Invalid: a score is none, or two runs have one id.
            PreconditionFailed: too few of the runs were scored.
        """
        return await self._pool.run(_export, request)

    async def audit(self, request: AuditRequest) -> BaselineView:
        """Measures an audit and adds it to the chain, durably; the same again is the last entry.

        Raises:
            Invalid: a sample whose runs are not named, or named twice.
            Conflict: the chain is broken, or a run of a sample was counted before.
        """
        work = asyncio.ensure_future(self._add(request))
        # Whoever leaves meanwhile: what is durable must also be in memory.
        return BaselineView.model_validate((await asyncio.shield(work)).dump())

    async def _add(self, request: AuditRequest) -> Baseline:
        async with self._adding:
            verdicts = [(one.scorer, one.judge) for one in request.verdicts]
            runs = request.runs or len(verdicts)
            if runs < len(verdicts):
                raise Invalid(f"{len(verdicts)} verdicts are more than the {runs} runs there were.")
            metrics = await self._pool.run(measure_audit, verdicts, runs, request.seed)
            if request.sample is not None:
                metrics["sample"] = describe_sample(request)
                known = find_audit(self._chain, request, metrics)
                if known is not None:
                    return known
            found = extend_chain(
                self._chain,
                held_out=request.held_out,
                scorer=request.scorer,
                judge=request.judge,
                metrics=metrics,
            )
            if not self._chain or found.seq > self._chain[-1].seq:
                await self._journal.append(found.dump())
                self._chain.append(found)
            return found

    def list(self) -> BaselineList:
        """The chain, and what is wrong with it."""
        return BaselineList(
            baselines=[BaselineView.model_validate(one.dump()) for one in self._chain],
            problems=check_chain(self._chain),
        )


def _export(request: ExportRequest) -> ExportAnswer:
    runs = [
        Run(
            one.id,
            one.prompt,
            one.answer,
            None if one.score is None else load_score(one.score),
            one.system,
            one.model,
            None if one.parents is None else tuple(one.parents),
        )
        for one in request.runs
    ]
    done = export_runs(
        runs,
        read_pairs(request.held_out),
        policy=request.policy,
        parents=request.parents,
        similar=request.similar,
        config=request.config,
        coverage_floor=request.coverage_floor,
    )
    manifest: dict[str, Any] = dict(done.manifest)
    return ExportAnswer(
        run_hash=done.run_hash,
        files={name: data.decode() for name, data in done.files.items()},
        manifest=manifest,
        withheld=[
            Withheld(
                row=one.row,
                decision=one.decision,
                hits=[show_hit(hit) for hit in one.hits],
            )
            for one in done.clearances
            if one.decision != "clear"
        ],
    )
