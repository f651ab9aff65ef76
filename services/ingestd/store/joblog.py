"""Jobs on disk: what was promised with a 202, what it was about to register, how it ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from shared.errors import LakehouseError
from shared.journal import Journal
from shared.pool import BlockingPool

logger = logging.getLogger("lakehouse.ingestd.jobs")

_COMPACT_EVERY = 500
# Of results of finished jobs in memory: each names every column of its dataset. Bytes.
_KEPT_BYTES = 16 * 1024 * 1024
# What one of a job's files takes there, about. Bytes.
_FILE_BYTES = 400


@dataclass(frozen=True, slots=True)
class JobFile:
    """One of a job's files: a body that was received, or an object in storage.

    Attributes:
        name: what it is called.
        size: its bytes. `sha256`: of a body.
        object, etag: of an object.
    """

    name: str
    size: int
    sha256: str = ""
    object: str | None = None
    etag: str | None = None


@dataclass(slots=True)
class JobRow:
    """What is kept of a job.

    Attributes:
        id: its name; `number`: its place in the order of acceptance.
        dataset, uuid, options: what is to be done, as `Options` in plain form.
        folder: where its body lies; `size` and `sha256` of the body.
        object, etag: of a source in storage; `size` is the object's, `sha256` is empty. Of
            several, `object` is the prefix that they were named by, if they were.
        files: where there are several, or a prefix; `size` and `sha256` are then of all.
        idempotency_key: what the caller calls the request.
        request_id: of the request that made it.
        created_us, started_us, finished_us: microseconds since 1970.
        ingest_id: what it was about to be registered as.
        status: queued until it ended.
        end: the result or the error as JSON, and the last progress.
    """

    id: str
    number: int
    dataset: str
    uuid: str
    options: dict[str, Any]
    folder: str
    size: int
    sha256: str
    object: str | None
    etag: str | None
    idempotency_key: str | None
    request_id: str
    created_us: int
    started_us: int | None = None
    finished_us: int | None = None
    ingest_id: str | None = None
    status: str = "queued"
    end: bytes = b""
    progress: dict[str, Any] = field(default_factory=dict[str, Any])
    files: tuple[JobFile, ...] = ()

    @property
    def sources(self) -> tuple[JobFile, ...]:
        """Its files, be it one or several."""
        return self.files or (JobFile("", self.size, self.sha256, self.object, self.etag),)

    @property
    def ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.status in ("done", "failed", "cancelled")


class JobLog:
    """The jobs' journal and what it says; finished jobs within bounds.

    Args:
        folder: of the journal.
        keep: how many finished jobs are kept.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self._journal = Journal(folder)
        self._keep = keep
        self._pool = BlockingPool("ingestd-jobs", 1, 64)
        self._writing = asyncio.Lock()
        self._since = 0
        self._ended: dict[str, int] = {}
        self.rows: dict[str, JobRow] = {}
        self.last_number = 0

    async def open(self) -> None:
        """Reads what is kept."""
        await self._pool.run(self._load)

    async def close(self) -> None:
        """Closes the journal."""
        await self._journal.aclose()
        self._pool.close()

    def check(self) -> str:
        """ "ok", or why no job can be accepted."""
        failure = self._journal.failure
        return "ok" if failure is None else failure.message

    async def accept(self, row: JobRow) -> None:
        """Promises a job; durable on return.

        Raises:
            InsufficientStorage: it cannot be made durable.
        """
        await self._write({"what": "accepted", "job": _plain(row)})

    async def name(self, job_id: str, ingest_id: str) -> None:
        """Notes what a job is about to be registered as."""
        await self._write({"what": "named", "id": job_id, "ingest_id": ingest_id})

    async def end(self, row: JobRow) -> None:
        """Notes how a job ended."""
        ended = {
            "status": row.status,
            "started_us": row.started_us,
            "finished_us": row.finished_us,
            "end": row.end.decode(),
            "progress": row.progress,
        }
        await self._write({"what": "ended", "id": row.id, "row": ended})

    def unfinished(self) -> Iterator[JobRow]:
        """Jobs that have not ended, in the order in which they were accepted."""
        yield from sorted(
            (row for row in self.rows.values() if not row.ended), key=lambda row: row.number
        )

    # --- inside

    def _load(self) -> None:
        self._journal.open()
        checkpoint = self._journal.latest_checkpoint()
        start = None
        if checkpoint is not None:
            start = checkpoint.seq + 1
            for fields in orjson.loads(b"".join(checkpoint.chunks()))["jobs"]:
                self._put(_row(fields))
        for record in self._journal.replay(start):
            self._since += 1
            try:
                self._fold(record.payload)
            except (KeyError, TypeError, AttributeError):
                # One record that cannot be read must not cost the others.
                logger.exception("Record %d of the jobs cannot be read", record.seq)

    def _fold(self, payload: Mapping[str, Any]) -> None:
        if payload["what"] == "accepted":
            self._put(_row(payload["job"]))
            return
        row = self.rows.get(payload["id"])
        if row is None:
            return
        if payload["what"] == "named":
            row.ingest_id = payload["ingest_id"]
        elif payload["what"] == "ended":
            for name, value in payload["row"].items():
                setattr(row, name, value.encode() if name == "end" else value)
            self._put(row)

    def _put(self, row: JobRow) -> None:
        self.rows[row.id] = row
        self.last_number = max(self.last_number, row.number)
        if not row.ended:
            return
        self._ended[row.id] = len(row.end) + _FILE_BYTES * len(row.files)
        while len(self._ended) > self._keep or sum(self._ended.values()) > _KEPT_BYTES:
            oldest = next(iter(self._ended))
            if oldest == row.id:
                break
            del self._ended[oldest], self.rows[oldest]

    async def _write(self, payload: dict[str, Any]) -> None:
        # Whoever leaves meanwhile: what is durable must also be in memory, in the same order.
        await asyncio.shield(asyncio.ensure_future(self._append(payload)))

    async def _append(self, payload: dict[str, Any]) -> None:
        async with self._writing:
            await self._journal.append(payload)
            self._fold(payload)
            self._since += 1
            if self._since < _COMPACT_EVERY:
                return
            state = orjson.dumps({"jobs": [_plain(row) for row in self.rows.values()]})
            try:
                await self._pool.run(self._journal.compact, self._journal.last_seq, [state])
                self._since = 0
            except LakehouseError as error:
                logger.warning("The jobs' checkpoint waits: %s", error.message)


def _plain(row: JobRow) -> dict[str, Any]:
    return {**asdict(row), "end": row.end.decode()}


def _row(fields: Mapping[str, Any]) -> JobRow:
    files = tuple(JobFile(**one) for one in fields.get("files", ()))
    return JobRow(**{**fields, "end": fields["end"].encode(), "files": files})
