"""A job that has not ended: how it goes, who follows it, whether it can still be cancelled."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from services.ingestd.core.progress import Track
from services.ingestd.store.going import Going
from services.ingestd.store.joblog import JobLog, JobRow
from shared import context
from shared.errors import Conflict
from shared.wire.ingestd import (
    IngestJob,
    IngestResult,
    JobFailure,
    JobProgress,
    JobSource,
    JobStatus,
)

# A comment this often, so that nobody on the way takes the silence for the end. Seconds.
BEAT_S = 10.0
# Between two events of one stream: more often nobody looks. Seconds.
_PACE_S = 0.1
# What a request keeps of its time to give its answer. Seconds.
_MARGIN_S = 2.0


class FollowedTrack(Track):
    """A track that wakes whoever waits for its next change."""

    def __init__(self) -> None:
        self._changed: asyncio.Event | None = None
        super().__init__()

    def update(self, **figures: Any) -> None:
        """Changes figures, and tells."""
        super().update(**figures)
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def wait_change(self, seen: int) -> None:
        """Returns once there is a version after `seen`."""
        while self.version <= seen:
            if self._changed is None:
                self._changed = asyncio.Event()
            await self._changed.wait()


class RunningJob(Going):
    """A job from its acceptance, or the daemon's start, to its end.

    Args:
        row: what is kept of it.
        log: where it is kept.
        patience_s: how long it waits for a daemon that is down.
    """

    queued = True

    def __init__(self, row: JobRow, log: JobLog, patience_s: float) -> None:
        super().__init__(patience_s)
        self.row = row
        self.track: FollowedTrack = FollowedTrack()
        self.named = row.ingest_id
        self.ended = asyncio.Event()
        self.cancelling = False
        self.task: asyncio.Task[None] | None = None
        # Whether the task has begun; whether it holds its dataset's turn.
        self.under_way = self.has_turn = False
        self._log = log
        self._sealed = False

    async def register_as(self, ingest_id: str) -> None:
        """It is about to be registered: from here on it cannot be cancelled."""
        self._sealed = True
        self.named = ingest_id
        await self._log.name(self.row.id, ingest_id)
        await super().register_as(ingest_id)

    def unseal(self) -> None:
        """Nothing was registered, and it begins anew."""
        self._sealed = False

    def check_open(self) -> None:
        """Raises Conflict where it is too late to cancel the job."""
        if self._sealed:
            raise Conflict(
                f"Job {self.row.id} is being registered and can no longer be cancelled. Wait for "
                "its end; the rows can then be taken out by a rollback of the dataset.",
                details={"job_id": self.row.id, "stage": self.track.now.stage},
            )

    def start(self) -> None:
        """Its turn has come."""
        self.row.started_us = now_us()
        self.row.status = "running"
        self.track.update()

    def finish(self) -> None:
        """It has ended, and nothing of it is left; whoever follows it is told."""
        self.ended.set()
        self.track.update()

    async def wait(self, wait_s: float) -> None:
        """Waits for its end, at most so long."""
        left = context.remaining_s()
        if left is not None:
            wait_s = min(wait_s, left - _MARGIN_S)
        if wait_s > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self.ended.wait()


async def stream_events(
    row: JobRow, alive: RunningJob | None, epoch: str, last_id: str
) -> AsyncGenerator[bytes]:
    """A job's progress as server-sent events.

        event: progress    stages as they begin, and figures as they change
        event: end         the whole job; nothing follows

    Args:
        row: the job. `alive`: while it has not ended.
        epoch: of this process: versions before it are not comparable.
        last_id: `Last-Event-ID` of a reader that was here before, or "".

    A slow reader gets fewer events, not old ones. Before the request's time is over the stream
    ends; a reader that comes again gets the stages that it missed.
    """
    if alive is not None:
        left = context.remaining_s()
        loop = asyncio.get_running_loop()
        until = loop.time() + max(0.0, (left if left is not None else 3600.0) - _MARGIN_S)
        track = alive.track
        seen = _version_of(last_id, epoch)
        while not alive.ended.is_set():
            for version, figures in track.since(seen):
                seen = version
                told = {"job_id": row.id, "status": row.status, **figures}
                yield _make("progress", f"{epoch}-{version}", told)
            wait_s = min(BEAT_S, until - loop.time())
            if wait_s <= 0:
                return
            try:
                async with asyncio.timeout(wait_s):
                    await asyncio.sleep(_PACE_S)
                    await track.wait_change(seen)
            except TimeoutError:
                yield b": still under way\n\n"
        row = alive.row
    yield _make("end", "end", show_job(row).model_dump(mode="json", by_alias=True))


def _version_of(last_id: str, epoch: str) -> int:
    before, _, version = last_id.rpartition("-")
    return int(version) if before == epoch and version.isascii() and version.isdigit() else 0


def _make(event: str, number: str, data: dict[str, Any]) -> bytes:
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    return b"event: %s\nid: %s\ndata: %s\n\n" % (event.encode(), number.encode(), text)


def show_job(row: JobRow, alive: RunningJob | None = None, *, brief: bool = False) -> IngestJob:
    """A job as callers see it; `brief` leaves the result out."""
    # Until all that is left of it is removed, it runs.
    ended = row.ended and (alive is None or alive.ended.is_set())
    shown = row.status if ended or not row.ended else "running"
    status: JobStatus = shown  # type: ignore[assignment] # one of them
    figures = row.progress if ended or alive is None else alive.track.now.to_json()
    return IngestJob(
        job_id=row.id,
        status=status,
        dataset=row.dataset,
        mode=row.options["mode"],
        contract=row.options["contract"],
        source=JobSource(bytes=row.size, object=row.object, files=len(row.sources)),
        created_at=_show_time(row.created_us) or "",
        started_at=_show_time(row.started_us),
        finished_at=_show_time(row.finished_us),
        progress=JobProgress.model_validate(figures or {"stage": row.status}),
        result=result_of(row) if status == "done" and not brief else None,
        error=JobFailure.model_validate_json(row.end) if status == "failed" else None,
    )


def result_of(row: JobRow) -> IngestResult:
    """What a job that is done came to."""
    return IngestResult.model_validate_json(row.end)


def _show_time(at_us: int | None) -> str | None:
    if at_us is None:
        return None
    shown = datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(timespec="milliseconds")
    return shown.replace("+00:00", "Z")


def now_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000
