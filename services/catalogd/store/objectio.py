"""Iceberg metadata as objects, where the fleet's storage is a bucket.

All of it goes through storaged: it alone knows the bucket's keys, tries again where the S3
server falters, and acknowledges what is durable. pyiceberg asks from the pool's threads; the
client belongs to the event loop, so each call waits there for the thread.
"""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from types import TracebackType
from typing import Any, Protocol, TypeVar

from pyiceberg.io import FileIO, InputFile, InputStream, OutputFile, OutputStream

from services.catalogd.core.collecting import name_object
from shared.clients.storaged import ByteRange, ObjectBody
from shared.errors import Conflict, LakehouseError, NotFound, PreconditionFailed
from shared.wire.storaged import ObjectInfo

# What is fetched at once of an object that is not read whole, bytes: most footers fit.
WINDOW = 64 * 1024

T = TypeVar("T")


class Objects(Protocol):
    """What is asked of storaged; `shared.clients.storaged` answers so."""

    async def head_object(self, key: str) -> ObjectInfo:
        """Describes an object."""
        ...

    def get_object(
        self, key: str, byte_range: ByteRange | None = None
    ) -> AbstractAsyncContextManager[ObjectBody]:
        """Opens an object for reading."""
        ...

    async def put_object(
        self, key: str, source: bytes, *, if_none_match: bool = False
    ) -> ObjectInfo:
        """Stores an object."""
        ...

    async def delete_object(self, key: str) -> bool:
        """Removes an object."""
        ...


class ObjectBridge:
    """storaged as threads see it.

    Args:
        address: what the addresses of all objects begin with.
        objects: the client.
        loop: where it lives.
    """

    def __init__(self, address: str, objects: Objects, loop: asyncio.AbstractEventLoop) -> None:
        self.address = address
        self._objects = objects
        self._loop = loop

    def find_key(self, location: str) -> str:
        """The key that an address means."""
        if not location.startswith(self.address):
            raise ValueError("not an address of the fleet's bucket")
        return location[len(self.address) :]

    def describe(self, location: str) -> ObjectInfo:
        """An object as it is now.

        Raises:
            FileNotFoundError: there is none.
        """
        try:
            return self._wait(self._objects.head_object(self.find_key(location)))
        except NotFound:
            raise FileNotFoundError(location) from None

    def read(self, info: ObjectInfo, byte_range: ByteRange | None = None) -> bytes:
        """Bytes of this version of an object.

        Raises:
            FileNotFoundError: it is gone.
            Conflict: another version has taken its place.
        """

        async def fetch() -> tuple[str, bytes]:
            async with self._objects.get_object(info.key, byte_range) as body:
                return body.info.etag, await body.read()

        try:
            etag, content = self._wait(fetch())
        except NotFound:
            raise FileNotFoundError(info.key) from None
        if etag != info.etag:
            raise Conflict(f"Object {info.key!r} was replaced meanwhile. Send the request again.")
        return content

    def write(self, location: str, content: bytes, *, overwrite: bool) -> None:
        """Stores an object; it is durable on return."""
        key = self.find_key(location)
        try:
            self._wait(self._objects.put_object(key, content, if_none_match=not overwrite))
        except PreconditionFailed:
            raise FileExistsError(location) from None

    def delete(self, location: str) -> None:
        """Removes an object, if there is one."""
        self._wait(self._objects.delete_object(self.find_key(location)))

    def _wait(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()


class ObjectFileIO(FileIO):
    """Reads and writes addresses of the bucket; one instance per commit.

    Several threads may write through it.
    """

    def __init__(self, bridge: ObjectBridge, properties: dict[str, str] | None = None) -> None:
        super().__init__(properties or {})
        self.bridge = bridge
        self._lock = threading.Lock()
        self._written: list[str] = []
        self._discarded = False

    def new_input(self, location: str) -> ObjectInput:
        return ObjectInput(location, self.bridge)

    def new_output(self, location: str) -> ObjectOutput:
        return ObjectOutput(location, self)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        self.bridge.delete(location if isinstance(location, str) else location.location)

    def store(self, location: str, content: bytes, *, overwrite: bool) -> None:
        """Stores a file of this commit."""
        with self._lock:
            # Noted before: a write whose answer is lost may have been done.
            self._written.append(location)
        self.bridge.write(location, content, overwrite=overwrite)
        with self._lock:
            late = self._discarded
        if late:  # a thread that had not heard yet that the commit is off
            self.bridge.delete(location)

    def list_places(self) -> list[str]:
        """The objects written so far, as `core.collecting` names places."""
        with self._lock:
            return [name_object(self.bridge.find_key(location)) for location in self._written]

    def discard(self) -> None:
        """Removes what was written; for a commit that certainly did not happen."""
        with self._lock:
            self._discarded = True
            written = list(self._written)
        for location in written:
            # What cannot be removed now is named by nothing, and collected later.
            with suppress(LakehouseError):
                self.bridge.delete(location)


class ObjectInput(InputFile):
    """An object to read."""

    def __init__(self, location: str, bridge: ObjectBridge) -> None:
        super().__init__(location)
        self._bridge = bridge
        self._info: ObjectInfo | None = None

    def __len__(self) -> int:
        return self._describe().size

    def exists(self) -> bool:
        try:
            self._describe()
        except FileNotFoundError:
            return False
        return True

    def open(self, seekable: bool = True) -> InputStream:
        # The protocol names its parameters; nobody passes them by name.
        return ObjectStream(self._describe(), self._bridge)  # pyright: ignore[reportReturnType]

    def _describe(self) -> ObjectInfo:
        if self._info is None:
            self._info = self._bridge.describe(self.location)
        return self._info


class ObjectStream(io.RawIOBase):
    """One version of an object, fetched in windows as it is read."""

    def __init__(self, info: ObjectInfo, bridge: ObjectBridge) -> None:
        super().__init__()
        self._info = info
        self._bridge = bridge
        self._at = 0
        self._window = b""
        self._window_at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._info.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readall(self) -> bytes:
        return self.read(-1)

    def readinto(self, buffer: Any) -> int:
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def read(self, size: int = -1) -> bytes:
        """The next `size` bytes, all that are left when negative; fewer only at the end."""
        end = self._info.size if size < 0 else min(self._at + size, self._info.size)
        if end <= self._at:
            return b""
        inside = self._window_at <= self._at and end <= self._window_at + len(self._window)
        if not inside:
            self._fetch(self._at, end)
        content = self._window[self._at - self._window_at : end - self._window_at]
        self._at = end
        return content

    def _fetch(self, first: int, end: int) -> None:
        size = self._info.size
        # Near the end everything there is wanted: a footer is read from its last bytes.
        first = min(first, max(0, size - WINDOW)) if end > size - WINDOW else first
        end = min(size, max(end, first + WINDOW))
        whole = first == 0 and end == size
        self._window = self._bridge.read(self._info, None if whole else (first, end - 1))
        self._window_at = first


class ObjectOutput(OutputFile):
    """An object to write. Every name carries a uuid, so none is ever written twice."""

    def __init__(self, location: str, owner: ObjectFileIO) -> None:
        super().__init__(location)
        self._owner = owner

    def __len__(self) -> int:
        return self._owner.bridge.describe(self.location).size

    def exists(self) -> bool:
        return self.to_input_file().exists()

    def to_input_file(self) -> ObjectInput:
        return ObjectInput(self.location, self._owner.bridge)

    def create(self, overwrite: bool = False) -> OutputStream:
        return ObjectWriter(self.location, self._owner, overwrite)


class ObjectWriter(OutputStream):
    """Collects a file; `close` stores it whole."""

    def __init__(self, location: str, owner: ObjectFileIO, overwrite: bool) -> None:
        self._location = location
        self._owner = owner
        self._overwrite = overwrite
        self._content = io.BytesIO()

    def write(self, b: bytes) -> int:
        return self._content.write(b)

    def tell(self) -> int:
        return self._content.tell()

    @property
    def closed(self) -> bool:
        """Asked by pyarrow, which writes Parquet through such a stream."""
        return self._content.closed

    def close(self) -> None:
        if self._content.closed:
            return
        with self._content:
            content = self._content.getvalue()
        self._owner.store(self._location, content, overwrite=self._overwrite)

    def __enter__(self) -> ObjectWriter:
        return self

    def __exit__(
        self,
        exctype: type[BaseException] | None,
        excinst: BaseException | None,
        exctb: TracebackType | None,
    ) -> None:
        if exctype is None:
            self.close()
        else:
            self._content.close()  # half a file is none
