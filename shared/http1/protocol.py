"""One client connection: reads requests, refuses what must not pass, starts the app."""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from typing import Any, cast
from urllib.parse import unquote

import httptools
import orjson
from uvicorn._types import ASGI3Application, HTTPScope
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from shared.errors import HeadersTooLarge, Invalid, LakehouseError
from shared.http1.cycle import SERVED, Cycle
from shared.http1.pace import Pace, Stage

LINGER_S = 5.0  # how long the rest of an unwanted body is read and thrown away
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds: close by reset


def make_protocol(service: str, max_head_bytes: int) -> type[GuardedProtocol]:
    """The protocol class of one daemon, for uvicorn's `http` setting.

    Args:
        service: name for error bodies.
        max_head_bytes: longest request line with headers that is read at all.
    """
    settings = {"service": service, "max_head_bytes": max_head_bytes}
    return type("DaemonProtocol", (GuardedProtocol,), settings)


class GuardedProtocol(HttpToolsProtocol):
    """What uvicorn makes for each connection. It takes one request at a time."""

    service = ""
    max_head_bytes = 32 * 1024
    # None only after the connection is lost, when nothing is parsed any more.
    parser: httptools.HttpRequestParser  # pyright: ignore[reportIncompatibleVariableOverride]
    pace: Pace

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # uvicorn wraps every kind of app into an ASGI 3 one.
        self._app = cast("ASGI3Application", self.app)  # pyright: ignore[reportUnknownMemberType]
        self._head_bytes = 0
        self._lingering = False
        self._refusal: LakehouseError | None = None
        self._running: Cycle | None = None

    # The connection.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.pace = Pace(self.loop, transport, self.flow, self.timeout_keep_alive)

    def connection_lost(self, exc: Exception | None) -> None:
        self.pace.stop()
        super().connection_lost(exc)
        if self._running is not None:
            self._running.leave()

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            return
        pace = self.pace
        pace.heard = True
        if pace.stage is Stage.IDLE:
            # Also for the empty lines that the parser skips before a request.
            pace.enter(Stage.HEAD)
            self._head_bytes = 0
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # No protocol is switched to. The request is answered as it stands, and what
            # came behind it in another protocol is not read.
            if upgrade.args[0] < len(data) and self._running is not None:
                self._running.keep_alive = False
        except httptools.HttpParserError:
            self._refuse(
                self._refusal or Invalid("This is not a valid HTTP/1.1 request; it was not read.")
            )
            return
        if pace.stage is Stage.HEAD:
            self._head_bytes += len(data)
            if self._head_bytes > self.max_head_bytes:
                self._refuse(self._head_too_large())

    # The parser.

    def on_message_begin(self) -> None:
        self.pace.enter(Stage.HEAD)
        self._head_bytes = 0
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) > self.max_head_bytes:
            raise self._stop_parsing(self._head_too_large())

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.pace.stage is not Stage.HEAD:
            return  # a trailer: it came after whatever it would have changed
        name = name.lower()
        # The parser leaves blanks behind a value, which are no part of it (RFC 9110, 5.5).
        value = value.strip(b" \t")
        if name == b"expect":
            self.expect_100_continue = value.lower() == b"100-continue"
        elif name == b"transfer-encoding" and value.lower() != b"chunked":
            raise self._stop_parsing(
                Invalid("The only transfer coding understood here is 'chunked'.")
            )
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        url = self.url
        if url[:1] != b"/" or b"#" in url:
            raise self._stop_parsing(Invalid("The request target must be a path with '/' first."))
        version = self.parser.get_http_version()
        is_old = version == "1.0"
        if version != "1.1" and (
            not is_old or any(name == b"transfer-encoding" for name, _ in self.headers)
        ):
            raise self._stop_parsing(Invalid("This server speaks HTTP/1.1."))
        self.pace.enter(Stage.BODY)
        self.pace.wanted = not self.expect_100_continue
        cycle = Cycle(self, url, keep_alive=not is_old and self.parser.should_keep_alive())
        raw_path, _, query = url.partition(b"?")
        path = raw_path.decode("ascii")
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.4"},
            "http_version": version,
            "method": self.parser.get_method().decode("ascii"),
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": "",
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": self.headers,
            "state": self.app_state.copy(),
            "extensions": {SERVED: cycle},
        }
        cycle.scope = cast("HTTPScope", scope)
        self.cycle = cycle
        if self._running is None:
            self._start_asgi_task(cycle, self._app)
        else:
            # Pipelined: it waits until the answer before it is complete.
            self.pipeline.appendleft((cycle, self._app))
            self._pause_reading()

    def on_body(self, body: bytes) -> None:
        cycle = self.cycle
        if cycle.response_complete:
            return  # answered before its end; the rest is thrown away
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self._pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        self.pace.enter(Stage.IDLE)
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()

    # The answer.

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cast("Cycle", cycle)
        self.pace.answering = True
        task = self.loop.create_task(cycle.run_asgi(app))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        self._running = None
        self.pace.answering = False
        if self._lingering or self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    def end_connection(self) -> None:
        """Closes after an answer, once the client has had the chance to read it.

        Closing while the client is still sending would make the kernel throw away what the
        client has not read yet, so what it sends is taken for a while and dropped.
        """
        if self.pace.stage is not Stage.BODY:
            self.transport.close()
            return
        self._lingering = True
        self.flow.resume_reading()
        self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.abort)

    def break_off(self, delimited: bool) -> None:
        """Ends the connection in the middle of an answer, so that it cannot pass for whole.

        Args:
            delimited: the answer's end is marked in the stream, so that closing without it
                shows that it is missing; otherwise only a reset does.
        """
        if delimited:
            self.transport.close()
            return
        raw = self.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    # Refusals.

    def _stop_parsing(self, error: LakehouseError) -> LakehouseError:
        self._refusal = error
        return error  # raised in a callback, which makes the parser stop

    def _refuse(self, error: LakehouseError) -> None:
        running = self._running
        reading_body = self.pace.stage is Stage.BODY
        if self.transport.is_closing():
            return
        if running is not None and not (reading_body and running is self.cycle):
            # Rubbish behind a request that is being served: serve that, read no more.
            running.keep_alive = False
            self.pipeline.clear()
            self.pace.enter(Stage.BODY)
            self._pause_reading()
            return
        if reading_body and (running is None or running.response_started):
            # Its answer is out, or on its way: another one in the same place would be read
            # as part of it.
            self.transport.abort()
            return
        if running is not None:
            running.leave()
        self._answer_refusal(error)

    def _answer_refusal(self, error: LakehouseError) -> None:
        request_id = secrets.token_hex(8)
        body = orjson.dumps(error.envelope(self.service, request_id))
        lines = [
            STATUS_LINE[error.status],
            *(b"%b: %b\r\n" % pair for pair in self.server_state.default_headers),
            b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body),
            b"x-request-id: %b\r\nconnection: close\r\n\r\n" % request_id.encode("ascii"),
            body,
        ]
        self.transport.write(b"".join(lines))
        self.pace.enter(Stage.BODY)  # for all that is known, more is on its way
        self.end_connection()

    def _head_too_large(self) -> HeadersTooLarge:
        return HeadersTooLarge(
            f"The request line and headers are over {self.max_head_bytes} bytes. Send less."
        )

    def _pause_reading(self) -> None:
        self.flow.pause_reading()
        self.pace.watch_paused()
