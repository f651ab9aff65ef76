"""The one middleware around every daemon: what holds for each request, whatever its route.

Pure ASGI (a `BaseHTTPMiddleware` is slow and breaks cancellation). In order: request id,
raw-HTTP guards, token, deadline, a place among the requests under way, a counted body, the
handler; then the error envelope, the figures and the access log. A client that goes away
cancels its handler, so work nobody waits for ends.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson

from shared import context
from shared.auth import Gatekeeper
from shared.config import Config, DaemonSection
from shared.errors import Internal, Invalid, LakehouseError, Timeout, TooLarge
from shared.guard import Guard
from shared.logs import AccessLog
from shared.metrics import Metrics
from shared.slots import Slots

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
RenderError = Callable[[Scope, LakehouseError, str, str], bytes]

logger = logging.getLogger("lakehouse.edge")

# Probes answer even when the daemon is full, and do not wait in its queue.
UNQUEUED = frozenset({"/health", "/ready", "/metrics"})
# Alive is told to anyone; it carries no detail.
OPEN = frozenset({"/health"})
# A watcher task per request would cost more than most handlers, so only a request that
# lasts this long gets one. Seconds; well under the 250 ms in which a cancel is promised.
WATCH_AFTER_S = 0.05
# What the access log shows for a request whose client left (nginx's number).
CLIENT_GONE = 499


def render_envelope(scope: Scope, error: LakehouseError, service: str, request_id: str) -> bytes:
    """The fleet's own error body. Daemons with foreign protocols pass another renderer."""
    return orjson.dumps(error.envelope(service, request_id), default=str)


class Edge:
    """Wraps an ASGI app with the rules of SPEC §2.

    Args:
        app: what answers requests that pass.
        service: the daemon's name, for envelopes, figures and logs.
        config: sections `http` and `auth` are read.
        section: the daemon's own section, for its limits.
        metrics: where requests are counted.
        access_log: where they are written.
        render_error: error body for a scope; the envelope unless given.
    """

    def __init__(
        self,
        app: App,
        *,
        service: str,
        config: Config,
        section: DaemonSection,
        metrics: Metrics,
        access_log: AccessLog,
        render_error: RenderError = render_envelope,
    ) -> None:
        self.app = app
        self.service = service
        self.section = section
        self.metrics = metrics
        self.access_log = access_log
        self.render_error = render_error
        self.guard = Guard(config.http.max_header_bytes, [*config.http.allowed_hosts, section.host])
        self.gatekeeper = Gatekeeper(config.token, config.auth.allow_ips)
        self.slots = Slots(section.max_concurrency, section.max_queue)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await Exchange(self, scope, receive, send).run()
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            await self.app(scope, receive, send)


class Exchange:
    """One request and its response."""

    __slots__ = (
        "body_done",
        "buffered",
        "cap",
        "edge",
        "gone",
        "headers",
        "path",
        "peer",
        "received",
        "request_id",
        "response_done",
        "scope",
        "sent",
        "started",
        "status",
        "task",
        "timer",
        "upstream_receive",
        "upstream_send",
        "watcher",
    )

    def __init__(self, edge: Edge, scope: Scope, receive: Receive, send: Send) -> None:
        self.edge = edge
        self.scope = scope
        self.upstream_receive = receive
        self.upstream_send = send
        self.headers: dict[bytes, bytes] = {}
        self.path: str = scope["path"]
        client = scope.get("client")
        self.peer: str = client[0] if client else ""
        self.cap = edge.section.max_body_bytes
        self.request_id = ""
        self.status = 0
        self.received = 0
        self.sent = 0
        self.started = False
        self.response_done = False
        self.body_done = False
        self.gone = False
        self.buffered: Message | None = None
        self.task: asyncio.Task[Any] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.watcher: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serves the request to its end; only a server that is stopping raises out of it."""
        edge = self.edge
        begun = time.perf_counter()
        edge.metrics.in_flight.inc()
        failure: LakehouseError | None = None
        id_token = None
        try:
            try:
                edge.guard.check(self.scope, self.headers)
            finally:
                given = self.headers.get(b"x-request-id")
                self.request_id = context.accept_request_id(given)
                id_token = context.request_id.set(self.request_id)
            if self.path not in OPEN:
                edge.gatekeeper.check(
                    self.peer,
                    self.headers.get(b"authorization"),
                    self.headers.get(b"x-api-key"),
                )
            self._check_declared_length()
            if self.path in UNQUEUED:
                await self._call()
            else:
                await self._call_in_turn()
        except asyncio.CancelledError:
            if not self.gone:
                raise
            self.status = CLIENT_GONE
        except LakehouseError as error:
            failure = error
        except Exception as error:
            if self.gone:
                self.status = CLIENT_GONE
            else:
                logger.error(
                    "Unhandled error in %s %s", self.scope["method"], self.path, exc_info=error
                )
                failure = Internal(
                    "Something went wrong in this daemon. "
                    "Its log has the details under this request id."
                )
        finally:
            if self.timer is not None:
                self.timer.cancel()
            if self.watcher is not None:
                self.watcher.cancel()
            if failure is not None and not self.gone:
                await self._fail(failure)
            edge.metrics.in_flight.dec()
            self._account(time.perf_counter() - begun)
            if id_token is not None:
                context.request_id.reset(id_token)

    def _check_declared_length(self) -> None:
        declared = self.headers.get(b"content-length")
        if declared is None:
            # Without either header an HTTP/1.1 request has no body.
            self.body_done = b"transfer-encoding" not in self.headers
        elif not declared.isdigit():
            raise Invalid("Content-Length must be a whole number of bytes.")
        elif int(declared) > self.cap:
            raise self._too_large()
        else:
            self.body_done = int(declared) == 0

    async def _call_in_turn(self) -> None:
        slots = self.edge.slots
        limit_s = self.edge.section.request_timeout_s
        asked = context.parse_deadline_ms(self.headers.get(b"x-deadline-ms"))
        if asked is not None:
            limit_s = min(limit_s, asked / 1000)
        loop = asyncio.get_running_loop()
        self.task = asyncio.current_task()
        self.timer = loop.call_later(WATCH_AFTER_S, self._watch_if_body_done)
        deadline_token = context.deadline.set(time.monotonic() + limit_s)
        limit = asyncio.timeout(limit_s)
        try:
            async with limit:
                await slots.acquire()
                try:
                    await self._call()
                finally:
                    slots.release()
        except TimeoutError:
            if not limit.expired():
                raise
            raise Timeout(
                f"The request did not finish within its {limit_s:g} s. "
                "Ask for less, or allow more time.",
            ) from None
        finally:
            context.deadline.reset(deadline_token)

    async def _call(self) -> None:
        await self.edge.app(self.scope, self._receive, self._send)
        if not self.response_done and not self.gone:
            raise Internal("The handler ended without a complete response.")

    # The request side: counts the body, and watches for the client leaving.

    async def _receive(self) -> Message:
        if self.buffered is not None:
            message, self.buffered = self.buffered, None
            return message
        if self.watcher is not None:
            return await self._wait_until_gone()
        message = await self.upstream_receive()
        if message["type"] == "http.disconnect":
            self.gone = not self.response_done
            return message
        self.received += len(message.get("body", b""))
        if self.received > self.cap:
            raise self._too_large()
        if not message.get("more_body", False):
            self.body_done = True
            if self.timer is not None and self.timer.when() <= asyncio.get_running_loop().time():
                self._watch_if_body_done()
        return message

    def _watch_if_body_done(self) -> None:
        if self.body_done and self.watcher is None and not self.response_done:
            self.watcher = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            message = await self.upstream_receive()
            if message["type"] == "http.disconnect":
                break
            # The empty body of a request without one, which the handler has not asked for yet.
            self.buffered = message
        if not self.response_done and self.task is not None:
            self.gone = True
            self.task.cancel()

    async def _wait_until_gone(self) -> Message:
        watcher = self.watcher
        if watcher is not None:
            await asyncio.wait([watcher])
        if self.buffered is not None:
            message, self.buffered = self.buffered, None
            return message
        return {"type": "http.disconnect"}

    def _too_large(self) -> TooLarge:
        return TooLarge(
            f"The request body is over this daemon's limit of {self.cap} bytes. Send less at once.",
            details={"limit_bytes": self.cap},
        )

    # The response side: adds the request id, counts, and turns a failure into an answer.

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self.status = message["status"]
            message["headers"] = [
                *message.get("headers", ()),
                (b"x-request-id", self.request_id.encode()),
            ]
        elif message["type"] == "http.response.body":
            self.sent += len(message.get("body", b""))
            if not message.get("more_body", False):
                self.response_done = True
        await self.upstream_send(message)

    async def _fail(self, error: LakehouseError) -> None:
        if self.started:
            # Too late for an envelope. Ending without the last chunk makes the server close
            # the connection, so that the client sees a broken answer and not a short one.
            logger.warning("Response of %s broken off: %s", self.path, error.message)
            return
        body = self.edge.render_error(self.scope, error, self.edge.service, self.request_id)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            *((k.lower().encode(), v.encode()) for k, v in error.headers.items()),
        ]
        if not self.body_done:
            # The rest of the body is not read, so the connection cannot be used again.
            headers.append((b"connection", b"close"))
        await self._send(
            {"type": "http.response.start", "status": error.status, "headers": headers}
        )
        head = self.scope["method"] == "HEAD"
        await self._send({"type": "http.response.body", "body": b"" if head else body})

    def _account(self, seconds: float) -> None:
        route = route_of(self.scope)
        method: str = self.scope["method"]
        self.edge.metrics.observe(route, method, self.status, seconds)
        self.edge.access_log.write(
            request=self.request_id,
            method=method,
            route=route,
            path=self.path,
            status=self.status,
            ms=seconds * 1000,
            received=self.received,
            sent=self.sent,
            peer=self.peer,
        )


def route_of(scope: Scope) -> str:
    """The route's template, so that figures do not grow with the number of paths."""
    named: str | None = scope.get("lakehouse.route")
    if named is not None:
        return named
    return getattr(scope.get("route"), "path", None) or "unmatched"
