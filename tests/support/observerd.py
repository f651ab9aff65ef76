"""observerd in one process, with modes that tests direct."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from services.observerd.app import create_app
from services.observerd.store.modes import Call, Mode
from shared.errors import LakehouseError
from tests.support.apps import client_of, make_config

RUNS = "/observer/workflows/runs"


class Script:
    """The modes `test.step` and `test.write` (which has side effects): they do what they are told.

    Before its n-th call a node raises `errors[node][n]`, if there is one. `calls` lists who was
    called; a node in `gates` waits until its event is set.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.keys: list[str] = []
        self.errors: dict[str, list[BaseException | None]] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.outputs: dict[str, Any] = {}
        self.running = 0
        self.most = 0

    async def run(self, inputs: Any, call: Call) -> Any:
        """One call of either mode."""
        self.calls.append(call.node_id)
        self.keys.append(call.idempotency_key)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if call.node_id in self.gates:
                await self.gates[call.node_id].wait()
            waiting = self.errors.get(call.node_id)
            error = waiting.pop(0) if waiting else None
            if error is not None:
                raise error
            return self.outputs.get(call.node_id, inputs)
        finally:
            self.running -= 1

    def modes(self) -> list[Mode]:
        """Both."""
        return [
            Mode("test.step", "Does what the test says", None, self.run),
            Mode("test.write", "The same, with effects", None, self.run, side_effects=True),
        ]


@asynccontextmanager
async def observer(
    folder: Path, script: Script | None = None, **section: Any
) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of a daemon with its data under `folder`."""
    config = make_config(folder, observerd=section)
    modes = script.modes() if script else None
    async with client_of(create_app(config, modes=modes)) as client:
        yield client


def step(name: str, *after: str, mode: str = "test.step", **more: Any) -> dict[str, Any]:
    """A node."""
    return {"id": name, "mode": mode, "depends_on": list(after), **more}


async def start(client: httpx.AsyncClient, *nodes: dict[str, Any], **more: Any) -> str:
    """Starts a run and gives its id."""
    answer = await client.post(RUNS, json={"name": "test", "nodes": list(nodes), **more})
    assert answer.status_code == 202, answer.text
    return answer.json()["run_id"]


async def finish(client: httpx.AsyncClient, run_id: str) -> dict[str, Any]:
    """The run when it has ended."""
    run = (await client.get(f"{RUNS}/{run_id}", params={"wait": 20})).json()
    assert run["finished_at"], run
    return run


async def run_nodes(
    client: httpx.AsyncClient, *nodes: dict[str, Any], **more: Any
) -> dict[str, Any]:
    """Runs nodes to the end."""
    return await finish(client, await start(client, *nodes, **more))


def states(run: dict[str, Any]) -> dict[str, str]:
    """State, or skip cause, of every node."""
    return {
        name: node["state"] if node["state"] != "skipped" else node["skip_cause"]
        for name, node in run["nodes"].items()
    }


async def until(check: Callable[[], bool]) -> None:
    """Waits for a condition."""
    async with asyncio.timeout(20):
        while not check():
            await asyncio.sleep(0.005)


def fail(error: type[LakehouseError], times: int = 1) -> list[BaseException | None]:
    """Errors for the next calls."""
    return [error(f"test {error.code}") for _ in range(times)]
