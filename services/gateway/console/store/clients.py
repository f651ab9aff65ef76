"""The fleet as the console reads it: a client of each daemon whose data it shows."""

from __future__ import annotations

from shared.clients.base import ServiceClient
from shared.clients.catalogd import CatalogdClient
from shared.clients.chatd import ChatdClient
from shared.clients.ingestd import IngestdClient
from shared.clients.matrixd import MatrixdClient
from shared.clients.observerd import ObserverdClient
from shared.clients.pathwayd import PathwaydClient
from shared.clients.queryd import QuerydClient
from shared.clients.storaged import StoragedClient
from shared.config import Config
from shared.runtime import Transports


class Clients:
    """One client of each daemon; nothing is connected before its first call.

    Args:
        config: for the addresses and the token.
        transports: in-process transports by service name, in place of the network.
    """

    def __init__(self, config: Config, transports: Transports | None) -> None:
        self._make_storage = lambda: StoragedClient(config, transports)
        self._storage: StoragedClient | None = None
        self.catalog = CatalogdClient(config, transports)
        self.ingest = IngestdClient(config, transports)
        self.query = QuerydClient(config, transports)
        self.matrix = MatrixdClient(config, transports)
        self.pathway = PathwaydClient(config, transports)
        self.observer = ObserverdClient(config, transports)
        self.chat = ChatdClient(config, transports)

    @property
    def storage(self) -> StoragedClient:
        """Objects. Made when it is needed, which is seldom: it brings 2 MiB of its own."""
        if self._storage is None:
            self._storage = self._make_storage()
        return self._storage

    async def aclose(self) -> None:
        """Closes the connections."""
        for client in vars(self).values():
            if isinstance(client, ServiceClient):
                await client.aclose()
