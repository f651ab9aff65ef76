"""chatd's client reads streams: whole, in any pieces, refused, and broken off."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from shared.clients.chatd import ChatdClient
from shared.errors import LakehouseError, RateLimited, Unavailable, Upstream
from tests.support.apps import make_config

pytestmark = pytest.mark.anyio

START = {"type": "start", "model": "m", "provider": "p"}
TEXTS = [{"type": "text", "text": text} for text in ("Blå", "bær\n", " data: x")]
DONE = {"type": "done", "content": "Blåbær\n data: x", "finish_reason": "stop"}


def frames(*events: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + orjson.dumps(event) + b"\n\n" for event in events)


class Scripted(httpx.AsyncBaseTransport):
    """Answers every request with these pieces."""

    def __init__(self, *pieces: bytes, status: int = 200) -> None:
        self.pieces = pieces
        self.status = status

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        async def body() -> AsyncIterator[bytes]:
            for piece in self.pieces:
                yield piece

        assert orjson.loads(await request.aread())["stream"] is True
        return httpx.Response(self.status, content=body())


async def read(tmp_path: Path, transport: Scripted) -> list[dict[str, Any]]:
    client = ChatdClient(make_config(tmp_path), {"chatd": transport})
    found: list[dict[str, Any]] = []
    try:
        async for event in client.read_events(
            "tier/local_fast", [{"role": "user", "content": "x"}]
        ):
            found.append(event)
    except LakehouseError as error:
        found.append({"raised": error})
    finally:
        await client.aclose()
    return found


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_events_are_the_same_in_whatever_pieces_they_come(tmp_path: Path, size: int) -> None:
    whole = b": a comment\n\n" + frames(START, *TEXTS, DONE)
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    assert await read(tmp_path, Scripted(*pieces)) == [START, *TEXTS, DONE]


@pytest.mark.parametrize(
    ("code", "kind"),
    [("rate_limited", RateLimited), ("unavailable", Unavailable), ("no_such_code", Upstream)],
)
async def test_an_answer_that_fails_in_the_middle_is_its_own_error(
    tmp_path: Path, code: str, kind: type[LakehouseError]
) -> None:
    error = {"code": code, "message": "Not now.", "details": {"wait": 3}}
    *before, last = await read(
        tmp_path, Scripted(frames(START, TEXTS[0], {"type": "error", "error": error}))
    )
    assert before == [START, TEXTS[0]]
    assert isinstance(last["raised"], kind)
    assert "Not now." in last["raised"].message
    assert last["raised"].details["wait"] == 3


async def test_half_an_answer_never_passes_for_one(tmp_path: Path) -> None:
    for pieces in ([frames(START, *TEXTS)], [frames(START), b'data: {"type": "do'], []):
        *_, last = await read(tmp_path, Scripted(*pieces))
        assert isinstance(last["raised"], Upstream)
        assert "broke off" in last["raised"].message


async def test_a_refusal_is_raised_before_any_event(tmp_path: Path) -> None:
    body = orjson.dumps({"error": {"code": "rate_limited", "message": "Full.", "details": {}}})
    (only,) = await read(tmp_path, Scripted(body, status=429))
    assert isinstance(only["raised"], RateLimited)
