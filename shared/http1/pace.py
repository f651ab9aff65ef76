"""How fast a client connection must move: slow senders and readers are cut off.

One timer a connection, not one a request: it counts ticks in which nothing moved. That is
coarse, and costs the requests nothing.
"""

from __future__ import annotations

import asyncio
import select
from enum import IntEnum

from uvicorn.protocols.http.flow_control import FlowControl

TICK_S = 2.5
HEAD_S = 15.0  # a request head takes at most this long, however it drips in
STALL_S = 60.0  # a body, or a client reading its answer, stands still at most this long
# The kernel does not report a leaving peer on a socket that is not read, so that one is
# asked this often while a daemon holds its client's body back. Seconds.
PAUSED_CHECK_S = 0.1
_POLLRDHUP = getattr(select, "POLLRDHUP", 0x2000)  # Linux; absent from the module elsewhere
_GONE = _POLLRDHUP | select.POLLHUP | select.POLLERR


class Stage(IntEnum):
    """Where a connection stands in reading requests."""

    IDLE = 0
    HEAD = 1
    BODY = 2


class Pace:
    """Watches one connection.

    Attributes:
        stage: set by the protocol as it reads.
        heard: set by the protocol when bytes came.
        answering: a request is being served.
        wanted: the client has been told to send its body; False while it waits for 100.
    """

    __slots__ = (
        "_checker",
        "_flow",
        "_keep_alive_s",
        "_loop",
        "_poll",
        "_quiet_ticks",
        "_ticker",
        "_transport",
        "_unsent",
        "_unsent_ticks",
        "answering",
        "heard",
        "stage",
        "wanted",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: asyncio.Transport,
        flow: FlowControl,
        keep_alive_s: float,
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._flow = flow
        self._keep_alive_s = keep_alive_s
        # A connection on which nothing is ever said is as slow as can be.
        self.stage = Stage.HEAD
        self.heard = False
        self.answering = False
        self.wanted = True
        self._quiet_ticks = 0
        self._unsent = 0
        self._unsent_ticks = 0
        self._poll: select.poll | None = None
        self._checker: asyncio.TimerHandle | None = None
        self._ticker = loop.call_later(TICK_S, self._tick)

    def stop(self) -> None:
        """The connection is closed."""
        self._ticker.cancel()
        if self._checker is not None:
            self._checker.cancel()

    def enter(self, stage: Stage) -> None:
        """The reading has come to another stage, whose time begins now."""
        self.stage = stage
        self._quiet_ticks = 0

    def watch_paused(self) -> None:
        """The socket is not read for now; cut the connection if its peer leaves meanwhile."""
        if self._checker is None:
            self._checker = self._loop.call_later(PAUSED_CHECK_S, self._check_paused)

    def _tick(self) -> None:
        self._ticker = self._loop.call_later(TICK_S, self._tick)
        heard, self.heard = self.heard, False
        if self.stage is Stage.BODY and (heard or self._flow.read_paused or not self.wanted):
            self._quiet_ticks = 0
        if self.stage is Stage.IDLE and self.answering:
            self._quiet_ticks = 0
        quiet_s = self._quiet_ticks * TICK_S
        self._quiet_ticks += 1
        if quiet_s >= (self._keep_alive_s, HEAD_S, STALL_S)[self.stage]:
            self._transport.abort()
        self._check_reader()

    def _check_reader(self) -> None:
        """Cuts the connection of a client that takes nothing of its answer."""
        if not self._flow.write_paused:
            self._unsent_ticks = 0
            return
        unsent = self._transport.get_write_buffer_size()
        self._unsent_ticks = self._unsent_ticks + 1 if unsent == self._unsent else 0
        self._unsent = unsent
        if self._unsent_ticks * TICK_S >= STALL_S:
            self._transport.abort()

    def _check_paused(self) -> None:
        self._checker = None
        if not self._flow.read_paused or self._transport.is_closing():
            return
        if self._poll is None:
            self._poll = select.poll()
            socket = self._transport.get_extra_info("socket")
            self._poll.register(socket.fileno(), _POLLRDHUP)
        if any(events & _GONE for _, events in self._poll.poll(0)):
            self._transport.abort()
        else:
            self.watch_paused()
