"""What a write is, and the ids of writes whose callers gave none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from services.catalogd.core.schema import Mode
from shared.wire.catalogd import IngestRecord

PREFIX = "auto-"


@dataclass(frozen=True, slots=True)
class Order:
    """A register request whose objects storaged has described.

    `objects` are (key, etag); `uuid`, when given, is the identity the caller wrote under.
    `removes` are addresses of the files that a rewrite takes out; `base` is the snapshot that
    must be the current one, empty for none. `since` is the epoch of collection before storaged
    was asked.
    """

    name: str
    mode: Mode
    evolve: bool
    ingest_id: str | None
    uuid: str | None
    record: IngestRecord | None
    objects: tuple[tuple[str, str], ...]
    removes: tuple[str, ...] = ()
    base: str | None = None
    since: int = 0

    def places(self) -> list[str]:
        """Keys of all objects that the dataset needs from this write on."""
        keys = [key for key, _ in self.objects]
        rejects = self.record.rejects.object if self.record else None
        return [*keys, rejects] if rejects else keys


def digest_write(
    uuid: str, mode: Mode, objects: Iterable[tuple[str, str]], removes: Iterable[str] = ()
) -> str:
    """What makes two writes without an id the same.

    Dataset, mode, objects by key and etag, and what a rewrite takes out.
    """
    parts = [uuid, mode, sorted(map(list, objects)), *([gone] if (gone := sorted(removes)) else [])]
    text = json.dumps(parts, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def derive_ingest_id(digest: str, mode: Mode, base: int | None) -> str:
    """The id of a write without one.

    An append or a rewrite is the same write whenever its objects are the same. A replace is
    so only while nothing came after it: replacing A by B and B by A again must bring A back,
    so its id carries the snapshot it replaces.
    """
    if mode != "replace":
        return f"{PREFIX}{digest}"
    return f"{PREFIX}{digest}-{base or 'new'}"


def is_same_replace(ingest_id: str, digest: str) -> bool:
    """Whether the write that made the current snapshot was this very replace."""
    return ingest_id.startswith(f"{PREFIX}{digest}-")
