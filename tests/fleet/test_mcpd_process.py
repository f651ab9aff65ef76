"""mcpd in a real fleet: every tool through the gateway, stdio, tokens, strangers, memory."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.shared.exceptions import MCPError

from scripts.fleet import read_pss_mib
from scripts.private_fleet import PYTHON, PrivateFleet
from shared.daemons import ROOT
from tests.support.mcpd import text_of

# Each test starts interpreters that load the SDK: seconds each where much else runs.
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

TOKEN = "t0ken-of-the-test"
CSV = "id,name,city,skill\n" + "".join(
    f"{i},Name {i},{('Bergen', 'Oslo')[i % 2]},{('night nursing', 'welding steel')[i % 3 > 0]}\n"
    for i in range(60)
)
CORPUS = {
    "name": "people",
    "source": {"dataset": "people"},
    "id": "id",
    "text": "{name}: {skill} in {city}",
    "metadata": ["city"],
}
GRAPH = [
    {"id": "say", "mode": "fixture.echo", "with": {"text": "hello"}},
    {"id": "shout", "mode": "fixture.upper", "depends_on": ["say"],
     "with": {"text": "$say.output.text"}},
]  # fmt: skip
PING = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
HEADERS = {"accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module")
def fleet() -> Iterator[PrivateFleet]:
    with PrivateFleet() as running:
        ask = httpx.Client(base_url=running.urls["gateway"], timeout=90, trust_env=False)
        with ask:
            sent = ask.post(
                "/v1/ingest?dataset=people", content=CSV, headers={"content-type": "text/csv"}
            )
            assert sent.status_code == 200, sent.text
            built = ask.post("/v1/matrix/corpora?wait=60", json=CORPUS)
            assert built.json()["status"] == "ready", built.text
        yield running


@pytest.fixture(scope="module")
def guarded() -> Iterator[PrivateFleet]:
    with PrivateFleet(
        ("gateway", "storaged", "catalogd", "queryd", "mcpd"),
        {"AUTH__TOKEN": TOKEN, "MCPD__READ_ONLY": "true"},
    ) as running:
        yield running


def url(fleet: PrivateFleet) -> str:
    return fleet.urls["gateway"] + "/v1/mcp"


@asynccontextmanager
async def over_stdio(fleet: PrivateFleet, *more: str, **env: str) -> AsyncGenerator[Client]:
    """A client that starts the server as an agent's host does, with few variables."""
    parameters = StdioServerParameters(
        command=str(PYTHON),
        args=["-m", "services.mcpd", "--stdio", *more],
        env={"LAKEHOUSE_GATEWAY": fleet.urls["gateway"], "PATH": os.environ["PATH"], **env},
        cwd=ROOT,
    )
    async with Client(stdio_client(parameters)) as client:
        yield client


async def use_every_tool(client: Client, run: str) -> set[str]:
    """Calls each tool and looks at what it says; gives the names of those that were called."""
    used: set[str] = set()

    async def call(name: str, /, **arguments: Any) -> dict[str, Any]:
        used.add(name)
        result = await client.call_tool(name, arguments)
        assert not result.is_error, f"{name}: {text_of(result)}"
        assert json.loads(text_of(result)) == result.structured_content
        assert isinstance(result.structured_content, dict)
        return result.structured_content

    listed = await call("list_datasets")
    assert [d["name"] for d in listed["datasets"]] == ["people"]
    described = await call("describe_dataset", name="people")
    assert described["rows"] == 60
    assert [c["name"] for c in described["columns"]] == ["id", "name", "city", "skill"]
    assert len(described["sample"][0]) == 4
    counted = await call(
        "run_sql",
        sql="select city, count(*) as n from people where id < ? group by 1 order by 1",
        params=[10],
        as_of=described["snapshot_id"],
    )
    assert counted["rows"] == [["Bergen", 5], ["Oslo", 5]]
    assert (await call("run_sql", sql="from people", max_rows=3))["truncated"]

    corpora = await call("list_corpora")
    assert [(c["name"], c["documents"]) for c in corpora["corpora"]] == [("people", 60)]
    need = {"query": f"someone who welds {run}", "corpora": ["people"]}
    cold = await call(
        "search_corpora",
        **need,
        k=5,
        filters={"city": {"eq": "Oslo"}},
        explain=True,
        use_playbook=False,
    )
    assert len(cold["hits"]) == 5
    assert {hit["metadata"]["city"] for hit in cold["hits"]} == {"Oslo"}
    assert all("welding" in hit["text"] and json.loads(hit["why"]) for hit in cold["hits"])
    best = cold["hits"][4]["id"]
    rated = {"query": need["query"], "ratings": [{"corpus": "people", "id": best, "rating": 1}]}
    first = await call("record_playbook", **rated)
    again = await call("record_playbook", **rated)
    assert (first["duplicate"], again["duplicate"]) == (False, True)
    assert first["episode_id"] == again["episode_id"]
    learnt = await call("search_corpora", **need, k=5)
    assert learnt["playbook_used"]
    # Other tests of this fleet have recorded others for nearly the same need.
    assert [hit["id"] for hit in learnt["hits"]].index(best) < 4

    composed = await call("compose_context", query="who welds in Oslo?", token_budget=300)
    assert composed["tokens"] <= 300
    assert composed["citations"]
    assert composed["messages"][-1]["role"] == "user"

    kept = await call("add_pathway", content={"tried": run, "went": "well"}, tags=[run])
    same = await call("add_pathway", content={"tried": run, "went": "well"}, tags=[run])
    assert (kept["duplicate"], same["duplicate"], same["id"]) == (False, True, kept["id"])
    found = await call("search_pathway", query="what was tried", tag=run)
    assert [hit["id"] for hit in found["hits"]] == [kept["id"]]

    ran = await call("run_workflow", name="greet", nodes=GRAPH, run_id=run)
    assert ran["status"] == "completed"
    assert [(s["id"], s["output"]) for s in ran["steps"]] == [
        ("say", '{"text":"hello"}'),
        ("shout", '{"text":"HELLO"}'),
    ]
    assert await call("get_workflow", run_id=run) == ran

    said = await call("ask_model", prompt="hello", model="fake/fake-chat", max_tokens=50)
    assert "hello" in said["content"]
    assert said["completion_tokens"] > 0
    return used


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_every_tool_through_the_gateway(fleet: PrivateFleet, mode: str) -> None:
    async with Client(url(fleet), mode=mode) as client:
        published = {tool.name for tool in (await client.list_tools()).tools}
        assert await use_every_tool(client, f"http-{mode}") == published


async def test_every_tool_over_stdio(fleet: PrivateFleet) -> None:
    async with over_stdio(fleet) as client:
        published = {tool.name for tool in (await client.list_tools()).tools}
        assert await use_every_tool(client, "stdio") == published


async def test_the_lakehouse_command_serves_from_anywhere(
    fleet: PrivateFleet, guarded: PrivateFleet, tmp_path: Path
) -> None:
    for where, token, tools in ((fleet, "", 12), (guarded, TOKEN, 9)):
        parameters = StdioServerParameters(
            command=str(PYTHON),
            args=[str(ROOT / "scripts" / "lakehouse"), "mcp", *(["--read-only"] if token else [])],
            env={
                "LAKEHOUSE_GATEWAY": where.urls["gateway"],
                "LAKEHOUSE_TOKEN": token,
                "PATH": os.environ["PATH"],
            },
            cwd=tmp_path,
        )
        async with Client(stdio_client(parameters)) as client:
            assert len((await client.list_tools()).tools) == tools
            assert not (await client.call_tool("list_datasets", {})).is_error


async def test_stdio_says_nothing_but_the_protocol_and_ends_with_its_input(
    fleet: PrivateFleet,
) -> None:
    initialize = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "t", "version": "0"},
        },
    }
    done = subprocess.run(
        [str(PYTHON), "-m", "services.mcpd", "--stdio", "--read-only"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "LAKEHOUSE_GATEWAY": fleet.urls["gateway"]},
        input=json.dumps(initialize) + "\nthis is no JSON\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert lines[0]["result"]["serverInfo"]["name"] == "lakehouse"
    assert all(line["jsonrpc"] == "2.0" for line in lines)


async def test_stdio_without_a_gateway_says_so_in_the_call(fleet: PrivateFleet) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{held.getsockname()[1]}"
        async with over_stdio(fleet, "--gateway", nobody) as client:
            with pytest.raises(MCPError, match="gateway cannot be reached"):
                await client.call_tool("list_datasets", {})


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_what_a_model_may_not_do_is_refused_in_words(fleet: PrivateFleet, mode: str) -> None:
    async with Client(url(fleet), mode=mode) as client:
        for sql, word in (
            ("drop table people", "Only SELECT"),
            ("select * from read_csv('/etc/passwd')", "forbidden"),
            ("select * from nobody", "nobody"),
        ):
            result = await client.call_tool("run_sql", {"sql": sql})
            assert result.is_error
            assert word in text_of(result)
            assert "root:" not in text_of(result)
        missing = await client.call_tool(
            "search_corpora", {"query": "x", "corpora": ["nothing"], "k": 1}
        )
        assert missing.is_error
        assert "not_found" in text_of(missing)
        with pytest.raises(MCPError) as raised:
            await client.read_resource("lakehouse://tables/nobody")
        assert raised.value.code == -32602


async def test_a_token_is_asked_for_at_the_gateway_and_at_mcpd_itself(
    guarded: PrivateFleet,
) -> None:
    own = guarded.urls["mcpd"] + "/mcp"
    async with httpx.AsyncClient(trust_env=False, headers=HEADERS) as client:
        for target in (url(guarded), own):
            bare = await client.post(target, json=PING)
            wrong = await client.post(target, json=PING, headers={"authorization": "Bearer x"})
            right = await client.post(
                target, json=PING, headers={"authorization": f"Bearer {TOKEN}"}
            )
            assert [bare.status_code, wrong.status_code, right.status_code] == [401, 401, 200]
    async with over_stdio(guarded) as stranger:
        with pytest.raises(MCPError, match="valid token"):
            await stranger.call_tool("list_datasets", {})
    async with over_stdio(guarded, LAKEHOUSE_TOKEN=TOKEN) as friend:
        assert not (await friend.call_tool("list_datasets", {})).is_error


async def test_a_read_only_fleet_offers_nothing_that_writes(guarded: PrivateFleet) -> None:
    authorized = httpx.AsyncClient(headers={"authorization": f"Bearer {TOKEN}", **HEADERS})
    async with authorized:
        listed = (await authorized.post(url(guarded), json=PING)).json()
        added = await authorized.post(
            url(guarded),
            json={
                "jsonrpc": "2.0",
                "id": 2,
                "method": "tools/call",
                "params": {"name": "add_pathway", "arguments": {"content": {"a": 1}}},
            },
        )
    tools = listed["result"]["tools"]
    assert all(tool["annotations"]["readOnlyHint"] for tool in tools)
    assert len(tools) == 9
    assert added.json()["result"]["isError"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://localhost.evil.example:3110"}, 403),
        ({"origin": "null"}, 403),
        ({"host": "evil.example", "origin": "http://evil.example"}, 421),
        ({"host": "evil.example"}, 421),
        ({"origin": "http://localhost:3000"}, 200),
    ],
    ids=str,
)
@pytest.mark.parametrize("daemon", ["gateway", "mcpd"])
async def test_strangers_pages_and_rebound_names_are_kept_out(
    fleet: PrivateFleet, headers: dict[str, str], status: int, daemon: str
) -> None:
    target = fleet.urls[daemon] + ("/v1/mcp" if daemon == "gateway" else "/mcp")
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(target, json=PING, headers={**HEADERS, **headers})
    assert answer.status_code == status, answer.text


def test_it_refuses_to_be_reached_from_elsewhere_without_a_token() -> None:
    done = subprocess.run(
        [str(PYTHON), "-m", "services.mcpd"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "LAKEHOUSE_MCPD__HOST": "0.0.0.0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "mcpd.host: 0.0.0.0 is not loopback, and no auth.token is set" in done.stderr


def test_idle_it_takes_no_more_memory_than_its_neighbours(guarded: PrivateFleet) -> None:
    guarded.command("restart", "mcpd")
    taken = {name: read_pss_mib(guarded.pid(name)) for name in ("mcpd", "storaged")}
    assert taken["mcpd"] is not None
    assert taken["storaged"] is not None
    # Loaded, the SDK would add 30 MiB.
    assert taken["mcpd"] < taken["storaged"] + 12
