"""One request and its answer on a client connection."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol, cast

from uvicorn._types import ASGI3Application, ASGIReceiveEvent, HTTPScope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

if TYPE_CHECKING:
    from shared.http1.protocol import GuardedProtocol

# The ASGI extension of this server: under this name is what `Served` says.
SERVED = "lakehouse.served"

logger = logging.getLogger("lakehouse.http")

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_known_names: set[bytes] = set()


# What a served request's scope becomes; only its method is still asked for.
_SERVED = cast("HTTPScope", {"method": ""})


class Served(Protocol):
    """What this server tells an app of its request beyond ASGI."""

    @property
    def target(self) -> bytes:
        """Path and query as they stood in the request line, byte for byte."""
        ...

    @property
    def has_whole_body(self) -> bool:
        """Whether one `receive` gives all of the body, or what is left of it, at once."""
        ...

    def watch(self, on_gone: Callable[[], None]) -> None:
        """Has `on_gone` called when the client leaves before its answer is complete."""
        ...


class ClientGone(OSError):
    """There is nobody to send to any more."""


class Cycle(RequestResponseCycle):
    """One request and its answer."""

    protocol: GuardedProtocol

    def __init__(self, protocol: GuardedProtocol, target: bytes, keep_alive: bool) -> None:
        super().__init__(
            scope={},  # pyright: ignore[reportArgumentType] # set by the protocol at once
            transport=protocol.transport,
            flow=protocol.flow,
            logger=logger,
            access_logger=logger,
            access_log=False,
            default_headers=protocol.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=protocol.expect_100_continue,
            keep_alive=keep_alive,
            on_response=protocol.on_response_complete,
        )
        self.protocol = protocol
        self.target = target
        self.on_gone: Callable[[], None] | None = None
        self._head = b""
        self._delimited = True

    @property
    def has_whole_body(self) -> bool:
        """Whether one `receive` gives all of the body, or what is left of it, at once."""
        return not self.more_body

    def watch(self, on_gone: Callable[[], None]) -> None:
        """Has `on_gone` called when the client leaves before its answer is complete."""
        self.on_gone = on_gone
        if self.disconnected:
            on_gone()

    def leave(self) -> None:
        """The client is gone, or is treated so: nothing more is sent to it."""
        if self.response_complete:
            return
        self.disconnected = True
        self.message_event.set()
        on_gone, self.on_gone = self.on_gone, None
        if on_gone is not None:
            on_gone()

    async def run_asgi(self, app: ASGI3Application) -> None:
        """Runs the app; what it leaves unanswered is answered 500, or broken off."""
        try:
            await app(self.scope, self.receive, self.send)
        except BaseException as error:
            if not isinstance(error, asyncio.CancelledError | ClientGone):
                logger.error("The app failed", exc_info=error)
            if self.disconnected:
                return
            if not self.response_started:
                await self.send_500_response()
            elif not self.response_complete:
                self._break_off()
        else:
            if self.disconnected:
                return
            if not self.response_started:
                logger.error("The app ended without an answer")
                await self.send_500_response()
            elif not self.response_complete:
                self._break_off()
        finally:
            # The scope names this object and this names the scope: cut here, a request
            # leaves nothing behind for the garbage collector.
            self.on_gone = None
            self.scope = _SERVED

    def _break_off(self) -> None:
        self._flush_head()
        self.protocol.break_off(self._delimited)

    async def receive(self) -> ASGIReceiveEvent:
        """Gives the next piece of body, asking the client for it if it waits to be asked."""
        self.protocol.pace.wanted = True
        return await super().receive()

    async def send(self, message: Any) -> None:
        """Takes one ASGI message; waits while the client does not read."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            raise ClientGone("The client is gone.")
        kind = message["type"]
        if not self.response_started:
            if kind != "http.response.start":
                raise RuntimeError(f"Expected 'http.response.start', not '{kind}'.")
            self.response_started = True
            if self.waiting_for_100_continue:
                # It was not told to send its body and may not: what comes next from it
                # could be either, so nothing more is read.
                self.waiting_for_100_continue = False
                self.keep_alive = False
            self._head = self._write_head(message["status"], message.get("headers", ()))
            # Written with the first piece of body when that follows at once, as it mostly
            # does, and otherwise at the end of this turn of the loop.
            self.protocol.loop.call_soon(self._flush_head)
            return
        if self.response_complete or kind != "http.response.body":
            raise RuntimeError(f"Unexpected '{kind}' in this place of an answer.")
        body: bytes = message.get("body", b"")
        more: bool = message.get("more_body", False)
        if self.scope["method"] == "HEAD":
            self.expected_content_length = 0
            body = b""
        elif self.chunked_encoding:
            if body:
                body = b"%x\r\n%b\r\n" % (len(body), body)
            if not more:
                body += b"0\r\n\r\n"
        elif self._delimited:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0:
                raise RuntimeError("The answer is longer than its Content-Length.")
        if self._head:
            body = self._head + body
            self._head = b""
        if body:
            self.transport.write(body)
        if not more:
            if self.expected_content_length != 0:
                raise RuntimeError("The answer is shorter than its Content-Length.")
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.protocol.end_connection()
            self.protocol.on_response_complete()

    def _flush_head(self) -> None:
        head, self._head = self._head, b""
        if head and not self.transport.is_closing():
            self.transport.write(head)

    def _write_head(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        lines = [STATUS_LINE[status]]
        dated = False
        for name, value in headers:
            if name not in _known_names:
                name = _check_name(name)
            if name == b"content-length":
                self.expected_content_length = int(value)
                self.chunked_encoding = False
            elif name == b"transfer-encoding":
                continue  # how the body is framed is decided here
            elif name == b"connection":
                if b"close" in value.lower():
                    self.keep_alive = False
                continue
            elif name == b"date":
                dated = True
            lines.append(b"%b: %b\r\n" % (name, value))
        if not dated:
            lines.extend(b"%b: %b\r\n" % pair for pair in self.default_headers)
        if self.chunked_encoding is None and status not in (204, 304):
            if self.scope["method"] == "HEAD":
                pass
            elif self.scope["http_version"] == "1.1":
                self.chunked_encoding = True
                lines.append(b"transfer-encoding: chunked\r\n")
            else:
                self._delimited = False
                self.keep_alive = False
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        head = b"".join(lines)
        if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines) or b"\0" in head:
            raise RuntimeError("A response header holds a line break or NUL.")
        return head


def _check_name(name: bytes) -> bytes:
    """The name in lower case, remembered so that each is checked once.

    Raises:
        RuntimeError: it is no HTTP token.
    """
    name = name.lower()
    if not _NAME.fullmatch(name):
        raise RuntimeError("A response header's name is not an HTTP token.")
    if len(_known_names) < 1024:
        _known_names.add(name)
    return name
