"""What a verb works on: which gateway, with which token, and for whom it speaks."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from rich.console import Console, RenderableType
from rich.markup import escape

from shared.config import Config
from shared.errors import Invalid, LakehouseError

if TYPE_CHECKING:
    from shared.clients.gateway import Gateway

# Exit statuses beside 0 and argparse's 2.
REFUSED, AWAY, DENIED, INTERRUPTED = 1, 3, 4, 130
PIPE_WIDTH = 160

M = TypeVar("M", bound=BaseModel)


@dataclass
class Target:
    """A gateway, and two consoles: answers go to one, all else to the other.

    Args:
        config: with the gateway's address and token put in.
        local: whether it is the gateway of this machine's own configuration.
        as_json: one JSON document on standard output, whatever happens.
        config_path: where the configuration was read from.
    """

    config: Config
    config_path: Path
    local: bool
    as_json: bool
    out: Console = field(default_factory=lambda: _make_console(sys.stdout.isatty()))
    log: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))

    @property
    def url(self) -> str:
        """The gateway's address."""
        return self.config.gateway.address

    @property
    def lively(self) -> bool:
        """Whether somebody watches who wants to see progress."""
        return self.log.is_terminal and not self.as_json

    @asynccontextmanager
    async def gateway(self) -> AsyncGenerator[Gateway]:
        """Clients of the gateway, closed in the end."""
        from shared.clients.gateway import Gateway

        gateway = Gateway(self.config)
        try:
            yield gateway
        finally:
            await gateway.aclose()

    def show(self, data: Any, human: Callable[[], RenderableType | None]) -> None:
        """Writes an answer: the data as JSON, or what `human` makes of it."""
        if self.as_json:
            write_json(data)
        elif (rendered := human()) is not None:
            self.out.print(rendered)

    def require_local(self, verb: str) -> None:
        """Refuses what only the machine of the fleet itself can do.

        Raises:
            Invalid: another gateway was asked for.
        """
        if not self.local:
            raise Invalid(
                f"`lakehouse {verb}` works on this machine's own fleet, not on {self.url}. "
                "Run it over there, or leave --gateway and LAKEHOUSE_GATEWAY out."
            )

    def fail(self, error: LakehouseError) -> int:
        """Tells of a failure in one line, or as JSON; gives the exit status."""
        message, status = explain(error, self.url)
        if self.as_json:
            told = {"code": error.code, "message": message, "details": error.details}
            write_json({"error": told})
        else:
            self.log.print(f"[red]lakehouse:[/] {escape(message)}", soft_wrap=True)
            for line in _list_problems(error):
                self.log.print(f"  {escape(line)}", soft_wrap=True)
        return status


def _make_console(watched: bool) -> Console:
    # Into a file or pipe nothing needs to be folded at eighty columns.
    return Console(highlight=False, width=None if watched else PIPE_WIDTH)


def make(model: type[M], **fields: Any) -> M:
    """A request of what was typed.

    Raises:
        Invalid: it cannot be one; the message names the part.
    """
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        what = first["msg"].removeprefix("Value error, ")
        raise Invalid(f"{where}: {what}." if where else f"{what}.") from None


def explain(error: LakehouseError, url: str) -> tuple[str, int]:
    """A failure as one line that says what to do, and the exit status it stands for."""
    unreached = error.details.get("peer") == "gateway" and "peer_status" not in error.details
    if unreached and error.status == 503:
        return (
            f"No gateway answers at {url}. Start one with `lakehouse up`, or name another "
            "with --gateway or LAKEHOUSE_GATEWAY.",
            AWAY,
        )
    if error.status == 401:
        return f"{url} wants a token. Set LAKEHOUSE_TOKEN, or give --token.", DENIED
    if error.status == 403:
        return error.message, DENIED
    return error.message, AWAY if error.status >= 500 else REFUSED


def write_json(data: Any) -> None:
    """One line of JSON on standard output, complete before anything else is done."""
    sys.stdout.write(orjson.dumps(data, default=_to_plain, option=_JSON).decode() + "\n")
    sys.stdout.flush()


_JSON = orjson.OPT_NON_STR_KEYS


def _to_plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    return str(value)


def _list_problems(error: LakehouseError) -> list[str]:
    """Details that are themselves lists of what to mend."""
    lines: list[str] = []
    for problem in error.details.get("problems", [])[1:10]:
        lines.append(f"{problem.get('where', '')}: {problem.get('problem', '')}")
    for column in error.details.get("columns", [])[:10]:
        if isinstance(column, dict):
            lines.append(", ".join(f"{name} {value}" for name, value in column.items() if value))
    return lines
