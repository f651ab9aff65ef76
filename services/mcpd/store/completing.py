"""Completion of arguments: names of tables while a user types them."""

from __future__ import annotations

from mcp.server.mcpserver import MCPServer
from mcp_types import (
    Completion,
    CompletionArgument,
    CompletionContext,
    PromptReference,
    ResourceTemplateReference,
)

from services.mcpd.store.calls import Calls
from shared.clients.gateway import Gateway

# Most values of one answer, as the protocol has it.
MAX_VALUES = 100
# The arguments that are names of tables, by where they stand.
TABLE_ARGUMENTS = {"lakehouse://tables/{name}": "name", "explore_table": "table"}


def add_completion(server: MCPServer, gateway: Gateway, calls: Calls) -> None:
    """Offers completion for every argument that names a table."""

    async def list_tables() -> list[str]:
        return await gateway.query.list_tables()

    read = calls.resource(list_tables)

    async def complete(
        ref: PromptReference | ResourceTemplateReference,
        argument: CompletionArgument,
        context: CompletionContext | None,
    ) -> Completion:
        place = ref.uri if isinstance(ref, ResourceTemplateReference) else ref.name
        if TABLE_ARGUMENTS.get(place) != argument.name:
            return Completion(values=[], total=0, has_more=False)
        found = [name for name in await read() if name.startswith(argument.value)]
        return Completion(
            values=found[:MAX_VALUES], total=len(found), has_more=len(found) > MAX_VALUES
        )

    server.completion()(complete)
