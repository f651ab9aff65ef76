"""Client of mcpd: its tools called by plain requests of the stateless protocol.

For checks and scripts of the house. Agents have the protocol's own SDKs.
"""

from __future__ import annotations

import itertools
from typing import Any

import orjson

from shared.clients.base import ServiceClient
from shared.config import Config
from shared.errors import Upstream
from shared.runtime import Transports
from shared.version import VERSION
from shared.wire.mcpd import MCP_PATH, PROTOCOL_VERSION, ToolListed, ToolOutcome

_META = "io.modelcontextprotocol"


class McpdClient(ServiceClient):
    """Talks to mcpd.

    Args:
        config: for the address and the token.
        transports: in-process transports by service name, in place of the network.
    """

    def __init__(self, config: Config, transports: Transports | None = None) -> None:
        super().__init__(config, "mcpd", transports)
        self._ids = itertools.count(1)
        self._timeout_s = config.mcpd.request_timeout_s

    async def list_tools(self) -> list[ToolListed]:
        """All tools, in the order in which they are published."""
        result = await self.ask("tools/list", {})
        return [ToolListed.model_validate(tool) for tool in result["tools"]]

    async def call_tool(self, name: str, arguments: dict[str, Any]) -> ToolOutcome:
        """Calls a tool; what it refuses is an outcome, what broke is raised."""
        result = await self.ask("tools/call", {"name": name, "arguments": arguments}, name)
        texts = [part["text"] for part in result.get("content", []) if part["type"] == "text"]
        return ToolOutcome(
            is_error=bool(result.get("isError")),
            text="\n".join(texts),
            structured=result.get("structuredContent"),
        )

    async def ask(self, method: str, params: dict[str, Any], name: str = "") -> dict[str, Any]:
        """One request of the protocol; gives its result.

        Raises:
            Upstream: it was answered with an error of the protocol, or not by the protocol.
        """
        meta = {
            f"{_META}/protocolVersion": PROTOCOL_VERSION,
            f"{_META}/clientInfo": {"name": "lakehouse", "version": VERSION},
            f"{_META}/clientCapabilities": {},
        }
        body = {
            "jsonrpc": "2.0",
            "id": next(self._ids),
            "method": method,
            "params": {**params, "_meta": meta},
        }
        headers = {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": PROTOCOL_VERSION,
            "mcp-method": method,
        }
        if name:
            headers["mcp-name"] = name
        response = await self.request(
            "POST",
            MCP_PATH,
            content=orjson.dumps(body),
            headers=headers,
            timeout_s=self._timeout_s,
        )
        answer: dict[str, Any] = orjson.loads(response.content)
        if "error" in answer:
            why = answer["error"].get("message", "it gave no reason")
            raise Upstream(f"mcpd failed at {method}: {why}")
        result: dict[str, Any] | None = answer.get("result")
        if result is None:
            raise Upstream(f"mcpd answered {method} with something else than a result.")
        return result
