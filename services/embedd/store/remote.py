"""What providers on other servers share: the way there, the key, and what failures mean."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import ClassVar

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from services.embedd.core.lru import Entry
from services.embedd.core.names import Wanted
from services.embedd.core.texts import share_tokens
from services.embedd.core.vectors import check_widths
from services.embedd.store.figures import LaneFigures
from services.embedd.store.lane import Lane
from services.embedd.store.provider import Model
from shared.errors import (
    Invalid,
    LakehouseError,
    NotFound,
    RateLimited,
    Timeout,
    Unavailable,
    Upstream,
)
from shared.keyfile import read_key
from shared.sections.embed import RemoteEmbedder

TRANSPORT_ERRORS = (httpx.HTTPError, aiohttp.ClientError, ConnectionError)
logger = logging.getLogger("lakehouse.embedd")

# The longest that a readiness check waits. Seconds.
CHECK_S = 2.0


class BearerKey(httpx.Auth):
    """Sends the key, or nothing: never one that a library found in the environment."""

    def __init__(self, key: str) -> None:
        self._key = key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Sets the header right, whatever it was."""
        request.headers.pop("authorization", None)
        if self._key:
            request.headers["authorization"] = f"Bearer {self._key}"
        yield request


class RemoteProvider(ABC):
    """Base of the providers that ask another server.

    Args:
        name: of its table.
        section: its settings.
        address: base URL of the server.
        key: sent as Bearer where the section names no key file; empty sends none.
        key_file: read at the start.
        transport: in place of the network (tests).
    """

    # What to look after when it does not answer, ending in a full stop.
    ADVICE: ClassVar[str] = ""

    def __init__(
        self,
        name: str,
        section: RemoteEmbedder,
        address: str,
        key: str,
        key_file: Path | None,
        transport: httpx.AsyncBaseTransport | None,
    ) -> None:
        self.name = name
        self._section = section
        self._address = address.rstrip("/")
        # What stands for the server in keys: a daemon of the fleet is itself on any port.
        self._endpoint = section.daemon or self._address
        self._auth = BearerKey(key)
        self._key_file = key_file
        self._key_problem = ""
        self._given_transport = transport
        self._widths: dict[str, int] = {}

    @property
    def models(self) -> tuple[str, ...]:
        """The configured default."""
        return (self._section.model,)

    async def start(self) -> None:
        """Reads the key; without one this provider alone is unavailable."""
        if self._key_file is not None:
            try:
                self._auth = BearerKey(read_key(self._key_file))
            except Unavailable as error:
                self._key_problem = error.message
                logger.warning("The embedding provider %s has no key: %s", self.name, error)

    def make_lane(
        self, model: Model, keep: Callable[[bytes, Entry], None], figures: LaneFigures
    ) -> Lane[str]:
        """Calls of so many texts, so many at once; broken off when nobody waits."""

        async def prepare(texts: Sequence[str]) -> list[tuple[str, int]]:
            return [(text, 1) for text in texts]

        async def compute(texts: list[str]) -> list[Entry]:
            return await self._embed(model, texts)

        return Lane(
            prepare=prepare,
            compute=compute,
            keep=keep,
            figures=figures,
            at_once=self._section.concurrency,
            max_items=self._section.batch,
            can_break_off=True,
        )

    async def _embed(self, model: Model, texts: list[str]) -> list[Entry]:
        try:
            vectors, tokens = await self._call(model, texts)
            if len(vectors) != len(texts):
                raise ValueError(f"{len(vectors)} vectors for {len(texts)} texts")
            check_widths(vectors)
        except TRANSPORT_ERRORS as error:
            raise self._broken(error) from error
        except (ValueError, TypeError, KeyError) as error:
            # pydantic's and json's errors are ValueErrors as well.
            raise Upstream(
                f"The embedding provider {self.name} gave an answer that is none: "
                f"{str(error)[:200]}",
                details={"provider": self.name},
            ) from error
        width = len(vectors[0]) // 4
        if model.dimensions not in (None, width):
            raise Invalid(
                f"{model.id} gives {width} dimensions where {model.dimensions} were asked for. "
                "Ask for fewer, or leave dimensions out.",
                details={"field": "dimensions", "limit": width},
            )
        self._widths[model.name] = width
        counts = share_tokens(tokens, texts)
        return [Entry(*pair, False) for pair in zip(vectors, counts, strict=True)]

    @abstractmethod
    async def _call(self, model: Model, texts: list[str]) -> tuple[list[bytes], int]:
        """The server's vectors in order, and the tokens that it read of all texts."""

    def _make_transport(self) -> httpx.AsyncBaseTransport:
        if self._given_transport is not None:
            return self._given_transport
        limits = httpx.Limits(max_connections=self._section.concurrency + 4)
        # Loading the CA certificates costs megabytes; plain http needs none.
        return AiohttpTransport(verify=self._address.startswith("https://"), limits=limits)

    def _require_key(self) -> None:
        if self._key_problem:
            raise Unavailable(
                f"The embedding provider {self.name} has no key. {self._key_problem}",
                details={"provider": self.name},
                headers={"x-should-retry": "false"},
            )

    def _timeout(self, longest_s: float | None = None) -> httpx.Timeout:
        section = self._section
        longest = section.timeout_s if longest_s is None else longest_s
        return httpx.Timeout(longest, connect=min(longest, section.connect_timeout_s))

    def _check_dimensions(self, model_id: str, dimensions: int | None) -> None:
        if dimensions is not None and not self._section.dimensions:
            raise Invalid(
                f"{model_id} is not configured to be cut to other dimensions. Leave dimensions "
                f"out, or set embedd.providers.{self.name}.dimensions if its model allows it.",
                details={"field": "dimensions"},
            )

    def _refused(self, status: int, message: str, model: str) -> LakehouseError:
        """What an error status of the server means here."""
        said = message.strip()[:500] or "no reason given"
        details = {"provider": self.name, "provider_status": status}
        if status == 404:
            return NotFound(
                f"The embedding provider {self.name} has no {model}: {said}",
                details={**details, "model": model},
            )
        if status in (401, 403):
            return Unavailable(
                f"The embedding provider {self.name} refuses the key. Check "
                f"embedd.providers.{self.name}.key_file.",
                details=details,
            )
        if status == 429:
            return RateLimited(
                f"The embedding provider {self.name} is busy: {said}",
                details=details,
                headers={"Retry-After": "1"},
            )
        if status < 500:
            return Invalid(
                f"The embedding provider {self.name} refuses a text: {said}", details=details
            )
        if status == 503:
            return Unavailable(f"{self._down()} It said: {said}", details=details)
        return Upstream(f"The embedding provider {self.name} failed: {said}", details=details)

    def _broken(self, error: Exception) -> LakehouseError:
        details = {"provider": self.name}
        cause = error.__cause__
        connecting = isinstance(error, httpx.ConnectTimeout) or isinstance(
            cause, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError
        )
        silent = isinstance(error, httpx.TimeoutException) or isinstance(
            cause, aiohttp.ServerTimeoutError
        )
        if silent and not connecting:
            return Timeout(
                f"The embedding provider {self.name} did not answer within "
                f"{self._section.timeout_s:g} s. Send fewer texts, or allow more time with "
                f"embedd.providers.{self.name}.timeout_s.",
                details=details,
            )
        return Unavailable(self._down(), details=details)

    def _down(self) -> str:
        daemon = self._section.daemon
        advice = f"Is {daemon} running? scripts/fleet.py status tells." if daemon else self.ADVICE
        return (
            f"The embedding provider {self.name} cannot be reached. {advice} No other model "
            "takes its place."
        )


def check_pin(wanted: Wanted, found_id: str) -> None:
    """Refuses a model that is not the one whose hash was asked for.

    Raises:
        NotFound: another hash, or none is known.
    """
    if wanted.digest and not found_id.endswith(f"@{wanted.digest}"):
        raise NotFound(
            f"{wanted.model} is there as {found_id}, not with the hash {wanted.digest}. "
            "Vectors of the two do not mix: embed again, or bring the earlier model back.",
            details={"model": wanted.model, "known": [found_id]},
        )
