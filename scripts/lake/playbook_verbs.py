"""Verbs over the playbook: record what worked, see it, withdraw it."""

from __future__ import annotations

import secrets
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from scripts.lake.target import Target, make
from scripts.lake.verbs import verb
from shared.errors import Invalid
from shared.wire.matrixd_playbook import RatedDocument, RecordRequest, RetireRequest

playbook = typer.Typer(
    name="playbook", help="Record what worked for a search, so that it is found next time.",
    no_args_is_help=True,
)  # fmt: skip


async def record(
    target: Target,
    query: Annotated[str, typer.Argument(help="The query that was searched.")],
    good: Annotated[
        list[str], typer.Option("--good", "-g", help="A document that answered it: CORPUS/ID.")
    ] = [],  # noqa: B006 # typer reads the default; nobody changes it
    bad: Annotated[
        list[str], typer.Option("--bad", "-b", help="One that looked right and was wrong.")
    ] = [],  # noqa: B006
    source: Annotated[str, typer.Option(help="Who judged.")] = "human",
    run_id: Annotated[str, typer.Option(help="The run that it belongs to.")] = "",
) -> int:
    """Record which documents worked or failed for a query."""
    if not good and not bad:
        raise Invalid("Name at least one document with --good or --bad, as CORPUS/ID.")
    ratings = [read_document(each, 1) for each in good] + [read_document(each, -1) for each in bad]
    request = make(
        RecordRequest, query=query, ratings=ratings, source=source, run_id=run_id or None
    )
    async with target.gateway() as gateway:
        recorded = await gateway.matrix.record(request, key=secrets.token_hex(16))
    target.show(recorded, lambda: f"Recorded as [bold]{recorded.episode_id}[/].")
    return 0


def read_document(text: str, rating: int) -> RatedDocument:
    """A rated document of `CORPUS/ID`.

    Raises:
        Invalid: it is not written so.
    """
    corpus, slash, identifier = text.partition("/")
    if not slash or not corpus or not identifier:
        raise Invalid(f"{text!r} is no document: write CORPUS/ID, as lakehouse search shows it.")
    return make(RatedDocument, corpus=corpus, id=identifier, rating=rating)


async def list_all(
    target: Target,
    limit: Annotated[int, typer.Option(help="Most episodes.", min=1, max=1000)] = 20,
) -> int:
    """List what was recorded, newest first."""
    async with target.gateway() as gateway:
        found = await gateway.matrix.list_episodes(limit)

    def human() -> Table | str:
        if not found.episodes:
            return "Nothing has been recorded yet. See: lakehouse playbook record --help"
        table = Table(box=None, pad_edge=False)
        table.add_column("episode", no_wrap=True)
        for title in ("query", "good", "bad", "source", ""):
            table.add_column(title, overflow="fold")
        for each in found.episodes:
            rated = {sign: [r for r in each.ratings if r.rating == sign] for sign in (1, -1)}
            table.add_row(
                each.episode_id,
                escape(each.query),
                *(escape(", ".join(f"{r.corpus}/{r.id}" for r in rated[s])) for s in (1, -1)),
                escape(each.source),
                "retired" if each.retired_at else "",
            )
        return table

    target.show(found, human)
    return 0


async def retire(
    target: Target,
    episodes: Annotated[list[str], typer.Argument(help="Episodes to withdraw.")],
    reason: Annotated[str, typer.Option(help="Why.")] = "",
) -> int:
    """Withdraw episodes; searches are then as if they had never been recorded."""
    async with target.gateway() as gateway:
        done = await gateway.matrix.retire(make(RetireRequest, episode_ids=episodes, reason=reason))
    target.show(done, lambda: f"{done.retired} withdrawn, {done.already} were already.")
    return 0


for title, body in (("record", record), ("list", list_all), ("retire", retire)):
    playbook.command(title)(verb(body))
