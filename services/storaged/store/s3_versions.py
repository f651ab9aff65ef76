"""What the S3 backend knows of versions and keys, apart from how it asks for them."""

from __future__ import annotations

import re
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.storaged.core.keys import check_key
from services.storaged.core.listing import KeyWalk
from services.storaged.core.objects import StoredObject
from shared.errors import Invalid, Unavailable
from shared.wire.storaged import DEFAULT_CONTENT_TYPE

# Names in an object's metadata: its content's hash, and the upload that made it.
SHA256, UPLOAD = "lakehouse-sha256", "lakehouse-upload"
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an object.

    Attributes:
        stored: as callers see it.
        etag: the server's, as it quotes it.
        upload: what the write that made it is called; empty for other programs' objects.
    """

    stored: StoredObject
    etag: str
    upload: str


def read_version(key: str, uri: str, answer: dict[str, Any]) -> Version:
    """The version that a HEAD describes."""
    modified: datetime = answer["LastModified"]
    metadata: dict[str, str] = answer.get("Metadata", {})
    stated = metadata.get(SHA256, "")
    stored = StoredObject(
        key=key,
        size=int(answer["ContentLength"]),
        digest=bytes.fromhex(stated) if _HASH.fullmatch(stated) else None,
        modified_ns=int(modified.timestamp()) * 1_000_000_000,
        content_type=answer.get("ContentType") or DEFAULT_CONTENT_TYPE,
        uri=uri,
        version=str(answer["ETag"]).strip('"'),
    )
    return Version(stored, str(answer["ETag"]), metadata.get(UPLOAD, ""))


class OurKeys:
    """A walk without names that no key of ours has, which other programs may have put there."""

    def __init__(self, walk: KeyWalk) -> None:
        self._walk = walk
        self._keys = iter(walk)

    def __iter__(self) -> Iterator[str]:
        for key in self._keys:
            try:
                # A folder stands for what lies beneath it.
                check_key(key + "x" if key.endswith("/") else key)
            except Invalid:
                continue
            yield key

    def seek(self, start: str) -> None:
        """Goes on at the first key that is not before `start`."""
        self._walk.seek(start)


class KeyLocks:
    """A lock for each key that is being written, and none for the others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def hold(self, key: str, patience_s: float) -> Generator[None]:
        """Keeps others who write this key waiting.

        Raises:
            Unavailable: the one who holds it takes longer than `patience_s`.
        """
        with self._lock:
            lock, users = self._held.get(key, (threading.Lock(), 0))
            self._held[key] = (lock, users + 1)
        try:
            if not lock.acquire(timeout=patience_s):
                raise Unavailable(
                    "Another write to this key is under way and does not end. Try again.",
                    headers={"Retry-After": "5"},
                )
            try:
                yield
            finally:
                lock.release()
        finally:
            with self._lock:
                lock, users = self._held[key]
                if users == 1:
                    del self._held[key]
                else:
                    self._held[key] = (lock, users - 1)
