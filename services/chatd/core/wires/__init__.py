"""What providers speak: requests written, answers and streams read, one module a protocol."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from services.chatd.core.wires.base import Wire
from services.chatd.core.wires.chat import ChatWire
from services.chatd.core.wires.gemini import GeminiWire
from services.chatd.core.wires.messages import MessagesWire
from services.chatd.core.wires.ollama import OllamaWire
from services.chatd.core.wires.responses import ResponsesWire

# By the name that [chatd.providers.<name>] wire has.
WIRES: Mapping[str, Wire] = MappingProxyType(
    {
        "ollama": OllamaWire(),
        "chat": ChatWire(),
        "messages": MessagesWire(),
        "responses": ResponsesWire(),
        "gemini": GeminiWire(),
    }
)

__all__ = ["WIRES"]
