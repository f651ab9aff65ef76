"""Servers that speak like chat providers, one wire each, over real sockets.

A fake answers with what it is told to say, in its wire's own form; a queue of replies takes
the place of that, for faults. It records every request, and how each connection ended.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.sockets import Daemon, Peer, scripted


@dataclass(frozen=True)
class Said:
    """What a model says."""

    pieces: tuple[str, ...] = ("Hel", "lo, ", "Oslo", ".")
    reasoning: str = ""
    calls: tuple[tuple[str, str, dict[str, Any]], ...] = ()  # id, name, arguments
    reason: str = "stop"  # stop, length, tool_calls, content_filter
    input: int = 12
    output: int = 7
    cached: int = 0
    usage: bool = True

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@dataclass
class Seen:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Reply:
    """An answer in place of the wire's own.

    `pieces` are sent with `gap_s` between them, after `delay_s`; `cut` then resets the
    connection instead of ending the body; `hang` leaves it open. `head` is the status line and
    headers as they stand, if given.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    pieces: Sequence[bytes] = ()
    delay_s: float = 0.0
    gap_s: float = 0.0
    cut: bool = False
    hang: bool = False
    raw: bytes | None = None


def json_reply(body: Any, status: int = 200, **headers: str) -> Reply:
    """A whole JSON answer."""
    shown = {"content-type": "application/json"}
    shown |= {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, shown, [json.dumps(body).encode()])


class Fake:
    """One fake provider.

    Attributes:
        said: what it says when nothing is queued.
        replies: queued; the first is used up by the next chat. A Reply in `always` is used by
            every chat after them.
        seen: requests so far, lists of models left out.
        models: what it lists.
    """

    def __init__(self, wire: str) -> None:
        self.wire = wire
        self.said = Said()
        self.replies: list[Reply | Callable[[Seen], Reply]] = []
        self.always: Reply | None = None
        self.seen: list[Seen] = []
        self.models = ["small", "large"]
        self.url = ""
        self.open = 0  # connections now
        self.most_open = 0
        self.under_way = 0  # chats now
        self.most_under_way = 0

    async def script(self, _: Daemon, peer: Peer) -> None:
        """Serves one connection."""
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        try:
            while True:
                seen = read_seen(await peer.read_request())
                if seen.method == "GET":
                    await send(peer, self.list_models(seen))
                    continue
                self.seen.append(seen)
                self.under_way += 1
                self.most_under_way = max(self.under_way, self.most_under_way)
                try:
                    await send(peer, self.choose(seen))
                finally:
                    self.under_way -= 1
        finally:
            self.open -= 1

    def choose(self, seen: Seen) -> Reply:
        """The reply to a chat."""
        if self.replies:
            reply = self.replies.pop(0)
            return reply(seen) if callable(reply) else reply
        if self.always is not None:
            return self.always
        return speak(self.wire_of(seen), seen, self.said)

    def wire_of(self, seen: Seen) -> str:
        """The wire that a path belongs to: some providers speak several."""
        for ending, wire in (
            ("/chat/completions", "chat"),
            ("/messages", "messages"),
            ("/responses", "responses"),
            ("/api/chat", "ollama"),
        ):
            if seen.path.endswith(ending):
                return wire
        assert "enerateContent" in seen.path, seen.path
        return "gemini"

    def list_models(self, seen: Seen) -> Reply:
        """The list of models."""
        if seen.path.endswith("/api/tags"):
            return json_reply({"models": [{"name": m, "model": m} for m in self.models]})
        return json_reply({"object": "list", "data": [{"id": m} for m in self.models]})


def read_seen(raw: bytes) -> Seen:
    """A request taken apart."""
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)}
    return Seen(method, path, headers, json.loads(body) if body else None)


async def send(peer: Peer, reply: Reply) -> None:
    """Sends a reply; raises ConnectionError where the connection ends with it."""
    if reply.delay_s:
        await wait_or_leave(peer, reply.delay_s)
    if reply.raw is not None:
        await peer.write(reply.raw)
        raise ConnectionError
    headers = {**reply.headers, "transfer-encoding": "chunked"}
    lines = [f"HTTP/1.1 {reply.status} X", *(f"{n}: {v}" for n, v in headers.items())]
    await peer.write("\r\n".join([*lines, "", ""]).encode())
    for number, piece in enumerate(reply.pieces):
        if number and reply.gap_s:
            await wait_or_leave(peer, reply.gap_s)
        await peer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
    if reply.hang:
        await wait_or_leave(peer, 3600)
    if reply.cut:
        peer.writer.transport.abort()
        raise ConnectionError
    await peer.write(b"0\r\n\r\n")


async def wait_or_leave(peer: Peer, seconds: float) -> None:
    """Waits; raises at once when the other side leaves."""
    try:
        async with asyncio.timeout(seconds):
            if not await peer.reader.read(1):
                raise ConnectionError
            raise AssertionError("bytes in the middle of an answer")
    except TimeoutError:
        return


@asynccontextmanager
async def fake(wire: str) -> AsyncGenerator[Fake]:
    """A running fake."""
    made = Fake(wire)
    async with scripted(made.script) as daemon:
        made.url = f"http://127.0.0.1:{daemon.port}"
        yield made


Speak = Callable[[Seen, Said], Reply]
Script = Callable[[Daemon, Peer], Awaitable[None]]


def speak(wire: str, seen: Seen, said: Said) -> Reply:
    """What is said, in the wire's form: whole or streamed as was asked."""
    return _WIRES[wire](seen, said)


def sse(events: Sequence[Any], *, named: bool = False, done: bool = False) -> Reply:
    """Server-sent events, one a piece."""
    pieces = []
    for event in events:
        name = f"event: {event['type']}\n" if named else ""
        pieces.append(f"{name}data: {json.dumps(event)}\n\n".encode())
    if done:
        pieces.append(b"data: [DONE]\n\n")
    return Reply(200, {"content-type": "text/event-stream"}, pieces)


def speak_chat(seen: Seen, said: Said) -> Reply:
    usage = {
        "prompt_tokens": said.input,
        "completion_tokens": said.output,
        "total_tokens": said.input + said.output,
        "prompt_tokens_details": {"cached_tokens": said.cached},
    }
    calls = [
        {
            "index": i,
            "id": id,
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for i, (id, name, arguments) in enumerate(said.calls)
    ]
    head = {"id": "x1", "created": 5, "model": seen.body["model"]}
    if not seen.body.get("stream"):
        message: dict[str, Any] = {"role": "assistant", "content": said.text}
        if said.reasoning:
            message["reasoning_content"] = said.reasoning
        if calls:
            message |= {"content": None, "tool_calls": calls}
        choice = {"index": 0, "message": message, "finish_reason": said.reason}
        body = {**head, "object": "chat.completion", "choices": [choice]}
        return json_reply({**body, "usage": usage} if said.usage else body)

    def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

    events = [chunk({"role": "assistant", "content": ""})]
    if said.reasoning:
        events.append(chunk({"reasoning_content": said.reasoning}))
    if calls:
        for call in calls:
            # The name first, then the arguments in two halves without id.
            arguments = call["function"]["arguments"]
            half = len(arguments) // 2
            first = {**call, "function": {"name": call["function"]["name"], "arguments": ""}}
            events.append(chunk({"tool_calls": [first]}))
            for part in (arguments[:half], arguments[half:]):
                more = {"index": call["index"], "function": {"arguments": part}}
                events.append(chunk({"tool_calls": [more]}))
    else:
        events += [chunk({"content": piece}) for piece in said.pieces]
    events.append(chunk({}, said.reason))
    if said.usage and (seen.body.get("stream_options") or {}).get("include_usage"):
        events.append({**head, "choices": [], "usage": usage})
    return sse(events, done=True)


def speak_ollama(seen: Seen, said: Said) -> Reply:
    calls = [{"function": {"name": n, "arguments": a}} for _, n, a in said.calls]
    head = {"model": seen.body["model"], "created_at": "2026-01-01T00:00:00Z"}
    reason = "length" if said.reason == "length" else "stop"
    end: dict[str, Any] = {"done": True, "done_reason": reason}
    if said.usage:
        end |= {"prompt_eval_count": said.input, "eval_count": said.output}
    message: dict[str, Any] = {"role": "assistant", "content": "" if calls else said.text}
    if said.reasoning:
        message["thinking"] = said.reasoning
    if calls:
        message["tool_calls"] = calls
    if seen.body.get("stream") is False:
        return json_reply({**head, "message": message, **end})
    lines: list[dict[str, Any]] = []

    def line(**fields: Any) -> None:
        whole = {"role": "assistant", "content": "", **fields}
        lines.append({**head, "message": whole, "done": False})

    if said.reasoning:
        line(thinking=said.reasoning)
    for call in calls:
        line(tool_calls=[call])
    if not calls:
        for piece in said.pieces:
            line(content=piece)
    lines.append({**head, "message": {"role": "assistant", "content": ""}, **end})
    pieces = [json.dumps(each).encode() + b"\n" for each in lines]
    return Reply(200, {"content-type": "application/x-ndjson"}, pieces)


_ANTHROPIC = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


def speak_messages(seen: Seen, said: Said) -> Reply:
    reason = _ANTHROPIC[said.reason]
    read = {"input_tokens": said.input - said.cached, "cache_read_input_tokens": said.cached}
    blocks: list[dict[str, Any]] = []
    if said.reasoning:
        blocks.append({"type": "thinking", "thinking": said.reasoning, "signature": "sealed"})
    if not said.calls:
        blocks.append({"type": "text", "text": said.text})
    blocks += [{"type": "tool_use", "id": i, "name": n, "input": a} for i, n, a in said.calls]
    head = {"id": "m1", "type": "message", "role": "assistant", "model": seen.body["model"]}
    if not seen.body.get("stream"):
        end = {"stop_reason": reason, "stop_sequence": None}
        usage = {**read, "output_tokens": said.output} if said.usage else {}
        return json_reply({**head, "content": blocks, **end, "usage": usage})
    usage = {**read, "output_tokens": 1} if said.usage else {}
    message = {**head, "content": [], "stop_reason": None, "usage": usage}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": message}, {"type": "ping"}]
    for index, block in enumerate(blocks):
        kind = block["type"]
        if kind == "text":
            empty: dict[str, Any] = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in said.pieces]
        elif kind == "thinking":
            empty = {"type": "thinking", "thinking": "", "signature": ""}
            deltas = [
                {"type": "thinking_delta", "thinking": block["thinking"]},
                {"type": "signature_delta", "signature": "sealed"},
            ]
        else:
            empty = {**block, "input": {}}
            given = json.dumps(block["input"])
            half = len(given) // 2
            deltas = [
                {"type": "input_json_delta", "partial_json": part}
                for part in ("", given[:half], given[half:])
            ]
        events.append({"type": "content_block_start", "index": index, "content_block": empty})
        events += [{"type": "content_block_delta", "index": index, "delta": d} for d in deltas]
        events.append({"type": "content_block_stop", "index": index})
    delta = {"stop_reason": reason, "stop_sequence": None}
    told = {"output_tokens": said.output} if said.usage else {}
    events.append({"type": "message_delta", "delta": delta, "usage": told})
    events.append({"type": "message_stop"})
    return sse(events, named=True)


def speak_responses(seen: Seen, said: Said) -> Reply:
    output: list[dict[str, Any]] = []
    if said.reasoning:
        summary = [{"type": "summary_text", "text": said.reasoning}]
        output.append({"type": "reasoning", "id": "rs1", "summary": summary})
    if not said.calls:
        part = {"type": "output_text", "text": said.text, "annotations": []}
        output.append({"type": "message", "id": "m1", "role": "assistant", "content": [part]})
    output += [
        {
            "type": "function_call",
            "id": f"fc{i}",
            "call_id": i,
            "name": n,
            "arguments": json.dumps(a),
        }
        for i, n, a in said.calls
    ]
    short = said.reason in ("length", "content_filter")
    whole: dict[str, Any] = {
        "id": "r1",
        "object": "response",
        "status": "incomplete" if short else "completed",
        "model": seen.body["model"],
        "output": output,
    }
    if short:
        why = "max_output_tokens" if said.reason == "length" else "content_filter"
        whole["incomplete_details"] = {"reason": why}
    if said.usage:
        whole["usage"] = {
            "input_tokens": said.input,
            "input_tokens_details": {"cached_tokens": said.cached},
            "output_tokens": said.output,
        }
    if not seen.body.get("stream"):
        return json_reply(whole)
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {**whole, "status": "in_progress", "output": []}}
    ]
    for index, item in enumerate(output):
        at = {"output_index": index}
        bare = {**item, "arguments": ""} if item["type"] == "function_call" else item
        events.append({"type": "response.output_item.added", "item": bare, **at})
        if item["type"] == "message":
            events += [
                {"type": "response.output_text.delta", "delta": piece, **at}
                for piece in said.pieces
            ]
        elif item["type"] == "reasoning":
            kind = "response.reasoning_summary_text.delta"
            events.append({"type": kind, "delta": said.reasoning, **at})
        else:
            kind = "response.function_call_arguments.delta"
            events.append({"type": kind, "delta": item["arguments"], **at})
        events.append({"type": "response.output_item.done", "item": item, **at})
    events.append({"type": f"response.{whole['status']}", "response": whole})
    return sse(events, named=True)


_GEMINI = {"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP", "content_filter": "SAFETY"}


def speak_gemini(seen: Seen, said: Said) -> Reply:
    usage = {
        "promptTokenCount": said.input,
        "candidatesTokenCount": said.output,
        "cachedContentTokenCount": said.cached,
    }
    thought = [{"text": said.reasoning, "thought": True}] if said.reasoning else []
    calls = [{"functionCall": {"name": n, "args": a}} for _, n, a in said.calls]
    texts = [] if calls else [{"text": piece} for piece in said.pieces]

    def partial(parts: list[dict[str, Any]], reason: str | None = None) -> dict[str, Any]:
        candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
        if reason:
            candidate["finishReason"] = reason
        body: dict[str, Any] = {"candidates": [candidate]}
        return {**body, "usageMetadata": usage} if said.usage and reason else body

    reason = _GEMINI[said.reason]
    if "streamGenerateContent" not in seen.path:
        return json_reply(partial([*thought, *texts, *calls], reason))
    parts = [*thought, *texts, *calls]
    return sse([*(partial([part]) for part in parts), partial([], reason)])


_WIRES: dict[str, Speak] = {
    "chat": speak_chat,
    "ollama": speak_ollama,
    "messages": speak_messages,
    "responses": speak_responses,
    "gemini": speak_gemini,
}
