"""Answers in Ollama's own shape: objects, one a line where they stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from services.fake_ollama.core.answering import Answer, Call
from services.fake_ollama.core.catalogue import TIME

# Pretended speed, in nanoseconds.
LOAD_NS = 1_000_000
PROMPT_TOKEN_NS = 100_000
OUTPUT_TOKEN_NS = 1_000_000


def chat_stream(model: str, answer: Answer) -> Iterator[dict[str, Any]]:
    """Thinking, content, tool calls, then the line that is done."""
    for piece in answer.thinking_pieces():
        yield _chat_line(model, {"role": "assistant", "content": "", "thinking": piece})
    for piece in answer.pieces():
        yield _chat_line(model, {"role": "assistant", "content": piece})
    if answer.calls:
        message = {"role": "assistant", "content": "", "tool_calls": _calls(answer.calls)}
        yield _chat_line(model, message)
    yield {
        **_chat_line(model, {"role": "assistant", "content": ""}),
        "done": True,
        "done_reason": answer.done_reason,
        **_figures(answer),
    }


def chat_whole(model: str, answer: Answer) -> dict[str, Any]:
    """The same as one object."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.content}
    if answer.thinking:
        message["thinking"] = answer.thinking
    if answer.calls:
        message["tool_calls"] = _calls(answer.calls)
    return {
        **_chat_line(model, message),
        "done": True,
        "done_reason": answer.done_reason,
        **_figures(answer),
    }


def chat_moved(model: str, reason: str) -> dict[str, Any]:
    """The answer to no messages: the model was loaded, or unloaded."""
    message = {"role": "assistant", "content": ""}
    return {**_chat_line(model, message), "done": True, "done_reason": reason}


def generate_stream(model: str, answer: Answer) -> Iterator[dict[str, Any]]:
    """Thinking, text, then the line that is done."""
    for piece in answer.thinking_pieces():
        yield {**_generate_line(model, ""), "thinking": piece}
    for piece in answer.pieces():
        yield _generate_line(model, piece)
    yield {**_generate_line(model, ""), **_generate_end(answer)}


def generate_whole(model: str, answer: Answer) -> dict[str, Any]:
    """The same as one object."""
    whole = _generate_line(model, answer.content)
    if answer.thinking:
        whole["thinking"] = answer.thinking
    return {**whole, **_generate_end(answer)}


def generate_moved(model: str, reason: str) -> dict[str, Any]:
    """The answer to no prompt: the model was loaded, or unloaded."""
    return {**_generate_line(model, ""), "done": True, "done_reason": reason}


def embed_whole(model: str, vectors: list[list[float]], tokens: int) -> dict[str, Any]:
    """The answer of /api/embed; to no texts it has no figures."""
    if not vectors:
        return {"model": model, "embeddings": []}
    return {
        "model": model,
        "embeddings": vectors,
        "total_duration": LOAD_NS + tokens * PROMPT_TOKEN_NS,
        "load_duration": LOAD_NS,
        "prompt_eval_count": tokens,
    }


def _chat_line(model: str, message: dict[str, Any]) -> dict[str, Any]:
    return {"model": model, "created_at": TIME, "message": message, "done": False}


def _generate_line(model: str, text: str) -> dict[str, Any]:
    return {"model": model, "created_at": TIME, "response": text, "done": False}


def _generate_end(answer: Answer) -> dict[str, Any]:
    # `context` is a tokenised history that no one reads.
    end = {"done": True, "done_reason": answer.done_reason, "context": [1, 2, 3]}
    return {**end, **_figures(answer)}


def _figures(answer: Answer) -> dict[str, int]:
    prompt_ns = answer.prompt_tokens * PROMPT_TOKEN_NS
    output_ns = answer.output_tokens * OUTPUT_TOKEN_NS
    return {
        "total_duration": LOAD_NS + prompt_ns + output_ns,
        "load_duration": LOAD_NS,
        "prompt_eval_count": answer.prompt_tokens,
        "prompt_eval_duration": prompt_ns,
        "eval_count": answer.output_tokens,
        "eval_duration": output_ns,
    }


def _calls(calls: list[Call]) -> list[dict[str, Any]]:
    return [
        {
            "id": call.id,
            "function": {"index": index, "name": call.name, "arguments": call.arguments},
        }
        for index, call in enumerate(calls)
    ]
