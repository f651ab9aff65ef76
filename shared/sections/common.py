"""Sections that hold for the whole fleet: [fleet], [auth], [http], [log]."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from shared.daemons import PORTS
from shared.sections.base import Network, Section


def _check_daemon(name: str) -> str:
    if name not in PORTS:
        raise ValueError(f"there is no daemon {name!r}; there are {', '.join(PORTS)}")
    return name


Daemon = Annotated[str, AfterValidator(_check_daemon)]


class FleetSection(Section):
    """[fleet]: what all daemons of this machine share."""

    data_dir: Path = Path("../data")
    restart_backoff_s: float = Field(default=0.2, gt=0)
    restart_backoff_max_s: float = Field(default=10.0, gt=0)
    drain_s: float = Field(default=10.0, gt=0)
    daemons: tuple[Daemon, ...] = ()


class AuthSection(Section):
    """[auth]: Bearer token and IP allow-list; both off while no token is set."""

    token: SecretStr = SecretStr("")
    token_file: Path | None = None
    allow_ips: tuple[Network, ...] = ("127.0.0.0/8", "::1/128")


class HttpSection(Section):
    """[http]: rules for every request to every daemon."""

    allowed_hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]")
    max_header_bytes: int = Field(default=32 * 1024, ge=1024)


class LogSection(Section):
    """[log]: `auto` is console on a terminal and JSON elsewhere."""

    format: Literal["auto", "json", "console"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"
