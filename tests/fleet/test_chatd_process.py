"""chatd as a process: thousands of chats and of clients that leave, kill -9, and its start.

CHATD_REQUESTS and CHATD_ABORTS say how many; the long form is 20,000 and 2,000.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.daemons import ROOT
from tests.support.apps import free_ports
from tests.support.providers import Fake, Reply, fake
from tests.support.sockets import connected, request

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(900)]

REQUESTS = int(os.environ.get("CHATD_REQUESTS", "2000"))
ABORTS = int(os.environ.get("CHATD_ABORTS", "200"))
AT_ONCE = 16
# Allowed growth of resident memory between the two halves. Bytes.
GROWTH = 5 * 1024 * 1024
BODY = json.dumps(
    {"model": "slow/x", "messages": [{"role": "user", "content": "a" * 500}], "stream": True}
).encode()


class Process:
    """A running chatd."""

    def __init__(self, config: Path, port: int) -> None:
        self.config = config
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self.popen: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Starts it, and waits until it is ready."""
        command = [sys.executable, "-m", "services.chatd", "--config", str(self.config)]
        self.popen = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        async with httpx.AsyncClient(base_url=self.url, trust_env=False) as client:
            while True:
                try:
                    if (await client.get("/ready")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                assert self.popen.poll() is None, "chatd did not start"
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ends it."""
        if self.popen is not None:
            self.popen.send_signal(number)
            self.popen.wait(20)
            self.popen = None

    @property
    def resident(self) -> int:
        """Bytes of memory."""
        assert self.popen is not None
        return int(Path(f"/proc/{self.popen.pid}/statm").read_text().split()[1]) * 4096

    @property
    def sockets(self) -> int:
        """Open sockets."""
        assert self.popen is not None
        folder = Path(f"/proc/{self.popen.pid}/fd")
        return sum("socket" in os.readlink(link) for link in folder.iterdir() if link.is_symlink())


@asynccontextmanager
async def started(tmp_path: Path) -> AsyncGenerator[tuple[Process, Fake, Fake]]:
    """A chatd with two fakes: one that answers, and one whose streams do not end."""
    (port,) = free_ports(1)
    async with fake("chat") as quick, fake("chat") as slow:
        config = tmp_path / "lakehouse.toml"
        config.write_text(
            f"[fleet]\ndata_dir = '{tmp_path}/data'\n[chatd]\nport = {port}\n"
            f"breaker_failures = 100000\n"
            f"[chatd.providers.quick]\nurl = '{quick.url}'\n"
            f"[chatd.providers.slow]\nurl = '{slow.url}'\nconcurrency = 64\n"
        )
        event = b'data: {"choices": [{"index": 0, "delta": {"content": "x"}}]}\n\n'
        slow.always = Reply(200, {"content-type": "text/event-stream"}, [event] * 5, hang=True)
        process = Process(config, port)
        try:
            await process.start()
            yield process, quick, slow
        finally:
            process.stop()


async def chat_many(process: Process, count: int) -> None:
    """Chats, every other one streamed, some at once."""
    left = iter(range(count))
    limits = httpx.Limits(max_connections=AT_ONCE)

    async def some(client: httpx.AsyncClient) -> None:
        for number in left:
            body: dict[str, Any] = {
                "model": "quick/x",
                "messages": [{"role": "user", "content": f"{number} " * 50}],
                "stream": number % 2 == 1,
            }
            answer = await client.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200
            assert "Oslo" in answer.text

    async with httpx.AsyncClient(
        base_url=process.url, timeout=60, limits=limits, trust_env=False
    ) as client:
        await asyncio.gather(*(some(client) for _ in range(AT_ONCE)))


async def abort_many(process: Process, count: int) -> None:
    """Streams whose clients leave after the first event."""
    left = iter(range(count))
    raw = request("/v1/chat/completions", "POST", body=BODY)

    async def some() -> None:
        for _ in left:
            async with connected(process.port) as client:
                await client.send(raw)
                await client.reader.readuntil(b'"content":"x"')
                client.abort()

    await asyncio.gather(*(some() for _ in range(8)))


async def test_memory_and_sockets_stay(tmp_path: Path) -> None:
    async with started(tmp_path) as (process, quick, slow):
        # What is loaded and cached once is no growth.
        await chat_many(process, REQUESTS // 2)
        await abort_many(process, ABORTS // 2)
        quick.seen.clear()
        slow.seen.clear()
        before = process.resident
        await chat_many(process, REQUESTS // 2)
        await abort_many(process, ABORTS // 2)
        deadline = time.monotonic() + 10
        while slow.under_way or process.sockets > AT_ONCE + 12:
            assert time.monotonic() < deadline, f"{slow.under_way} calls, {process.sockets} sockets"
            await asyncio.sleep(0.05)
        grown = process.resident - before
        assert grown <= GROWTH, f"{grown / 2**20:.1f} MiB"
        async with httpx.AsyncClient(base_url=process.url, trust_env=False) as client:
            rows = {
                row["provider"]: row for row in (await client.get("/chat/usage")).json()["rows"]
            }
        assert rows["quick"]["calls"] == REQUESTS // 2 * 2
        assert rows["slow"]["calls"] == rows["slow"]["cancelled"] == ABORTS // 2 * 2


async def test_the_ledger_survives_kill_9(tmp_path: Path) -> None:
    async with started(tmp_path) as (process, _, _):
        calls = 0
        for _ in range(3):
            await chat_many(process, 50)
            calls += 50
            async with httpx.AsyncClient(base_url=process.url, trust_env=False) as client:
                # Answers when every record is durable: from here on a kill costs none.
                before = (await client.get("/chat/usage")).json()
                assert before["calls"] == calls
            process.stop(signal.SIGKILL)
            await process.start()
            async with httpx.AsyncClient(base_url=process.url, trust_env=False) as client:
                assert (await client.get("/chat/usage")).json() == before
