"""Apps joined in one process: real stores in a temporary folder, no sockets."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from shared.config import Config
from shared.daemons import BUILT


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, held open together so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for held in sockets:
            held.bind(("127.0.0.1", 0))
        return [held.getsockname()[1] for held in sockets]
    finally:
        for held in sockets:
            held.close()


def make_config(tmp_path: Path, **sections: Mapping[str, Any]) -> Config:
    """A configuration on free ports with its data under `tmp_path`.

    Args:
        sections: keys to set by section, for example `storaged={"max_queue": 1}`.
    """
    values: dict[str, Any] = {"base_dir": tmp_path, "log": {"level": "error"}}
    values["fleet"] = {"data_dir": tmp_path / "data"}
    for name, port in zip(BUILT, free_ports(len(BUILT)), strict=True):
        values[name] = {"port": port}
    for name, keys in sections.items():
        values[name] = {**values.get(name, {}), **keys}
    return Config.model_validate(values)


@asynccontextmanager
async def running(app: FastAPI) -> AsyncGenerator[httpx.ASGITransport]:
    """Runs the app's lifespan around a transport that reaches it."""
    async with app.router.lifespan_context(app):
        # Errors of the app are answers here too, as they are over a socket.
        yield httpx.ASGITransport(app, raise_app_exceptions=False)


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncGenerator[httpx.AsyncClient]:
    """An httpx client of one running app."""
    async with (
        running(app) as transport,
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        yield client
