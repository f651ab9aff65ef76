"""Verbs over tables: ingest, tables, sql."""

from __future__ import annotations

import asyncio
import csv
import os
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import anyio
import orjson
import typer
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from scripts.lake.names import complete_table
from scripts.lake.progress import show_bytes, show_stages
from scripts.lake.target import Target, make
from shared.errors import Invalid, LakehouseError
from shared.wire.ingestd import IngestResult
from shared.wire.queryd import SqlRequest, SqlResult, TableInfo

PIECE = 1024 * 1024
# Rows on a screen, unless asked otherwise.
SCREEN_ROWS = 50
SCREEN_FILES = 20
_UNNAMEABLE = re.compile(r"[^a-z0-9_]+")


async def ingest(
    target: Target,
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="The file, or several; - for standard input."),
    ],
    dataset: Annotated[
        str,
        typer.Option(
            "--dataset",
            "-d",
            help="Its name; the file's otherwise. Several files need one.",
            autocompletion=complete_table,
        ),
    ] = "",
    mode: Annotated[
        Literal["append", "replace", "upsert"],
        typer.Option(help="Add the rows, or put them in place of all others, or of their keys'."),
    ] = "append",
    key: Annotated[
        str, typer.Option(help="For upsert: the columns that tell rows apart, by commas.")
    ] = "",
    contract: Annotated[
        Literal["freeze", "evolve", "discard_row", "discard_value"],
        typer.Option(help="What becomes of columns and values that do not go with the dataset."),
    ] = "freeze",
    form: Annotated[
        Literal["auto", "csv", "jsonl", "parquet"],
        typer.Option("--format", "-f", help="What the file is, where it does not show."),
    ] = "auto",
    delimiter: Annotated[str, typer.Option(help="Between fields; found out otherwise.")] = "",
    header: Annotated[
        Literal["auto", "true", "false"], typer.Option(help="Whether the first line names columns.")
    ] = "auto",
    encoding: Annotated[str, typer.Option(help="Of the text; found out otherwise.")] = "",
) -> int:
    """Make a file a table, or add it to one: CSV, JSON lines, Parquet, also as .gz or .zst.

    Several files are one ingest: all of them in one commit, or none; with contract=evolve the
    table gets the columns of all. Sent twice, it is taken once.
    """
    if len(files) > 1 and not dataset:
        raise Invalid("Name the dataset that the files are to be with --dataset.")
    name = dataset or name_dataset(files[0])
    options = {
        "key": key,
        "delimiter": delimiter,
        "encoding": encoding,
        "header": header,
        "format": form,
    }
    given = {key: value for key, value in options.items() if value and value != "auto"}
    sizes = [_measure_source(file) for file in files]
    total = None if None in sizes else sum(size or 0 for size in sizes)
    with show_bytes(target) as progress:
        what = escape(Path(files[0]).name) if len(files) == 1 else f"{len(files)} files"
        task = progress.add_task(f"sending {what}", total=total)

        def tell_sent(sent: int) -> None:
            progress.update(task, advance=sent)

        named = [(Path(file).name, _read_pieces(file, tell_sent)) for file in files]
        pieces = named[0][1] if len(named) == 1 else named
        async with target.gateway() as gateway:
            # Sent is not stored: what comes after the last byte is a job, which is followed.
            begun = await gateway.ingest.start(name, pieces, mode=mode, contract=contract, **given)
            job = begun
            tell = show_stages(progress, task)
            try:
                async for job in gateway.ingest.watch_job(begun.job_id):
                    tell(job.progress)
            except asyncio.CancelledError:
                # Whoever breaks off does not want it any more.
                with anyio.CancelScope(shield=True), suppress(LakehouseError):
                    await gateway.ingest.cancel_job(begun.job_id)
                raise
    # Here: help and completion do without the clients, which take a while to load.
    from shared.clients.ingestd import result_of

    result = result_of(job)
    target.show(result, lambda: _tell_ingest(result))
    return 0


def name_dataset(file: str) -> str:
    """A dataset's name made of a file's.

    Raises:
        Invalid: there is nothing to make one of.
    """
    stem = Path(file).name.partition(".")[0].lower()
    name = _UNNAMEABLE.sub("_", stem).strip("_")[:63]
    if file == "-" or not name or not name[0].isalpha():
        raise Invalid("Name the dataset with --dataset: letters, digits and _, a letter first.")
    return name


def _measure_source(file: str) -> int | None:
    """A file's bytes, None where only its end will tell.

    Raises:
        Invalid: it cannot be read.
    """
    if file == "-":
        return None
    try:
        with _open_source(file) as source:
            return os.fstat(source.fileno()).st_size
    except OSError as error:
        raise Invalid(f"{file} cannot be read: {error.strerror}.") from None


def _open_source(file: str) -> BinaryIO:
    return sys.stdin.buffer if file == "-" else Path(file).open("rb")


async def _read_pieces(file: str, told: Callable[[int], None]) -> AsyncIterator[bytes]:
    # Not before it is sent: there may be more files than a process may hold open.
    with _open_source(file) as source:
        while piece := await anyio.to_thread.run_sync(source.read, PIECE):
            yield piece
            told(len(piece))


def _tell_ingest(result: IngestResult) -> str:
    lines = [
        f"[bold]{result.dataset}[/]: {result.rows_out:,} of {result.rows_in:,} rows"
        + (" were there already; nothing was written" if result.duplicate else " stored")
    ]
    if result.updated is not None and not result.duplicate:
        lines.append(f"{result.updated:,} took others' place, {result.inserted:,} are new")
    if result.files and not result.duplicate:
        lines += [
            f"  {escape(one.name)}: {one.rows_out:,} of {one.rows_in:,} rows"
            for one in result.files[:SCREEN_FILES]
        ]
        if len(result.files) > SCREEN_FILES:
            lines.append(f"  and {len(result.files) - SCREEN_FILES:,} files more")
    if result.rejects.count:
        lines.append(
            f"[yellow]{result.rejects.count:,} rejected[/], each with its line and reason in "
            f"{result.rejects.object}"
        )
    lines += [f"[yellow]warning:[/] {escape(warning)}" for warning in result.warnings]
    columns = ", ".join(f"{column.name} {column.type}" for column in result.columns)
    lines.append(f"[dim]{escape(columns)}[/]")
    return "\n".join(lines)


async def tables(
    target: Target,
    name: Annotated[
        str, typer.Argument(help="One of them, to see it whole.", autocompletion=complete_table)
    ] = "",
) -> int:
    """List the tables, or show one: columns, size, a few rows."""
    async with target.gateway() as gateway:
        if name:
            one = await gateway.query.get_table(name)
            target.show(one, lambda: _draw_table_info(one))
        else:
            found = await gateway.catalog.list_datasets()
            target.show({"datasets": found}, lambda: _draw_datasets(found))
    return 0


def _draw_datasets(found: list[Any]) -> Table | str:
    if not found:
        return "There are no tables yet. Make one: lakehouse ingest FILE.csv"
    table = Table(box=None, pad_edge=False)
    for title, justify in (("table", "left"), ("rows", "right"), ("columns", "right")):
        table.add_column(title, justify=justify)  # type: ignore[arg-type]
    table.add_column("size", justify="right")
    table.add_column("changed")
    for each in found:
        size = f"{each.bytes / 1e6:,.1f} MB"
        table.add_row(
            each.name, f"{each.rows:,}", str(len(each.columns)), size, each.updated_at[:19]
        )
    return table


def _draw_table_info(one: TableInfo) -> Group:
    title = f"{one.name}: {one.rows:,} rows, snapshot {one.snapshot_id}"
    headings = [f"{escape(column.name)}\n[dim]{escape(column.type)}[/]" for column in one.columns]
    return Group(Text(title, style="bold"), draw_rows(headings, one.sample))


async def sql(
    target: Target,
    statement: Annotated[str, typer.Argument(help="One SELECT; - reads it from standard input.")],
    param: Annotated[
        list[str],
        typer.Option("--param", "-p", help="A value for ? or $1, as JSON or plain text."),
    ] = [],  # noqa: B006 # typer reads the default; nobody changes it
    max_rows: Annotated[
        int | None, typer.Option("--max-rows", "-n", help="Most rows.", min=0, show_default=False)
    ] = None,
    as_of: Annotated[
        str, typer.Option(help="The tables as they were: a snapshot id or a time.")
    ] = "",
    timeout: Annotated[
        float | None, typer.Option(help="Seconds it may take.", min=0.001, show_default=False)
    ] = None,
    form: Annotated[
        Literal["table", "csv", "ndjson", "arrow"],
        typer.Option("--format", "-f", help="How rows are written; ndjson and arrow stream."),
    ] = "table",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A file for them.", show_default=False)
    ] = None,
) -> int:
    """Ask the tables in SQL."""
    text = sys.stdin.read() if statement == "-" else statement
    if target.as_json and (form != "table" or out is not None):
        raise Invalid("--json is a form of its own, on standard output: leave out --format, --out.")
    if form == "table" and out is not None:
        raise Invalid("A table is for the screen. Choose --format csv, ndjson or arrow for a file.")
    screen = form == "table" and not target.as_json
    request = make(
        SqlRequest,
        sql=text,
        params=[read_value(each) for each in param],
        max_rows=SCREEN_ROWS if screen and max_rows is None else max_rows,
        as_of=as_of or None,
        timeout_s=timeout,
    )
    async with target.gateway() as gateway:
        if form in ("ndjson", "arrow"):
            await _stream_rows(gateway, request, form, out)
            return 0
        answer = await gateway.query.run_query(request)
    if form == "csv":
        _write_csv(answer, out)
        if answer.truncated:
            target.log.print("[yellow]There are more rows than these: ask with --max-rows.[/]")
    else:
        target.show(answer, lambda: _draw_answer(answer))
    return 0


def read_value(text: str) -> Any:
    """A parameter: JSON where it is, plain text otherwise."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


async def _stream_rows(gateway: Any, request: SqlRequest, form: str, out: Path | None) -> None:
    with _open_out(out) as sink:
        if form == "arrow":
            async with gateway.query.stream_arrow(request) as pieces:
                async for piece in pieces:
                    sink.write(piece)
        else:
            async with gateway.query.stream_rows(request) as rows:
                async for row in rows:
                    sink.write(orjson.dumps(row) + b"\n")
        sink.flush()


def _open_out(out: Path | None) -> Any:
    if out is None:
        return nullcontext(sys.stdout.buffer)  # not ours to close
    try:
        return out.open("wb")
    except OSError as error:
        raise Invalid(f"{out} cannot be written: {error.strerror}.") from None


def _write_csv(answer: SqlResult, out: Path | None) -> None:
    with _open_out(out) as sink:
        lines = _Lines(sink)
        writer = csv.writer(lines)
        writer.writerow([column.name for column in answer.columns])
        for row in answer.rows:
            writer.writerow([_as_text(value) for value in row])


class _Lines:
    """What csv writes to: text that becomes bytes."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink

    def write(self, text: str) -> None:
        """A line."""
        self._sink.write(text.encode())


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return orjson.dumps(value).decode()


def _draw_answer(answer: SqlResult) -> Group:
    more = "; there are more: ask with --max-rows" if answer.truncated else ""
    rows = "1 row" if answer.row_count == 1 else f"{answer.row_count:,} rows"
    table = draw_rows([escape(column.name) for column in answer.columns], answer.rows)
    return Group(table, Text(f"{rows} in {answer.elapsed_ms:,.0f} ms{more}", style="dim"))


def draw_rows(titles: list[str], rows: list[list[Any]]) -> Table:
    """Rows of a table for the screen: numbers to the right, nothing told apart from empty."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for position, heading in enumerate(titles):
        numeric = bool(rows) and all(
            isinstance(row[position], int | float) or row[position] is None for row in rows
        )
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*("[dim]null[/]" if v is None else escape(_as_text(v)) for v in row))
    return table
