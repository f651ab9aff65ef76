"""Running one node: its attempts, their deadline, and what came of them."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from services.observerd.core.workflow.plan import Node
from services.observerd.core.workflow.retries import retry_after
from services.observerd.core.workflow.schemas import find_mismatch
from services.observerd.core.workflow.states import Problem, Result
from services.observerd.store.figures import Figures
from services.observerd.store.modes import Call, Mode
from shared import context
from shared.errors import Internal, LakehouseError, Timeout, TooLarge, Unprocessable
from shared.sections.observe import ObserverdSection

logger = logging.getLogger("lakehouse.observerd")

# By a name of its own, so that tests need not wait.
pause = asyncio.sleep

Begin = Callable[[], Awaitable[None]]
Failed = Callable[[int, Problem], Awaitable[None]]


async def run_attempts(
    node: Node,
    mode: Mode,
    inputs: dict[str, Any],
    call: Call,
    *,
    failures: int,
    section: ObserverdSection,
    figures: Figures,
    begin: Begin,
    failed: Failed,
) -> Result:
    """Tries a node until it succeeds or may not be tried again; gives its end.

    Args:
        failures: how often it failed before the daemon was last started.
        begin: told before each attempt.
        failed: told of each failure that is followed by another attempt.
    """
    limit_s = node.spec.timeout or section.node_timeout_s
    while True:
        await begin()
        began = time.monotonic()
        try:
            output = await _attempt(node, mode, inputs, call, limit_s, section.max_output_bytes)
            return Result("completed", output=output)
        except Exception as error:
            failures += 1
            told = error
            if not isinstance(error, LakehouseError):
                logger.error(
                    "The mode %s failed in node %s", mode.name, call.node_id, exc_info=error
                )
                told = Internal(f"{mode.name} failed in a way it should not; the log has more.")
            assert isinstance(told, LakehouseError)
            problem = Problem(told.code, told.message, told.details)
            delay = retry_after(node, failures, error)
        finally:
            figures.node_seconds.labels(mode.name).observe(time.monotonic() - began)
        if delay is None:
            return Result("failed", error=problem)
        await failed(failures, problem)
        await pause(delay)


async def _attempt(
    node: Node, mode: Mode, inputs: dict[str, Any], call: Call, limit_s: float, max_bytes: int
) -> Any:
    # What the mode calls is told who asks and how long it may take.
    context.request_id.set(f"{call.run_id[:100]}.{call.node_id}"[:128])
    context.deadline.set(time.monotonic() + limit_s)
    try:
        async with asyncio.timeout(limit_s):
            output = await mode.call(inputs, call)
    except TimeoutError:
        raise Timeout(f"The node did not finish within its {limit_s:g} s.") from None
    try:
        size = len(json.dumps(output, separators=(",", ":"), allow_nan=False))
    except ValueError:
        raise Unprocessable("The output has a number that JSON cannot carry.") from None
    if size > max_bytes:
        raise TooLarge(
            f"The output takes {size} bytes; a node may give {max_bytes}. "
            "Ask for less, or store it as an object and give its key.",
        )
    if node.spec.output_schema is not None:
        problem = find_mismatch(output, node.spec.output_schema)
        if problem is not None:
            raise Unprocessable(f"The output is not what output_schema asks for: {problem}")
    return output
