"""Resources: what a host may read into a conversation without a model asking for it."""

from __future__ import annotations

import json

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceNotFoundError

from services.mcpd.core.caps import Room, fit_rows
from services.mcpd.store.calls import Calls
from shared.clients.gateway import Gateway
from shared.errors import Invalid
from shared.sections.mcp import McpdSection

JSON = "application/json"


class Resources:
    """The resources' contents, as JSON text.

    Args:
        gateway: the way to all of it.
        section: how much an answer may hold.
    """

    def __init__(self, gateway: Gateway, section: McpdSection) -> None:
        self._gateway = gateway
        self._section = section

    async def read_tables(self) -> str:
        """All tables by name, each with its own address."""
        names = await self._gateway.query.list_tables()
        room = Room(self._section.max_chars, self._section.max_cell_chars)
        kept = room.fit(names[: self._section.max_rows], lambda name: 2 * len(name) + 40)
        tables = [{"name": name, "uri": f"lakehouse://tables/{name}"} for name in kept]
        return json.dumps({"tables": tables, "truncated": len(kept) < len(names)})

    async def read_table(self, name: str) -> str:
        """One table: columns, size, a few rows."""
        try:
            found = await self._gateway.query.get_table(name)
        except Invalid as error:
            raise ResourceNotFoundError(f"There is no table {name!r}: {error.message}") from error
        room = Room(self._section.max_chars, self._section.max_cell_chars)
        sample = fit_rows(found.sample, self._section.max_rows, room)
        return json.dumps(
            {
                "name": found.name,
                "rows": found.rows,
                "snapshot_id": found.snapshot_id,
                "updated_at": found.updated_at,
                "columns": [{"name": c.name, "type": c.type} for c in found.columns],
                "sample": sample,
                "truncated": room.truncated,
            },
            ensure_ascii=False,
        )

    async def read_modes(self) -> str:
        """What a step of a workflow can do, with the schema of each mode's inputs."""
        found = await self._gateway.observer.list_modes()
        return found.model_dump_json()


def add_resources(server: MCPServer, resources: Resources, calls: Calls) -> None:
    """Publishes the resources."""
    server.resource(
        "lakehouse://tables",
        name="tables",
        title="Tables",
        description="All tables that SQL can read.",
        mime_type=JSON,
    )(calls.resource(resources.read_tables))
    server.resource(
        "lakehouse://tables/{name}",
        name="table",
        title="One table",
        description="Columns, size and a few rows of a table.",
        mime_type=JSON,
    )(calls.resource(resources.read_table))
    server.resource(
        "lakehouse://workflows/modes",
        name="workflow_modes",
        title="Workflow modes",
        description="What a step of a workflow can do, and its inputs.",
        mime_type=JSON,
    )(calls.resource(resources.read_modes))
