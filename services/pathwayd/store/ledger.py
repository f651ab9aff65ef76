"""The log and what it says, kept together: loading, committing, reading the past.

A change is appended, synced, applied to memory, and only then acknowledged. The log is never
cut; checkpoints save the time of reading it again, and whether older parts of it are still
whole is looked at in the background after a start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from services.pathwayd.core.records import (
    Change,
    Write,
    decode_change,
    encode_change,
    split_change,
)
from services.pathwayd.core.traces import Trace
from services.pathwayd.store.figures import Figures
from services.pathwayd.store.rooms import load_room
from shared.config import PathwaydSection
from shared.errors import Internal, LakehouseError, Unavailable
from shared.journal import Journal, Report
from shared.pool import BlockingPool
from shared.wire.pathwayd import LogReport

if TYPE_CHECKING:
    from services.pathwayd.store.loading import Loaded
    from services.pathwayd.store.memory import Memory

logger = logging.getLogger("lakehouse.pathwayd")

# How often it is looked whether something is due, and the wait after a failure. Seconds.
_LOOK_S = 0.5
RETRY_S = 10.0
# Records since the last checkpoint for which one more is written at a stop.
_LAST_RECORDS = 1000
# Between slices of the background check of the log. Seconds.
_REST_S = 0.005
_SLICE = 500
# Records that are read past rather than looked up anew.
_NEAR_RECORDS = 100
# The longest that changes are applied without a break for others. Seconds.
_TURN_S = 0.02


class Ledger:
    """Everything durable of this daemon.

    Args:
        folder: its data directory.
        section: limits.
        figures: where things are counted.
        now_us: the time in microseconds since 1970.
    """

    def __init__(
        self, folder: Path, section: PathwaydSection, figures: Figures, now_us: Callable[[], int]
    ) -> None:
        self.section = section
        self.figures = figures
        self.now_us = now_us
        self.memory: Memory | None = None
        self._load_problems: list[str] = []
        self._log_problems: list[str] = []
        self.failure: str | None = None
        self.loaded = asyncio.Event()
        self.search_pool = BlockingPool(
            "pathwayd-search", section.search_threads, section.max_concurrency * 4
        )
        self._disk = BlockingPool("pathwayd-disk", 2, section.max_concurrency * 4)
        self._journal = Journal(
            folder / "journal",
            segment_bytes=16 << 20,
            max_record_bytes=32 << 20,
            max_pending_bytes=4 * section.max_body_bytes,
        )
        self._report = Report()
        self._checked = False
        self._unknown = 0
        self._lost = 0
        self._checkpoint_seq = 0
        # All records up to here are in memory; those in `_ahead` are too.
        self._applied = 0
        self._ahead: set[int] = set()
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._settling: asyncio.Task[None] | None = None

    # --- start and stop

    async def open(self) -> None:
        """Takes the log and begins to load it.

        Raises:
            Unavailable: another process has it.
        """
        # numpy is not loaded yet. Its library would share each small product among threads,
        # which takes longer than the product.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        await self._disk.run(self._journal.open)
        self._tasks.append(asyncio.get_running_loop().create_task(self._load()))

    async def _load(self) -> None:
        began = time.monotonic()
        try:
            if self._journal.last_seq or self._journal.recovery.damaged:
                loading = await load_room("loading")
                loaded: Loaded = await self._disk.run(
                    loading.load_memory, self._journal, self.section
                )
                self._take(loaded)
            else:
                self._checked = True
        except (LakehouseError, OSError) as error:
            self.failure = getattr(error, "message", "its files cannot be read")
            logger.error("The log is not served: %s", self.failure)
            return
        except Exception:
            # Served as if it were empty it would take changes that contradict what is in it.
            self.failure = "its log cannot be loaded; the daemon's own log says why"
            logger.exception("The log is not served")
            return
        finally:
            self.loaded.set()
        torn = self._journal.recovery
        if torn.torn:
            logger.info("An unfinished write of %d bytes was set aside", torn.torn_bytes)
        self._tell(self._report)
        count = len(self.memory.state.traces) if self.memory else 0
        logger.info("%d traces loaded in %.2f s", count, time.monotonic() - began)
        loop = asyncio.get_running_loop()
        self._tasks.append(loop.create_task(self._tend()))
        if self.memory is not None and self.memory.fields:
            warm = self.search_pool.run(self.memory.index.warm, self.memory.fields)
            self._tasks.append(loop.create_task(warm))
        if not self._checked:
            self._tasks.append(loop.create_task(self._check()))

    def _take(self, loaded: Loaded) -> None:
        self.memory = loaded.memory
        self._count()
        self._report = loaded.report
        self._unknown = loaded.unknown
        self._checkpoint_seq = loaded.checkpoint_seq
        self._checked = loaded.checkpoint_seq == 0
        self._applied = self._journal.last_seq
        self._load_problems += loaded.problems

    def _tell(self, report: Report) -> None:
        """Says what reading the log has met, once it is known."""
        found: list[str] = []
        if report.missing:
            shown = ", ".join(f"{a}-{b}" if b > a else str(a) for a, b in report.gaps[:5])
            found.append(
                f"{report.missing} records of the log cannot be read (numbers {shown}"
                f"{', …' if len(report.gaps) > 5 else ''}); what they changed is lost"
            )
            # The whole log is read after what a start needs of it: each record counts once.
            self.figures.lost.inc(max(0, report.missing - self._lost))
            self._lost = max(self._lost, report.missing)
        elif report.damaged:
            found.append(f"{report.damaged} runs of bytes in the log are no records")
        if self._unknown:
            found.append(f"{self._unknown} records of the log are of no known kind")
        for problem in found:
            logger.error("%s; the bytes are kept in the journal's quarantine", problem)
        self._log_problems = found

    async def close(self) -> None:
        """Writes a last checkpoint if there is news, and lets go."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._settling is not None:
            await asyncio.gather(self._settling, return_exceptions=True)
        if self.memory is not None and self._applied - self._checkpoint_seq >= _LAST_RECORDS:
            with contextlib.suppress(LakehouseError, OSError):
                await self._settle(checkpoint=True)
        self.search_pool.close()
        self._disk.close()
        await self._journal.aclose()

    # --- state

    @property
    def status(self) -> str:
        """loading, ready or failed."""
        return "failed" if self.failure else "ready" if self.loaded.is_set() else "loading"

    @property
    def problems(self) -> list[str]:
        """What was found damaged, for people."""
        return [*self._load_problems, *self._log_problems]

    def opened(self) -> Memory | None:
        """The memory; None while there never was a trace.

        Raises:
            Unavailable: it is being loaded, or could not be.
        """
        if self.failure:
            raise Unavailable(f"The traces cannot be served: {self.failure}.")
        if not self.loaded.is_set():
            raise Unavailable(
                "The traces are being loaded. Try again shortly.", headers={"Retry-After": "1"}
            )
        return self.memory

    def get(self, trace_id: str) -> Trace | None:
        """The trace of an id."""
        memory = self.opened()
        return memory.state.get(trace_id) if memory else None

    def check(self) -> dict[str, str]:
        """What must be well for this daemon to do its work, for `/ready`."""
        checks = {"traces": "ok" if self.status == "ready" else self.failure or "loading"}
        checks["journal"] = "ok"
        if self.loaded.is_set() and not self.failure and self._journal.failure is not None:
            checks["journal"] = self._journal.failure.message
        for number, problem in enumerate(self.problems[:10], start=1):
            # Told for people; what is left serves.
            checks[f"problem {number}: {problem}"] = "ok"
        return checks

    def describe_log(self) -> LogReport:
        """The log for its users."""
        stats, report = self._journal.stats(), self._report
        return LogReport(
            last_seq=stats.last_seq,
            segments=stats.segments,
            bytes=stats.bytes,
            checkpoint_seq=self._checkpoint_seq,
            checked=self._checked,
            damaged=report.damaged,
            damaged_bytes=report.damaged_bytes,
            missing=report.missing,
            gaps=report.gaps[:100],
            torn=self._journal.recovery.torn,
            duplicates=report.duplicates,
            unknown=self._unknown,
            quarantined=stats.quarantined,
        )

    # --- writing

    async def commit(self, changes: Sequence[Change]) -> None:
        """Makes changes durable, then visible. To be run in a task that nobody cancels.

        Raises:
            InsufficientStorage: they could not be made durable.
            RateLimited: too much waits for the disk.
        """
        self.opened()
        if self._stopping:
            raise Unavailable("The daemon is stopping. Try again shortly.")
        if self.memory is None:
            module = await load_room("memory")
            # Another caller may have been as quick.
            self.memory = self.memory or module.Memory(
                self.section.idempotency_keys, self.section.max_text_chars
            )
        seqs = await self._journal.append_many([encode_change(change) for change in changes])
        try:
            began = time.monotonic()
            for seq, change in zip(seqs, changes, strict=True):
                for part in split_change(change, _SLICE):
                    if time.monotonic() - began > _TURN_S:
                        await asyncio.sleep(0)
                        began = time.monotonic()
                    self.memory.apply(seq, part)
                self._ahead.add(seq)
        except Exception:
            # What is durable must be served; only a reload is sure to.
            self.failure = "a durable change was not applied; restart the daemon to load it"
            logger.exception("%s", self.failure)
            raise Internal(
                "The change is durable, but could not be applied. The operator must restart "
                "pathwayd; its log says why."
            ) from None
        while self._applied + 1 in self._ahead:
            self._applied += 1
            self._ahead.discard(self._applied)
        self.figures.writes.inc(len(changes))
        self._count()

    def _count(self) -> None:
        if self.memory is not None:
            for status, count in self.memory.state.counts.items():
                self.figures.traces.labels(status).set(count)

    # --- the past

    async def read_writes(self, seqs: Sequence[int]) -> dict[int, Write]:
        """Versions by their records; what the log has lost is left out."""
        wanted = sorted({seq for seq in seqs if seq})
        return await self._disk.run(_read_writes, self._journal, wanted) if wanted else {}

    # --- looking after it

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            memory = self.memory
            if memory is None:
                continue
            since = self._applied - self._checkpoint_seq
            most = self.section.checkpoint_records
            due = since >= max(most // 5, min(most, len(memory.index.entries) // 4))
            if due or memory.index.is_crowded or memory.index.postings.is_due:
                # Never cut short: a stop waits for it.
                self._settling = asyncio.get_running_loop().create_task(
                    self._settle(checkpoint=due)
                )
                try:
                    await asyncio.shield(self._settling)
                except (LakehouseError, OSError) as error:
                    reason = getattr(error, "message", "the disk fails")
                    logger.warning("The checkpoint is put off: %s", reason)
                    await asyncio.sleep(RETRY_S)
                except Exception:
                    # The log has everything; a start without a checkpoint only takes longer.
                    logger.exception("The checkpoint could not be made")
                    await asyncio.sleep(RETRY_S)

    async def _settle(self, *, checkpoint: bool) -> None:
        """Takes up new words; writes a checkpoint; makes the index anew when it is crowded."""
        memory, settling = self.memory, await load_room("settling")
        assert memory is not None
        seq = self._applied
        taken = settling.begin(memory)
        frozen = await self._disk.run(taken.merge)
        memory.index.postings.replace(frozen, taken.parts)
        crowded = memory.index.is_crowded
        if not checkpoint and not crowded:
            return
        packed = await self._disk.run(settling.pack_taken, taken, frozen)
        if checkpoint:
            await self._disk.run(settling.write_checkpoint, self._journal, seq, taken, packed)
            self._checkpoint_seq = seq
            self.figures.checkpoints.inc()
        if crowded:
            fresh = await self._disk.run(settling.make_index, memory, packed)
            settling.catch_up(memory, fresh, taken, packed)

    async def _check(self) -> None:
        """Reads all of the log once, slowly, to know of damage in its older parts."""
        report = Report()
        loading = await load_room("loading")
        records = loading.count_unknown(self._journal, report)
        unknown = 0
        try:
            while (found := await self._disk.run(loading.read_slice, records, _SLICE)) is not None:
                unknown += found
                await asyncio.sleep(_REST_S)
        except (LakehouseError, OSError) as error:
            reason = getattr(error, "message", "the disk reports an error")
            self._log_problems.append(f"the log could not be read to its end: {reason}")
            logger.error("The log could not be read to its end: %s", reason)
            return
        self._report, self._unknown, self._checked = report, unknown, True
        self._tell(report)


def _read_writes(journal: Journal, wanted: Sequence[int]) -> dict[int, Write]:
    """The versions of some records, in ascending order; those near each other in one go."""
    found: dict[int, Write] = {}
    at = 0
    while at < len(wanted):
        for record in journal.replay(wanted[at]):
            while at < len(wanted) and wanted[at] < record.seq:
                at += 1
            if at < len(wanted) and wanted[at] == record.seq:
                with contextlib.suppress(KeyError, ValueError, TypeError):
                    change = decode_change(record.payload)
                    if isinstance(change, Write):
                        found[record.seq] = change
                at += 1
            if at == len(wanted) or wanted[at] - record.seq > _NEAR_RECORDS:
                break
        else:
            break
    return found
