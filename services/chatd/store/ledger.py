"""The ledger: one record a chat, and sums over all of them.

A chat is not held up for its record: those of a few milliseconds are handed to the journal
together, which syncs them, and a stop waits for that. What a kill can cost is the records of
those milliseconds. While the disk takes none, no chat begins: nothing is spent unseen.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from services.chatd.core.reading import as_object, as_text
from services.chatd.store.figures import Figures
from shared.errors import LakehouseError
from shared.journal import Journal
from shared.wire.chatd import UsageReport, UsageRow

logger = logging.getLogger("lakehouse.chatd")

# Records of so long go to the journal together: its thread, woken for each, would keep the
# event loop from the interpreter while it writes. Seconds.
GATHER_S = 0.02


@dataclass(slots=True)
class Sums:
    """What one model of one provider has been asked for."""

    calls: int = 0
    failed: int = 0
    cancelled: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    unpriced_calls: int = 0
    estimated_calls: int = 0


class Ledger:
    """Records chats.

    Args:
        folder: the journal's own.
        checkpoint_records: records after which the sums are stored, for fast starts.
        figures: counts what could not be written.
        tell: handed each record as well; must not wait.
    """

    def __init__(
        self,
        folder: Path,
        checkpoint_records: int,
        figures: Figures,
        tell: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self._tell = tell
        self._journal = Journal(folder)
        self._every = checkpoint_records
        self._figures = figures
        self._sums: dict[tuple[str, str], Sums] = {}
        self._gathered: list[dict[str, Any]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._writing: set[asyncio.Task[None]] = set()
        self._since = 0

    async def start(self) -> None:
        """Opens the log and sums it up."""
        await asyncio.to_thread(self._open)

    async def aclose(self) -> None:
        """Writes what there is, and closes."""
        await self._settle()
        await asyncio.to_thread(self._close)

    def check(self) -> None:
        """Refuses to go on where nothing can be recorded.

        Raises:
            InsufficientStorage: the log cannot be written any more.
        """
        failure = self._journal.failure
        if failure is not None:
            raise failure

    def state(self) -> str:
        """ "ok", or why nothing can be recorded; for `/ready`."""
        failure = self._journal.failure
        return "ok" if failure is None else failure.message

    def record(self, entry: dict[str, Any]) -> None:
        """Takes a chat; it is durable a moment later."""
        self._gathered.append(entry)
        if self._tell is not None:
            self._tell(entry)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_S, self._hand_over)

    async def report(self) -> UsageReport:
        """The sums by provider and model, with every chat that has ended."""
        await self._settle()
        rows = [
            UsageRow(provider=provider, model=model, **_rounded(sums))
            for (provider, model), sums in sorted(self._sums.items())
        ]
        cost = round(sum(row.cost_usd for row in rows), 9)
        return UsageReport(rows=rows, calls=sum(row.calls for row in rows), cost_usd=cost)

    async def _settle(self) -> None:
        """Waits until every chat so far is durable, or known not to be."""
        self._hand_over()
        if self._writing:
            await asyncio.wait(self._writing)

    def _hand_over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._gathered:
            entries, self._gathered = self._gathered, []
            task = asyncio.get_running_loop().create_task(self._write(entries))
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)

    async def _write(self, entries: list[dict[str, Any]]) -> None:
        try:
            await self._journal.append_many(entries)
        except LakehouseError as error:
            self._figures.unwritten.inc(len(entries))
            logger.error("%d chats could not be recorded: %s", len(entries), error.message)
            return
        for entry in entries:
            self._add(entry)
        self._since += len(entries)

    def _open(self) -> None:
        self._journal.open()
        start = None
        checkpoint = self._journal.latest_checkpoint()
        if checkpoint is not None:
            for line in checkpoint.lines():
                row = as_object(orjson.loads(line))
                key = (row.pop("provider"), row.pop("model"))
                self._sums[key] = Sums(**row)
            start = checkpoint.seq + 1
        for record in self._journal.replay(start):
            self._add(record.payload)
            self._since += 1
        self._checkpoint()

    def _close(self) -> None:
        self._checkpoint()
        self._journal.close()

    def _checkpoint(self) -> None:
        # Only while nothing is being written: the sums are then those of the last record.
        if self._since < self._every or self._journal.failure is not None:
            return
        lines = [
            orjson.dumps({"provider": provider, "model": model, **asdict(sums)}) + b"\n"
            for (provider, model), sums in self._sums.items()
        ]
        try:
            self._journal.write_checkpoint(self._journal.last_seq, lines)
            self._since = 0
        except LakehouseError as error:
            logger.warning("The ledger's sums could not be stored: %s", error.message)

    def _add(self, entry: dict[str, Any]) -> None:
        key = (as_text(entry.get("provider")), as_text(entry.get("model")))
        sums = self._sums.setdefault(key, Sums())
        outcome = entry.get("outcome")
        sums.calls += 1
        sums.failed += outcome == "failed"
        sums.cancelled += outcome == "cancelled"
        usage = as_object(entry.get("usage"))
        sums.prompt_tokens += usage.get("input", 0)
        sums.completion_tokens += usage.get("output", 0)
        sums.estimated_calls += bool(usage.get("estimated"))
        cost = entry.get("cost_usd")
        if isinstance(cost, int | float):
            sums.cost_usd += cost
        elif usage:
            sums.unpriced_calls += 1


def _rounded(sums: Sums) -> dict[str, Any]:
    return {**asdict(sums), "cost_usd": round(sums.cost_usd, 9)}
