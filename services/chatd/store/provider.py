"""One provider: its key, its places, its health, and single tries at it.

aiohttp's client itself, not httpx over it: chats are this daemon's hot path, and the httpx
layer costs three times what the rest of a small chat does.
"""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import aiohttp
import orjson

from services.chatd.core.breaker import Breaker
from services.chatd.core.chat import Chat, Event
from services.chatd.core.faults import Fault, fault_of_body, fault_of_status, parse_retry_after
from services.chatd.core.reading import as_list, as_object, as_text, write_json
from services.chatd.core.redaction import Redactor
from services.chatd.core.wires import WIRES
from services.chatd.core.wires.base import Dialect, MakeId, Wire, decode
from services.chatd.store.stream import Stream, read_all, tell_fault
from shared import context
from shared.sections.chat import ChatdSection, ChatProvider
from shared.slots import Slots
from shared.version import VERSION

# What of an error's body is read.
ERROR_BYTES = 64 * 1024
# Bodies from here on are sent piece by piece.
LARGE = 1024 * 1024
# A request is ended in its protocol's own words so long before the edge would break it off.
MARGIN_S = 0.25


@dataclass(frozen=True, slots=True)
class Place:
    """Where a provider is, and what opens it.

    Attributes:
        address: its url without a trailing slash.
        key: sent to it; empty sends none.
        missing: why it cannot be asked: what to do about its key. Empty when it can.
    """

    address: str
    key: str = ""
    missing: str = ""


class Provider:
    """A table of [chatd.providers].

    Args:
        name: the table's.
        section: its settings.
        limits: settings that all share.
        place: where it is.
        redactor: takes keys out of what it says.
        make_id: ids for tool calls that come without.
    """

    def __init__(
        self,
        name: str,
        section: ChatProvider,
        limits: ChatdSection,
        place: Place,
        redactor: Redactor,
        make_id: MakeId,
    ) -> None:
        self.name = name
        self.section = section
        self.place = place
        self.slots = Slots(section.concurrency, section.queue)
        self.breaker = Breaker(limits.breaker_failures, limits.breaker_open_s)
        self._limits = limits
        self._redactor = redactor
        self._make_id = make_id
        self._session: aiohttp.ClientSession | None = None
        self._dialect = Dialect(
            max_tokens_field=section.max_tokens_field,
            messages_max_tokens=section.messages_max_tokens,
            reasoning_field=section.reasoning_field,
            send=section.send,
        )

    @property
    def registered(self) -> bool:
        """Whether it can be asked."""
        return not self.place.missing

    async def complete(self, chat: Chat, model: str) -> tuple[list[Event], tuple[str, ...]]:
        """One try at a whole answer; the events and the fields that were left out.

        Raises:
            Fault: it failed.
            Invalid: its protocol cannot say what is asked.
        """
        # An answer that is not streamed begins when it is complete: one limit for all of it.
        limit = self.section.total_timeout_s
        ends_at = time.monotonic() + limit
        wire, dropped, response = await self._post(chat, model, False, limit)
        try:
            async with asyncio.timeout(ends_at - time.monotonic()):
                data = await read_all(response, self._limits.max_answer_bytes)
        except Exception as error:
            raise self.fault_of(error, f"did not finish in {limit:g} s") from None
        finally:
            response.release()  # closes what is not at its end
        return self._read_whole(wire, data), dropped

    async def open(self, chat: Chat, model: str) -> tuple[Stream, tuple[str, ...]]:
        """One try at a stream, until its first events are here.

        Raises:
            Fault: it failed before.
            Invalid: its protocol cannot say what is asked.
        """
        section = self.section
        begun = time.monotonic()
        wire, dropped, response = await self._post(chat, model, True, section.first_token_timeout_s)
        try:
            kind = response.headers.get("content-type", "")
            if kind.startswith("application/json"):
                # Asked for a stream it answered whole: an error, or all of the answer at once.
                async with asyncio.timeout(section.first_token_timeout_s):
                    data = await read_all(response, self._limits.max_answer_bytes)
                stream = Stream.of_events(response, self._read_whole(wire, data))
            else:
                reader = wire.open_reader(self._make_id, self._limits.max_event_bytes)
                stream = Stream(
                    response,
                    reader,
                    chunk_s=section.chunk_timeout_s,
                    ends_at=begun + min(section.total_timeout_s, _left_s()),
                    max_bytes=self._limits.max_answer_bytes,
                )
                left = begun + section.first_token_timeout_s - time.monotonic()
                async with asyncio.timeout(left):
                    await stream.begin()
        except BaseException as error:
            response.close()
            if isinstance(error, Exception):
                silent = f"sent nothing for {section.first_token_timeout_s:g} s"
                raise self.fault_of(error, silent) from None
            raise
        return stream, dropped

    async def list_models(self) -> list[str]:
        """Ids of the models that it has, as it calls them.

        Raises:
            Fault: it failed.
        """
        native = self.section.wire == "ollama"
        path = "/api/tags" if native else "/models"
        limit = self._limits.probe_timeout_s
        try:
            async with (
                asyncio.timeout(limit),
                self._client().get(
                    self.place.address + path,
                    headers=WIRES[self.section.wire].headers(self.place.key),
                    allow_redirects=False,
                ) as response,
            ):
                await self._check_status(response)
                body = as_object(decode(await read_all(response, self._limits.max_answer_bytes)))
        except Exception as error:
            raise self.fault_of(error, f"did not list its models in {limit:g} s") from None
        # llama.cpp lists them in both forms; its names are in OpenAI's.
        rows: Any = body.get("models") if native or "data" not in body else body["data"]
        if not isinstance(rows, list):
            raise Fault("malformed", "its list of models is none")
        found = [as_object(row) for row in as_list(rows)]
        names = [as_text(row.get("id")) or as_text(row.get("name")) for row in found]
        return [name.removeprefix("models/") for name in names if name]

    def fault_of(self, error: Exception, silent: str) -> Exception:
        """The fault that an exception stands for, without keys in what it says."""
        found = tell_fault(error, silent)
        if isinstance(found, Fault):
            found.message = self._redactor.clean(found.message)
        return found

    async def aclose(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()

    async def _post(
        self, chat: Chat, model: str, stream: bool, limit_s: float
    ) -> tuple[Wire, tuple[str, ...], aiohttp.ClientResponse]:
        wire = WIRES[self._wire_name(model)]
        path, body, dropped = wire.build(chat, model, stream, self._dialect_for(model))
        headers = {"content-type": "application/json", **wire.headers(self.place.key)}
        data = write_json(body)
        response: aiohttp.ClientResponse | None = None
        try:
            async with asyncio.timeout(limit_s):
                response = await self._client().post(
                    self.place.address + path,
                    # In pieces where it is large, so that it does not hold the loop up.
                    data=data if len(data) < LARGE else io.BytesIO(data),
                    headers=headers,
                    allow_redirects=False,
                )
                await self._check_status(response)
        except BaseException as error:
            if response is not None:
                response.close()
            if isinstance(error, Exception):
                raise self.fault_of(error, f"did not answer in {limit_s:g} s") from None
            raise
        return wire, dropped, response

    async def _check_status(self, response: aiohttp.ClientResponse) -> None:
        if response.status == 200:
            return
        text = (await response.content.read(ERROR_BYTES)).decode("utf-8", "replace")
        try:
            body: object = orjson.loads(text)
        except orjson.JSONDecodeError:
            body = None
        headers: Mapping[str, str] = response.headers
        raise fault_of_status(response.status, body, text, parse_retry_after(headers, time.time()))

    def _read_whole(self, wire: Wire, data: bytes) -> list[Event]:
        body = decode(data)
        told = fault_of_body(body, status=200)
        fault = told
        if fault is None:
            if not isinstance(body, dict):
                raise Fault("malformed", "it is no JSON object")
            try:
                return wire.read_whole(as_object(body), self._make_id)
            except Fault as error:
                fault = error
        fault.message = self._redactor.clean(fault.message)
        raise fault

    def _wire_name(self, model: str) -> str:
        for pattern, wire in self.section.wires.items():
            if fnmatchcase(model, pattern):
                return wire
        return self.section.wire

    def _dialect_for(self, model: str) -> Dialect:
        if any(fnmatchcase(model, pattern) for pattern in self.section.fixed_sampling):
            return replace(self._dialect, fixed_sampling=True)
        return self._dialect

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # Places are counted by `slots`, for whole streams and not for connections.
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=15),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=self.section.connect_timeout_s
                ),
                headers={
                    "user-agent": f"lakehouse-chatd/{VERSION}",
                    "accept-encoding": "identity",
                },
                # Clouds put large policies and cookies there.
                max_line_size=64 * 1024,
                max_field_size=64 * 1024,
                trust_env=False,
            )
        return self._session


def _left_s() -> float:
    """Seconds that the request in hand may still take."""
    left = context.remaining_s()
    return float("inf") if left is None else max(0.0, left - MARGIN_S)
