"""Every daemon as the gateway shows it: the same clients, with one address and one token.

What runs outside the fleet, or must have no more than its users have, speaks to the gateway
alone. The daemons' own clients serve there too: beneath `/v1` their paths are the same.
"""

from __future__ import annotations

from typing import TypeVar

from pydantic import SecretStr

from shared.clients.base import ServiceClient
from shared.clients.catalogd import CatalogdClient
from shared.clients.chatd import ChatdClient
from shared.clients.ingestd import IngestdClient
from shared.clients.matrixd import MatrixdClient
from shared.clients.observerd import ObserverdClient
from shared.clients.pathwayd import PathwaydClient
from shared.clients.queryd import QuerydClient
from shared.config import Config
from shared.runtime import Transports

NAME = "gateway"
C = TypeVar("C", bound=ServiceClient)


def at_gateway(config: Config, url: str = "", token: str | None = None) -> Config:
    """A configuration in which every daemon's address lies beneath the gateway's.

    Args:
        config: what the rest is taken from.
        url: the gateway's address; the configured one when empty.
        token: the secret to send. When None it is the configured one, or no one at all where
            the gateway is another: a secret of this fleet is none of its business.
    """
    base = (url or config.gateway.address).rstrip("/")
    if token is None and not is_own(config, url):
        token = ""
    changed: dict[str, object] = {
        name: section.model_copy(update={"url": base if name == NAME else f"{base}/v1"})
        for name, section in config.daemons().items()
    }
    if token is not None:
        changed["auth"] = config.auth.model_copy(update={"token": SecretStr(token)})
    return config.model_copy(update=changed)


def is_own(config: Config, url: str) -> bool:
    """Whether an address, or none, means the configured gateway."""
    return not url or url.rstrip("/") == config.gateway.address


class Gateway:
    """The daemons' clients, all through the gateway; make it where an event loop runs.

    Args:
        config: as `at_gateway` gives it.
        transports: in-process transports; the one named "gateway" takes the place of the network.
    """

    def __init__(self, config: Config, transports: Transports | None = None) -> None:
        inner = (transports or {}).get(NAME)
        given = None if inner is None else dict.fromkeys(config.daemons(), inner)
        self._all: list[ServiceClient] = []

        def join(client: C) -> C:
            # Whoever cannot be reached is the gateway, whichever daemon was meant.
            client.service = NAME
            self._all.append(client)
            return client

        self.edge = join(ServiceClient(config, NAME, given))
        self.catalog = join(CatalogdClient(config, given))
        self.ingest = join(IngestdClient(config, given))
        self.query = join(QuerydClient(config, given))
        self.matrix = join(MatrixdClient(config, given))
        self.pathway = join(PathwaydClient(config, given))
        self.observer = join(ObserverdClient(config, given))
        self.chat = join(ChatdClient(config, given))

    async def aclose(self) -> None:
        """Closes the connections."""
        for client in self._all:
            await client.aclose()
