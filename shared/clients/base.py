"""The base of all clients between daemons.

The httpx API over the aiohttp transport (httpx's own costs four times the CPU and
collapses under concurrency). Each call passes on the request id, what is left of the
deadline, and the fleet's token; an answer of 400 or more is raised as the class of
`shared.errors` that it stands for.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from shared import context
from shared.config import Config
from shared.errors import Timeout, Unavailable, Upstream, from_response
from shared.keepalive import IDLE_CONNECTION_S

# A daemon on the same machine accepts at once or not at all. Seconds.
CONNECT_S = 5.0
# Between two pieces of an answer when the request has no deadline of its own. Seconds.
READ_S = 60.0
# For a peer's /health. Less than the gateway waits for a daemon's /ready, so that a peer that
# hangs is named there, and not the daemon that waited for it.
CHECK_S = 1.5

# The transport translates most of aiohttp's errors into httpx's, but not all.
TransportError = httpx.HTTPError | aiohttp.ClientError
TRANSPORT_ERRORS = (httpx.HTTPError, aiohttp.ClientError)


class ServiceClient:
    """Talks to one daemon.

    Args:
        config: for the daemon's address and the token.
        service: its name.
        transports: in-process transports by service name, which take the place of the network.
    """

    def __init__(
        self,
        config: Config,
        service: str,
        transports: Mapping[str, httpx.AsyncBaseTransport] | None = None,
    ) -> None:
        self.service = service
        self._token = config.token
        address = config.daemon(service).address
        self._client = httpx.AsyncClient(
            base_url=address,
            transport=(transports or {}).get(service) or _make_transport(address),
            timeout=httpx.Timeout(READ_S, connect=CONNECT_S),
            trust_env=False,
        )

    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        **kwargs: Any,
    ) -> httpx.Response:
        """Sends one request and gives its answer, read to the end.

        `path` is taken as it stands: percent-encode what comes from data. `timeout_s` is the
        longest silence accepted, for calls that work long before they answer.

        Raises:
            LakehouseError: the class that the peer's answer stands for; Unavailable when it
                cannot be reached, Timeout when it stays silent, Upstream when it breaks off.
        """
        async with self.stream(
            method, path, headers=headers, timeout_s=timeout_s, **kwargs
        ) as response:
            try:
                await response.aread()
            except TRANSPORT_ERRORS as error:
                raise self._broken(error) from error
            return response

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        **kwargs: Any,
    ) -> AsyncGenerator[httpx.Response]:
        """Like `request`, with a body that the caller reads piece by piece."""
        left = context.remaining_s()
        if left is not None and left <= 0:
            raise Timeout("The request's time is over.")
        silence = timeout_s if timeout_s is not None else (READ_S if left is None else left)
        request = self._client.build_request(
            method,
            path,
            headers=self._headers(headers, left),
            timeout=httpx.Timeout(silence, connect=CONNECT_S),
            **kwargs,
        )
        try:
            response = await self._client.send(request, stream=True)
        except TRANSPORT_ERRORS as error:
            raise self._broken(error) from error
        try:
            if response.status_code >= 400:
                raise await self._refused(response)
            yield response
        finally:
            await response.aclose()

    async def check(self) -> str:
        """ "ok" when the daemon is alive, else the reason why not; for `/ready`."""
        try:
            await self.request("GET", "/health", timeout_s=CHECK_S)
        except (Unavailable, Timeout, Upstream) as error:
            return error.message
        return "ok"

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    def _headers(self, given: Mapping[str, str] | None, left: float | None) -> dict[str, str]:
        headers = dict(given or {})
        if context.request_id.get():
            headers.setdefault(context.REQUEST_ID_HEADER, context.request_id.get())
        if left is not None:
            headers.setdefault(context.DEADLINE_HEADER, str(int(left * 1000)))
        if self._token:
            headers.setdefault("authorization", f"Bearer {self._token}")
        return headers

    async def _refused(self, response: httpx.Response) -> Exception:
        try:
            await response.aread()
            body: object = response.json()
        except (*TRANSPORT_ERRORS, ValueError):
            body = None
        return from_response(self.service, response.status_code, body)

    def _broken(self, error: TransportError) -> Exception:
        # The transport gives a connection lost in use the same class as one never made;
        # aiohttp's own error behind it tells them apart.
        never_made = isinstance(error.__cause__, aiohttp.ClientConnectorError)
        if never_made or (error.__cause__ is None and isinstance(error, httpx.ConnectError)):
            return Unavailable(
                f"{self.service} cannot be reached. Is it running? scripts/fleet.py status tells.",
                details={"peer": self.service},
            )
        silent = isinstance(error.__cause__, aiohttp.ServerTimeoutError)
        if silent or (error.__cause__ is None and isinstance(error, httpx.TimeoutException)):
            return Timeout(
                f"{self.service} did not answer in time.", details={"peer": self.service}
            )
        return Upstream(
            f"{self.service} broke the connection off. Try again; its log may say why.",
            details={"peer": self.service},
        )


def _make_transport(address: str) -> httpx.AsyncBaseTransport:
    limits = httpx.Limits(
        max_connections=256, max_keepalive_connections=64, keepalive_expiry=IDLE_CONNECTION_S
    )
    # Loading the CA certificates costs megabytes in every daemon; plain http needs none.
    return AiohttpTransport(verify=address.startswith("https://"), limits=limits)
