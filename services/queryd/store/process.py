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
from services.queryd.store.bucket import Bucket
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
_CHUNK = 512 << 10


class WorkerGone(Exception):
    """The worker died, or was killed; `unread` if it never saw the last frame sent to it."""

    def __init__(self, *, unread: bool = False) -> None:
        super().__init__()
        self.unread = unread


class WorkerProcess:
    """A running worker. Make it inside the event loop.

    Args:
        section: limits.
        folder: its own folder, made here; whoever is told of its end removes it.
        readable: folders that hold data files.
        on_exit: called once, when the process has ended.
        bucket: where data files lie too, if there is one.
    """

    def __init__(
        self,
        section: QuerydSection,
        folder: Path,
        readable: tuple[str, ...],
        on_exit: Callable[[WorkerProcess], None],
        bucket: Bucket | None = None,
    ) -> None:
        self.folder = folder
        self.reason = ""
        self._holders = 0
        self._hung_up = False  # it ended by itself, which is only not known of yet
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._exited: asyncio.Future[int] = self._loop.create_future()
        self._header = b""  # as much of the next frame's as has come
        self._kind = Kind.READY
        self._left = 0  # bytes of the present frame that are not read yet
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
            # No more than these: the argument can be read by everybody on the machine.
            extension=bucket.extension if bucket else "",
            ports=(bucket.port,) if bucket else (),
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
                # Out of the way of the terminal's signals, but in the daemon's session: where
                # the kernel shares processors out by session first (autogroup), a policy
                # counts only beside processes of the same one.
                process_group=0,
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

    def is_running(self) -> bool:
        """Whether it runs at this moment, which the loop may not have been told yet."""
        return self._process.poll() is None

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
            raise WorkerGone(unread=True) from None

    async def receive(self) -> tuple[Kind, int]:
        """Kind and length of the next frame; its payload must be read before the next.

        Raises:
            WorkerGone: it has ended.
        """
        while len(self._header) < HEADER_SIZE:
            self._header += await self._recv(HEADER_SIZE - len(self._header))
        header, self._header = self._header, b""
        try:
            self._kind, self._left = unpack_header(header)
        except ValueError:
            self.kill("spoke out of turn")
            raise WorkerGone from None
        return self._kind, self._left

    async def read_json(self, length: int) -> Any:
        """A payload of JSON."""
        data = b""
        while len(data) < length:
            data += await self.read_some(length - len(data))
        return unpack(data)

    async def read_some(self, length: int) -> bytes:
        """Up to `length` bytes of a payload, as many as are there."""
        data = await self._recv(length)
        self._left -= len(data)
        return data

    async def skip_answer(self) -> None:
        """Reads to the end of what a query answers, wherever its reader left off.

        Raises:
            WorkerGone: it has ended.
        """
        while True:
            while self._left:
                await self.read_some(self._left)
            if self._kind in (Kind.END, Kind.ERROR):
                return
            await self.receive()

    async def _recv(self, length: int) -> bytes:
        # Taken from the socket only when it can be handed on at once: a caller that is
        # cancelled while it waits has lost nothing, and the frames stay in step.
        while True:
            try:
                data = self._socket.recv(min(length, _CHUNK))
            except BlockingIOError:
                await self._wait_readable()
                continue
            except ConnectionResetError:
                # What the kernel says when the other end was closed with frames unread.
                self._hung_up = not self.reason
                raise WorkerGone(unread=True) from None
            if not data:
                self._hung_up = not self.reason
                raise WorkerGone
            return data

    async def _wait_readable(self) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(self._socket, _wake, ready)
        try:
            await ready
        finally:
            self._loop.remove_reader(self._socket)

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


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
