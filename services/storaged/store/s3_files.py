"""The open ends of the S3 backend: an upload on its way in, a version being read."""

from __future__ import annotations

import hashlib
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from services.storaged.core.objects import StoredObject
from services.storaged.core.uploads import UploadPlan
from services.storaged.store.backend import Replaced
from services.storaged.store.s3_calls import Refused
from services.storaged.store.s3_versions import Version

if TYPE_CHECKING:
    from services.storaged.store.s3 import S3Backend

# How long a discarded upload is tried to be removed; what stays goes with the sweep.
DISCARD_S = 2.0
# Parts after which they grow, so that an upload of unknown length never runs out of the
# 10,000 that S3 allows.
PARTS_PER_SIZE = 2000
# Bytes taken from the connection at a time.
READ_PIECE = 256 * 1024


class S3Upload:
    """An upload under way: one request for what fits into a part, else a multipart upload."""

    def __init__(self, backend: S3Backend, key: str, plan: UploadPlan) -> None:
        self._backend = backend
        self._key = key
        self._plan = plan
        self._name = uuid4().hex
        self._digest = hashlib.sha256()
        self._size = 0
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._upload_id = ""
        self._parts: list[dict[str, Any]] = []
        # A block may still be on its way when the upload is given up.
        self._lock = threading.Lock()
        self._over = False

    def write(self, block: bytes) -> None:
        """Adds a block; sends a part when enough has come."""
        with self._lock:
            if self._over:
                return
            self._digest.update(block)
            self._size += len(block)
            self._held.append(block)
            self._held_bytes += len(block)
            # More has to come before a full part is sent: the last one may be the only one.
            if self._held_bytes > self._part_bytes():
                self._send_part()

    def commit(self) -> tuple[StoredObject, bool]:
        """Publishes the object; see `S3Backend.publish`."""
        with self._lock:
            assert not self._over, "a discarded upload cannot be committed"
            digest = self._digest.digest()
            self._plan.check_received(self._size, digest)
            body = b""
            if self._upload_id:
                self._send_part()
            else:
                body = b"".join(self._held)
            publication = Publication(
                key=self._key,
                plan=self._plan,
                name=self._name,
                size=self._size,
                digest=digest,
                body=body,
                upload_id=self._upload_id,
                parts=self._parts,
            )
            published = self._backend.publish(publication)
            self._over = True
            return published

    def discard(self) -> None:
        """Removes what has come so far."""
        with self._lock:
            if self._over:
                return
            self._over = True
            self._held.clear()
            # One whose end is in doubt may be a whole object by now, made of these parts.
            if self._upload_id and not self._backend.is_doubtful(self._name):
                self._backend.abort(self._key, self._upload_id, DISCARD_S)

    def _part_bytes(self) -> int:
        return self._backend.part_bytes * (1 + len(self._parts) // PARTS_PER_SIZE)

    def _send_part(self) -> None:
        if not self._upload_id:
            self._upload_id = self._backend.begin_parts(self._key, self._plan, self._name)
        number = len(self._parts) + 1
        body = b"".join(self._held)
        self._held, self._held_bytes = [], 0
        answer = self._backend.send_part(self._key, self._upload_id, number, body)
        self._parts.append({"PartNumber": number, "ETag": answer})


@dataclass(frozen=True, slots=True)
class Publication:
    """A whole upload that waits for its key.

    Attributes:
        name: marks this upload in the object's metadata, so that it is known again.
        body: all of it when it goes up in one request.
        upload_id: of the multipart upload otherwise, with its `parts`.
    """

    key: str
    plan: UploadPlan
    name: str
    size: int
    digest: bytes
    body: bytes
    upload_id: str
    parts: list[dict[str, Any]]

    def describe(self, address: str, now_ns: int) -> StoredObject:
        """What was stored, when it can no longer be asked for."""
        known = not self.upload_id or self.plan.sha256 is not None
        return StoredObject(
            key=self.key,
            size=self.size,
            digest=self.digest if known else None,
            modified_ns=now_ns,
            content_type=self.plan.content_type,
            uri=address + self.key,
            version=self.name,
        )


class S3Reader:
    """One version of an object, read as one stream; never bytes of another version."""

    def __init__(self, backend: S3Backend, version: Version) -> None:
        self.stored = version.stored
        self._backend = backend
        self._etag = version.etag
        self._end = version.stored.size
        self._at = -1
        self._stream: Any = None
        self._closed = False
        self._lock = threading.Lock()

    def expect(self, offset: int, length: int) -> None:
        """Asks for these bytes alone once reading begins."""
        self._end = offset + length

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the stream; opened anew where it breaks.

        Raises:
            Unavailable: the server is away, or the version is gone from it.
        """
        with self._lock:
            if self._closed:
                return b""
            pieces: list[bytes] = []
            left = min(size, self._end - offset)
            while left > 0:
                piece = self._read_piece(offset, left)
                pieces.append(piece)
                offset, left = offset + len(piece), left - len(piece)
            return b"".join(pieces)

    def close(self) -> None:
        """Drops the connection with what is left on it."""
        with self._lock:
            self._closed = True
            self._drop()

    def _read_piece(self, offset: int, left: int) -> bytes:
        try:
            return self._backend.calls.attempt(lambda: self._take(offset, left))
        except Refused as refused:
            raise Replaced(
                "The object was replaced or removed while it was read. Read it again.",
                details={"key": self.stored.key, "reason": refused.code},
                headers={"Retry-After": "1"},
            ) from refused

    def _take(self, offset: int, left: int) -> bytes:
        if self._stream is None or offset != self._at:
            self._drop()
            self._stream = self._backend.open_stream(
                self.stored.key, self._etag, offset, self._end - 1
            )
            self._at = offset
        try:
            piece: bytes = self._stream.read(min(left, READ_PIECE))
            if not piece:
                raise ConnectionResetError("the body ended early")
        except BaseException:
            self._drop()
            raise
        self._at += len(piece)
        return piece

    def _drop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            with suppress(Exception):
                stream.close()
