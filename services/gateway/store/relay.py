"""The proxy path: a raw ASGI app that carries one request to its daemon and the answer back.

It stands inside the edge (`shared/edge.py`), so request id, guards, token, body cap and the
watch for a client that leaves have been seen to: when the client goes, the edge cancels the
task that runs here, and the `finally` below cuts the daemon's connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from services.gateway.core.headers import (
    RequestPlan,
    is_idempotent,
    plan_request,
    write_head,
)
from services.gateway.core.routing import VERSION, Route, find_route, public_prefixes
from services.gateway.store.connection import Connection
from services.gateway.store.pool import Pool
from shared import context
from shared.errors import Invalid, LakehouseError, NotFound, Unavailable, Upstream
from shared.http1 import SERVED, Served

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# How long a client that waits for `100 Continue` is held back while the daemon says nothing.
CONTINUE_S = 1.0


class Relay:
    """Sends what is under `/v1` to the daemons.

    Args:
        pools: a pool for each daemon that can be reached, by name.
        token: the fleet's secret, which daemons get in place of the client's; may be empty.
    """

    def __init__(self, *, pools: Mapping[str, Pool], token: str) -> None:
        self._pools = pools
        credentials = f"authorization: Bearer {token}\r\n" if token else ""
        self._fixed = {
            name: b"host: %b\r\n%b" % (pool.authority, credentials.encode("latin-1"))
            for name, pool in pools.items()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw_path: bytes = scope["raw_path"]
        route = find_route(raw_path)
        if route is None:
            raise NotFound(
                "No daemon serves this path. The prefixes are listed in details; paths "
                "are matched byte for byte, without decoding.",
                details={"prefixes": public_prefixes()},
            )
        scope["lakehouse.route"] = route.label
        pool = self._pools.get(route.daemon)
        if pool is None:
            raise Unavailable(
                f"{route.daemon} is not part of this fleet, so nothing serves "
                f"{route.path.decode('ascii')} here. Add it to fleet.daemons, or empty that.",
                details={"daemon": route.daemon},
                headers={"x-should-retry": "false"},
            )
        await self._relay(route, pool, scope, receive, send)

    async def _relay(
        self,
        route: Route,
        pool: Pool,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        plan = plan_request(scope["headers"])
        extensions: Mapping[str, Any] = scope.get("extensions") or {}
        served: Served | None = extensions.get(SERVED)
        body: bytes | None = b""  # all of it, or None when it follows piece by piece
        if plan.has_body:
            whole = served is not None and served.has_whole_body
            body = (await receive()).get("body", b"") if whole else None
        target = served.target if served is not None else request_target(scope)
        if route.strip:
            target = target[len(VERSION) :]
        if pool.base_path:
            target = pool.base_path + target
        method: str = scope["method"]
        head = write_head(
            method=method.encode("ascii"),
            target=target,
            fixed=self._fixed[route.daemon],
            own=own_lines(scope, plan),
            plan=plan,
            body=body,
        )
        if body is None:
            await stream_request(pool, method, plan, head, receive, send)
        else:
            await send_request(pool, method, head + body if body else head, send)


def request_target(scope: Scope) -> bytes:
    """Path and query under a foreign server, which keeps all but a "?" with nothing behind."""
    query: bytes = scope["query_string"]
    return b"%b?%b" % (scope["raw_path"], query) if query else scope["raw_path"]


def own_lines(scope: Scope, plan: RequestPlan) -> list[bytes]:
    """This hop's header lines for one request: its id, the client's address, the deadline."""
    lines = [b"x-request-id: %b\r\n" % context.request_id.get().encode("ascii")]
    client = scope.get("client")
    if client:
        address = client[0].encode("ascii")
        if plan.forwarded_for:
            address = b"%b, %b" % (plan.forwarded_for, address)
        lines.append(b"x-forwarded-for: %b\r\n" % address)
    if plan.has_deadline:
        remaining_s = context.remaining_s()
        if remaining_s is not None:
            lines.append(b"x-deadline-ms: %d\r\n" % int(remaining_s * 1000))
    return lines


async def send_request(pool: Pool, method: str, data: bytes, send: Send) -> None:
    """Relays a request that is whole in memory.

    Args:
        data: head and body.

    Raises:
        LakehouseError: the daemon cannot be reached, fell silent or broke off.
    """
    loop = asyncio.get_running_loop()
    connection = pool.take_idle(loop.time()) or await pool.connect()
    try:
        connection.start(data, head_only=method == "HEAD", whole=True)
        while not connection.head_ready:
            if connection.error is None:
                await connection.wait_progress()
            elif may_repeat(connection, method):
                pool.give_back(connection, 0.0)
                connection = await pool.connect()
                connection.start(data, head_only=method == "HEAD", whole=True)
            else:
                raise connection.error
        await pass_answer(connection, send)
    finally:
        pool.give_back(connection, loop.time())


def may_repeat(connection: Connection, method: str) -> bool:
    """Whether a failed request may be sent once more.

    Only when a kept connection turns out to have been closed, nothing at all was answered
    on it, and doing it twice would be the same as once. A new connection is never retried,
    so there is one repetition at most.
    """
    return (
        connection.reused
        and not connection.touched
        and isinstance(connection.error, Upstream)
        and is_idempotent(method)
    )


async def stream_request(
    pool: Pool,
    method: str,
    plan: RequestPlan,
    head: bytes,
    receive: Receive,
    send: Send,
) -> None:
    """Relays a request whose body follows piece by piece, answer and body at the same time.

    Never repeated: what has been sent on is no longer here.
    """
    loop = asyncio.get_running_loop()
    connection = pool.take_idle(loop.time()) or await pool.connect()
    upload: asyncio.Task[None] | None = None
    try:
        connection.start(head, head_only=method == "HEAD", whole=False)
        upload = loop.create_task(pass_body(connection, plan, receive))
        while not connection.head_ready:
            if connection.error is not None:
                raise connection.error
            await connection.wait_progress()
        await pass_answer(connection, send)
    finally:
        if upload is not None:
            upload.cancel()  # answered before the end of the body, whose rest is not wanted
        pool.give_back(connection, loop.time())


async def pass_body(connection: Connection, plan: RequestPlan, receive: Receive) -> None:
    """Sends the client's body on as it comes, no faster than the daemon reads it.

    A failure on the client's side ends the exchange, so that whoever waits for the answer
    learns it.
    """
    try:
        if plan.expects_continue:
            await connection.wait_continue(CONTINUE_S)
            if connection.head_ready:
                return  # refused before the body was sent
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Invalid("The client left before the end of its request.")
            piece: bytes = message.get("body", b"")
            more = message.get("more_body", False)
            if piece:
                connection.write(b"%x\r\n%b\r\n" % (len(piece), piece) if plan.chunked else piece)
            await connection.drain()
        if plan.chunked:
            connection.write(b"0\r\n\r\n")
        connection.sent = True
    except LakehouseError as error:
        connection.fail(error)


async def pass_answer(connection: Connection, send: Send) -> None:
    """Sends the daemon's answer on, each piece as soon as it is here.

    Raises:
        LakehouseError: the answer broke off. The caller must not end the response then, so
            that the client sees a broken one and not a short one.
    """
    await send(
        {
            "type": "http.response.start",
            "status": connection.status,
            "headers": connection.headers,
        }
    )
    while True:
        # Both are read before the next await, so no byte can come in between.
        piece, complete = connection.take(), connection.complete
        if piece or complete:
            await send({"type": "http.response.body", "body": piece, "more_body": not complete})
        if complete:
            return
        if connection.has_body or connection.complete:
            continue
        if connection.error is not None:
            raise connection.error
        await connection.wait_progress()
