"""The workers' template as the daemon sees it: started by exec, asked for copies of itself.

It gets a cleared environment, one socket and nothing else, and so do the workers, which it
forks. See `worker.template` for what is said over the socket.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from services.queryd.store.bucket import Bucket
from services.queryd.worker.settings import WorkerSettings
from shared.daemons import ROOT
from shared.sections.data import QuerydSection

# One thread for linear algebra nobody does; the plain allocator in two arenas, because what
# it sets aside counts against the limit on address space; no thread that a fork would lose;
# times in UTC.
_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "2",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "TZ": "UTC",
    "LC_ALL": "C.UTF-8",
}
_MOST_BYTES = 65_536


class Copy(Protocol):
    """Is told what becomes of a worker that was asked for."""

    def note_start(self, pid: int, pidfd: int) -> None:
        """It runs; the descriptor of the process is the callee's to close."""
        ...

    def note_end(self, status: int) -> None:
        """It has ended: its exit status, negative for the signal that ended it."""
        ...


class Template:
    """A running template. Make it inside the event loop.

    Args:
        section: limits of the workers.
        folder: its own folder, made here.
        readable: folders that hold data files.
        bucket: where data files lie too, if there is one.
        on_end: called once, when the process has ended and its workers with it.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(
        self,
        section: QuerydSection,
        folder: Path,
        readable: tuple[str, ...],
        bucket: Bucket | None,
        on_end: Callable[[], None],
    ) -> None:
        self._folder = folder
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._number = 0
        self._copies: dict[int, Copy] = {}
        scratch = folder / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        settings = WorkerSettings(
            fd=theirs.fileno(),
            parent=os.getpid(),
            memory_mb=section.worker_memory_mb,
            temp_mb=section.worker_temp_mb,
            threads=section.worker_threads,
            files=section.worker_files,
            scratch=str(scratch),
            readable=readable,
            # No more than these: the argument can be read by everybody on the machine.
            extension=bucket.extension if bucket else "",
            ports=(bucket.port,) if bucket else (),
        )
        try:
            # In this thread: a template asks to die with the thread that started it.
            with theirs, (folder / "stderr").open("wb") as errors:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "services.queryd.worker", settings.to_json()],
                    cwd=ROOT,
                    env=_ENVIRONMENT,
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    process_group=0,
                )
        except OSError:
            ours.close()
            raise
        ours.setblocking(False)
        self._socket = ours
        self._loop.add_reader(ours, self._listen)

    def start_worker(self, copy: Copy, scratch: Path, theirs: socket.socket, errors: int) -> None:
        """Asks for a worker.

        Args:
            copy: is told of its start and its end.
            scratch: its folder, which exists.
            theirs: the worker's end of its socket.
            errors: descriptor of its standard error.

        Raises:
            OSError: the template is gone, or has too much to do.
        """
        self._number += 1
        asked = json.dumps({"number": self._number, "scratch": str(scratch)}).encode()
        socket.send_fds(self._socket, [asked], [theirs.fileno(), errors])
        self._copies[self._number] = copy

    def read_complaint(self) -> str:
        """The last line it wrote before it died, for the log."""
        return read_last_line(self._folder / "stderr")

    def close(self) -> None:
        """Ends it, and its workers with it; waits for it."""
        self._loop.remove_reader(self._socket)
        self._process.kill()
        self._process.wait()
        self._socket.close()

    def _listen(self) -> None:
        while True:
            try:
                data, given, _, _ = socket.recv_fds(self._socket, _MOST_BYTES, 1)
            except BlockingIOError:
                return
            except OSError:
                data, given = b"", []
            if not data:
                self._end()
                return
            told = json.loads(data)
            if "started" in told:
                self._copies[told["started"]].note_start(told["pid"], given[0])
            else:
                self._copies.pop(told["ended"]).note_end(told["status"])

    def _end(self) -> None:
        self.close()
        orphans = list(self._copies.values())
        self._copies.clear()
        self._on_end()
        for copy in orphans:
            # The kernel has ended it, as it asked at its start.
            copy.note_end(-signal.SIGKILL)


def read_last_line(path: Path) -> str:
    """The last line of a file, at most 500 characters; empty where there is none."""
    try:
        lines = path.read_text("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1][:500] if lines else ""
