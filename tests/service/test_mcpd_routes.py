"""mcpd over ASGI: its routes, who may come, and the SDK that is loaded when it is needed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.mcpd.app import create_app
from shared.clients.mcpd import McpdClient
from shared.daemons import ROOT
from shared.errors import Invalid
from tests.support.apps import make_config, running
from tests.support.mcpd import FakeGateway

pytestmark = pytest.mark.anyio

HEALTH = {"status": "ok", "service": "gateway", "version": "0", "uptime_s": 1.0}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "t", "version": "0"},
    },
}
HEADERS = {"accept": "application/json, text/event-stream"}


def fake() -> FakeGateway:
    return FakeGateway(
        {
            "GET /health": (200, HEALTH),
            "GET /v1/sql/tables": (200, {"tables": ["people"]}),
        }
    )


async def ask(tmp_path: Path, *requests: tuple[str, dict[str, Any]], **sections: Any) -> list[Any]:
    """The answers of a running mcpd to `(method, httpx arguments)` of its one path."""
    config = make_config(tmp_path, **sections)
    async with (
        running(create_app(config, transports={"gateway": fake()})) as transport,
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        return [
            await client.request(method, arguments.pop("url", "/mcp"), **arguments)
            for method, arguments in requests
        ]


def call(origin: str | None = None, **headers: str) -> tuple[str, dict[str, Any]]:
    given = {**HEADERS, **headers}
    if origin is not None:
        given["origin"] = origin
    return "POST", {"json": INITIALIZE, "headers": given}


async def test_probes_and_the_document(tmp_path: Path) -> None:
    health, ready, metrics, document = await ask(
        tmp_path,
        *(("GET", {"url": path}) for path in ("/health", "/ready", "/metrics")),
        ("GET", {"url": "/openapi.json"}),
    )
    assert health.json()["service"] == "mcpd"
    assert ready.json()["checks"] == {"gateway": "ok"}
    assert "lakehouse_requests_total" in metrics.text
    assert "/mcp" in document.json()["paths"]


async def test_it_is_not_ready_without_the_gateway(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    async with (
        running(create_app(config)) as transport,
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        answer = await client.get("/ready")
    assert answer.status_code == 503
    assert "gateway cannot be reached" in answer.json()["error"]["message"]


async def test_both_eras_are_spoken_on_one_path_and_calls_are_counted(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    gateway = fake()
    async with running(create_app(config, transports={"gateway": gateway})) as transport:
        modern = McpdClient(config, {"mcpd": transport})
        tools = await modern.list_tools()
        read = await modern.ask(
            "resources/read", {"uri": "lakehouse://tables"}, "lakehouse://tables"
        )
        refused = await modern.call_tool("describe_dataset", {"name": "nobody"})
        with pytest.raises(Invalid, match="Unknown prompt: nothing"):
            await modern.ask("prompts/get", {"name": "nothing"}, "nothing")
        await modern.aclose()
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            legacy = await client.post("/mcp", json=INITIALIZE, headers=HEADERS)
            figures = (await client.get("/metrics")).text
    assert [tool.name for tool in tools][:2] == ["list_datasets", "describe_dataset"]
    assert json.loads(read["contents"][0]["text"])["tables"][0]["name"] == "people"
    assert refused.is_error
    assert "not_found" in refused.text
    assert legacy.json()["result"]["protocolVersion"] == "2025-06-18"
    assert "mcp-session-id" not in legacy.headers
    line = 'lakehouse_mcpd_tool_calls_total{outcome="refused",tool="describe_dataset"} 1.0'
    assert line in figures


async def test_a_page_from_elsewhere_is_refused_and_one_of_this_machine_not(
    tmp_path: Path,
) -> None:
    answers = await ask(
        tmp_path,
        call(),
        call("http://localhost:6274"),
        call("http://evil.example"),
        # Under DNS rebinding Origin and Host are the same, and both are the attacker's.
        call("http://evil.example", host="evil.example"),
        call("null"),
    )
    assert [answer.status_code for answer in answers] == [200, 200, 403, 421, 403]
    assert answers[2].json()["error"]["code"] == "forbidden"
    assert answers[3].json()["error"]["code"] == "misdirected"


async def test_pages_may_be_named_in_the_configuration(tmp_path: Path) -> None:
    answers = await ask(
        tmp_path,
        call("https://console.example"),
        call("http://localhost"),
        mcpd={"allowed_origins": ["https://console.example"]},
    )
    assert [answer.status_code for answer in answers] == [200, 403]


async def test_with_a_token_nothing_works_without_it(tmp_path: Path) -> None:
    answers = await ask(
        tmp_path,
        call(),
        call(authorization="Bearer wrong"),
        call(authorization="Bearer s3cret"),
        ("GET", {"url": "/ready"}),
        auth={"token": "s3cret"},
    )
    assert [answer.status_code for answer in answers] == [401, 401, 200, 401]
    assert answers[0].headers["www-authenticate"] == "Bearer"


async def test_only_post_is_spoken_and_no_slash_is_added(tmp_path: Path) -> None:
    answers = await ask(
        tmp_path,
        ("GET", {"headers": HEADERS}),
        ("DELETE", {}),
        ("OPTIONS", {}),
        ("POST", {"url": "/mcp/", "json": INITIALIZE, "headers": HEADERS}),
    )
    assert [answer.status_code for answer in answers] == [405, 405, 405, 404]
    assert answers[0].headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"", 400), (b"{", 400), (b"[]", 400), (b'{"jsonrpc":"2.0"}', 400), (b"\xff", 400)],
)
async def test_rubbish_is_told_to_be_rubbish(tmp_path: Path, content: bytes, status: int) -> None:
    headers = {**HEADERS, "content-type": "application/json"}
    (answer,) = await ask(tmp_path, ("POST", {"content": content, "headers": headers}))
    assert answer.status_code == status
    assert "Traceback" not in answer.text


async def test_a_large_body_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (answer,) = await ask(
        tmp_path,
        ("POST", {"content": b"x" * 2048, "headers": HEADERS}),
        mcpd={"max_body_bytes": 1024},
    )
    assert answer.status_code == 413


async def test_many_at_once_wait_for_one_loading_of_the_sdk(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    async with (
        running(create_app(config, transports={"gateway": fake()})) as transport,
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        answers = await asyncio.gather(
            *(client.post("/mcp", json=INITIALIZE, headers=HEADERS) for _ in range(20))
        )
    assert [answer.status_code for answer in answers] == [200] * 20


def test_an_idle_daemon_has_not_loaded_the_sdk() -> None:
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from services.mcpd.app import create_app\n"
        "from shared.config import Config\n"
        "async def main():\n"
        "    app = create_app(Config(base_dir=Path('.')))\n"
        "    async with app.router.lifespan_context(app):\n"
        "        print('mcp' in sys.modules, 'cryptography' in sys.modules)\n"
        "asyncio.run(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]
