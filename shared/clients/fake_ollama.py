"""Client of fake_ollama's steering routes; Ollama's own are for Ollama's clients."""

from __future__ import annotations

from shared.clients.base import ServiceClient
from shared.config import Config
from shared.runtime import Transports
from shared.wire.fake_ollama import RecordedRequest, RecordedRequests, Script, ScriptRule


class FakeOllamaClient(ServiceClient):
    """Tells fake_ollama what to do, and asks what it saw."""

    def __init__(self, config: Config, transports: Transports | None = None) -> None:
        super().__init__(config, "fake_ollama", transports)

    async def script(self, *rules: ScriptRule) -> None:
        """Adds rules for the requests to come."""
        body = Script(rules=list(rules)).model_dump(mode="json", exclude_unset=True)
        await self.request("POST", "/_script", json=body)

    async def requests(self) -> list[RecordedRequest]:
        """What was received, oldest first."""
        response = await self.request("GET", "/_requests")
        return RecordedRequests.model_validate_json(response.content).requests

    async def clear(self) -> None:
        """Forgets rules and requests."""
        await self.request("DELETE", "/_script")
        await self.request("DELETE", "/_requests")
