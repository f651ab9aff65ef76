"""What all sections stand on: types of their values, and what every daemon's section has."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MiB = 1024 * 1024
GiB = 1024 * MiB


def _check_network(value: str) -> str:
    ipaddress.ip_network(value, strict=False)
    return value


Port = Annotated[int, Field(ge=1, le=65535)]
Network = Annotated[str, AfterValidator(_check_network)]


class Section(BaseModel):
    """Base of all sections: frozen, and an unknown key is an error, so a typo is told."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DaemonSection(Section):
    """What every daemon's section has.

    `url` is where the other daemons reach this one; empty means `http://host:port`.
    """

    host: str = "127.0.0.1"
    port: Port
    url: str = ""
    max_body_bytes: int = Field(default=16 * MiB, ge=0)
    max_concurrency: int = Field(default=128, ge=1)
    max_queue: int = Field(default=256, ge=0)
    request_timeout_s: float = Field(default=60.0, gt=0)

    @property
    def address(self) -> str:
        """Base URL for clients of this daemon, without a trailing slash."""
        if self.url:
            return self.url.rstrip("/")
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
