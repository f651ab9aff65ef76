"""chat: one question, or a conversation, its answers shown as they come."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scripts.lake.names import complete_tier
from scripts.lake.target import Target, write_json
from shared.errors import Invalid, LakehouseError

if TYPE_CHECKING:
    from shared.clients.gateway import Gateway

Messages = list[dict[str, Any]]


async def chat(
    target: Target,
    prompt: Annotated[
        str,
        typer.Argument(help="The question; - reads standard input. Without it, a conversation."),
    ] = "",
    model: Annotated[
        str,
        typer.Option("--model", "-m", help="A tier, or a model.", autocompletion=complete_tier),
    ] = "tier/local_fast",
    system: Annotated[str, typer.Option("--system", "-s", help="Instructions first.")] = "",
    max_tokens: Annotated[
        int | None, typer.Option(help="Most tokens of an answer.", min=1, show_default=False)
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="The model's own otherwise.", min=0, show_default=False)
    ] = None,
) -> int:
    """Ask a model; the answer streams."""
    asked = sys.stdin.read() if prompt == "-" or (not prompt and not sys.stdin.isatty()) else prompt
    messages: Messages = [{"role": "system", "content": system}] if system else []
    fields = {"max_tokens": max_tokens, "temperature": temperature}
    settings = {name: value for name, value in fields.items() if value is not None}
    async with target.gateway() as gateway:
        if asked.strip():
            messages.append({"role": "user", "content": asked})
            await _answer(target, gateway, model, messages, settings)
            return 0
        if not sys.stdin.isatty() or target.as_json:
            raise Invalid("There is no question: give it as an argument, or on standard input.")
        return await _converse(target, gateway, model, messages, settings)


async def _converse(
    target: Target, gateway: Gateway, model: str, messages: Messages, settings: dict[str, Any]
) -> int:
    target.log.print(f"[dim]{target.url}, {model}. An empty line or Ctrl-D ends it.[/]")
    while True:
        try:
            asked = _read_line().strip()
        except EOFError:
            return 0
        if not asked:
            return 0
        turn = [*messages, {"role": "user", "content": asked}]
        try:
            said = await _answer(target, gateway, model, turn, settings)
        except LakehouseError as error:
            # One answer that failed does not end a conversation.
            target.fail(error)
        else:
            messages[:] = [*turn, {"role": "assistant", "content": said}]


def _read_line() -> str:
    # The loop's own handler would only note Ctrl-C, and go on waiting for the line.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return input("> ")
    finally:
        signal.signal(signal.SIGINT, before)


async def _answer(
    target: Target, gateway: Gateway, model: str, messages: Messages, settings: dict[str, Any]
) -> str:
    """Shows an answer as it comes; gives all of it."""
    if target.as_json:
        whole = await gateway.chat.chat(model, messages, **settings)
        write_json(whole)
        return whole.content
    said: list[str] = []
    thinking = False
    async for event in gateway.chat.read_events(model, messages, **settings):
        if event["type"] == "text":
            if thinking:
                target.log.print()
                thinking = False
            said.append(event["text"])
            # As it is: neither markup nor wrapping may change what a model said.
            sys.stdout.write(event["text"])
            sys.stdout.flush()
        elif event["type"] == "reasoning" and target.log.is_terminal:
            thinking = True
            target.log.print(event["text"], end="", markup=False, style="dim", soft_wrap=True)
        elif event["type"] == "done":
            sys.stdout.write("\n")
            sys.stdout.flush()
            if target.log.is_terminal:
                target.log.print(_tell_usage(event), style="dim", markup=False)
    return "".join(said)


def _tell_usage(done: dict[str, Any]) -> str:
    usage = done["usage"]
    cost = usage.get("cost_usd")
    told = f"{done['model']}, {usage['prompt_tokens']} + {usage['completion_tokens']} tokens"
    if cost:
        told += f", ${cost:.4f}"
    if done["finish_reason"] == "length":
        told += "; cut at --max-tokens"
    return told
