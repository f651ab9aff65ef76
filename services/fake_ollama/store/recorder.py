"""Remembers every request to the pretended protocols as it came, for tests to look at.

It stands outside of everything else, so that refused requests are seen as well.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from typing import Any, Literal

from shared.edge import App, Message, Receive, Scope, Send
from shared.wire.fake_ollama import RecordedRequest

# Bytes of a body that are kept.
MAX_BODY = 4 * 1024 * 1024
OWN_PATHS = ("/_script", "/_requests", "/health", "/ready", "/metrics", "/openapi.json")


class Recording:
    """One request while it lasts and afterwards."""

    def __init__(self, number: int, scope: Scope) -> None:
        self.number = number
        self.scope = scope
        self.body = bytearray()
        self.status = 0
        self.ended: Literal["open", "done", "cut", "client_gone"] = "open"
        self.begun = time.monotonic()
        self.seconds = 0.0

    def end(self, how: Literal["done", "cut", "client_gone"]) -> None:
        """Closes it; only the first word counts."""
        if self.ended == "open":
            self.ended = how
            self.seconds = time.monotonic() - self.begun

    def describe(self) -> RecordedRequest:
        """As the wire has it."""
        text = self.body.decode("utf-8", "replace")
        headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in self.scope["headers"]]
        return RecordedRequest(
            number=self.number,
            method=self.scope["method"],
            path=self.scope["path"],
            query=self.scope.get("query_string", b"").decode("latin-1"),
            headers=headers,
            body=text,
            json_body=_parse(text),
            status=self.status,
            ended=self.ended,
            seconds=round(self.seconds, 6),
        )


class Recordings:
    """The last requests, oldest first."""

    def __init__(self, limit: int) -> None:
        self._kept: deque[Recording] = deque(maxlen=limit)
        self._count = 0

    def begin(self, scope: Scope) -> Recording:
        """A new one; with a limit of 0 it is made and not kept."""
        self._count += 1
        recording = Recording(self._count, scope)
        self._kept.append(recording)
        return recording

    def clear(self) -> None:
        """Forgets all; the numbers go on."""
        self._kept.clear()

    def describe(self) -> list[RecordedRequest]:
        """All that are kept."""
        return [recording.describe() for recording in self._kept]


class Recorder:
    """ASGI middleware that fills `Recordings`."""

    def __init__(self, app: App, recordings: Recordings) -> None:
        self.app = app
        self.recordings = recordings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(OWN_PATHS):
            await self.app(scope, receive, send)
            return
        recording = self.recordings.begin(scope)

        async def watched_receive() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                recording.end("client_gone")
            elif len(recording.body) < MAX_BODY:
                recording.body += message.get("body", b"")[:MAX_BODY]
            return message

        async def watched_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                recording.status = message["status"]
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                recording.end("done")

        try:
            await self.app(scope, watched_receive, watched_send)
        except asyncio.CancelledError:
            recording.end("client_gone")  # in process, leaving is being cancelled
            raise
        recording.end("cut")


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
