"""Client of chatd's own routes; OpenAI's and Anthropic's are for their SDKs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson

from shared.clients.base import TRANSPORT_ERRORS, ServiceClient
from shared.config import Config
from shared.errors import BY_CODE, Upstream, from_response
from shared.runtime import Transports
from shared.wire.chatd import ChatRequest, ChatResponse, Providers, UsageReport
from shared.wire.chatd_openai import ChatMessage

# A model may think for minutes before its answer is complete. Seconds.
ANSWER_S = 600.0


class ChatdClient(ServiceClient):
    """Talks to chatd."""

    def __init__(self, config: Config, transports: Transports | None = None) -> None:
        super().__init__(config, "chatd", transports)

    async def chat(
        self,
        model: str,
        messages: Sequence[ChatMessage | Mapping[str, Any]],
        *,
        timeout_s: float = ANSWER_S,
        **fields: Any,
    ) -> ChatResponse:
        """A whole answer.

        Args:
            model: a tier as `tier/local_fast`; models are the configuration's business.
            messages: at least one.
            fields: further ones of `ChatRequest`, such as `max_tokens`.
        """
        asked = ChatRequest.model_validate({"model": model, "messages": messages, **fields})
        response = await self.request(
            "POST",
            "/chat",
            headers={"content-type": "application/json"},
            # What is not set must stay absent.
            content=asked.model_dump_json(exclude_unset=True, by_alias=True),
            timeout_s=timeout_s,
        )
        return ChatResponse.model_validate_json(response.content)

    @asynccontextmanager
    async def stream_chat(
        self, model: str, messages: Sequence[ChatMessage | Mapping[str, Any]], **fields: Any
    ) -> AsyncGenerator[AsyncIterator[bytes]]:
        """An answer as it comes: the bytes of chatd's server-sent events, piece by piece.

        The pieces end early with chatd's own error event where the answer breaks off there.

        Raises:
            LakehouseError: before the first piece, what chatd refused; Upstream while reading.
        """
        asked = ChatRequest.model_validate(
            {"model": model, "messages": messages, "stream": True, **fields}
        )
        async with self.stream(
            "POST",
            "/chat",
            headers={"content-type": "application/json"},
            content=asked.model_dump_json(exclude_unset=True, by_alias=True),
            timeout_s=ANSWER_S,
        ) as response:
            yield _read_pieces(response)

    async def read_events(
        self, model: str, messages: Sequence[ChatMessage | Mapping[str, Any]], **fields: Any
    ) -> AsyncGenerator[dict[str, Any]]:
        """An answer's events as they come: `start`, `text`, `reasoning`, and `done` with all of it.

        Raises:
            LakehouseError: the answer failed, before it began or in the middle.
            Upstream: it ended without its `done`.
        """
        rest = b""
        async with self.stream_chat(model, messages, **fields) as pieces:
            async for piece in pieces:
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    if not line.startswith(b"data:"):
                        continue
                    event: dict[str, Any] = orjson.loads(line[5:])
                    if event["type"] == "error":
                        status = BY_CODE.get(event["error"]["code"], Upstream).status
                        raise from_response(self.service, status, event)
                    yield event
                    if event["type"] == "done":
                        return
        raise Upstream("The answer broke off before its end. Ask again; chatd's log may say why.")

    async def providers(self, probe: bool = False) -> Providers:
        """Which providers are registered; with `probe` who answers, and the tiers' states."""
        params = {"probe": "1"} if probe else {}
        response = await self.request("GET", "/chat/providers", params=params)
        return Providers.model_validate_json(response.content)

    async def usage(self) -> UsageReport:
        """What has been asked for, and what it cost."""
        response = await self.request("GET", "/chat/usage")
        return UsageReport.model_validate_json(response.content)


async def _read_pieces(response: httpx.Response) -> AsyncGenerator[bytes]:
    try:
        async for piece in response.aiter_raw():
            yield piece
    except TRANSPORT_ERRORS as error:
        raise Upstream(
            "The answer broke off in the middle. Ask again; chatd's log has the reason.",
            details={"peer": "chatd"},
        ) from error
