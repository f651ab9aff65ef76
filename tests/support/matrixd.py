"""matrixd with real storaged, vectord and embedd in one process, over tables in memory."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
from fastapi import FastAPI, Request, Response

from services.embedd.app import create_app as create_embedd
from services.fake_ollama.app import create_app as create_fake_ollama
from services.matrixd.app import create_app
from services.storaged.app import create_app as create_storaged
from services.vectord.app import create_app as create_vectord
from shared.config import Config
from tests.support.apps import make_config, running
from tests.support.vectord import Down, until

Row = dict[str, Any]
_SELECT = re.compile(r'SELECT (.+) FROM "(\w+)"( LIMIT 0)?', re.S)


class Tables:
    """Stands in for queryd and catalogd: datasets as lists of rows, a snapshot a change."""

    def __init__(self) -> None:
        self.rows: dict[str, list[Row]] = {}
        self.snapshots: dict[str, int] = {}
        self.reads = 0

    def put(self, name: str, rows: list[Row]) -> None:
        """Sets a dataset's rows; a new snapshot."""
        self.rows[name] = rows
        self.snapshots[name] = self.snapshots.get(name, 0) + 1

    def app(self) -> FastAPI:
        """The two daemons' routes that matrixd calls."""
        app = FastAPI()

        @app.post("/sql")
        async def run_query(request: Request) -> Response:
            sql = (await request.json())["sql"]
            match = _SELECT.fullmatch(sql)
            if match is None or match[2] not in self.rows:
                error = {"code": "not_found", "message": f"no table in {sql}", "details": {}}
                return Response(orjson.dumps({"error": error}), status_code=404)
            rows = self.rows[match[2]]
            if match[3]:
                columns = [{"name": name, "type": "VARCHAR"} for name in (rows[0] if rows else {})]
                body = {"columns": columns, "rows": [], "row_count": 0}
                return Response(orjson.dumps({**body, "truncated": False, "elapsed_ms": 1}))
            self.reads += 1
            names = [name.strip('"') for name in match[1].split(", ")]
            lines = b"".join(orjson.dumps({n: row[n] for n in names}) + b"\n" for row in rows)
            return Response(lines, media_type="application/x-ndjson")

        @app.get("/catalog/datasets")
        async def list_datasets() -> dict[str, Any]:
            plain = {"uuid": "u", "fingerprint": "f", "bytes": 0, "files": 1, "updated_at": "t"}
            found = [
                {"name": n, "snapshot_id": str(s), "rows": len(self.rows[n]), "schema": [], **plain}
                for n, s in self.snapshots.items()
            ]
            return {"datasets": found}

        return app


class World:
    """The apps: `matrix` is asked over HTTP; peers can be cut off; matrixd can be restarted."""

    def __init__(self, config: Config, tables: Tables, peers: dict[str, Down]) -> None:
        self.config = config
        self.tables = tables
        self.peers = peers
        # From `start` on; a client with no transport would read the system's certificates.
        self.matrix: httpx.AsyncClient
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        """Runs matrixd."""
        app = create_app(self.config, transports=dict(self.peers))
        transport = await self._stack.enter_async_context(running(app))
        self.matrix = await self._stack.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")
        )

    async def stop(self) -> None:
        """Stops matrixd."""
        await self._stack.aclose()
        self._stack = AsyncExitStack()

    async def restart(self) -> None:
        """Stops matrixd and runs it anew on the same data."""
        await self.stop()
        await self.start()

    async def corpus(self, name: str, rows: list[Row], **more: Any) -> dict[str, Any]:
        """A corpus of `rows` with columns id and text, built."""
        self.tables.put(name, rows)
        spec = {"name": name, "source": {"dataset": name}, "id": "id", "text": "{text}", **more}
        answer = await self.matrix.post("/matrix/corpora", params={"wait": 30}, json=spec)
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def search(self, query: str, **more: Any) -> dict[str, Any]:
        """A search that works."""
        answer = await self.matrix.post("/matrix/search", json={"query": query, **more})
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def ids(self, query: str, **more: Any) -> list[str]:
        """Ids of a search's hits."""
        return [hit["id"] for hit in (await self.search(query, **more))["hits"]]

    async def job(self, name: str) -> dict[str, Any]:
        """The corpus once its job is over."""

        async def is_over() -> bool:
            found = (await self.matrix.get(f"/matrix/corpora/{name}")).json()
            return found["job"]["status"] in ("done", "failed")

        await until(is_over)
        return (await self.matrix.get(f"/matrix/corpora/{name}")).json()


class Gate(httpx.AsyncBaseTransport):
    """Lets requests through, but holds the answers of those that `held` picks."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self.inner = inner
        self.held: Callable[[httpx.Request], bool] = lambda _: False
        self.early = False
        self.waiting = asyncio.Event()
        self.opened = asyncio.Event()

    def hold(self, method: str, end: str, *, early: bool = False) -> None:
        """Holds from now on; `early` ones before they reach the daemon."""
        self.held = lambda r: r.method == method and r.url.path.endswith(end)
        self.early = early

    def open(self) -> None:
        """Lets all through."""
        self.held = lambda _: False
        self.opened.set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        held = self.held(request)
        if held and self.early:
            self.waiting.set()
            await self.opened.wait()
        answer = await self.inner.handle_async_request(request)
        if held and not self.early:
            self.waiting.set()
            await self.opened.wait()
        return answer


def gate(w: World, peer: str = "vectord") -> Gate:
    """A gate before one of the peers."""
    found = Gate(w.peers[peer].inner)
    w.peers[peer].inner = found
    return found


@asynccontextmanager
async def world(tmp_path: Path, **sections: Mapping[str, Any]) -> AsyncGenerator[World]:
    """Runs all of it; `sections` are settings as for `make_config`."""
    settings = {"embedd": {"default_model": "fake"}, **sections}
    config = make_config(tmp_path, **settings)
    tables = Tables()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        fake = await enter(running(create_fake_ollama(config)))
        storaged = Down(await enter(running(create_storaged(config))))
        embedd = Down(await enter(running(create_embedd(config, transports={"fake_ollama": fake}))))
        vectord = Down(
            await enter(running(create_vectord(config, transports={"storaged": storaged})))
        )
        data = Down(await enter(running(tables.app())))
        peers = {"storaged": storaged, "embedd": embedd, "vectord": vectord}
        made = World(config, tables, {**peers, "queryd": data, "catalogd": data})
        await made.start()
        try:
            yield made
        finally:
            await made.stop()
