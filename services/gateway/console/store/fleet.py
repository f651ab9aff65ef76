"""What each daemon does now: asked while somebody looks at the console, and not otherwise."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from services.gateway.console.core.rates import Rate, Sample, Track, read_sample
from shared.clients.base import ServiceClient
from shared.config import Config
from shared.daemons import BUILT, PORTS
from shared.errors import LakehouseError, Unavailable
from shared.runtime import Transports
from shared.version import VERSION
from shared.wire.base import Health

# Between two looks at the fleet, and how long it is looked at after the last page. Seconds.
EVERY_S = 5.0
LINGER_S = 300.0
ANSWER_S = 2.0


@dataclass(frozen=True, slots=True)
class DaemonState:
    """A daemon as the fleet page shows it.

    `state` is ready, waiting (alive, with a `reason` not to be ready), down, or absent (not
    part of this build). `rates` are requests a second, oldest first.
    """

    name: str
    address: str
    state: str
    reason: str = ""
    version: str = ""
    uptime_s: float | None = None
    rate: Rate | None = None
    rates: tuple[float, ...] = ()
    in_flight: int = 0
    total: int = 0


class FleetWatch:
    """Looks at every daemon at once, every few seconds while somebody is there.

    Args:
        config: for the addresses and the token.
        own_figures: gives the gateway's own `/metrics`, which it need not ask itself for.
        began: when the gateway started, by the monotonic clock.
        transports: in-process transports by service name, for tests.
    """

    def __init__(
        self,
        config: Config,
        own_figures: Callable[[], bytes],
        began: float,
        transports: Transports | None,
    ) -> None:
        self._config = config
        self._own_figures = own_figures
        daemons = [name for name in config.fleet.daemons or BUILT if name != "gateway"]
        self._clients = {name: ServiceClient(config, name, transports) for name in daemons}
        self._tracks = {name: Track() for name in ["gateway", *daemons]}
        self._states: list[DaemonState] = []
        self._began = began
        self._wanted_until = 0.0
        self._looked_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    def touch(self) -> None:
        """Somebody is there: keep looking for a while."""
        self._wanted_until = time.monotonic() + LINGER_S
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._keep_looking())

    async def read(self) -> list[DaemonState]:
        """Every daemon of the roster as it was a moment ago."""
        async with self._lock:
            if time.monotonic() - self._looked_at > EVERY_S * 0.8:
                await self._look()
            return self._states

    async def aclose(self) -> None:
        """Stops looking and closes the connections."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for client in self._clients.values():
            await client.aclose()

    async def _keep_looking(self) -> None:
        while time.monotonic() < self._wanted_until:
            await self.read()
            await asyncio.sleep(EVERY_S)

    async def _look(self) -> None:
        found = await asyncio.gather(*(self._look_at(name) for name in PORTS))
        self._states = list(found)
        self._looked_at = time.monotonic()

    async def _look_at(self, name: str) -> DaemonState:
        if name == "gateway":
            return self._look_at_self()
        client = self._clients.get(name)
        if client is None:
            return DaemonState(name, "", "absent", "Not part of this fleet.")
        address = self._config.daemon(name).address
        try:
            async with asyncio.timeout(ANSWER_S):
                health = await self._health(client)
                figures = await client.request("GET", "/metrics", timeout_s=ANSWER_S)
        except LakehouseError as error:
            return DaemonState(name, address, "down", error.message)
        except TimeoutError:
            return DaemonState(name, address, "down", f"No answer in {ANSWER_S:g} s.")
        sample = read_sample(figures.text, time.monotonic())
        reason = await self._reason(client)
        state = "waiting" if reason else "ready"
        return self._describe(name, address, state, reason, health.version, health.uptime_s, sample)

    def _look_at_self(self) -> DaemonState:
        sample = read_sample(self._own_figures().decode(), time.monotonic())
        address = self._config.gateway.address
        uptime_s = time.monotonic() - self._began
        return self._describe("gateway", address, "ready", "", VERSION, uptime_s, sample)

    async def _health(self, client: ServiceClient) -> Health:
        response = await client.request("GET", "/health", timeout_s=ANSWER_S)
        return Health.model_validate_json(response.content)

    async def _reason(self, client: ServiceClient) -> str:
        """Why a daemon is not ready; empty when it is."""
        try:
            async with asyncio.timeout(ANSWER_S):
                await client.request("GET", "/ready", timeout_s=ANSWER_S)
        except Unavailable as error:
            return error.message
        except LakehouseError as error:
            return error.message
        except TimeoutError:
            return f"/ready did not answer in {ANSWER_S:g} s."
        return ""

    def _describe(
        self,
        name: str,
        address: str,
        state: str,
        reason: str,
        version: str,
        uptime_s: float,
        sample: Sample,
    ) -> DaemonState:
        track = self._tracks[name]
        track.add(sample)
        return DaemonState(
            name=name,
            address=address,
            state=state,
            reason=reason,
            version=version,
            uptime_s=uptime_s,
            rate=track.now(),
            rates=tuple(track.rates()),
            # The request that asks is one of them.
            in_flight=max(0, int(sample.in_flight) - 1),
            total=int(sample.requests),
        )
