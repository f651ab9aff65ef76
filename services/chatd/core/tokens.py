"""Tokens reckoned from texts, for where nobody counts them.

No provider's tokeniser is here. The rule of thumb: a token for every four bytes of ASCII and
for every two of anything else, four for the frame of each message, and a flat number for an
image. On English prose it is within about a fifth of what models count. Whatever uses it says
that it is an estimate.
"""

from __future__ import annotations

from services.chatd.core.chat import Answer, Chat, Message, Usage
from services.chatd.core.reading import write_json

IMAGE_TOKENS = 1000
FRAME_TOKENS = 4


def estimate_text(text: str) -> int:
    """Tokens of a text."""
    if not text:
        return 0
    size = len(text.encode("utf-8", "replace"))
    if size == len(text):
        return (size + 3) // 4
    plain = sum(1 for character in text if character < "\x80")
    return (plain + 3) // 4 + (size - plain + 1) // 2


def estimate_input(chat: Chat) -> int:
    """Tokens of what a model reads."""
    count = sum(_estimate_message(message) for message in chat.messages)
    for tool in chat.tools:
        schema = write_json(tool.parameters or {}).decode()
        count += FRAME_TOKENS + estimate_text(f"{tool.name} {tool.description} {schema}")
    return count


def _estimate_message(message: Message) -> int:
    count = FRAME_TOKENS + estimate_text(message.text) + estimate_text(message.reasoning)
    count += IMAGE_TOKENS * len(message.images)
    return count + sum(estimate_text(f"{c.name} {c.arguments}") for c in message.calls)


def estimate_usage(chat: Chat, answer: Answer) -> Usage:
    """Usage of an answer whose provider told none."""
    said = estimate_text(answer.text) + estimate_text(answer.reasoning)
    said += sum(estimate_text(f"{c.name} {c.arguments}") for c in answer.calls)
    return Usage(estimate_input(chat), said, estimated=True)
