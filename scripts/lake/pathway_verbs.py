"""Verbs over the pathway memory: what was tried, and how it went."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import orjson
import typer
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from scripts.lake.target import Target, make
from scripts.lake.verbs import verb
from shared.errors import Invalid
from shared.wire.pathwayd import PathwaySearch, Trace, TraceAdd, TraceRevise, TraceUpdate

pathway = typer.Typer(
    name="pathway", help="The memory of what was tried and how it went.", no_args_is_help=True
)
Content = Annotated[
    str, typer.Argument(help="What to keep: JSON, plain text, or - for standard input.")
]
TraceId = Annotated[str, typer.Argument(help="The trace's id.", metavar="ID")]
Tags = Annotated[list[str], typer.Option("--tag", "-t", help="A tag; may be given again.")]


def read_content(text: str) -> Any:
    """The content that was given: JSON as it is, anything else as a text.

    Raises:
        Invalid: there is none.
    """
    given = sys.stdin.read() if text == "-" else text
    if not given.strip():
        raise Invalid("There is nothing to keep: give JSON or a text.")
    try:
        return orjson.loads(given)
    except orjson.JSONDecodeError:
        return given.strip()


async def add(
    target: Target,
    content: Content,
    tag: Tags = [],  # noqa: B006 # typer reads the default; nobody changes it
    again: Annotated[
        bool, typer.Option("--again", help="Also when a live trace holds the same.")
    ] = False,
) -> int:
    """Add a trace. The same content is kept once, unless --again."""
    trace = make(TraceAdd, content=read_content(content), tags=tag, dedupe=not again)
    async with target.gateway() as gateway:
        return _tell(target, await gateway.pathway.add(trace), "kept")


async def get(
    target: Target,
    trace: TraceId,
    version: Annotated[
        int | None, typer.Option(help="One of its versions.", min=1, show_default=False)
    ] = None,
) -> int:
    """Show a trace."""
    async with target.gateway() as gateway:
        found = await gateway.pathway.get(trace, version)
    target.show(found, lambda: _draw_trace(found))
    return 0


async def update(
    target: Target,
    trace: TraceId,
    content: Content,
    expected: Annotated[
        int | None,
        typer.Option(help="Refuse if it is not at this version.", min=1, show_default=False),
    ] = None,
) -> int:
    """Write a trace's next version."""
    change = make(TraceUpdate, content=read_content(content), expected_version=expected)
    async with target.gateway() as gateway:
        return _tell(target, await gateway.pathway.update(trace, change), "updated")


async def revise(target: Target, trace: TraceId, content: Content) -> int:
    """Add a trace that takes another's place."""
    change = make(TraceRevise, content=read_content(content))
    async with target.gateway() as gateway:
        return _tell(target, await gateway.pathway.revise(trace, change), f"supersedes {trace}")


async def retire(
    target: Target, trace: TraceId, reason: Annotated[str, typer.Option(help="Why.")] = ""
) -> int:
    """Retire a trace: searches never show it again, its history stays."""
    async with target.gateway() as gateway:
        return _tell(target, await gateway.pathway.retire(trace, reason or None), "retired")


async def history(
    target: Target,
    trace: TraceId,
    limit: Annotated[int, typer.Option(help="Most entries.", min=1, max=1000)] = 50,
) -> int:
    """Show a trace's past, newest first, through those that it superseded."""
    async with target.gateway() as gateway:
        found = await gateway.pathway.history(trace, limit)

    def human() -> Table:
        table = Table(box=None, pad_edge=False)
        for title in ("when", "what", "trace", "content"):
            table.add_column(title, overflow="fold")
        for entry in found.entries:
            what = f"{entry.event} (v{entry.version})"
            told = "lost" if entry.lost else _as_text(entry.content)
            table.add_row((entry.at or "")[:19], what, entry.id, escape(told))
        return table

    target.show(found, human)
    return 0


async def search(
    target: Target,
    query: Annotated[str, typer.Argument(help="What is looked for; without it, the newest.")] = "",
    k: Annotated[int, typer.Option("-k", help="Most traces.", min=1, max=1000)] = 10,
    tag: Annotated[str, typer.Option("--tag", "-t", help="Only with this tag.")] = "",
) -> int:
    """Search the memory by meaning and words."""
    # Without words and tag: whatever there is, which any condition that always holds lists.
    keep = {"tags": {"contains": tag}} if tag else None if query else {"version": {"gte": 1}}
    asked = make(PathwaySearch, query=query or None, k=k, filter=keep)
    async with target.gateway() as gateway:
        found = await gateway.pathway.search(asked)

    def human() -> RenderableType:
        if not found.hits:
            return "Nothing was found."
        table = Table(box=None, pad_edge=False)
        table.add_column("score", justify="right")
        table.add_column("trace", no_wrap=True)
        for title in ("tags", "content"):
            table.add_column(title, overflow="fold")
        for hit in found.hits:
            table.add_row(
                "" if found.mode == "filter" else f"{hit.score:.3f}",
                hit.id,
                escape(", ".join(hit.tags)),
                escape(_as_text(hit.content)),
            )
        if found.degraded:
            return Group(table, Text(f"Words alone were searched: {found.semantic.reason}"))
        return table

    target.show(found, human)
    return 0


async def stats(target: Target) -> int:
    """Say how much there is, and what the log has lost."""
    async with target.gateway() as gateway:
        found = await gateway.pathway.stats()

    def human() -> str:
        counts = f"{found.live:,} live, {found.superseded:,} superseded, {found.retired:,} retired"
        lost = found.log.missing if found.log else 0
        lines = [f"{counts}; {lost:,} records lost", *found.problems]
        return escape("\n".join(lines))

    target.show(found, human)
    return 0


def _tell(target: Target, trace: Trace, done: str) -> int:
    already = "; it was there already" if trace.duplicate else ""
    target.show(
        trace, lambda: f"[bold]{trace.id}[/] {escape(done)}, version {trace.version}{already}"
    )
    return 0


def _draw_trace(trace: Trace) -> str:
    tags = f", tags {', '.join(trace.tags)}" if trace.tags else ""
    head = f"{trace.id}: {trace.status}, version {trace.version}, {trace.updated_at[:19]}{tags}"
    content = orjson.dumps(trace.content, option=orjson.OPT_INDENT_2).decode()
    return f"[bold]{escape(head)}[/]\n{escape(content)}"


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


for body in (add, get, update, revise, retire, history, search, stats):
    pathway.command(body.__name__)(verb(body))
