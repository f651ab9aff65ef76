"""The one construction of the MCP server, for HTTP and stdio alike."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from mcp.server.caching import CacheHint
from mcp.server.mcpserver import MCPServer
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, ToolAnnotations
from prometheus_client import Counter

from services.mcpd.core.policy import Access, is_offered
from services.mcpd.store.calls import Calls
from services.mcpd.store.completing import add_completion
from services.mcpd.store.data_tools import DataTools
from services.mcpd.store.matrix_tools import MatrixTools
from services.mcpd.store.memory_tools import MemoryTools
from services.mcpd.store.prompts import add_prompts
from services.mcpd.store.resources import Resources, add_resources
from shared.clients.gateway import Gateway
from shared.sections.mcp import McpdSection
from shared.version import VERSION

INSTRUCTIONS = """A lakehouse: tables for SQL, corpora searched by meaning, a playbook of what \
worked, a memory of what was tried, workflows, and models. Begin with list_datasets or \
list_corpora. Answers are bounded: "truncated" says that there is more. Prefer aggregating in SQL \
to reading rows. Record what worked with record_playbook: searches learn from it."""

# What is published changes only with the server; what is read may change with every write.
LISTS_FRESH_MS = 300_000
READ_FRESH_MS = 5_000

Tool = Callable[..., Awaitable[Any]]


class Server(MCPServer):
    """The SDK's server, but for how it tells of a prompt that is not there."""

    async def get_prompt(self, *args: Any, **kwargs: Any) -> Any:
        """A prompt; a wrong name or argument is the caller's error, not an internal one."""
        try:
            return await super().get_prompt(*args, **kwargs)
        except ValueError as error:
            raise MCPError(INVALID_PARAMS, f"{error}. prompts/list names them all.") from error


def build_server(
    gateway: Gateway, section: McpdSection, counter: Counter | None = None
) -> MCPServer:
    """The server with all its tools, resources and prompts.

    Args:
        gateway: the only way by which tools reach anything.
        section: caps, rate, and whether writing tools are offered.
        counter: calls by tool and outcome.
    """
    kept = CacheHint(ttl_ms=LISTS_FRESH_MS, scope="private")
    server = Server(
        "lakehouse",
        title="Lakehouse",
        instructions=INSTRUCTIONS,
        version=VERSION,
        subscriptions=False,
        log_level="WARNING",
        cache_hints={
            "server/discover": kept,
            "tools/list": kept,
            "prompts/list": kept,
            "resources/list": kept,
            "resources/templates/list": kept,
            "resources/read": CacheHint(ttl_ms=READ_FRESH_MS, scope="private"),
        },
    )
    calls = Calls(section, counter)
    for tool, title, access in list_tools(gateway, section):
        if is_offered(access, section.read_only):
            server.add_tool(
                calls.tool(tool),
                title=title,
                description=(tool.__doc__ or "").strip(),
                annotations=_annotate(title, access),
            )
    add_resources(server, Resources(gateway, section), calls)
    add_prompts(server)
    add_completion(server, gateway, calls)
    return server


def list_tools(gateway: Gateway, section: McpdSection) -> list[tuple[Tool, str, Access]]:
    """Every tool with its title and what it amounts to, in the order of publication."""
    data = DataTools(gateway, section)
    matrix = MatrixTools(gateway, section)
    memory = MemoryTools(gateway, section)
    return [
        (data.list_datasets, "List datasets", Access.READ),
        (data.describe_dataset, "Describe a dataset", Access.READ),
        (data.run_sql, "Run SQL", Access.READ),
        (matrix.list_corpora, "List corpora", Access.READ),
        (matrix.search_corpora, "Search corpora", Access.READ),
        (matrix.compose_context, "Compose context", Access.READ),
        (memory.search_pathway, "Search the pathway memory", Access.READ),
        (memory.get_workflow, "Show a workflow run", Access.READ),
        (memory.ask_model, "Ask a model", Access.ASK),
        (matrix.record_playbook, "Record in the playbook", Access.ADD),
        (memory.add_pathway, "Add to the pathway memory", Access.ADD),
        (memory.run_workflow, "Run a workflow", Access.RUN),
    ]


def _annotate(title: str, access: Access) -> ToolAnnotations:
    hints = access.hints
    return ToolAnnotations(
        title=title,
        read_only_hint=hints.read_only,
        destructive_hint=hints.destructive,
        idempotent_hint=hints.idempotent,
        open_world_hint=hints.open_world,
    )
