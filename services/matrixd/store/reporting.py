"""Searches and compositions as observerd sees them: what was asked, what came, how long it took.

A search's event carries its request whole, so that other settings can be tried on it later.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import orjson

from shared.errors import LakehouseError, Timeout
from shared.reporter import Reporter
from shared.telling import name_run
from shared.wire.matrixd import MatrixAnswer, MatrixSearch
from shared.wire.matrixd_context import Composed, ComposeRequest

A = TypeVar("A", MatrixAnswer, Composed)
_TOP = 10


class Observed:
    """Does the work and tells of it, whether it succeeds or not."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    async def search(
        self, request: MatrixSearch, work: Callable[[MatrixSearch], Awaitable[MatrixAnswer]]
    ) -> MatrixAnswer:
        """A search."""
        event = _begin("matrix.search", request)
        answer = await self._run(event, work(request))
        shown = [[hit.corpus, hit.id] for hit in answer.hits[:_TOP]]
        event["outputs"] = shown
        event["outputs_hash"] = _hash(shown)
        event["attributes"] = {
            "hits": len(answer.hits),
            "playbook": answer.playbook.activated,
            "down": sorted(n for n, c in answer.corpora.items() if c.status != "ok"),
        }
        self._reporter.tell(event)
        return answer

    async def compose(
        self, request: ComposeRequest, work: Callable[[ComposeRequest], Awaitable[Composed]]
    ) -> Composed:
        """A composition."""
        event = _begin("matrix.compose", request)
        event["model"] = request.model
        answer = await self._run(event, work(request))
        cited = [[one.corpus, one.id] for one in answer.citations[:_TOP]]
        event["outputs"] = cited
        event["outputs_hash"] = _hash(cited)
        event["attributes"] = {
            "mode": answer.mode,
            "downgraded": answer.downgraded,
            "tokens": answer.tokens,
            "left_out": len(answer.left_out),
        }
        self._reporter.tell(event)
        return answer

    async def _run(self, event: dict[str, Any], work: Awaitable[A]) -> A:
        begun = time.perf_counter()
        try:
            return await work
        except LakehouseError as error:
            event["status"] = "timeout" if isinstance(error, Timeout) else "error"
            event["error"] = {"type": error.code, "message": error.message[:4000]}
            self._reporter.tell(event)
            raise
        finally:
            # The same object that was told, and sent only later.
            event["latency_ms"] = _since(begun)


def _begin(mode: str, request: MatrixSearch | ComposeRequest) -> dict[str, Any]:
    inputs: Any = request.model_dump(mode="json", exclude_defaults=True)
    try:
        inputs_hash = _hash(inputs)
    except TypeError:
        # A filter may hold an integer or half a character that the log cannot; whether the
        # request is one that can be answered is not decided here.
        told = repr(inputs).encode("utf-8", "surrogatepass")
        inputs, inputs_hash = None, hashlib.sha256(told).hexdigest()
    return {
        "run_id": name_run(),
        "node_id": mode,
        "service": "matrixd",
        "mode": mode,
        "task_signature": mode,
        "status": "ok",
        "inputs": inputs,
        "inputs_hash": inputs_hash,
    }


def _hash(value: Any) -> str:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _since(begun: float) -> float:
    return round((time.perf_counter() - begun) * 1000, 3)
