"""A corpus in memory: its spec, its state, and the job that works on it."""

from __future__ import annotations

import asyncio
from typing import Any

from services.matrixd.core.corpora import State, describe, index_name
from services.matrixd.store.ledger import Ledger
from shared.errors import LakehouseError
from shared.pool import BlockingPool
from shared.wire.matrixd import CorpusInfo, CorpusSpec, Phase


class Corpus:
    """One corpus. Its state changes by `set` (seen at once) and `save` (durable on return)."""

    def __init__(
        self, uid: str, spec: CorpusSpec, state: State, ledger: Ledger, pool: BlockingPool
    ) -> None:
        self.uid = uid
        self.spec = spec
        self.state = state
        self.task: asyncio.Task[None] | None = None
        # Asked for while a job was under way: another one follows.
        self.again = False
        self.idle = asyncio.Event()
        # When a failed refresh may be tried again by itself, on the loop's clock.
        self.patient_until = 0.0
        self._ledger = ledger
        self._pool = pool

    @property
    def index(self) -> str:
        """The name of its index in vectord."""
        return index_name(self.spec.name, self.uid)

    @property
    def chunked(self) -> bool:
        """Whether a document may be several items of the index, as that was filled.

        A spec that replaced another says so only once its job has made the index anew.
        """
        filled = self.state.chunked
        return self.spec.chunking is not None if filled is None else filled

    def describe(self) -> CorpusInfo:
        """As it is answered."""
        return describe(self.spec, self.uid, self.state)

    def set(self, **changes: Any) -> None:
        """Changes the state; lost when the process dies."""
        self.state = self.state.model_copy(update=changes)

    def set_job(self, **changes: Any) -> None:
        """Changes the job; lost when the process dies."""
        self.set(job=self.state.job.model_copy(update=changes))

    async def save(self, **changes: Any) -> None:
        """Changes the state durably; what cannot be kept is not changed either."""
        before = {name: getattr(self.state, name) for name in changes}
        self.set(**changes)
        try:
            await self._pool.run(self._ledger.keep, self.uid, self.spec, self.state)
        except LakehouseError:
            self.set(**before)
            raise

    async def enter(self, phase: Phase, **changes: Any) -> None:
        """Goes on to the next part of the job, durably."""
        self.set_job(phase=phase, **changes)
        await self.save()
