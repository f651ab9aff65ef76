"""A refiner's matrixd that tests direct, and observerd beside it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI, Request, Response

from services.observerd.app import create_app
from tests.support.apps import client_of, make_config, running

REFINER = "/observer/refiners/jobs"
SPEC: dict[str, Any] = {
    "corpora": ["jobs"],
    "knobs": {"lexical": [0.0, 1.2], "use_playbook": [False, True]},
    "start": {"lexical": 0.0, "use_playbook": False},
    "policy": {"held_out": 0.0},
}
RIGHT = {"corpus": "jobs", "id": "right"}


class Matrix:
    """Stands in for matrixd: the right answer comes first or fifth, by the configuration."""

    def __init__(self) -> None:
        self.tunings: dict[str, Any] = {}
        self.searches: list[dict[str, Any]] = []
        self.good: dict[str, Any] = {"lexical": 1.2}
        self.down = False

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/matrix/search")
        async def search(request: Request) -> Any:
            if self.down:
                return Response(
                    b'{"error":{"code":"unavailable","message":"down","details":{}}}', 503
                )
            body = await request.json()
            self.searches.append(body)
            used = {"use_playbook": body["use_playbook"], **body["tuning"]}
            well = all(used.get(name) == value for name, value in self.good.items())
            ids = ["right", "b", "c", "d", "e"] if well else ["b", "c", "d", "e", "right"]
            hits = [
                {"corpus": "jobs", "id": one, "score": 0.5, "rank": n, "text": "", "metadata": {}}
                for n, one in enumerate(ids, 1)
            ]
            return {"hits": hits, "corpora": {}, "playbook": {"activated": False, "notes": []}}

        @app.put("/matrix/corpora/{name}/tuning")
        async def tune(name: str, request: Request) -> Any:
            if self.down:
                return Response(
                    b'{"error":{"code":"unavailable","message":"down","details":{}}}', 503
                )
            if name == "gone":
                return Response(b'{"error":{"code":"not_found","message":"no","details":{}}}', 404)
            self.tunings[name] = await request.json()
            blank = {"source": {"dataset": "d"}, "id": "i", "text": "t", "metadata": []}
            return {
                **blank, "name": name, "status": "ready", "refresh": "manual", "model": "m",
                "dim": 2, "index": "i", "documents": 1, "items": 1, "report": {}, "job": {},
                "calibrated": True, "tuning": self.tunings[name], "created_at": "t",
            }  # fmt: skip

        return app


@asynccontextmanager
async def observed(tmp_path: Path, matrix: Matrix) -> AsyncGenerator[httpx.AsyncClient]:
    async with running(matrix.app()) as transport:
        app = create_app(make_config(tmp_path), transports={"matrixd": transport})
        async with client_of(app) as client:
            yield client
