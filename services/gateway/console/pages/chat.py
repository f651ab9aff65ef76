"""Chat: a model by its tier, its answer as it comes."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response

from services.gateway.console.desk import Visit
from services.gateway.console.routes import Page
from services.gateway.console.streaming import stream_from
from shared.errors import Invalid, LakehouseError, TooLarge
from shared.wire.chatd import Providers

PATH = "/console/chat"
# The whole of a conversation. Bytes.
MOST = 2 * 1024 * 1024


async def show_chat(visit: Visit) -> Response:
    """The conversation, which the browser keeps."""
    return visit.page("chat.html", **_models(visit, None))


async def show_models(visit: Visit) -> Response:
    """The tiers with what came of asking their providers, which may take a while."""
    return visit.page("part_models.html", **_models(visit, await _providers(visit)))


async def send(visit: Visit) -> Response:
    """Passes a conversation on and the answer back, piece by piece."""
    asked = await _read(visit)
    return await stream_from(
        visit.fleet.chat.stream_chat(asked["model"], asked["messages"]),
        lambda pieces: pieces,
        "text/event-stream",
    )


async def _read(visit: Visit) -> dict[str, Any]:
    body = bytearray()
    async for piece in visit.request.stream():
        body += piece
        if len(body) > MOST:
            raise TooLarge("The conversation is too long. Begin another.")
    try:
        asked: Any = orjson.loads(bytes(body))
    except orjson.JSONDecodeError:
        asked = None
    if not isinstance(asked, dict) or set(asked) != {"model", "messages"}:
        raise Invalid("A chat is a model and its messages. Load the page again.")
    return asked


def _models(visit: Visit, found: Providers | LakehouseError | None) -> dict[str, Any]:
    tiers = visit.desk.config.models.tiers()
    states = (found.tiers or {}) if isinstance(found, Providers) else {}
    usable = [tier for tier in tiers if tier in states and states[tier].status == "ok"]
    return {
        "tiers": tiers,
        "states": states,
        "chosen": usable[0] if usable else "",
        "trouble": found if isinstance(found, LakehouseError) else None,
    }


async def _providers(visit: Visit) -> Providers | LakehouseError:
    try:
        return await visit.fleet.chat.providers(probe=True)
    except LakehouseError as error:
        return error


PAGES = (
    Page("GET", PATH, show_chat),
    Page("GET", PATH + "/models", show_models),
    Page("POST", PATH + "/send", send, long=True, raw=True),
)
