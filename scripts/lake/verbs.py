"""What makes a function a verb: the options that all have, one event loop, one way to fail."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import re
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from scripts.lake.target import INTERRUPTED, Target
from shared.config import ConfigError, load
from shared.daemons import ROOT
from shared.errors import LakehouseError, Upstream

WHERE = "Where and how"
GATEWAY = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[^\s/:?#@\[\]]+)(:\d{1,5})?(/[^\s?#]*)?")
# A verb gives its exit status, or None where all went well.
Body = Callable[..., Awaitable[int | None]]


def _common(
    gateway: Annotated[
        str,
        typer.Option(
            envvar="LAKEHOUSE_GATEWAY",
            help="The gateway's address; otherwise the configured one.",
            rich_help_panel=WHERE,
            show_default=False,
        ),
    ] = "",
    token: Annotated[
        str | None,
        typer.Option(
            envvar="LAKEHOUSE_TOKEN",
            help="The secret it asks for. Others see what stands on a command line.",
            rich_help_panel=WHERE,
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path,
        typer.Option(envvar="LAKEHOUSE_CONFIG", help="The TOML file.", rich_help_panel=WHERE),
    ] = ROOT / "config" / "lakehouse.toml",
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            envvar="LAKEHOUSE_JSON",
            help="One JSON document as the answer.",
            rich_help_panel=WHERE,
        ),
    ] = False,
) -> None:
    """The options of every verb."""


def remember(gateway: str, token: str | None, config: Path | None, as_json: bool) -> None:
    """Takes the common options from before the verb: verbs read them from the environment."""
    given = {
        "LAKEHOUSE_GATEWAY": gateway,
        "LAKEHOUSE_TOKEN": token,
        "LAKEHOUSE_CONFIG": str(config) if config else "",
        "LAKEHOUSE_JSON": "1" if as_json else "",
    }
    os.environ.update({name: value for name, value in given.items() if value})


def verb(body: Body) -> Callable[..., None]:
    """A typer command of an async function whose first parameter is its `Target`."""
    own = list(inspect.signature(body, eval_str=True).parameters.values())[1:]
    common = list(inspect.signature(_common, eval_str=True).parameters.values())

    @functools.wraps(body)
    def run(**given: Any) -> None:
        taken = {parameter.name: given.pop(parameter.name) for parameter in common}
        raise typer.Exit(perform(body, make_target(**taken), given))

    del run.__wrapped__
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*own, *common)]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def make_target(gateway: str, token: str | None, config: Path, as_json: bool) -> Target:
    """The target of the common options; ends the program where the configuration is wrong."""
    try:
        loaded = load(config, os.environ)
    except ConfigError as error:
        typer.echo(f"lakehouse: {error}", err=True)
        raise typer.Exit(2) from None
    if gateway and "://" not in gateway:
        gateway = f"http://{gateway}"
    if gateway and not GATEWAY.fullmatch(gateway):
        typer.echo(f"lakehouse: {gateway!r} is no address: write http://host:port.", err=True)
        raise typer.Exit(2)
    # The clients bring their libraries: help and completion do without.
    from shared.clients.gateway import at_gateway, is_own

    return Target(at_gateway(loaded, gateway, token), config, is_own(loaded, gateway), as_json)


def perform(body: Body, target: Target, given: Mapping[str, Any]) -> int:
    """Runs a verb; gives its exit status, whatever happened to it."""

    async def whole() -> int | None:
        return await body(target, **given)

    try:
        return asyncio.run(whole()) or 0
    except LakehouseError as error:
        return target.fail(error)
    except ValidationError as error:
        return target.fail(
            Upstream(
                f"{target.url} answered in a way that this version does not understand "
                f"({error.title}). Is it a lakehouse gateway of the same version?"
            )
        )
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our answer has had enough of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
