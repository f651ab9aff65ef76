"""The command line: which verbs there are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scripts.lake.chat_verb import chat
from scripts.lake.corpus_verbs import corpus, search
from scripts.lake.data_verbs import ingest, sql, tables
from scripts.lake.fleet_verbs import doctor, down, lift, mcp, status, up
from scripts.lake.pathway_verbs import pathway
from scripts.lake.playbook_verbs import playbook
from scripts.lake.verbs import remember, verb
from shared.version import VERSION

app = typer.Typer(
    name="lakehouse",
    help="Tables, search, memory and models of a lakehouse, through its gateway.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 done, 1 refused, 2 wrong usage, 3 not reachable or broken, "
    "4 not allowed. Completion: lakehouse --install-completion",
)

FLEET, DATA, LEARNING = "This machine's fleet", "Data", "Search, memory, models"
for panel, bodies in (
    (FLEET, (up, down, status, doctor)),
    (DATA, (ingest, tables, sql)),
    (LEARNING, (search, chat, mcp)),
):
    for body in bodies:
        app.command(rich_help_panel=panel)(verb(body))
# What lift is told goes on to scripts/playbook_lift as it is.
app.command(
    rich_help_panel=LEARNING,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)(lift)
for group in (corpus, playbook, pathway):
    app.add_typer(group, rich_help_panel=LEARNING)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lakehouse {VERSION}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Say which it is."),
    ] = False,
    gateway: Annotated[str, typer.Option(help="As after the verb.", hidden=True)] = "",
    token: Annotated[str | None, typer.Option(help="As after the verb.", hidden=True)] = None,
    config: Annotated[Path | None, typer.Option(help="As after the verb.", hidden=True)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As after it.", hidden=True)] = False,
) -> None:
    """Tables, search, memory and models of a lakehouse, through its gateway."""
    remember(gateway, token, config, as_json)


def main() -> None:
    """Runs the command line."""
    app(prog_name="lakehouse")
