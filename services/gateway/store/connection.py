"""One keep-alive HTTP/1.1 connection to a daemon, and the exchange on it.

Why own code: the relay is what this process exists for, and a client library's request
objects, header maps and per-request tasks cost more than the rest of the relay together
(docs/DECISIONS.md has the figures). What is here is an asyncio protocol over the llhttp
parser of httptools, which does the parsing; one exchange at a time, no pipelining.

Body bytes are held only until the relay takes them: past `HIGH_WATER` the socket is not
read, so a slow client slows the daemon down instead of filling this process.
"""

from __future__ import annotations

import asyncio
import select
import struct
from collections.abc import Callable
from socket import SO_LINGER, SOL_SOCKET
from typing import cast

import httptools

from services.gateway.core.headers import RESPONSE_DROPPED, drop_named
from shared.errors import LakehouseError, Upstream

HIGH_WATER = 256 * 1024  # bytes of body waiting here before the socket is left unread
MAX_HEAD_BYTES = 128 * 1024  # of a response head, interim ones included
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds


class Connection(asyncio.Protocol):
    """A connection in a pool. `start` begins an exchange; `reusable` tells after its end.

    Attributes:
        status, headers: of the answer, once `head_ready`; hop-by-hop headers are taken out.
        sent: all of the request has been written.
        complete: the whole answer has arrived; bytes may still wait in `take`.
        error: why the exchange failed, if it did.
        touched: a byte of the answer has arrived, so the daemon has seen the request.
        reused: an earlier exchange ended well on this connection.
        quiet_ticks: how often the pool's clock ticked in this wait for the daemon.
    """

    __slots__ = (
        "_connection_header",
        "_continued",
        "_framed",
        "_head_bytes",
        "_head_only",
        "_interim",
        "_loop",
        "_on_lost",
        "_parser",
        "_parts",
        "_poll",
        "_reading_paused",
        "_waiter",
        "_waiting_bytes",
        "_writable",
        "active",
        "closed",
        "complete",
        "daemon",
        "error",
        "head_ready",
        "headers",
        "idle_since",
        "keep_alive",
        "quiet_ticks",
        "reused",
        "sent",
        "status",
        "touched",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(
        self,
        daemon: str,
        loop: asyncio.AbstractEventLoop,
        on_lost: Callable[[Connection], None],
    ) -> None:
        self.daemon = daemon
        self.active = False
        self.closed = False
        self.reused = False
        self.sent = True
        self.keep_alive = True
        self.idle_since = 0.0
        self.quiet_ticks = 0
        self._loop = loop
        self._on_lost = on_lost
        self._parser: httptools.HttpResponseParser | None = None
        self._poll = select.poll()
        self._writable: asyncio.Future[None] | None = None
        self._continued: asyncio.Future[None] | None = None
        self._reading_paused = False
        self._reset(False)

    def _reset(self, head_only: bool) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.head_ready = False
        self.complete = False
        self.touched = False
        self.error: LakehouseError | None = None
        self._head_only = head_only
        self._head_bytes = 0
        self._interim = False
        self._framed = False
        self._connection_header = b""
        self._parts: list[bytes] = []
        self._waiting_bytes = 0
        self._waiter: asyncio.Future[None] | None = None

    # The relay's side.

    def start(self, data: bytes, *, head_only: bool, whole: bool) -> None:
        """Begins an exchange by writing `data`: a request head, or all of the request.

        Args:
            data: what to write.
            head_only: the method is HEAD, so the answer has no body whatever it declares.
            whole: `data` is all of the request; otherwise `sent` is set after its last piece.
        """
        self._reset(head_only)
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        self.keep_alive = False
        self.active = True
        self.sent = whole
        self.quiet_ticks = 0
        self.transport.write(data)

    def write(self, data: bytes) -> None:
        """More of the request's body."""
        self.quiet_ticks = 0
        if not self.closed:
            self.transport.write(data)

    async def drain(self) -> None:
        """Waits until the daemon has read enough of what was written."""
        if self._writable is not None and not self.closed:
            await self._writable

    async def wait_continue(self, limit_s: float) -> None:
        """Waits for `100 Continue`, for the final answer instead of it, or `limit_s`."""
        if self.touched or self.closed:
            return
        self._continued = self._loop.create_future()
        timer = self._loop.call_later(limit_s, self._wake_continued)
        try:
            await self._continued
        finally:
            timer.cancel()
            self._continued = None

    async def wait_progress(self) -> None:
        """Waits until there is a head, body, the end, or a failure that was not there."""
        self._waiter = waiter = self._loop.create_future()
        self.quiet_ticks = 0
        await waiter

    @property
    def has_body(self) -> bool:
        """Whether `take` has bytes to give."""
        return bool(self._parts)

    def take(self) -> bytes:
        """All body bytes that have arrived since the last call."""
        self.quiet_ticks = 0
        parts = self._parts
        if len(parts) == 1:
            data = parts[0]
        elif parts:
            data = b"".join(parts)
        else:
            return b""
        self._parts = []
        self._waiting_bytes = 0
        if self._reading_paused:
            self._reading_paused = False
            if not self.closed:
                self.transport.resume_reading()
        return data

    def fail(self, error: LakehouseError) -> None:
        """Ends the exchange for a reason found on this side; the connection is cut."""
        if self.error is None and not self.complete:
            self.error = error
        self.abort()
        self._wake()

    def abort(self) -> None:
        """Cuts the connection at once, unread and unsent bytes included.

        In the middle of an exchange by reset: a daemon that is not reading would otherwise
        have to read all that is on its way before it saw that nobody waits any more.
        """
        self.keep_alive = False
        if self.closed:
            return
        if self.active and not (self.sent and self.complete):
            socket = self.transport.get_extra_info("socket")
            socket.setsockopt(SOL_SOCKET, SO_LINGER, _RESET)
        self.transport.abort()

    def is_reusable(self) -> bool:
        """Whether the connection can carry another exchange after this one."""
        done = self.sent and self.complete and self._writable is None
        return done and self.keep_alive and not self.closed

    def end(self) -> None:
        """Ends the exchange."""
        self.active = False
        self.reused = True
        if self._head_only:
            # llhttp is not told that this answer had no body, and would wait for one.
            self._parser = None

    def is_stale(self) -> bool:
        """Whether an idle connection has been closed, or spoken on, by the daemon.

        Asks the kernel, for the event loop may not have come round to it.
        """
        return self.closed or bool(self._poll.poll(0))

    def is_waiting(self) -> bool:
        """Whether the relay waits for the daemon here, rather than for its client."""
        return self._waiter is not None and not self._waiter.done()

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by class
        socket = transport.get_extra_info("socket")
        self._poll.register(socket.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)

    def data_received(self, data: bytes) -> None:
        if not self.active or self._parser is None:
            # Nothing was asked; whatever this is must not become the next request's answer.
            self.abort()
            return
        self.touched = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.keep_alive = False
            if not self.complete:
                self.fail(self._broken("did not answer in HTTP/1.1"))
                return
            # The answer is whole; the rubbish after it only ends the connection.
            self.transport.abort()
        if self._waiting_bytes > HIGH_WATER and not self._reading_paused:
            self._reading_paused = True
            self.transport.pause_reading()
        if self.head_ready:
            self._wake()
            return
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self.fail(self._broken("sent a response head that does not end"))

    def eof_received(self) -> bool:
        return False  # close

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self.active and not self.complete and self.error is None:
            if self.head_ready and not self._framed and exc is None:
                self.complete = True  # a body that ends with its connection
            elif self.touched:
                self.error = self._broken("broke its answer off")
            else:
                self.error = self._broken("closed the connection without an answer")
        self.resume_writing()
        self._wake()
        self._on_lost(self)

    def pause_writing(self) -> None:
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # The parser's side.

    def on_message_begin(self) -> None:
        if self.complete:
            raise ValueError("a second answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head_ready:
            return  # a trailer; ASGI cannot carry it
        name = name.lower()
        if name in RESPONSE_DROPPED:
            if name == b"transfer-encoding":
                self._framed = True
            elif name == b"connection":
                self._connection_header += b"," + value
        elif not name.startswith(b"proxy-"):
            if name == b"content-length":
                self._framed = True
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status < 200:
            if status == 101:
                raise ValueError("a protocol switch that was not asked for")
            self._interim = True
            self.headers = []
            self._framed = False
            self._wake_continued()
            return
        self._wake_continued()
        self.status = status
        self.keep_alive = self._parser.should_keep_alive()
        if self._connection_header:
            self.headers = drop_named(self.headers, self._connection_header)
        bodiless = status in (204, 304)
        if bodiless:
            # No body follows, so a length would make the server wait for one.
            self.headers = [pair for pair in self.headers if pair[0] != b"content-length"]
            self._framed = True
        self.head_ready = True
        if self._head_only:
            self._framed = True
            self.complete = True

    def on_body(self, data: bytes) -> None:
        if self.complete:
            self.keep_alive = False
            return
        self._parts.append(data)
        self._waiting_bytes += len(data)

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
            return
        self.complete = True

    # Inner.

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _wake_continued(self) -> None:
        if self._continued is not None and not self._continued.done():
            self._continued.set_result(None)

    def _broken(self, what: str) -> Upstream:
        return Upstream(
            f"{self.daemon} {what}. Whether the request took effect is not known here; "
            "look before you send it again.",
            details={"daemon": self.daemon},
        )
