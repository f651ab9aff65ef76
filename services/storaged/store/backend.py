"""What a place for objects has to offer, whether files or an S3 bucket.

All calls block; `ObjectStore` runs them in the daemon's pool. An upload is invisible until
its `commit` returns, and durable then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from services.storaged.core.conditions import WriteCondition
from services.storaged.core.listing import ListQuery
from services.storaged.core.objects import StoredObject
from services.storaged.core.uploads import UploadPlan
from shared.errors import Unavailable


class Replaced(Unavailable):
    """The version that was opened is gone from its place; the key may have another."""


@dataclass(frozen=True, slots=True)
class ObjectPage:
    """One page of a listing; `next_start` is None on the last one."""

    objects: list[StoredObject]
    prefixes: list[str]
    next_start: str | None


class Upload(Protocol):
    """An object on its way in."""

    def write(self, block: bytes) -> None:
        """Adds bytes at the end.

        Raises:
            InsufficientStorage: they do not fit.
        """
        ...

    def commit(self) -> tuple[StoredObject, bool]:
        """Makes the object durable and visible; true when the key was free before.

        Raises:
            PreconditionFailed, Invalid, InsufficientStorage: nothing was stored or changed.
        """
        ...

    def discard(self) -> None:
        """Leaves nothing behind of an upload that was not committed; harmless after it."""
        ...


class Reader(Protocol):
    """One version of an object, open for reading however its key changes."""

    @property
    def stored(self) -> StoredObject:
        """What is open."""
        ...

    def expect(self, offset: int, length: int) -> None:
        """Tells which bytes will be read, in order."""
        ...

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`; fewer only at the end.

        Raises:
            Replaced: the version is gone, where the place does not keep what is open.
        """
        ...

    def close(self) -> None:
        """Lets go; a read under way in another thread is finished first."""
        ...


class Backend(Protocol):
    """A place for objects."""

    def start(self) -> None:
        """Takes hold of the place and clears what a crash left."""
        ...

    def stop(self) -> None:
        """Lets go of it."""
        ...

    def begin(self, key: str, plan: UploadPlan) -> Upload:
        """Starts an upload.

        Raises:
            PreconditionFailed: its condition fails already.
            InsufficientStorage: there is no room for it.
        """
        ...

    def open(self, key: str) -> Reader:
        """Opens an object.

        Raises:
            NotFound: there is none under the key.
        """
        ...

    def delete(self, key: str, condition: WriteCondition) -> bool:
        """Removes an object for good; false when there was none.

        Raises:
            PreconditionFailed: the condition does not hold; nothing changed.
        """
        ...

    def list(self, query: ListQuery) -> ObjectPage:
        """One page of objects in byte order of their keys."""
        ...

    def free_bytes(self) -> float:
        """Room for further objects, in bytes; infinite where nobody can say."""
        ...

    def check(self) -> dict[str, str]:
        """ "ok" or the reason why not, for what the backend depends on; for `/ready`."""
        ...
