"""The HTTP way in: who may come, and the SDK behind it, which is loaded at the first request.

The SDK takes 30 MiB and half a second of a processor to load; a fleet that no agent uses has
neither to pay. It must be entered and left by one task, which is this module's own.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from prometheus_client import Counter
from starlette.types import ASGIApp, Receive, Scope, Send

from services.mcpd.core.origins import OriginList
from shared.clients.gateway import Gateway
from shared.errors import Internal, MethodNotAllowed
from shared.pool import BlockingPool
from shared.sections.mcp import McpdSection

logger = logging.getLogger("lakehouse.mcpd")


class Door:
    """An ASGI app for one path.

    Args:
        gateway: what the tools call.
        section: allow-list, caps and the rest.
        counter: calls by tool and outcome.
    """

    def __init__(self, gateway: Gateway, section: McpdSection, counter: Counter) -> None:
        self._gateway = gateway
        self._section = section
        self._counter = counter
        self._origins = OriginList(section.allowed_origins)
        self._pool = BlockingPool("mcpd", 1, 1)
        self._lock = asyncio.Lock()
        self._leave = asyncio.Event()
        self._inside: asyncio.Future[ASGIApp] | None = None
        self._host: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request of the protocol.

        Raises:
            Forbidden: a web page that may not call. MethodNotAllowed: anything but POST.
        """
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        self._origins.check([value for name, value in headers if name == b"origin"])
        if scope["method"] != "POST":
            # Without sessions there is no stream to open and none to end.
            raise MethodNotAllowed(
                "MCP is spoken by POST here; there are no sessions.", headers={"Allow": "POST"}
            )
        await (await self.enter())(scope, receive, send)

    async def enter(self) -> ASGIApp:
        """What answers; loaded and started now if it was not yet."""
        async with self._lock:
            if self._inside is None:
                self._inside = asyncio.get_running_loop().create_future()
                self._host = asyncio.create_task(self._run(self._inside))
        return await asyncio.shield(self._inside)

    async def close(self) -> None:
        """Ends what runs inside."""
        self._leave.set()
        if self._host is not None:
            with suppress(Exception):
                await self._host
        self._pool.close()

    async def _run(self, inside: asyncio.Future[ASGIApp]) -> None:
        try:
            await self._pool.run(_load_sdk)
            from services.mcpd.store.server import build_server

            server = build_server(self._gateway, self._section, self._counter)
            # Host and Origin have been checked, and sizes too: by the edge and above.
            server.streamable_http_app(
                streamable_http_path="/mcp",
                stateless_http=True,
                json_response=True,
                max_request_body_size=self._section.max_body_bytes,
                transport_security=_unguarded(),
            )
            async with server.session_manager.run():
                inside.set_result(server.session_manager.handle_request)
                await self._leave.wait()
        except Exception as error:
            logger.exception("the MCP server could not be started")
            if not inside.done():
                inside.set_exception(Internal("The MCP server could not be started."))
                inside.exception()  # read, though perhaps nobody waits any more
            self._inside = None
            raise error


def _load_sdk() -> None:
    """Imports it, away from the loop: probes are answered meanwhile."""
    import services.mcpd.store.server  # noqa: F401 # pyright: ignore[reportUnusedImport]


def _unguarded() -> object:
    from mcp.server.transport_security import TransportSecuritySettings

    return TransportSecuritySettings(enable_dns_rebinding_protection=False)
