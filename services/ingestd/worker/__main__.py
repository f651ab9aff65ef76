"""The worker's loop: a job a line on standard input, events a line on standard output.

Events: `{"event": "stage", "name": …}` and, with the meter's figures, `{"event": "progress", …}`
while a job runs, `{"event": "log", "message": …}` for what the daemon's log should have, then
`{"event": "done", "outcome": …}` or `{"event": "failed", "code", "message", "details"}`.
The worker ends when its input does, in the middle of a job too: whoever started it is gone.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import resource
import sys
import threading
from collections.abc import Callable
from typing import Any

from services.ingestd.core.bundle import Bundle
from services.ingestd.core.job import Job
from services.ingestd.core.merging import Merge
from services.ingestd.worker.bundle import convert_bundle
from services.ingestd.worker.convert import convert
from services.ingestd.worker.duck import disk_full, is_disk_full
from services.ingestd.worker.merge import merge
from services.ingestd.worker.meter import Ticker
from shared.errors import Internal, LakehouseError

logger = logging.getLogger("lakehouse.ingestd.worker")


class Channel:
    """Writes events; anything else that is printed goes to standard error."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.dup(1), "wb", buffering=0)
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def send(self, **event: Any) -> None:
        """Writes one event."""
        line = json.dumps(event).encode() + b"\n"
        with self._lock:
            self._file.write(line)


class ChannelHandler(logging.Handler):
    """Sends log records to the daemon, which writes its log in its own form."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        """Sends one record."""
        self._channel.send(event="log", message=self.format(record))


def limit_memory(duckdb_bytes: int) -> None:
    """Has the kernel refuse memory far past what a conversion is meant to use.

    DuckDB keeps to its own limit but for a few structures; Python and numpy need some room.
    """
    most = 2 * duckdb_bytes + 512 * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def read_jobs(jobs: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Feeds the queue from standard input; ends the process when the input ends."""
    for line in sys.stdin.buffer:
        jobs.put(json.loads(line))
    # A conversion may be deep in native code; nobody waits for it any more.
    os._exit(0)


def do(values: dict[str, Any], report: Callable[[str], None]) -> dict[str, Any]:
    """Does one job, a conversion or a step of an upsert; gives its outcome in plain form."""
    if "files" in values and "step" not in values:
        return convert_bundle(Bundle.from_json(values), report).to_json()
    if "step" in values:
        return merge(Merge.from_json(values), report)
    return convert(Job.from_json(values), report).to_json()


def run_job(values: dict[str, Any], channel: Channel) -> None:
    """Does one job and tells how it went."""
    try:
        with Ticker(lambda figures: channel.send(event="progress", **figures)):
            outcome = do(values, lambda name: channel.send(event="stage", name=name))
    except LakehouseError as error:
        failure = error
    except Exception as error:
        if is_disk_full(error):
            failure = disk_full()
        elif isinstance(error, MemoryError):
            failure = Internal("The worker ran out of memory. Raise ingestd.worker_memory_mb.")
        else:
            logger.exception("A conversion failed")
            failure = Internal("The conversion failed. The log of ingestd has the details.")
    else:
        channel.send(event="done", outcome=outcome)
        return
    channel.send(
        event="failed", code=failure.code, message=failure.message, details=failure.details
    )


def main() -> None:
    """Runs jobs one after the other until the input ends."""
    settings = json.loads(sys.argv[1])
    limit_memory(settings["memory_bytes"])
    channel = Channel()
    logging.getLogger().addHandler(ChannelHandler(channel))
    jobs: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=read_jobs, args=(jobs,), name="jobs", daemon=True).start()
    while True:
        run_job(jobs.get(), channel)


if __name__ == "__main__":
    main()
