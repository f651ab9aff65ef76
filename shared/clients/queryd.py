"""Client of queryd: SQL with its answers as a whole, as rows one by one, or as Arrow bytes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx
import orjson

from shared.clients.base import TRANSPORT_ERRORS, ServiceClient
from shared.config import Config
from shared.errors import Upstream
from shared.wire.queryd import (
    ARROW_TYPE,
    NDJSON_TYPE,
    SQL_PATH,
    TABLES_PATH,
    TRUNCATED_KEY,
    SqlRequest,
    SqlResult,
    TableInfo,
    TableList,
)


class QuerydClient(ServiceClient):
    """Talks to queryd.

    Args:
        config: for the address and the token.
        transports: in-process transports by service name, in place of the network.
    """

    def __init__(
        self, config: Config, transports: Mapping[str, httpx.AsyncBaseTransport] | None = None
    ) -> None:
        super().__init__(config, "queryd", transports)

    async def run_query(self, request: SqlRequest) -> SqlResult:
        """The rows of a query as one JSON answer.

        Raises:
            Invalid, Forbidden, NotFound: what is wrong with the statement.
            Unprocessable: it needs more than its share of the machine.
            Timeout: it took too long.
        """
        response = await self.request("POST", SQL_PATH, **_body(request))
        return SqlResult.model_validate_json(response.content)

    @asynccontextmanager
    async def stream_arrow(self, request: SqlRequest) -> AsyncGenerator[AsyncIterator[bytes]]:
        """The bytes of a query's Arrow IPC stream, piece by piece.

        The stream's last batch has no rows; its metadata says whether rows were left out.

        Raises:
            Upstream: while reading: the query failed in the middle.
        """
        async with self.stream("POST", SQL_PATH, **_body(request, ARROW_TYPE)) as response:
            yield self._read_pieces(response)

    @asynccontextmanager
    async def stream_as(
        self, request: SqlRequest, accept: str
    ) -> AsyncGenerator[tuple[str, AsyncIterator[bytes]]]:
        """A query's answer in a format of the caller's: its media type, and its bytes.

        Raises:
            NotAcceptable: queryd has no such format.
            Upstream: while reading: the query failed in the middle.
        """
        async with self.stream("POST", SQL_PATH, **_body(request, accept)) as response:
            yield response.headers.get("content-type", accept), self._read_pieces(response)

    @asynccontextmanager
    async def stream_rows(
        self, request: SqlRequest
    ) -> AsyncGenerator[AsyncIterator[dict[str, Any]]]:
        """The rows of a query as objects, one by one.

        Raises:
            Upstream: while reading: the query failed in the middle, or rows were left out
                because the server's limit was reached.
        """
        async with self.stream("POST", SQL_PATH, **_body(request, NDJSON_TYPE)) as response:
            yield self._read_rows(response, request.max_rows is not None)

    async def list_tables(self) -> list[str]:
        """Names of all tables that a query may read."""
        response = await self.request("GET", TABLES_PATH)
        return TableList.model_validate_json(response.content).tables

    async def get_table(self, name: str, *, statistics: bool | None = None) -> TableInfo:
        """One table: columns, row count, the first few rows, statistics of its columns.

        Args:
            statistics: whether to make them; None leaves it to the table's size.

        Raises:
            NotFound: there is no such table.
        """
        asked = {} if statistics is None else {"statistics": str(statistics).lower()}
        path = f"{TABLES_PATH}/{quote(name, safe='')}"
        response = await self.request("GET", path, params=asked)
        return TableInfo.model_validate_json(response.content)

    async def _read_pieces(self, response: httpx.Response) -> AsyncGenerator[bytes]:
        try:
            async for piece in response.aiter_raw():
                yield piece
        except TRANSPORT_ERRORS as error:
            raise _broken_off() from error

    async def _read_rows(
        self, response: httpx.Response, limited: bool
    ) -> AsyncGenerator[dict[str, Any]]:
        rest = b""
        async for piece in self._read_pieces(response):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                row: dict[str, Any] = orjson.loads(line)
                if TRUNCATED_KEY not in row:
                    yield row
                elif not limited:
                    raise Upstream("queryd's row limit cut the answer. Ask with max_rows.")
        if rest:
            raise _broken_off()


def _body(request: SqlRequest, accept: str = "application/json") -> dict[str, Any]:
    return {
        "content": request.model_dump_json(exclude_defaults=True),
        "headers": {"content-type": "application/json", "accept": accept},
    }


def _broken_off() -> Upstream:
    return Upstream(
        "The query failed in the middle of its answer. Run it again; queryd's log has the reason.",
        details={"peer": "queryd"},
    )
