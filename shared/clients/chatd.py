"""Client of chatd's own routes; OpenAI's and Anthropic's are for their SDKs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shared.clients.base import ServiceClient
from shared.config import Config
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

    async def providers(self, probe: bool = False) -> Providers:
        """Which providers are registered; with `probe` who answers, and the tiers' states."""
        params = {"probe": "1"} if probe else {}
        response = await self.request("GET", "/chat/providers", params=params)
        return Providers.model_validate_json(response.content)

    async def usage(self) -> UsageReport:
        """What has been asked for, and what it cost."""
        response = await self.request("GET", "/chat/usage")
        return UsageReport.model_validate_json(response.content)
