"""What surrounds every call of a tool: its rate, its time, its figures, and whose fault it was."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import ParamSpec, TypeVar

from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError, ToolError
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR
from prometheus_client import Counter

from services.mcpd.core.faults import can_model_fix, tell_host, tell_model
from services.mcpd.core.rates import CallRate
from shared import context
from shared.errors import LakehouseError, NotFound, RateLimited, Timeout
from shared.sections.mcp import McpdSection

P = ParamSpec("P")
T = TypeVar("T")


class Calls:
    """Wraps tools and resources.

    Args:
        section: rate and time.
        counter: labelled by tool and outcome; none over stdio, where nobody reads figures.
    """

    def __init__(self, section: McpdSection, counter: Counter | None) -> None:
        self._max_s = section.max_seconds
        self._rate = CallRate(section.calls_per_minute, section.burst, time.monotonic())
        self._counter = counter

    def tool(self, fn: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        """The tool with all of that around it; its signature stays."""

        @functools.wraps(fn)
        async def call(*args: P.args, **kwargs: P.kwargs) -> T:
            name = fn.__name__
            try:
                async with self._bounded():
                    made = await fn(*args, **kwargs)
            except LakehouseError as error:
                if can_model_fix(error):
                    self._count(name, "refused")
                    raise ToolError(tell_model(error)) from error
                self._count(name, "failed")
                raise MCPError(INTERNAL_ERROR, error.message, tell_host(error)) from error
            self._count(name, "ok")
            return made

        return call

    def resource(self, fn: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        """A resource with the same around it, and what is not there said as the protocol has it."""

        @functools.wraps(fn)
        async def read(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                async with self._bounded():
                    return await fn(*args, **kwargs)
            except NotFound as error:
                raise ResourceNotFoundError(error.message) from error
            except LakehouseError as error:
                raise ResourceError(tell_model(error)) from error

        return read

    @asynccontextmanager
    async def _bounded(self) -> AsyncGenerator[None]:
        wait_s = self._rate.take(time.monotonic())
        if wait_s:
            raise RateLimited(
                f"Too many calls in a short time. Wait {wait_s:.1f} s before the next one."
            )
        given = context.deadline.get()
        own = time.monotonic() + self._max_s
        # Passed on to the gateway, so that the work ends there too.
        token = context.deadline.set(own if given is None else min(own, given))
        try:
            async with asyncio.timeout(self._max_s):
                yield
        except TimeoutError:
            raise Timeout(
                f"The call did not end within {self._max_s:g} s. Ask for less at once."
            ) from None
        finally:
            context.deadline.reset(token)

    def _count(self, tool: str, outcome: str) -> None:
        if self._counter is not None:
            self._counter.labels(tool, outcome).inc()
