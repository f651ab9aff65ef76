"""Reading from a provider: all of an answer, or a stream of events within its limits."""

from __future__ import annotations

import asyncio
import time

import aiohttp

from services.chatd.core.chat import Event
from services.chatd.core.faults import Fault
from services.chatd.core.wires.base import Reader

# How long a finished stream may take to end its body too, so that its connection can be kept.
END_S = 0.1


class Stream:
    """A stream of events from one try.

    Args:
        response: its body is read here, and closed.
        reader: of the provider's protocol.
        chunk_s: longest wait for the next events.
        ends_at: monotonic time after which nothing is waited for.
        max_bytes: of the whole body.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        reader: Reader | None,
        *,
        chunk_s: float,
        ends_at: float,
        max_bytes: int,
    ) -> None:
        self._response = response
        self._reader = reader
        self._chunk_s = chunk_s
        self._ends_at = ends_at
        self._left = max_bytes
        self._ready: list[Event] = []
        self.over = False

    @classmethod
    def of_events(cls, response: aiohttp.ClientResponse, events: list[Event]) -> Stream:
        """A stream whose events are all here."""
        stream = cls(response, None, chunk_s=0, ends_at=0, max_bytes=0)
        stream._ready = events
        stream.over = True
        return stream

    async def begin(self) -> None:
        """Waits for the first events; `take` has them then."""
        self._ready = await self._read()

    @property
    def late(self) -> bool:
        """Whether its time as a whole is over."""
        return time.monotonic() >= self._ends_at

    def take(self) -> list[Event]:
        """The events that are here."""
        events, self._ready = self._ready, []
        return events

    async def next(self) -> list[Event]:
        """The next events, at least one; not to be called once `over`.

        Raises:
            Fault, TimeoutError, aiohttp.ClientError, OSError: it broke off.
        """
        limit = min(self._chunk_s, self._ends_at - time.monotonic())
        async with asyncio.timeout(limit):
            return await self._read()

    async def _read(self) -> list[Event]:
        assert self._reader is not None
        while True:
            data = await self._response.content.readany()
            self._left -= len(data)
            if self._left < 0:
                raise Fault("oversized", "its answer is over chatd.max_answer_bytes")
            events = self._reader.feed(data) if data else []
            if not data or self._reader.over:
                events += self._reader.end()
                self.over = True
            if events or self.over:
                return events

    async def aclose(self) -> None:
        """Ends the exchange: at once by cutting the connection, unless all of it was read."""
        response = self._response
        if self.over and not response.content.is_eof():
            try:
                async with asyncio.timeout(END_S):
                    while await response.content.readany():
                        pass
            except (TimeoutError, aiohttp.ClientError, OSError):
                pass
            finally:
                response.release()  # closes what is not at its end
        elif self.over:
            response.release()
        else:
            response.close()


async def read_all(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """The whole body.

    Raises:
        Fault: it is larger.
    """
    pieces: list[bytes] = []
    size = 0
    while piece := await response.content.readany():
        size += len(piece)
        if size > max_bytes:
            response.close()
            raise Fault("oversized", f"its answer is over {max_bytes} bytes")
        pieces.append(piece)
    return b"".join(pieces)


def tell_fault(error: Exception, silent: str) -> Exception:
    """The fault that a failure of the connection stands for; other errors as they are.

    Args:
        silent: in words, what a time limit that has passed means.
    """
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        why = "no answer to the attempt in time"
        if isinstance(error, aiohttp.ClientConnectorError):
            why = error.strerror or type(error.os_error).__name__
        return Fault("unreachable", why)
    if isinstance(error, TimeoutError):
        return Fault("silent", silent)
    if isinstance(error, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError | OSError):
        return Fault("cut", "the connection was lost")
    if isinstance(error, aiohttp.ClientError):
        return Fault("malformed", "it does not answer in HTTP")
    return error
