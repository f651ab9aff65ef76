"""The response that carries an object's bytes."""

from __future__ import annotations

from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from services.storaged.store.objects import ObjectStore, OpenObject


class ObjectResponse(Response):
    """Sends an open object and lets it go, however the sending ends."""

    def __init__(self, store: ObjectStore, opened: OpenObject) -> None:
        # No call to Response.__init__, which would set a length and a type of its own.
        self.status_code = opened.plan.status
        self.body = b""
        self.background = None
        self.init_headers(opened.plan.headers)
        self.store = store
        self.opened = opened

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application of one response."""
        left = self.opened.plan.length
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            async with aclosing(self.store.read_blocks(self.opened)) as blocks:
                async for block in blocks:
                    left -= len(block)
                    await send({"type": "http.response.body", "body": block, "more_body": left > 0})
        finally:
            self.store.leave(self.opened)
