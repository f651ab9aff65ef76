"""The one middleware around every daemon: what holds for each request, whatever its route.

Pure ASGI (a `BaseHTTPMiddleware` is slow and breaks cancellation). In order: request id,
raw-HTTP guards, token, deadline, a place among the requests under way, a counted body, the
handler; then the error envelope, the figures and the access log. A client that goes away
cancels its handler, so work nobody waits for ends.

Every request of every daemon passes here, so nothing is made per request that one thing
can do for all: a single ticking timer looks after the deadlines, and the server tells of a
client's leaving by a call (`shared.http1`). Only on a foreign ASGI server does a request
that lasts get a task that watches for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import orjson

from shared import context
from shared.auth import Admission, Gatekeeper
from shared.config import Config
from shared.errors import Internal, Invalid, LakehouseError, Timeout, TooLarge
from shared.guard import Guard
from shared.http1 import SERVED, Served
from shared.logs import AccessLog
from shared.metrics import Metrics
from shared.sections.base import DaemonSection
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
# How often requests under way are looked at: the precision of deadlines, and how long a
# request lasts before it gets a watcher where it needs one. Seconds; well under the 250 ms
# in which a cancel is promised.
TICK_S = 0.05
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
        gatekeeper: who is let in; whoever has the token unless given.
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
        gatekeeper: Admission | None = None,
    ) -> None:
        self.app = app
        self.service = service
        self.section = section
        self.metrics = metrics
        self.access_log = access_log
        self.render_error = render_error
        self.guard = Guard(config.http.max_header_bytes, [*config.http.allowed_hosts, section.host])
        self.gatekeeper = gatekeeper or Gatekeeper(config.token, config.auth.allow_ips)
        self.slots = Slots(section.max_concurrency, section.max_queue)
        self.under_way: set[Exchange] = set()
        self._ticking_on: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await Exchange(self, scope, receive, send).run()
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            await self.app(scope, receive, send)
            self.access_log.flush()  # the lifespan ended, and with it the daemon

    def enter(self, exchange: Exchange) -> None:
        """Has the exchange looked at every `TICK_S` until it is taken out of `under_way`."""
        self.under_way.add(exchange)
        loop = asyncio.get_running_loop()
        if self._ticking_on is not loop:
            self._ticking_on = loop
            loop.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        if not self.under_way or self._ticking_on is None:
            self._ticking_on = None
            return
        self._ticking_on.call_later(TICK_S, self._tick)
        now = time.monotonic()
        for exchange in tuple(self.under_way):
            exchange.look(now)


class Exchange:
    """One request and its response."""

    __slots__ = tuple(
        "begun body_done body_read cap edge expired gone headers limit_s path peer received "
        "request_id response_done scope sent started status task told upstream_receive "
        "upstream_send watcher".split()
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
        self.body_done = False  # nothing more of it will come
        self.body_read = False  # and the handler has all of it
        self.gone = False
        self.expired = False
        self.told = False  # the server calls when the client leaves
        self.begun = time.monotonic()
        self.limit_s = edge.section.request_timeout_s
        self.task: asyncio.Task[Any] | None = None
        self.watcher: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serves the request to its end; only a server that is stopping raises out of it."""
        edge = self.edge
        edge.metrics.in_flight += 1
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
                await edge.app(self.scope, self._receive, self._send)
            else:
                await self._call_in_turn()
            if not self.response_done and not self.gone:
                unfinished = Internal("The handler ended without a complete response.")
                failure = self._too_late() if self.expired else unfinished
        except asyncio.CancelledError:
            if self.expired:
                failure = self._too_late()
            elif not self.gone:
                raise
        except LakehouseError as error:
            failure = self._too_late() if self.expired else error
        except Exception as error:
            if self.expired:
                failure = self._too_late()
            elif not self.gone:
                logger.error(
                    "Unhandled error in %s %s", self.scope["method"], self.path, exc_info=error
                )
                failure = Internal(
                    "Something went wrong in this daemon. "
                    "Its log has the details under this request id."
                )
        finally:
            if self.watcher is not None:
                self.watcher.cancel()
            if self.gone and not self.response_done:
                self.status = CLIENT_GONE
            elif failure is not None:
                await self._fail(failure)
            edge.metrics.in_flight -= 1
            self._account(time.monotonic() - self.begun)
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
        edge = self.edge
        asked_ms = self.headers.get(b"x-deadline-ms")
        if asked_ms is not None:
            asked = context.parse_deadline_ms(asked_ms)
            if asked is not None:
                self.limit_s = min(self.limit_s, asked / 1000)
        self.task = asyncio.current_task()
        extensions: Mapping[str, Any] = self.scope.get("extensions") or {}
        served: Served | None = extensions.get(SERVED)
        if served is not None:
            self.told = True
            served.watch(self._leave)
        deadline_token = context.deadline.set(self.begun + self.limit_s)
        edge.enter(self)
        try:
            await edge.slots.acquire()
            try:
                await edge.app(self.scope, self._receive, self._send)
            finally:
                edge.slots.release()
        finally:
            # From here on nobody cancels: what is left is to answer and to account.
            self.task = None
            edge.under_way.discard(self)
            context.deadline.reset(deadline_token)

    def look(self, now: float) -> None:
        """Ends the request when its time is over, or has its client watched."""
        if now - self.begun >= self.limit_s:
            if not self.expired and self.task is not None:
                self.expired = True
                self.task.cancel()
        elif not self.told and self.body_done and self.watcher is None and not self.response_done:
            self._start_watching()

    def _leave(self) -> None:
        if self.response_done or self.gone:
            return
        self.gone = True
        if self.task is not None:
            self.task.cancel()

    def _too_late(self) -> Timeout:
        return Timeout(
            f"The request did not finish within its {self.limit_s:g} s. "
            "Ask for less, or allow more time.",
        )

    # The request side: counts the body, and watches for the client leaving.

    async def _receive(self) -> Message:
        if self.watcher is not None or (self.body_read and not self.told):
            return await self._receive_watched()
        message = await self.upstream_receive()
        if message["type"] == "http.disconnect":
            self.gone = not self.response_done
            return message
        self.received += len(message.get("body", b""))
        if self.received > self.cap:
            raise self._too_large()
        if not message.get("more_body", False):
            self.body_done = self.body_read = True
        return message

    # On a foreign server, once all of the body has come: a task waits for the leaving.

    async def _receive_watched(self) -> Message:
        if not self.body_read:
            self.body_read = True  # there is none, or nobody would be watching yet
            return {"type": "http.request", "body": b"", "more_body": False}
        if self.watcher is None:
            self._start_watching()
        if self.watcher is not None:
            await asyncio.wait([self.watcher])
        return {"type": "http.disconnect"}

    def _start_watching(self) -> None:
        self.watcher = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        message = await self.upstream_receive()
        if message["type"] == "http.request":
            # The empty body of a request without one, which the handler did not ask for.
            message = await self.upstream_receive()
        if message["type"] == "http.disconnect":
            self._leave()

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
        try:
            await self.upstream_send(message)
        except OSError:
            # What ASGI servers raise when there is nobody to send to.
            self.gone = True
            raise

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
            # The rest of the body is not wanted, so the connection cannot be used again. The
            # server takes what is on its way, so that the client gets to read the answer.
            headers.append((b"connection", b"close"))
        await self._send(
            {"type": "http.response.start", "status": error.status, "headers": headers}
        )
        last = b"" if self.scope["method"] == "HEAD" else body
        await self._send({"type": "http.response.body", "body": last})

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
