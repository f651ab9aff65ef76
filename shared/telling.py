"""A daemon's requests as events: how each went, told to observerd and never waited for.

Names, counts, codes and times only. What was asked and answered stays where it was: a hash
says whether two requests asked the same, an error is told by its code and not by its message,
which may quote the request.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter

from shared import context
from shared.clients.observerd import ObserverdClient
from shared.config import Config
from shared.errors import LakehouseError, Timeout
from shared.reporter import Reporter
from shared.runtime import Transports


def name_run() -> str:
    """The request's own id, so that what one request caused is found together."""
    given = context.request_id.get()
    return given if given[:1].isalnum() else f"r{given or secrets.token_hex(8)}"[:128]


def hash_request(*parts: object) -> str:
    """Names what was asked, without telling it."""
    digest = hashlib.sha256()
    for part in parts:
        said = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(said) + said)
    return digest.hexdigest()


class RunTeller:
    """Tells observerd of one daemon's requests.

    Args:
        service: the daemon.
        registry: where events that nobody took are counted.
        transports: in-process transports by service name, for tests.
    """

    def __init__(
        self,
        service: str,
        config: Config,
        registry: CollectorRegistry,
        transports: Transports | None = None,
    ) -> None:
        self._service = service
        self._client = ObserverdClient(config, transports)
        dropped = Counter(
            f"lakehouse_{service}_unreported_events_total",
            "Events given up because observerd did not take them",
            registry=registry,
        )
        self._reporter = Reporter(self._client.record, dropped.inc)

    async def aclose(self) -> None:
        """Sends what waits, within a second, and closes the connection."""
        await self._reporter.aclose()
        await self._client.aclose()

    def tell(
        self,
        mode: str,
        latency_ms: float,
        *,
        status: str = "ok",
        error: str | None = None,
        run_id: str | None = None,
        task_signature: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> None:
        """Tells how one request went; returns at once.

        Args:
            mode: what was done, which is also the node's name.
            status: the engine's word.
            error: a code.
            run_id: the request's id where the context does not have it any more.
            attributes: what else is worth knowing, None left out.
            more: further fields of `shared.wire.observerd.Event`, None left out.
        """
        event: dict[str, Any] = {
            "run_id": run_id or name_run(),
            "node_id": mode,
            "service": self._service,
            "mode": mode,
            "task_signature": task_signature or mode,
            "status": status,
            "latency_ms": round(latency_ms, 3),
        }
        if error:
            event["error"] = {"type": error[:200]}
        if attributes:
            event["attributes"] = {k: v for k, v in attributes.items() if v is not None}
        event |= {name: value for name, value in more.items() if value is not None}
        self._reporter.tell(event)


def judge_failure(error: BaseException) -> tuple[str, str]:
    """Status and code of a request that ended in an exception."""
    if isinstance(error, LakehouseError):
        return "timeout" if isinstance(error, Timeout) else "error", error.code
    return "cancelled", "gone"


def since(begun: float) -> float:
    """Milliseconds since a `time.perf_counter()`."""
    return (time.perf_counter() - begun) * 1000
