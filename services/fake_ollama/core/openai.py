"""The OpenAI-shaped side that a real Ollama has as well: /v1."""

from __future__ import annotations

import base64
import hashlib
import json
from array import array
from collections.abc import Iterator
from typing import Any

from services.fake_ollama.core.answering import Answer
from services.fake_ollama.core.catalogue import CREATED, PretendModel
from shared.errors import Invalid
from shared.wire.fake_ollama import (
    ChatBody,
    Function,
    Message,
    OpenAIChatBody,
    OpenAIFunction,
    OpenAIMessage,
    ResponseFormat,
    ToolCall,
)

PREFIX = "/v1/"
FINGERPRINT = "fp_ollama"
_TYPES = {400: "invalid_request_error", 404: "not_found_error"}


def error_body(status: int, message: str) -> dict[str, Any]:
    """An error as Ollama's /v1 shapes it."""
    kind = _TYPES.get(status, "api_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def read_chat(body: OpenAIChatBody) -> ChatBody:
    """A chat completion request as the native one that Ollama makes of it.

    Raises:
        Invalid: there are no messages, or a tool call's arguments are no JSON.
    """
    if not body.messages:
        raise Invalid("[] is too short - 'messages'")
    most = body.max_completion_tokens if body.max_tokens is None else body.max_tokens
    options = {"num_predict": most, "stop": body.stop, "seed": body.seed}
    wanted = body.response_format or ResponseFormat()
    output_format: Any = None
    if wanted.type == "json_object":
        output_format = "json"
    elif wanted.type == "json_schema":
        output_format = (wanted.json_schema or {}).get("schema")
    effort = body.reasoning_effort
    return ChatBody(
        model=body.model,
        messages=[_read_message(message) for message in body.messages],
        tools=body.tools,
        format=output_format,
        options={name: value for name, value in options.items() if value is not None},
        stream=bool(body.stream),
        think=None if effort is None else effort != "none",
    )


def _read_message(given: OpenAIMessage) -> Message:
    content = given.content
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content)
    calls = [
        ToolCall(
            id=call.id,
            function=Function(name=call.function.name, arguments=_read_arguments(call.function)),
        )
        for call in given.tool_calls or []
    ]
    return Message(role=given.role, content=content, tool_calls=calls or None)


def _read_arguments(function: OpenAIFunction) -> dict[str, Any]:
    try:
        return json.loads(function.arguments or "{}")
    except ValueError:
        raise Invalid("invalid tool call arguments") from None


def chat_whole(model: str, answer: Answer) -> dict[str, Any]:
    """A chat completion."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.content}
    if answer.thinking:
        message["reasoning"] = answer.thinking
    if answer.calls:
        message["tool_calls"] = _calls(answer)
    choice = {"index": 0, "message": message, "finish_reason": _finish_reason(answer)}
    return {
        **_head(model, answer, "chat.completion"),
        "choices": [choice],
        "usage": _usage(answer.prompt_tokens, answer.output_tokens),
    }


def chat_stream(model: str, answer: Answer, with_usage: bool) -> Iterator[dict[str, Any]]:
    """The chunks of a streamed chat completion, without the closing [DONE]."""
    head = _head(model, answer, "chat.completion.chunk")

    def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        choice = {
            "index": 0,
            "delta": {"role": "assistant", "content": "", **delta},
            "finish_reason": reason,
        }
        return {**head, "choices": [choice]}

    for piece in answer.thinking_pieces():
        yield chunk({"reasoning": piece})
    for piece in answer.pieces():
        yield chunk({"content": piece})
    if answer.calls:
        yield chunk({"tool_calls": _calls(answer)})
    yield chunk({}, _finish_reason(answer))
    if with_usage:
        usage = _usage(answer.prompt_tokens, answer.output_tokens)
        yield {**head, "choices": [], "usage": usage}


def embeddings_whole(
    model: str, vectors: list[list[float]], tokens: int, encoding: str
) -> dict[str, Any]:
    """The answer of /v1/embeddings."""
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "embedding": _encode(vector, encoding), "index": index}
            for index, vector in enumerate(vectors)
        ],
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def model_entry(model: PretendModel) -> dict[str, Any]:
    """One model as /v1/models lists it."""
    return {"id": model.name, "object": "model", "created": CREATED, "owned_by": "library"}


def _head(model: str, answer: Answer, kind: str) -> dict[str, Any]:
    digest = hashlib.sha256(f"{model}{answer}".encode()).hexdigest()
    return {
        "id": f"chatcmpl-{int(digest[:4], 16) % 1000}",
        "object": kind,
        "created": CREATED,
        "model": model,
        "system_fingerprint": FINGERPRINT,
    }


def _finish_reason(answer: Answer) -> str:
    return "tool_calls" if answer.calls else answer.done_reason


def _usage(prompt: int, output: int) -> dict[str, int]:
    total = prompt + output
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": total}


def _calls(answer: Answer) -> list[dict[str, Any]]:
    return [
        {
            "id": call.id,
            "index": index,
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
        }
        for index, call in enumerate(answer.calls)
    ]


def _encode(vector: list[float], encoding: str) -> list[float] | str:
    if encoding == "base64":
        return base64.b64encode(array("f", vector).tobytes()).decode()
    return vector
