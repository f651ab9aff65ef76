"""OpenAI's responses towards clients. Stateless: nothing is kept to be referred to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.chatd.core.chat import (
    Answer,
    Chat,
    Choice,
    Finish,
    Format,
    Message,
    Part,
    Text,
    Tool,
    ToolCall,
    Usage,
)
from services.chatd.core.surfaces.base import Head, known_usage, read_image, refuse
from shared.wire.chatd_responses import Item, ItemPart, ResponsesNamed, ResponsesRequest

_ROLES: dict[str, Any] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
# Fields whose whole sense is state that is not kept here.
_STATEFUL = ("previous_response_id", "conversation", "background")


def read_request(asked: ResponsesRequest) -> Chat:
    """The chat that is asked for.

    Raises:
        Invalid: it asks for what there is not here.
    """
    for name in _STATEFUL:
        if getattr(asked, name):
            raise refuse(name, "responses are stateless here. Send the whole input each time.")
    for tool in asked.tools or ():
        if tool.type != "function" or not tool.name:
            raise refuse("tools", f"{tool.type[:40]!r} is not supported; functions are.")
    messages: list[Message] = []
    if asked.instructions:
        messages.append(Message("system", (Text(asked.instructions),)))
    if isinstance(asked.input, str):
        messages.append(Message("user", (Text(asked.input),)))
    else:
        messages += _read_items(asked.input)
    if not messages:
        raise refuse("input", "is empty. Send text, or at least one message.")
    effort = asked.reasoning.effort if asked.reasoning is not None else None
    choice = asked.tool_choice
    return Chat(
        model=asked.model,
        messages=tuple(messages),
        tools=tuple(
            Tool(t.name, t.description or "", t.parameters, t.strict) for t in asked.tools or ()
        ),
        choice=None if choice is None else _read_choice(choice),
        parallel=asked.parallel_tool_calls,
        format=_read_format(asked),
        max_tokens=asked.max_output_tokens,
        options={
            name: getattr(asked, name)
            for name in ("temperature", "top_p")
            if name in asked.model_fields_set
        },
        effort="xhigh" if effort == "max" else effort,
        extra=dict(asked.model_extra or {}),
        spoken="responses",
    )


def _read_items(items: Sequence[Item]) -> list[Message]:
    messages: list[Message] = []
    names: dict[str, str] = {}
    for item in items:
        if item.type == "message":
            role = _ROLES.get(item.role)
            if role is None:
                raise refuse("input", f"there is no role {item.role[:40]!r}.")
            messages.append(Message(role, _read_parts(item.content)))
        elif item.type == "function_call":
            names[item.call_id] = item.name
            call = ToolCall(item.call_id, item.name, item.arguments)
            last = messages[-1] if messages else None
            if last is not None and last.role == "assistant":
                # One turn of the model is several items here.
                messages[-1] = Message("assistant", last.parts, (*last.calls, call))
            else:
                messages.append(Message("assistant", (), (call,)))
        elif item.type == "function_call_output":
            name = names.get(item.call_id, "")
            messages.append(Message("tool", _read_parts(item.output), (), item.call_id, name))
        elif item.type != "reasoning":
            raise refuse("input", f"items of type {item.type[:40]!r} are not supported here.")
    return messages


def _read_parts(content: str | Sequence[ItemPart] | None) -> tuple[Part, ...]:
    if content is None:
        return ()
    if isinstance(content, str):
        return (Text(content),)
    return tuple(_read_part(part) for part in content)


def _read_part(part: ItemPart) -> Part:
    if part.type in ("input_text", "output_text", "text"):
        return Text(part.text)
    if part.type == "refusal":
        return Text(part.refusal)
    if part.type == "input_image" and part.image_url:
        return read_image(part.image_url)
    raise refuse("input", f"content of type {part.type[:40]!r} is not supported here.")


def _read_choice(choice: Any) -> Choice:
    if isinstance(choice, ResponsesNamed):
        return Choice("named", choice.name)
    return Choice(choice)


def _read_format(asked: ResponsesRequest) -> Format | None:
    wanted = asked.text.format if asked.text is not None else None
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return Format()
    if wanted.value is None:
        raise refuse("text", "format json_schema needs its schema.")
    return Format(wanted.value, wanted.name, wanted.description or "", wanted.strict)


def write_usage(usage: Usage) -> dict[str, Any]:
    """Tokens as this protocol counts them."""
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }


def write_response(
    head: Head,
    asked: ResponsesRequest,
    output: Sequence[dict[str, Any]],
    finish: Finish | None,
    usage: Usage | None,
) -> dict[str, Any]:
    """The response object; without `finish` as it stands while it is made."""
    status, why = "in_progress", None
    if finish is not None:
        status = "completed"
        if finish.reason in ("length", "content_filter"):
            status = "incomplete"
            reason = "max_output_tokens" if finish.reason == "length" else "content_filter"
            why = {"reason": reason}
    shown = asked.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {
        "id": f"resp_{head.id}",
        "object": "response",
        "created_at": head.created,
        "status": status,
        "error": None,
        "incomplete_details": why,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "model": head.model,
        "output": list(output),
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None, **shown.get("reasoning", {})},
        "store": False,
        "temperature": asked.temperature,
        "text": shown.get("text", {"format": {"type": "text"}}),
        "tool_choice": shown.get("tool_choice", "auto"),
        "tools": shown.get("tools", []),
        "top_p": asked.top_p,
        "truncation": "disabled",
        "usage": None if usage is None else write_usage(usage),
        "metadata": {},
    }


def message_item(head: Head, index: int, text: str, status: str) -> dict[str, Any]:
    """A message as an item of the output; while it begins it has no content."""
    part = {"type": "output_text", "text": text, "annotations": []}
    return {
        "id": f"msg_{head.id}_{index}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [] if status == "in_progress" else [part],
    }


def call_item(head: Head, index: int, call: ToolCall, status: str) -> dict[str, Any]:
    """A function call as an item."""
    return {
        "id": f"fc_{head.id}_{index}",
        "type": "function_call",
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
        "status": status,
    }


def reasoning_item(head: Head, index: int, text: str) -> dict[str, Any]:
    """Reasoning as an item."""
    summary = [{"type": "summary_text", "text": text}] if text else []
    return {"id": f"rs_{head.id}_{index}", "type": "reasoning", "summary": summary}


def write_whole(answer: Answer, head: Head, asked: ResponsesRequest) -> dict[str, Any]:
    """A whole response."""
    output: list[dict[str, Any]] = []
    if answer.reasoning:
        output.append(reasoning_item(head, 0, answer.reasoning))
    if answer.text or not answer.calls:
        output.append(message_item(head, len(output), answer.text, "completed"))
    for call in answer.calls:
        output.append(call_item(head, len(output), call, "completed"))
    finish = answer.finish or Finish("stop")
    return write_response(head, asked, output, finish, known_usage(answer.usage))
