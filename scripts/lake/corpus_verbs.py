"""Verbs over corpora: corpus build and its neighbours, and search."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from scripts.lake.names import complete_corpus, complete_table
from scripts.lake.progress import show_items
from scripts.lake.target import REFUSED, Target, make
from scripts.lake.verbs import verb
from shared.errors import Invalid
from shared.wire.matrixd import Chunking, CorpusInfo, CorpusSpec, MatrixAnswer, MatrixSearch, Source

if TYPE_CHECKING:
    from shared.clients.gateway import Gateway

# How often a build is looked at. Seconds.
POLL_S = 0.3

Name = Annotated[str, typer.Argument(help="Its name.", autocompletion=complete_corpus)]
corpus = typer.Typer(name="corpus", help="Make and keep corpora for search.", no_args_is_help=True)


async def build(
    target: Target,
    name: Annotated[str, typer.Argument(help="A name for it.")],
    text: Annotated[
        str, typer.Option(help="What is searched: a column, or a template as '{role} in {city}'.")
    ],
    id: Annotated[str, typer.Option(help="The column, or template, that identifies a row.")],
    dataset: Annotated[
        str, typer.Option("--dataset", "-d", help="Rows of a table…", autocompletion=complete_table)
    ] = "",
    sql: Annotated[str, typer.Option(help="…or of a SELECT…")] = "",
    objects: Annotated[str, typer.Option(help="…or objects under this prefix.")] = "",
    metadata: Annotated[
        str, typer.Option("--metadata", "-m", help="Columns to filter by, with commas.")
    ] = "",
    words: Annotated[
        int | None,
        typer.Option(help="Cut longer texts into pieces of so many words.", show_default=False),
    ] = None,
    refresh_on_ingest: Annotated[
        bool, typer.Option("--follow", help="Keep it up to date with its table.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Change it where another has this name.")
    ] = False,
    wait: Annotated[bool, typer.Option(help="Wait until it is built.")] = True,
) -> int:
    """Build a corpus from a table, a SELECT or objects, and show how far it is."""
    given = {"dataset": dataset, "sql": sql, "objects": objects}
    sources = {key: value for key, value in given.items() if value}
    if len(sources) != 1:
        raise Invalid("Give exactly one of --dataset, --sql and --objects.")
    spec = make(
        CorpusSpec,
        name=name,
        source=make(Source, **sources),
        id=id,
        text=text,
        metadata=[column.strip() for column in metadata.split(",") if column.strip()],
        chunking=None if words is None else cut_into(words),
        refresh="on_ingest" if refresh_on_ingest else "manual",
    )
    async with target.gateway() as gateway:
        info = await gateway.matrix.create_corpus(spec, wait_s=0, replace=replace)
        if wait:
            info = await _follow(target, gateway, info)
    return _tell_corpus(target, info)


def cut_into(words: int) -> Chunking:
    """Pieces of so many words that share a few with their neighbours."""
    return make(Chunking, words=words, overlap=min(20, words // 4))


async def refresh(
    target: Target, name: Name, wait: Annotated[bool, typer.Option(help="Wait for it.")] = True
) -> int:
    """Bring a corpus up to date with its source."""
    async with target.gateway() as gateway:
        info = await gateway.matrix.refresh_corpus(name)
        if wait:
            info = await _follow(target, gateway, info)
    return _tell_corpus(target, info)


async def _follow(target: Target, gateway: Gateway, info: CorpusInfo) -> CorpusInfo:
    """Waits for a corpus's job, showing how far it is."""
    try:
        return await _watch(target, gateway, info)
    except asyncio.CancelledError:
        target.log.print("It goes on being built. How far it is: lakehouse corpus list")
        raise


async def _watch(target: Target, gateway: Gateway, info: CorpusInfo) -> CorpusInfo:
    with show_items(target) as progress:
        task = progress.add_task("reading", total=None)
        while info.job.status in ("running", "waiting"):
            job = info.job
            doing = f"waiting: {job.error}" if job.status == "waiting" else job.phase
            progress.update(
                task,
                description=escape(doing),
                completed=job.done if job.total else job.rows_read,
                total=job.total or None,
            )
            await asyncio.sleep(POLL_S)
            info = await gateway.matrix.get_corpus(info.name)
    return info


def _tell_corpus(target: Target, info: CorpusInfo) -> int:
    failed = info.job.status == "failed"

    def human() -> str:
        left = info.report.rows - info.report.documents
        lines = [f"[bold]{escape(info.name)}[/]: {info.documents:,} documents, {info.status}"]
        if info.job.status in ("running", "waiting"):
            lines.append(f"its job is {info.job.status}: {info.job.done:,} of {info.job.total:,}")
        if left and not failed:
            counts = info.report.model_dump(exclude={"rows", "documents", "examples"})
            why = ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
            lines.append(f"[yellow]{left:,} rows left out[/]: {why.replace('_', ' ')}")
        if failed:
            lines.append(f"[red]{escape(info.job.error or 'the build failed')}[/]")
        return "\n".join(lines)

    target.show(info, human)
    return REFUSED if failed else 0


async def list_all(target: Target) -> int:
    """List the corpora."""
    async with target.gateway() as gateway:
        found = await gateway.matrix.list_corpora()

    def human() -> Table | str:
        if not found.corpora:
            return "There are no corpora yet. Make one: lakehouse corpus build NAME --help"
        table = Table(box=None, pad_edge=False)
        table.add_column("corpus")
        table.add_column("documents", justify="right")
        table.add_column("status")
        table.add_column("text", overflow="fold")
        for each in found.corpora:
            table.add_row(
                each.name, f"{each.documents:,}", each.status, escape(each.text), style=None
            )
        return table

    target.show(found, human)
    return 0


async def delete(target: Target, name: Name) -> int:
    """Remove a corpus; its table stays."""
    async with target.gateway() as gateway:
        deleted = await gateway.matrix.delete_corpus(name)
    target.show(
        {"name": name, "deleted": deleted},
        lambda: f"{escape(name)} is gone." if deleted else f"There was no corpus {escape(name)}.",
    )
    return 0


for title, body in (("build", build), ("list", list_all), ("refresh", refresh), ("delete", delete)):
    corpus.command(title)(verb(body))


async def search(
    target: Target,
    query: Annotated[str, typer.Argument(help="What is looked for, in your own words.")],
    in_corpora: Annotated[
        list[str],
        typer.Option(
            "--corpus", "-c", help="Where; all corpora otherwise.", autocompletion=complete_corpus
        ),
    ] = [],  # noqa: B006 # typer reads the default; nobody changes it
    k: Annotated[int, typer.Option("-k", help="Most documents.", min=1, max=200)] = 10,
    where: Annotated[
        str, typer.Option("--filter", help="""As JSON: '{"city": {"eq": "Oslo"}}'.""")
    ] = "",
    use_playbook: Annotated[
        bool, typer.Option("--playbook/--no-playbook", help="Whether what worked before counts.")
    ] = True,
    explain: Annotated[bool, typer.Option("--explain", help="Say how scores came about.")] = False,
) -> int:
    """Search corpora by meaning and words."""
    filters: Any = None
    if where:
        try:
            filters = orjson.loads(where)
        except orjson.JSONDecodeError as error:
            raise Invalid(f"--filter is not JSON: {error}.") from None
        if not isinstance(filters, dict):
            raise Invalid("""--filter is an object, such as '{"city": {"eq": "Oslo"}}'.""")
    request = make(
        MatrixSearch,
        query=query,
        corpora=in_corpora or None,
        k=k,
        filters=filters,
        use_playbook=use_playbook,
        explain=explain,
    )
    async with target.gateway() as gateway:
        answer = await gateway.matrix.search(request)
    target.show(answer, lambda: _draw_hits(answer))
    return 0


def _draw_hits(answer: MatrixAnswer) -> Group:
    parts: list[Any] = []
    table = Table(box=None, pad_edge=False)
    table.add_column("", justify="right")
    table.add_column("score", justify="right")
    table.add_column("document")
    table.add_column("text", overflow="fold")
    for hit in answer.hits:
        text = escape(" ".join((hit.text or "").split()))
        if hit.explain:
            text += f"\n[dim]{escape(orjson.dumps(hit.explain).decode())}[/]"
        table.add_row(str(hit.rank), f"{hit.score:.3f}", escape(f"{hit.corpus}/{hit.id}"), text)
    parts.append(table if answer.hits else Text("Nothing was found."))
    for name, took in answer.corpora.items():
        if took.status != "ok":
            parts.append(Text(f"{name} took no part: {took.reason or took.status}", style="yellow"))
    if answer.playbook.activated:
        notes = len(answer.playbook.notes)
        parts.append(Text(f"The playbook took part with {notes} recorded episodes.", style="dim"))
    return Group(*parts)
