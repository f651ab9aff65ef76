"""The HTTP response that carries an answer from its worker to the client, as it comes."""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from services.queryd.store.runner import Answer
from shared.wire.queryd import TRUNCATED_HEADER


class AnswerResponse(Response):
    """Streams an answer with back-pressure: no chunk is read before the last was taken.

    Leaner than Starlette's StreamingResponse, whose task group and watcher the edge makes
    unnecessary: it cancels this when the client leaves.
    """

    def __init__(self, answer: Answer) -> None:
        super().__init__(media_type=answer.query.form.value)
        del self.headers["content-length"]
        if answer.truncated is not None:
            self.headers[TRUNCATED_HEADER] = "true" if answer.truncated else "false"
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the headers and the whole answer."""
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )

            async def pass_on(chunk: bytes) -> None:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})

            await self._answer.copy_to(pass_on)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._answer.close()
