"""Client of ingestd: files become part of a dataset, at once or as a job."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import anyio
import httpx

from shared.clients.base import TRANSPORT_ERRORS, ServiceClient
from shared.config import Config
from shared.errors import BY_CODE, Conflict, Timeout, Unavailable, Upstream
from shared.wire.ingestd import (
    FILE_FIELD,
    INGEST_PATH,
    JOBS_PATH,
    Contract,
    IngestJob,
    IngestJobs,
    IngestResult,
    JobProgress,
    JobStatus,
    Mode,
)

# What a file is sent from: its bytes, where it lies, or an iterator of pieces.
Content = bytes | Path | AsyncIterator[bytes]
# One file, or several by their names, which are one ingest.
Source = Content | Sequence[tuple[str, Content]]
# Pieces in which files are read for sending. Bytes.
PIECE = 1024 * 1024
# The status of a request that became a job.
ACCEPTED = 202
# Longest wait for a job's end in one request, and what it may take beyond. Seconds.
_POLL_S = 30.0
_MARGIN_S = 30.0
# Of a stream of events, which has a heartbeat every ten. Seconds.
_SILENCE_S = 60.0
# Connections in a row that may fail while a job is followed.
_TRIES = 8


class IngestdClient(ServiceClient):
    """Talks to ingestd.

    Args:
        config: for the address and the token.
        transports: in-process transports by service name, in place of the network.
    """

    def __init__(
        self, config: Config, transports: Mapping[str, httpx.AsyncBaseTransport] | None = None
    ) -> None:
        super().__init__(config, "ingestd", transports)
        self._timeout_s = config.ingestd.request_timeout_s

    async def ingest(
        self,
        dataset: str,
        source: Source,
        *,
        mode: Mode = "append",
        contract: Contract = "freeze",
        content_type: str = "application/octet-stream",
        **options: str,
    ) -> IngestResult:
        """Adds a file's rows to a dataset, or puts them in place of others.

        Safe to send again after any failure: the same input is taken once. Where the file is
        so large that it becomes a job, that is waited for.

        Args:
            dataset: its name; it is made when there is none.
            source: the bytes, a file to read, or an iterator of pieces; or several of these,
                each with its name, which are one ingest: all in one commit, or none.
            mode: append, replace or upsert (with `key`).
            contract: what becomes of columns and values that do not go with the dataset.
            content_type: of a single file, where more is to be said than its bytes say.
            options: key, format, header, delimiter, quote, escape, encoding.

        Raises:
            Conflict: the file does not go with the dataset; the details name each column.
            Unprocessable: no row of the file can be used.
            Invalid, UnsupportedMediaType, TooLarge, InsufficientStorage: refused.
        """
        query = {"dataset": dataset, "mode": mode, "contract": contract, **options}
        response = await self._post(query, source, {"content-type": content_type})
        if response.status_code == ACCEPTED:
            return await self.finish_job(IngestJob.model_validate_json(response.content).job_id)
        return IngestResult.model_validate_json(response.content)

    async def start(
        self,
        dataset: str,
        source: Source,
        *,
        mode: Mode = "append",
        contract: Contract = "freeze",
        content_type: str = "application/octet-stream",
        **options: str,
    ) -> IngestJob:
        """Like `ingest`, as a job that goes on by itself.

        Raises:
            RateLimited: too many jobs wait already.
            InsufficientStorage: there is no room for the file.
        """
        query = {"dataset": dataset, "mode": mode, "contract": contract, **options}
        headers = {"content-type": content_type, "prefer": "respond-async"}
        response = await self._post(query, source, headers)
        return IngestJob.model_validate_json(response.content)

    async def get_job(self, job_id: str, wait_s: float = 0.0) -> IngestJob:
        """A job as it stands, or as it ended within `wait_s` seconds.

        Raises:
            NotFound: there is none, or it is no longer kept.
        """
        response = await self.request(
            "GET", f"{_path(job_id)}?wait={wait_s:g}", timeout_s=wait_s + _MARGIN_S
        )
        return IngestJob.model_validate_json(response.content)

    async def list_jobs(self, limit: int = 100, cursor: str | None = None) -> IngestJobs:
        """Jobs, newest first."""
        params = {"limit": str(limit), **({} if cursor is None else {"cursor": cursor})}
        response = await self.request("GET", JOBS_PATH, params=params)
        return IngestJobs.model_validate_json(response.content)

    async def cancel_job(self, job_id: str) -> IngestJob:
        """Ends a job that waits or runs.

        Raises:
            Conflict: it is too late for that.
        """
        response = await self.request("DELETE", _path(job_id))
        return IngestJob.model_validate_json(response.content)

    async def finish_job(self, job_id: str) -> IngestResult:
        """What a job comes to, however long it takes.

        Raises:
            LakehouseError: it failed, with what the request itself would have been told.
            Conflict: it was cancelled.
        """
        while True:
            job = await self.get_job(job_id, _POLL_S)
            if job.status not in ("queued", "running"):
                return result_of(job)

    async def watch_job(self, job_id: str) -> AsyncGenerator[IngestJob]:
        """The job each time that it got further, last of all as it ended.

        Connections that break off are made anew; what was told is not told again.

        Raises:
            NotFound: there is none.
            Unavailable: ingestd is away for too long.
        """
        last_id, failures = "", 0
        job: IngestJob | None = None
        while True:
            try:
                async for name, seen, data in self._read_events(job_id, last_id):
                    failures, last_id = 0, seen
                    if name == "end":
                        yield IngestJob.model_validate_json(data)
                        return
                    told = _Told.model_validate_json(data)
                    job = job or await self.get_job(job_id)
                    yield job.model_copy(update={"status": told.status, "progress": told})
            except (Unavailable, Upstream, Timeout):
                failures += 1
                if failures > _TRIES:
                    raise
                await anyio.sleep(min(0.2 * 2**failures, 5.0))

    @asynccontextmanager
    async def stream_events(
        self, job_id: str, last_id: str = ""
    ) -> AsyncGenerator[AsyncIterator[bytes]]:
        """A job's events as they come, for who passes them on."""
        headers = {"accept": "text/event-stream", **({"last-event-id": last_id} if last_id else {})}
        async with self.stream(
            "GET", f"{_path(job_id)}/events", headers=headers, timeout_s=_SILENCE_S
        ) as response:
            yield self._pass_on(response)

    async def _pass_on(self, response: httpx.Response) -> AsyncGenerator[bytes]:
        try:
            async for piece in response.aiter_bytes():
                yield piece
        except TRANSPORT_ERRORS as error:
            raise Upstream("ingestd broke the connection off. The job goes on.") from error

    async def _read_events(
        self, job_id: str, last_id: str
    ) -> AsyncGenerator[tuple[str, str, bytes]]:
        """Name, id and data of each event."""
        held = b""
        async with self.stream_events(job_id, last_id) as pieces:
            async for piece in pieces:
                *frames, held = (held + piece).split(b"\n\n")
                for frame in frames:
                    fields = dict(
                        line.split(b": ", 1) for line in frame.split(b"\n") if line[:1] != b":"
                    )
                    if fields:
                        yield fields[b"event"].decode(), fields[b"id"].decode(), fields[b"data"]

    async def _post(
        self,
        query: Mapping[str, str],
        source: Source,
        headers: dict[str, str],
    ) -> httpx.Response:
        content: bytes | AsyncIterator[bytes]
        if isinstance(source, Sequence) and not isinstance(source, bytes):
            boundary = secrets.token_hex(16)
            headers["content-type"] = f"multipart/form-data; boundary={boundary}"
            content = _write_form(source, boundary)
        elif isinstance(source, Path):
            headers["content-length"] = str((await anyio.Path(source).stat()).st_size)
            content = _read_file(source)
        else:
            content = source
        return await self.request(
            "POST",
            INGEST_PATH,
            params=query,
            headers=headers,
            content=content,
            timeout_s=self._timeout_s,
        )


def result_of(job: IngestJob) -> IngestResult:
    """What a job that has ended came to.

    Raises:
        LakehouseError: it failed, with what the request itself would have been told.
        Conflict: it was cancelled.
    """
    if job.error is not None:
        cls = BY_CODE.get(job.error.code, Upstream)
        raise cls(job.error.message, details=job.error.details)
    if job.result is None:
        raise Conflict(f"Job {job.job_id} was cancelled; nothing was stored.")
    return job.result


class _Told(JobProgress):
    status: JobStatus


def _path(job_id: str) -> str:
    return f"{JOBS_PATH}/{quote(job_id, safe='')}"


async def _write_form(files: Sequence[tuple[str, Content]], boundary: str) -> AsyncGenerator[bytes]:
    """A form with a field for each file, written as it is sent."""
    for name, content in files:
        # As browsers write it.
        quoted = name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
        yield (
            f'--{boundary}\r\ncontent-disposition: form-data; name="{FILE_FIELD}"; '
            f'filename="{quoted}"\r\n\r\n'
        ).encode()
        if isinstance(content, bytes):
            yield content
        else:
            pieces = _read_file(content) if isinstance(content, Path) else content
            async for piece in pieces:
                yield piece
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


async def _read_file(path: Path) -> AsyncGenerator[bytes]:
    async with await anyio.open_file(path, "rb") as file:
        while piece := await file.read(PIECE):
            yield piece
