"""Client of storaged: objects by key, streamed both ways.

Keys go into the path percent-encoded byte for byte; bodies are never held whole unless the
caller gives or asks for bytes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC
from email.utils import parsedate_to_datetime
from io import FileIO
from pathlib import Path
from urllib.parse import quote, unquote

import anyio
import anyio.to_thread
import httpx

from shared.clients.base import TRANSPORT_ERRORS, ServiceClient
from shared.config import Config
from shared.errors import Invalid, LakehouseError, Upstream
from shared.wire.storaged import (
    DEFAULT_CONTENT_TYPE,
    OBJECTS_PATH,
    URI_HEADER,
    Deleted,
    ObjectInfo,
    ObjectList,
)

# Pieces in which files are read for sending: few hand-overs, little memory. Bytes.
PIECE = 1024 * 1024
# File reads of one client at a time.
READERS = 4

# First and last byte, both included; see StoragedClient.get_object.
ByteRange = tuple[int, int | None]


class ObjectBody:
    """A body being read: iterate over it for pieces, or `read` it whole.

    `info` describes the whole object even when only a range was asked for; `length` is what
    this body holds, in bytes.
    """

    def __init__(self, info: ObjectInfo, length: int, pieces: AsyncIterator[bytes]) -> None:
        self.info = info
        self.length = length
        self._pieces = pieces

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        """Pieces in order.

        Raises:
            Upstream: the connection broke off before the end.
        """
        received = 0
        try:
            async for piece in self._pieces:
                received += len(piece)
                yield piece
        except TRANSPORT_ERRORS as error:
            raise _broken_off(self.info.key) from error
        if received != self.length:
            raise _broken_off(self.info.key)

    async def read(self) -> bytes:
        """All of it in memory."""
        return b"".join([piece async for piece in self])


class _Body:
    """Passes a source's pieces on, and remembers why it failed.

    A source that does not give the bytes it promised fails too, so nothing short is stored.
    """

    def __init__(self, pieces: AsyncIterator[bytes], size: int | None) -> None:
        self._pieces = pieces
        self._size = size
        self.failure: Exception | None = None

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        sent = 0
        try:
            async for piece in self._pieces:
                sent += len(piece)
                if self._size is not None and sent > self._size:
                    break
                yield piece
            if self._size is not None and sent != self._size:
                gave = "more" if sent > self._size else "less"
                raise Invalid(f"The source gave {gave} than the {self._size} bytes it promised.")
        except Exception as error:
            self.failure = error
            raise


class StoragedClient(ServiceClient):
    """Talks to storaged.

    Args:
        config: for the address and the token.
        transports: in-process transports by service name, in place of the network.
    """

    def __init__(
        self, config: Config, transports: Mapping[str, httpx.AsyncBaseTransport] | None = None
    ) -> None:
        super().__init__(config, "storaged", transports)
        self._readers = anyio.CapacityLimiter(READERS)

    async def put_object(
        self,
        key: str,
        source: bytes | Path | AsyncIterator[bytes],
        *,
        size: int | None = None,
        if_none_match: bool = False,
        if_match: str | None = None,
        content_type: str | None = None,
    ) -> ObjectInfo:
        """Stores an object; on return it is durable.

        Args:
            key: 1 to 1,024 bytes of UTF-8, segments divided by `/`.
            source: the bytes, a file to read, or an iterator of pieces.
            size: how many bytes the iterator gives, if known; a broken promise stores nothing.
            if_none_match: create only; of several at once exactly one wins.
            if_match: replace only the object with this etag (`*`: any that exists).
            content_type: what GET will say it is.

        Raises:
            PreconditionFailed: the condition does not hold; nothing changed.
            TooLarge, InsufficientStorage, Invalid: refused; nothing is stored.
        """
        path = object_path(key)
        headers = {"content-type": content_type or DEFAULT_CONTENT_TYPE}
        if if_none_match:
            headers["if-none-match"] = "*"
        if if_match is not None:
            headers["if-match"] = if_match
        if isinstance(source, bytes):
            response = await self.request("PUT", path, headers=headers, content=source)
            return ObjectInfo.model_validate_json(response.content)
        if isinstance(source, Path):
            size = (await anyio.Path(source).stat()).st_size
            source = self._read_file(source)
        if size is not None:
            headers["content-length"] = str(size)
        body = _Body(source, size)
        try:
            response = await self.request("PUT", path, headers=headers, content=aiter(body))
        except LakehouseError:
            # When the source fails, the connection breaks off; the source's reason is the real one.
            if body.failure is not None:
                raise body.failure from None
            raise
        return ObjectInfo.model_validate_json(response.content)

    async def head_object(self, key: str) -> ObjectInfo:
        """Describes an object.

        Raises:
            NotFound: there is none under the key.
        """
        response = await self.request("HEAD", object_path(key))
        return _info(key, response)

    @asynccontextmanager
    async def get_object(
        self, key: str, byte_range: ByteRange | None = None
    ) -> AsyncGenerator[ObjectBody]:
        """Opens an object for reading; a writer who replaces it meanwhile does not disturb.

        Args:
            key: the object's key.
            byte_range: first and last byte, both included and counted from 0; None as the
                last means to the end; `(-n, None)` asks for the last n bytes.

        Raises:
            NotFound: there is none under the key.
            RangeNotSatisfiable: the range begins past the object's end.
        """
        headers = {"accept-encoding": "identity"}
        if byte_range is not None:
            first, last = byte_range
            start = str(first) if first < 0 else f"{first}-"
            headers["range"] = f"bytes={start}{'' if last is None else last}"
        async with self.stream("GET", object_path(key), headers=headers) as response:
            length = int(response.headers["content-length"])
            yield ObjectBody(_info(key, response), length, response.aiter_raw())

    async def delete_object(self, key: str, *, if_match: str | None = None) -> bool:
        """Removes an object; false when there was none.

        Raises:
            PreconditionFailed: `if_match` is given and the object has another etag.
        """
        headers = {} if if_match is None else {"if-match": if_match}
        response = await self.request("DELETE", object_path(key), headers=headers)
        return Deleted.model_validate_json(response.content).deleted

    async def list_objects(
        self,
        prefix: str = "",
        delimiter: str | None = None,
        limit: int = 1000,
        cursor: str | None = None,
    ) -> ObjectList:
        """One page of the objects under a prefix, in byte order of their keys.

        Args:
            prefix: what the keys begin with.
            delimiter: rolls up what shares the text up to the next one, into `prefixes`.
            limit: objects and prefixes together, 1 to 1,000.
            cursor: `next_cursor` of the page before, with the same prefix and delimiter.
        """
        params: dict[str, str | int] = {"prefix": prefix, "limit": limit}
        if delimiter is not None:
            params["delimiter"] = delimiter
        if cursor is not None:
            params["cursor"] = cursor
        response = await self.request("GET", OBJECTS_PATH, params=params)
        return ObjectList.model_validate_json(response.content)

    async def walk_objects(self, prefix: str = "") -> AsyncGenerator[ObjectInfo]:
        """Every object under a prefix, page by page, in byte order of the keys."""
        cursor: str | None = None
        while True:
            page = await self.list_objects(prefix, cursor=cursor)
            for info in page.objects:
                yield info
            cursor = page.next_cursor
            if cursor is None:
                return

    async def _read_file(self, source: Path) -> AsyncGenerator[bytes]:
        # run_sync waits for its thread even when cancelled, so no read is under way at close.
        file = await anyio.to_thread.run_sync(open_unbuffered, source, limiter=self._readers)
        with file:
            while piece := await anyio.to_thread.run_sync(file.read, PIECE, limiter=self._readers):
                yield piece


def object_path(key: str) -> str:
    """The path of an object on the wire, its key percent-encoded byte for byte.

    Raises:
        Invalid: a segment is `.` or `..` (HTTP libraries fold such paths into others), or
            the key is no Unicode text.
    """
    if any(segment in (".", "..") for segment in key.split("/")):
        raise Invalid("No segment of an object key may be '.' or '..'. Choose another key.")
    try:
        return f"{OBJECTS_PATH}/{quote(key, safe='/', errors='strict')}"
    except UnicodeEncodeError:
        raise Invalid("An object key must be Unicode text, without lone surrogates.") from None


def open_unbuffered(path: Path) -> FileIO:
    """A file whose reads go straight into the piece that is sent."""
    return FileIO(path, "rb")


def _info(key: str, response: httpx.Response) -> ObjectInfo:
    headers = response.headers
    # On a range, Content-Length is that of the range and the whole follows the slash.
    whole = headers.get("content-range", "/").rpartition("/")[2] or headers["content-length"]
    modified = parsedate_to_datetime(headers["last-modified"]).astimezone(UTC)
    return ObjectInfo(
        key=key,
        etag=headers["etag"],
        size=int(whole),
        uri=unquote(headers[URI_HEADER]),
        last_modified=modified.strftime("%Y-%m-%dT%H:%M:%SZ"),
        content_type=headers.get("content-type", DEFAULT_CONTENT_TYPE),
    )


def _broken_off(key: str) -> Upstream:
    return Upstream(
        f"storaged broke off in the middle of {key!r}. Try again.", details={"peer": "storaged"}
    )
