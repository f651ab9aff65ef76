"""Reads the fleet as a whole: who is ready, and what each daemon's API is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, cast

from shared.clients.base import ServiceClient
from shared.config import Config
from shared.errors import LakehouseError, Timeout, Upstream
from shared.runtime import Transports

DOCUMENT_S = 5.0  # longest wait for one daemon's document


class FleetReader:
    """Asks all daemons at once, and takes none longer than its time.

    Args:
        config: for addresses and the token.
        daemons: whom to ask.
        ready_s: seconds that a daemon has to answer whether it is ready.
        transports: in-process transports by daemon, for tests.
    """

    def __init__(
        self,
        config: Config,
        daemons: Iterable[str],
        *,
        ready_s: float,
        transports: Transports | None = None,
    ) -> None:
        self._ready_s = ready_s
        self._clients = {name: ServiceClient(config, name, transports) for name in daemons}

    async def check_all(self) -> dict[str, str]:
        """Each daemon by name with "ok", or the reason why it is not ready."""
        answers = await self._ask_all("/ready", self._ready_s)
        return {
            name: answer.message if isinstance(answer, LakehouseError) else "ok"
            for name, answer in answers.items()
        }

    async def read_documents(self) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
        """Each daemon's OpenAPI document, and why those are missing that could not be had."""
        found: dict[str, dict[str, Any]] = {}
        missing: dict[str, str] = {}
        for name, answer in (await self._ask_all("/openapi.json", DOCUMENT_S)).items():
            if isinstance(answer, LakehouseError):
                missing[name] = answer.message
            else:
                found[name] = answer
        return found, missing

    async def aclose(self) -> None:
        """Closes the connections."""
        for client in self._clients.values():
            await client.aclose()

    async def _ask_all(self, path: str, limit_s: float) -> Mapping[str, Any]:
        names = list(self._clients)
        answers = await asyncio.gather(*(self._ask(name, path, limit_s) for name in names))
        return dict(zip(names, answers, strict=True))

    async def _ask(self, name: str, path: str, limit_s: float) -> Any:
        """The daemon's JSON answer, or the error in its place."""
        try:
            async with asyncio.timeout(limit_s):
                answer = await self._clients[name].request("GET", path, timeout_s=limit_s)
            body: object = answer.json()
        except LakehouseError as error:
            return error
        except TimeoutError:
            return Timeout(f"{name} did not answer in {limit_s:g} s.")
        except ValueError:
            body = None
        if not isinstance(body, dict):
            return Upstream(f"{name} answered {path} with something else than a JSON object.")
        return cast("dict[str, Any]", body)


class Cached:
    """A value that is made when asked for, kept for a while, and made once at a time.

    Args:
        make: gives the value, and for how many seconds it may be kept.
        clock: the time in seconds.
    """

    def __init__(
        self, make: Callable[[], Awaitable[tuple[bytes, float]]], clock: Callable[[], float]
    ) -> None:
        self._make = make
        self._clock = clock
        self._value: bytes | None = None
        self._until = 0.0
        self._lock = asyncio.Lock()

    async def get(self) -> bytes:
        """The value, made anew if what is there is too old."""
        async with self._lock:
            if self._value is None or self._clock() >= self._until:
                self._value, keep_s = await self._make()
                self._until = self._clock() + keep_s
            return self._value
