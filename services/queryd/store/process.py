"""One worker process as the daemon sees it: a copy of the template, spoken to in frames, killed.

The worker gets one socket and nothing else. It is known by its process descriptor, so that its
number is never mistaken for another process's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.queryd.core.frames import HEADER_SIZE, Kind, pack, unpack, unpack_header
from services.queryd.core.yielding import Move
from services.queryd.store.priority import move
from services.queryd.store.template import Template, read_last_line

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
    """A worker, from when it is asked for. Make it inside the event loop.

    Args:
        template: what it is a copy of.
        folder: its own folder, made here; whoever is told of its end removes it.
        on_exit: called once, when the process has ended.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(
        self, template: Template, folder: Path, on_exit: Callable[[WorkerProcess], None]
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
        # Until the template has told of it, what it is to be done to it waits.
        self._pid: int | None = None
        self._pidfd = -1
        self._moves: list[Move] = []
        scratch = folder / "scratch"
        scratch.mkdir(parents=True)
        ours, theirs = socket.socketpair()
        with theirs, (folder / "stderr").open("wb") as errors:
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
            try:
                template.start_worker(self, scratch, theirs, errors.fileno())
            except OSError:
                ours.close()
                raise
        ours.setblocking(False)
        self._socket = ours

    @property
    def status(self) -> int | None:
        """Its exit status, negative for the signal that ended it; None while it lives."""
        return self._exited.result() if self._exited.done() else None

    @property
    def alive(self) -> bool:
        """Whether it has not been seen to end."""
        return not self._exited.done()

    def is_running(self) -> bool:
        """Whether it runs at this moment, which the loop may not have been told yet."""
        if not self.alive:
            return False
        if self._pid is None:
            return True
        ended = select.poll()
        ended.register(self._pidfd, select.POLLIN)
        return not ended.poll(0)

    def kill(self, reason: str) -> None:
        """Ends it now; `reason` is kept for who asks why it is gone."""
        if self.alive:
            if not self._hung_up:
                self.reason = self.reason or reason
            self._kill()

    def move(self, step: Move) -> bool:
        """Gives it its place among the others; False where this system does not let us."""
        if self._pid is None:
            self._moves.append(step)
            return True
        # A number is whoever's once its process is gone; the descriptor is looked at first.
        return not self.is_running() or move(self._pid, step)

    def note_start(self, pid: int, pidfd: int) -> None:
        """Called by the template: it runs."""
        self._pid, self._pidfd = pid, pidfd
        for step in self._moves:
            move(pid, step)
        if self.reason:
            self._kill()

    def note_end(self, status: int) -> None:
        """Called by the template: it has ended."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
        self._exited.set_result(status)
        self._close_unused()
        self._on_exit(self)

    def _kill(self) -> None:
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def wait(self) -> int:
        """Its exit status once it has ended (negative: the signal that ended it)."""
        return await asyncio.shield(self._exited)

    def read_complaint(self) -> str:
        """The last line it wrote before it died, for the log."""
        return read_last_line(self.folder / "stderr")

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

    def _close_unused(self) -> None:
        if not self.alive and not self._holders:
            self._socket.close()


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
