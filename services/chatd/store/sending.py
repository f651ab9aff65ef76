"""Answers on their way to the client: whole, or a stream in raw ASGI."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from services.chatd.core.reading import write_json
from services.chatd.core.surfaces.base import Writer
from services.chatd.store.account import Account
from services.chatd.store.flow import Flow, Reply
from shared import context
from shared.edge import Receive, Scope, Send
from shared.errors import LakehouseError

_STREAM_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


def send_whole(body: dict[str, Any], reply: Reply) -> Response:
    """A whole answer."""
    answer = Response(write_json(body), media_type="application/json")
    answer.raw_headers += _headers_of(reply.account)
    return answer


def _headers_of(account: Account) -> list[tuple[bytes, bytes]]:
    """Who answered after how many tries, and what was left out of the request for it."""
    headers = [
        (b"x-lakehouse-provider", account.provider.encode("ascii")),
        (b"x-lakehouse-attempts", b"%d" % account.attempts),
    ]
    if account.dropped:
        headers.append((b"x-lakehouse-dropped", ",".join(account.dropped).encode("latin-1")))
    return headers


class FlowResponse(Response):
    """A stream. Closes its flow whatever happens: when the client leaves, the edge cancels the
    task that runs here, and the provider's connection is cut at once."""

    def __init__(self, flow: Flow, writer: Writer) -> None:
        super().__init__()
        self._flow = flow
        self._writer = writer
        self.raw_headers = [*_STREAM_HEADERS, *_headers_of(flow.account)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it."""
        flow, writer = self._flow, self._writer
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            data = writer.begin() + writer.write(flow.take())
            try:
                while not flow.over:
                    if data:
                        await send({"type": "http.response.body", "body": data, "more_body": True})
                    data = writer.write(await flow.next())
                data += writer.end()
            except LakehouseError as error:
                data = writer.fail(error, context.request_id.get())
            await send({"type": "http.response.body", "body": data, "more_body": False})
        finally:
            await flow.aclose()
