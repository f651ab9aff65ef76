"""Many callers at once: one winner, no lost update, no torn read; and callers who leave."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from services.storaged.app import create_app
from tests.support.apps import client_of, make_config, running

pytestmark = pytest.mark.anyio

OBJECTS = "/storage/objects"


async def test_of_32_create_only_puts_exactly_one_wins(tmp_path: Path) -> None:
    async with client_of(create_app(make_config(tmp_path))) as client:
        for number in range(20):
            key = f"{OBJECTS}/race/{number}"
            # Both paths in: small bodies go at once, those without a length as a stream.
            bodies = [f"{number}-{racer}".encode() for racer in range(32)]

            async def race(racer: int, key: str = key, bodies: list[bytes] = bodies) -> int:
                body = bodies[racer] if racer % 2 else stream(bodies[racer])
                put = await client.put(key, content=body, headers={"if-none-match": "*"})
                return put.status_code

            statuses = await asyncio.gather(*(race(racer) for racer in range(32)))
            assert sorted(statuses) == [201] + [412] * 31
            got = await client.get(key)
            assert got.content == bodies[statuses.index(201)]
    assert list((tmp_path / "data/storaged/staging").iterdir()) == []


async def stream(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        await asyncio.sleep(0)
        yield piece


@pytest.mark.deep
async def test_updates_by_if_match_lose_none(tmp_path: Path) -> None:
    """Sixteen callers count up one number with read, change, conditional write."""
    workers, turns = 16, 10
    async with client_of(create_app(make_config(tmp_path))) as client:
        url = f"{OBJECTS}/counter.json"
        await client.put(url, content=b'{"n": 0}')

        async def count() -> None:
            for _ in range(turns):
                while True:
                    got = await client.get(url)
                    body = json.dumps({"n": got.json()["n"] + 1}).encode()
                    put = await client.put(
                        url, content=body, headers={"if-match": got.headers["etag"]}
                    )
                    if put.status_code == 200:
                        break
                    assert put.status_code == 412

        await asyncio.gather(*(count() for _ in range(workers)))
        assert (await client.get(url)).json() == {"n": workers * turns}


async def test_readers_see_whole_versions_only(tmp_path: Path) -> None:
    versions = [os.urandom(2_500_000 + n) for n in range(6)]
    etags = {f'"{hashlib.sha256(v).hexdigest()}"': v for v in versions}
    async with client_of(create_app(make_config(tmp_path))) as client:
        url = f"{OBJECTS}/k"
        await client.put(url, content=versions[0])

        async def write() -> None:
            for version in versions[1:]:
                assert (await client.put(url, content=version)).status_code == 200

        async def read() -> None:
            for _ in range(8):
                got = await client.get(url)
                assert got.content == etags[got.headers["etag"]]

        await asyncio.gather(write(), read(), read(), read())


class Connection:
    """One HTTP request by hand, so that its client can leave at any point."""

    def __init__(self, app: FastAPI, method: str, path: str, headers: dict[str, str]) -> None:
        self.app = app
        self.sent: list[Any] = []
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 5000),
            "headers": [(b"host", b"127.0.0.1")]
            + [(name.encode(), value.encode()) for name, value in headers.items()],
            "state": {},
        }
        # From this message on the client reads no more.
        self.reads = 1_000_000

    async def run(self) -> None:
        async def send(message: Any) -> None:
            self.sent.append(message)
            if len(self.sent) >= self.reads:
                await asyncio.Event().wait()

        await self.app(self.scope, self.incoming.get, send)

    def push(self, body: bytes, *, more: bool = True) -> None:
        self.incoming.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def leave(self) -> None:
        self.incoming.put_nowait({"type": "http.disconnect"})


async def wait_until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Polls a condition."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "the condition did not come to hold"
        await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    "headers", [{"content-length": "9000000"}, {"transfer-encoding": "chunked"}]
)
async def test_a_client_that_leaves_in_the_middle_of_a_put_leaves_nothing(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    staging = tmp_path / "data/storaged/staging"
    app = create_app(make_config(tmp_path))
    async with running(app) as transport:
        put = Connection(app, "PUT", f"{OBJECTS}/a/b", headers)
        task = asyncio.create_task(put.run())
        for _ in range(3):
            put.push(os.urandom(1_500_000))
        await wait_until(lambda: any(path.stat().st_size > 3_000_000 for path in staging.iterdir()))
        put.leave()
        await task
        await wait_until(lambda: not list(staging.iterdir()))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            assert (await client.get(f"{OBJECTS}/a/b")).status_code == 404
    assert list((tmp_path / "data/storaged/objects").iterdir()) == []


async def test_a_small_body_that_stops_half_way_is_not_stored(tmp_path: Path) -> None:
    app = create_app(make_config(tmp_path))
    async with running(app):
        put = Connection(app, "PUT", f"{OBJECTS}/k", {"content-length": "10"})
        put.push(b"12345")
        put.leave()
        await put.run()
        assert put.sent == []
    assert list((tmp_path / "data/storaged/objects").iterdir()) == []
    assert list((tmp_path / "data/storaged/staging").iterdir()) == []


def open_files() -> int:
    """How many files this process has open under a storaged's objects."""
    count = 0
    for entry in os.listdir("/proc/self/fd"):
        try:
            count += "/storaged/objects/" in os.readlink(f"/proc/self/fd/{entry}")
        except FileNotFoundError:
            continue
    return count


async def test_a_client_that_leaves_in_the_middle_of_a_get_frees_the_file(tmp_path: Path) -> None:
    app = create_app(make_config(tmp_path))
    async with running(app) as transport:
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            await client.put(f"{OBJECTS}/k", content=os.urandom(9_000_000))
        get = Connection(app, "GET", f"{OBJECTS}/k", {})
        get.push(b"", more=False)
        get.reads = 3
        task = asyncio.create_task(get.run())
        await wait_until(lambda: len(get.sent) == 3)
        assert open_files() == 1
        get.leave()
        await asyncio.wait([task])
        await wait_until(lambda: open_files() == 0)
        assert get.sent[-1]["more_body"]


async def test_a_get_that_is_cancelled_while_it_opens_frees_the_file(tmp_path: Path) -> None:
    app = create_app(make_config(tmp_path))
    async with running(app) as transport:
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            await client.put(f"{OBJECTS}/k", content=os.urandom(3_000_000))
        for turns in range(12):
            get = Connection(app, "GET", f"{OBJECTS}/k", {})
            get.push(b"", more=False)
            task = asyncio.create_task(get.run())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        await wait_until(lambda: open_files() == 0)
        assert open_files() == 0


async def test_more_callers_than_places_are_told_to_come_back(tmp_path: Path) -> None:
    app = create_app(make_config(tmp_path, storaged={"max_concurrency": 1, "max_queue": 0}))
    async with running(app) as transport:
        first = Connection(app, "PUT", f"{OBJECTS}/k", {"content-length": "5000000"})
        task = asyncio.create_task(first.run())
        first.push(bytes(1_000_000))
        await wait_until(lambda: first.incoming.empty())
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            refused = await client.get(f"{OBJECTS}/k")
            assert refused.status_code == 429
            assert refused.headers["retry-after"] == "1"
        first.push(bytes(4_000_000), more=False)
        await task
        assert first.sent[0]["status"] == 201
