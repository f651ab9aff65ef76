"""A run's progress as server-sent events.

    event: snapshot    the whole run, at the beginning of every connection
    event: node        one node that changed: {"node_id": …, state, …}
    event: end         the whole run; nothing follows

A slow reader gets fewer events, not old ones: each tells how the node stands when it is sent.
Before the request's time is over the stream ends; a reader that connects again gets a snapshot.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

from services.observerd.store.execution import Execution
from services.observerd.store.steps import RunRow
from services.observerd.store.views import view_node, view_run
from shared import context

# A comment this often, so that nobody on the way takes the silence for the end. Seconds.
_BEAT_S = 10.0
_MARGIN_S = 2.0


async def stream_progress(alive: Execution | None, ended: RunRow | None) -> AsyncGenerator[bytes]:
    """The events of a run that is under way, or the one of a run that has ended."""
    if ended is not None:
        yield _make("end", 0, view_run(ended).model_dump(mode="json"))
    if alive is None:
        return
    left = context.remaining_s()
    loop = asyncio.get_running_loop()
    until = loop.time() + max(0.0, (left if left is not None else 3600.0) - _MARGIN_S)
    seen = alive.version
    yield _make("snapshot", seen, view_run(alive.run).model_dump(mode="json"))
    while not alive.ended.is_set():
        wait_s = min(_BEAT_S, until - loop.time())
        if wait_s <= 0:
            return
        try:
            async with asyncio.timeout(wait_s):
                await alive.wait_change(seen)
        except TimeoutError:
            yield b": still under way\n\n"
            continue
        before, seen = seen, alive.version
        for name, version in list(alive.changes.items()):
            if version > before:
                node = view_node(alive.run.nodes[name], alive.plan.nodes[name].spec)
                yield _make("node", version, {"node_id": name, **node.model_dump(mode="json")})
    yield _make("end", alive.version, view_run(alive.run).model_dump(mode="json"))


def _make(event: str, number: int, data: dict[str, Any]) -> bytes:
    # Not orjson: an output may hold integers of any size.
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    return b"event: %s\nid: %d\ndata: %s\n\n" % (event.encode(), number, text)
