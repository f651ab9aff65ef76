"""One worker process as the daemon sees it: started by exec, spoken to in frames, killed.

The worker gets a cleared environment, one socket and nothing else. It is watched by its
process descriptor, so that its death is known at once and its number is never mistaken for
another process's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.queryd.core.frames import HEADER_SIZE, Kind, pack, unpack, unpack_header
from services.queryd.worker.settings import WorkerSettings
from shared.daemons import ROOT
from shared.sections.data import QuerydSection

# One thread for linear algebra nobody does; the plain allocator in two arenas, because what
# it sets aside counts against the limit on address space; times in UTC.
_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "2",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "TZ": "UTC",
    "LC_ALL": "C.UTF-8",
}
# Room in the socket for a whole batch, so that the worker makes the next one while this one
# is on its way. The kernel doubles it.
_SOCKET_BYTES = 2 << 20
# Bytes relayed at a time.
_CHUNK = 1 << 20


class WorkerGone(Exception):
    """The worker died, or was killed."""


class WorkerProcess:
    """A running worker. Make it inside the event loop.

    Args:
        section: limits.
        folder: its own folder, made here; whoever is told of its end removes it.
        readable: folders that hold data files.
        on_exit: called once, when the process has ended.
    """

    def __init__(
        self,
        section: QuerydSection,
        folder: Path,
        readable: tuple[str, ...],
        on_exit: Callable[[WorkerProcess], None],
    ) -> None:
        self.folder = folder
        self.reason = ""
        self._holders = 0
        self._hung_up = False  # it ended by itself, which is only not known of yet
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._exited: asyncio.Future[int] = self._loop.create_future()
        self._header = bytearray()
        scratch = folder / "scratch"
        scratch.mkdir(parents=True)
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
        settings = WorkerSettings(
            fd=theirs.fileno(),
            parent=os.getpid(),
            memory_mb=section.worker_memory_mb,
            temp_mb=section.worker_temp_mb,
            threads=section.worker_threads,
            files=section.worker_files,
            scratch=str(scratch),
            readable=readable,
        )
        # In this thread: a worker asks to die with the thread that started it.
        with theirs, (folder / "stderr").open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "services.queryd.worker", settings.to_json()],
                cwd=ROOT,
                env=_ENVIRONMENT,
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        ours.setblocking(False)
        self._socket = ours
        self._pidfd = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._pidfd, self._reap)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Its exit status, negative for the signal that ended it; None while it lives."""
        return self._process.returncode

    @property
    def alive(self) -> bool:
        """Whether it has not been seen to end."""
        return not self._exited.done()

    def kill(self, reason: str) -> None:
        """Ends it now; `reason` is kept for who asks why it is gone."""
        if self.alive:
            if not self._hung_up:
                self.reason = self.reason or reason
            self._process.kill()

    async def wait(self) -> int:
        """Its exit status once it has ended (negative: the signal that ended it)."""
        return await asyncio.shield(self._exited)

    def read_complaint(self) -> str:
        """The last line it wrote before it died, for the log."""
        with contextlib.suppress(OSError):
            lines = (self.folder / "stderr").read_text("utf-8", "replace").strip().splitlines()
            return lines[-1][:500] if lines else ""
        return ""

    async def send(self, kind: Kind, payload: object) -> None:
        """One frame to the worker.

        Raises:
            WorkerGone: it has ended.
        """
        try:
            await self._loop.sock_sendall(self._socket, pack(kind, payload))
        except OSError:
            self._hung_up = not self.reason
            raise WorkerGone from None

    async def receive(self) -> tuple[Kind, int]:
        """Kind and length of the next frame; its payload must be read before the next.

        Raises:
            WorkerGone: it has ended.
        """
        try:
            return unpack_header(await self._read(HEADER_SIZE))
        except ValueError:
            self.kill("spoke out of turn")
            raise WorkerGone from None

    async def read_json(self, length: int) -> Any:
        """A payload of JSON."""
        return unpack(await self._read(length))

    async def read_some(self, length: int) -> bytes:
        """Up to `length` bytes of a payload, as many as are there."""
        try:
            data = await self._loop.sock_recv(self._socket, min(length, _CHUNK))
        except OSError:
            data = b""
        if not data:
            self._hung_up = not self.reason
            raise WorkerGone
        return data

    async def _read(self, length: int) -> bytes:
        data = await self.read_some(length)
        while len(data) < length:
            data += await self.read_some(length - len(data))
        return data

    def hold(self) -> None:
        """Keeps the socket open, so that what a dead worker had sent can still be read."""
        self._holders += 1

    def let_go(self) -> None:
        """Undoes one `hold`."""
        self._holders -= 1
        self._close_unused()

    def _reap(self) -> None:
        status = self._process.poll()
        if status is None:
            return
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._exited.set_result(status)
        self._close_unused()
        self._on_exit(self)

    def _close_unused(self) -> None:
        if not self.alive and not self._holders:
            self._socket.close()
