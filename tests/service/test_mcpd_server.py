"""The MCP server over a gateway that answers as told: tools, caps, rate, errors, both eras."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp.shared.exceptions import MCPError

from shared.clients.gateway import at_gateway
from tests.support.apps import make_config
from tests.support.mcpd import FakeGateway, envelope, mcp_client, text_of

pytestmark = pytest.mark.anyio

READING = [
    "list_datasets",
    "describe_dataset",
    "run_sql",
    "list_corpora",
    "search_corpora",
    "compose_context",
    "search_pathway",
    "get_workflow",
    "ask_model",
]
WRITING = ["record_playbook", "add_pathway", "run_workflow"]


def rows(count: int, value: Any = 1, truncated: bool = False) -> dict[str, Any]:
    return {
        "columns": [{"name": "n", "type": "BIGINT"}],
        "rows": [[value]] * count,
        "row_count": count,
        "truncated": truncated,
        "elapsed_ms": 1.5,
    }


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_tools_are_published_in_order_with_all_that_hosts_need(
    tmp_path: Path, mode: str
) -> None:
    async with mcp_client(tmp_path, FakeGateway({}), mode=mode) as client:
        tools = (await client.list_tools()).tools
        again = (await client.list_tools()).tools
    assert [tool.name for tool in tools] == READING + WRITING
    assert [t.model_dump_json() for t in again] == [t.model_dump_json() for t in tools]
    for tool in tools:
        assert tool.title
        assert tool.description is not None
        assert tool.description.count(". ") == 0
        assert tool.output_schema is not None
        assert tool.annotations is not None
        hints = tool.annotations.model_dump()
        for hint in ("read_only_hint", "destructive_hint", "idempotent_hint", "open_world_hint"):
            assert hints[hint] in (True, False), f"{tool.name} does not say {hint}"
        assert hints["read_only_hint"] == (tool.name in READING)
        for name, argument in tool.input_schema["properties"].items():
            assert argument.get("description"), f"{tool.name}.{name} is not described"
            assert is_bounded(argument), f"{tool.name}.{name} has no bounds"


def is_bounded(schema: dict[str, Any]) -> bool:
    """Whether an argument's schema limits what may be sent, where its type lets it grow."""
    parts = schema.get("anyOf", [schema])
    limits = {
        "string": ("maxLength", "pattern"),
        "array": ("maxItems",),
        "integer": ("minimum",),
        "number": ("maximum",),
    }
    return all(
        any(limit in part for limit in limits.get(part.get("type", ""), ("type",)))
        for part in parts
    )


async def test_a_read_only_server_has_no_writing_tools_and_calling_one_fails(
    tmp_path: Path,
) -> None:
    gateway = FakeGateway({})
    async with mcp_client(tmp_path, gateway, read_only=True) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == READING
        refused = await client.call_tool("add_pathway", {"content": {"a": 1}})
    assert refused.is_error
    assert gateway.asked == []


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_sql_goes_to_the_gateway_and_its_rows_come_back_typed(
    tmp_path: Path, mode: str
) -> None:
    gateway = FakeGateway({"POST /v1/sql": (200, rows(2, [1, "ø"]))})
    async with mcp_client(tmp_path, gateway, mode=mode) as client:
        result = await client.call_tool("run_sql", {"sql": "select 1", "params": [7, None, "x"]})
    assert not result.is_error
    assert result.structured_content == {
        "columns": [{"name": "n", "type": "BIGINT"}],
        "rows": [['[1,"ø"]'], ['[1,"ø"]']],
        "row_count": 2,
        "truncated": False,
        "elapsed_ms": 1.5,
    }
    assert gateway.body()["params"] == [7, None, "x"]
    assert gateway.body()["max_rows"] == 100


async def test_caps_hold_whatever_is_asked_for_and_are_told(tmp_path: Path) -> None:
    gateway = FakeGateway({"POST /v1/sql": (200, rows(500, "y" * 100))})
    limits = {"max_rows": 50, "max_chars": 1000, "max_cell_chars": 20}
    async with mcp_client(tmp_path, gateway, **limits) as client:
        result = await client.call_tool("run_sql", {"sql": "select 1", "max_rows": 100_000})
    assert gateway.body()["max_rows"] == 50
    assert gateway.body()["timeout_s"] == 120
    got = result.structured_content
    assert got["truncated"]
    assert got["row_count"] == len(got["rows"]) < 50
    assert all(len(row[0]) == 20 for row in got["rows"])
    assert len(json.dumps(got["rows"], ensure_ascii=False)) <= 1000


async def test_what_the_daemon_left_out_is_told_too(tmp_path: Path) -> None:
    gateway = FakeGateway({"POST /v1/sql": (200, rows(1, truncated=True))})
    async with mcp_client(tmp_path, gateway) as client:
        result = await client.call_tool("run_sql", {"sql": "select 1"})
    assert result.structured_content["truncated"]


async def test_what_a_model_can_mend_is_an_error_result_with_its_details(tmp_path: Path) -> None:
    refusal = envelope("invalid", "The SQL cannot be read.", line=1, column=8)
    gateway = FakeGateway({"POST /v1/sql": (400, refusal)})
    async with mcp_client(tmp_path, gateway) as client:
        result = await client.call_tool("run_sql", {"sql": "select"})
    assert result.is_error
    assert result.structured_content is None
    assert "invalid: The SQL cannot be read." in text_of(result)
    assert '"column": 8' in text_of(result)


@pytest.mark.parametrize(("status", "code"), [(503, "unavailable"), (401, "unauthorized")])
async def test_what_only_the_host_can_mend_is_an_error_of_the_protocol(
    tmp_path: Path, status: int, code: str
) -> None:
    gateway = FakeGateway({"POST /v1/sql": (status, envelope(code, "Not now."))})
    async with mcp_client(tmp_path, gateway) as client:
        with pytest.raises(MCPError, match="Not now") as raised:
            await client.call_tool("run_sql", {"sql": "select 1"})
    assert raised.value.code == -32603
    assert raised.value.data == {"code": code, "status": status}


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("run_sql", {}),
        ("run_sql", {"sql": ""}),
        ("run_sql", {"sql": "select 1", "max_rows": 0}),
        ("run_sql", {"sql": "x" * 100_001}),
        ("describe_dataset", {"name": "../etc/passwd"}),
        ("search_corpora", {"query": "x", "k": 101}),
        ("record_playbook", {"query": "x", "ratings": []}),
        ("record_playbook", {"query": "x", "ratings": [{"corpus": "a", "id": "1", "rating": 5}]}),
        ("run_workflow", {"name": "w", "nodes": [{"id": "a b", "mode": "sql"}]}),
        ("get_workflow", {"run_id": "r", "wait_s": 61}),
        ("add_pathway", {"content": "not an object"}),
    ],
)
async def test_arguments_out_of_bounds_never_reach_the_gateway(
    tmp_path: Path, tool: str, arguments: dict[str, Any]
) -> None:
    gateway = FakeGateway({})
    async with mcp_client(tmp_path, gateway) as client:
        result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert gateway.asked == []


async def test_too_many_calls_are_refused_with_how_long_to_wait(tmp_path: Path) -> None:
    gateway = FakeGateway({"POST /v1/sql": (200, rows(1))})
    async with mcp_client(tmp_path, gateway, burst=2, calls_per_minute=1) as client:
        results = [await client.call_tool("run_sql", {"sql": "select 1"}) for _ in range(3)]
    assert [result.is_error for result in results] == [False, False, True]
    assert "rate_limited: Too many calls" in text_of(results[2])
    assert len(gateway.asked) == 2


async def test_a_call_that_lasts_is_ended_and_told_so(tmp_path: Path) -> None:
    class Slow(FakeGateway):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            self.asked.append(request)
            await asyncio.sleep(60)
            raise AssertionError("nobody ended the call")

    gateway = Slow({})
    async with mcp_client(tmp_path, gateway, max_seconds=0.2) as client:
        result = await client.call_tool("run_sql", {"sql": "select 1"})
    assert result.is_error
    assert "timeout: The call did not end within 0.2 s" in text_of(result)
    # What is left of the time is passed on, so that the work ends there too.
    assert 0 < int(gateway.asked[0].headers["x-deadline-ms"]) <= 200


async def test_the_same_rating_again_has_the_same_key_and_another_run_another(
    tmp_path: Path,
) -> None:
    recorded = {"episode_id": "e", "seq": 1, "recorded_at": "2026-01-01T00:00:00Z"}
    gateway = FakeGateway({"POST /v1/matrix/playbook": (201, recorded)})
    said = {"query": "welder", "ratings": [{"corpus": "a", "id": "1", "rating": 1}]}
    async with mcp_client(tmp_path, gateway) as client:
        for more in ({}, {}, {"run_id": "r2"}):
            assert not (await client.call_tool("record_playbook", {**said, **more})).is_error
    keys = [request.headers["idempotency-key"] for request in gateway.asked]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_resources_prompts_and_completion(tmp_path: Path, mode: str) -> None:
    table = {"name": "people", "columns": [{"name": "n", "type": "BIGINT"}], "rows": 3}
    gateway = FakeGateway(
        {
            "GET /v1/sql/tables": (200, {"tables": ["people", "places"]}),
            "GET /v1/sql/tables/people": (200, table),
        }
    )
    async with mcp_client(tmp_path, gateway, mode=mode) as client:
        listed = await client.read_resource("lakehouse://tables")
        one = await client.read_resource("lakehouse://tables/people")
        with pytest.raises(MCPError) as missing:
            await client.read_resource("lakehouse://tables/nobody")
        with pytest.raises(MCPError) as outside:
            await client.read_resource("lakehouse://tables/..%2F..%2Fcatalog")
        prompt = await client.get_prompt("explore_table", {"table": "people"})
        with pytest.raises(MCPError) as unknown:
            await client.get_prompt("nothing", {})
        templates = await client.list_resource_templates()
    assert json.loads(listed.contents[0].text)["tables"][1]["uri"] == "lakehouse://tables/places"
    assert json.loads(one.contents[0].text)["rows"] == 3
    assert missing.value.code == -32602
    assert outside.value.code == -32602
    assert unknown.value.code == -32602
    assert "people" in prompt.messages[0].content.text
    assert [t.uri_template for t in templates.resource_templates] == ["lakehouse://tables/{name}"]
    assert {request.url.path for request in gateway.asked} <= {
        "/v1/sql/tables",
        "/v1/sql/tables/people",
        "/v1/sql/tables/nobody",
    }


async def test_names_of_tables_are_completed(tmp_path: Path) -> None:
    from mcp_types import PromptReference, ResourceTemplateReference

    gateway = FakeGateway({"GET /v1/sql/tables": (200, {"tables": ["people", "places", "pay"]})})
    template = ResourceTemplateReference(type="ref/resource", uri="lakehouse://tables/{name}")
    prompt = PromptReference(type="ref/prompt", name="find_match")
    async with mcp_client(tmp_path, gateway) as client:
        found = await client.complete(template, {"name": "name", "value": "p"})
        exact = await client.complete(template, {"name": "name", "value": "peo"})
        none = await client.complete(prompt, {"name": "need", "value": "p"})
    assert found.completion.values == ["people", "places", "pay"]
    assert exact.completion.values == ["people"]
    assert none.completion.values == []


async def test_lists_may_be_kept_by_clients_and_answers_for_a_moment(tmp_path: Path) -> None:
    gateway = FakeGateway({"GET /v1/sql/tables": (200, {"tables": []})})
    async with mcp_client(tmp_path, gateway) as client:
        tools = await client.list_tools()
        read = await client.read_resource("lakehouse://tables")
    assert (tools.ttl_ms, tools.cache_scope) == (300_000, "private")
    assert (read.ttl_ms, read.cache_scope) == (5_000, "private")


def test_a_secret_of_this_fleet_goes_to_its_own_gateway_alone(tmp_path: Path) -> None:
    config = make_config(tmp_path, auth={"token": "ours"})
    own = config.gateway.address
    assert at_gateway(config).token == at_gateway(config, f"{own}/").token == "ours"
    assert at_gateway(config, "https://lake.example").token == ""
    assert at_gateway(config, "https://lake.example", "theirs").token == "theirs"
    assert at_gateway(config, own, "").token == ""


async def test_a_fault_of_our_own_shows_nothing_of_itself(tmp_path: Path) -> None:
    # An answer that is none: the client's validation fails in the middle of a tool.
    gateway = FakeGateway({"POST /v1/sql": (200, {"secret": "/srv/lakehouse/key"})})
    async with mcp_client(tmp_path, gateway) as client:
        result = await client.call_tool("run_sql", {"sql": "select 1"})
    assert result.is_error
    assert text_of(result) == "Error executing tool run_sql"
