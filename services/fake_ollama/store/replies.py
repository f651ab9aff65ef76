"""Answers on their way out: whole or in pieces, with what a script does to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from typing import Any

import orjson
from fastapi.responses import Response, StreamingResponse

from services.fake_ollama.core import openai
from shared.errors import Unavailable
from shared.wire.fake_ollama import ScriptRule

JSON = "application/json; charset=utf-8"
NDJSON = "application/x-ndjson"
EVENTS = "text/event-stream"
MALFORMED = b'{"model": "fa'


async def reply_before(rule: ScriptRule, path: str) -> Response | None:
    """What a script puts in place of the answer, after its delay; None lets it be made."""
    if rule.delay_s:
        await asyncio.sleep(rule.delay_s)
    if rule.body is not None:
        return Response(rule.body, rule.status or 200, rule.headers, JSON)
    if rule.status is not None:
        return Response(
            error_content(path, rule.status, rule.error), rule.status, rule.headers, JSON
        )
    return None


def error_content(path: str, status: int, message: str) -> bytes:
    """An error in the shape of the path's protocol."""
    if path.startswith(openai.PREFIX):
        return orjson.dumps(openai.error_body(status, message))
    return orjson.dumps({"error": message})


def reply_whole(content: dict[str, Any], rule: ScriptRule) -> Response:
    """One JSON object."""
    body = MALFORMED if rule.malformed else orjson.dumps(content)
    if rule.cut_after_chunks is None:
        return Response(body, headers=rule.headers, media_type=JSON)

    async def half() -> AsyncGenerator[bytes]:
        yield body[: len(body) // 2]
        raise _cut()

    return StreamingResponse(half(), headers=rule.headers, media_type=JSON)


def reply_lines(parts: Iterable[dict[str, Any]], rule: ScriptRule) -> Response:
    """One object a line."""
    error = orjson.dumps({"error": rule.error}) + b"\n"
    pieces = _scripted((orjson.dumps(part) + b"\n" for part in parts), rule, error, b"\n")
    return StreamingResponse(pieces, headers=rule.headers, media_type=NDJSON)


def reply_events(parts: Iterable[dict[str, Any]], rule: ScriptRule) -> Response:
    """Server-sent events, closed by [DONE]."""
    error = b"data: " + orjson.dumps(openai.error_body(500, rule.error)) + b"\n\n"
    events = (b"data: " + orjson.dumps(part) + b"\n\n" for part in parts)
    pieces = _scripted(events, rule, error, b"\n\n", b"data: [DONE]\n\n")
    return StreamingResponse(pieces, headers=rule.headers, media_type=EVENTS)


async def _scripted(
    pieces: Iterable[bytes], rule: ScriptRule, error: bytes, end: bytes, last: bytes = b""
) -> AsyncGenerator[bytes]:
    for number, piece in enumerate(pieces):
        if rule.cut_after_chunks == number:
            raise _cut()
        if rule.error_after_chunks == number:
            yield error
            return
        if rule.chunk_delay_s:
            await asyncio.sleep(rule.chunk_delay_s)
        broken = rule.malformed and number == 1
        yield piece[: len(piece) // 2] + end if broken else piece
    if last:
        yield last


def _cut() -> Unavailable:
    # The edge breaks a connection off whose answer fails in the middle.
    return Unavailable("broken off by the script")
