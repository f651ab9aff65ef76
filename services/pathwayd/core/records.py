"""What the log holds: one record a change, each complete in itself.

    {"op": "add", "id", "at", "surface", "content", "tags", "text"?, "supersedes"?, "key"?,
     "vector"?, "model"?}
    {"op": "update", as add, and "version", "created"}
    {"op": "retire", "ids", "at", "reason"?}
    {"op": "vectors", "model", "dim", "of": [[id, version], …], "data"}

An update carries everything that the trace is, so that a lost record costs only the version
that it held. `key` is {"name", "digest"} of an Idempotency-Key. `vector` and `data` are
base64 of little-endian float32; vectors that came from embedd are in `vectors` records,
which the traces can be embedded again from.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import orjson

from services.pathwayd.core.content import digest_of
from services.pathwayd.core.traces import Surface


@dataclass(frozen=True, slots=True)
class Key:
    """An Idempotency-Key, and the digest of the request that came with it."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class Vector:
    """A vector that a caller brought, as float32 bytes."""

    model: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Write:
    """A version of a trace: the first (of an add or a revise), or a later one."""

    id: str
    at: int
    surface: Surface
    version: int
    content: bytes
    digest: bytes
    tags: tuple[str, ...]
    text: str | None
    created: int
    supersedes: str | None
    key: Key | None = None
    vector: Vector | None = None


@dataclass(frozen=True, slots=True)
class Retire:
    """Traces that are retired together."""

    ids: tuple[str, ...]
    at: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors from embedd: `data` is float32, a row for each (id, version)."""

    model: str
    dim: int
    of: tuple[tuple[str, int], ...]
    data: bytes


Change = Write | Retire | Vectors


def split_change(change: Change, size: int) -> Iterator[Change]:
    """A change in parts that come to the same: a retirement in ones of `size` traces."""
    if not isinstance(change, Retire):
        yield change
        return
    for start in range(0, len(change.ids), size):
        yield replace(change, ids=change.ids[start : start + size])


def encode_change(change: Change) -> dict[str, Any]:
    """The record of a change."""
    if isinstance(change, Retire):
        found: dict[str, Any] = {"op": "retire", "ids": list(change.ids), "at": change.at}
        if change.reason is not None:
            found["reason"] = change.reason
        return found
    if isinstance(change, Vectors):
        return {
            "op": "vectors",
            "model": change.model,
            "dim": change.dim,
            "of": [list(pair) for pair in change.of],
            "data": base64.b64encode(change.data).decode("ascii"),
        }
    found = {
        "op": "add" if change.version == 1 else "update",
        "id": change.id,
        "at": change.at,
        "surface": change.surface,
        "content": orjson.Fragment(change.content),
        "tags": list(change.tags),
    }
    if change.version > 1:
        found |= {"version": change.version, "created": change.created}
    if change.text is not None:
        found["text"] = change.text
    if change.supersedes is not None:
        found["supersedes"] = change.supersedes
    if change.key is not None:
        found["key"] = {"name": change.key.name, "digest": change.key.digest}
    if change.vector is not None:
        found["vector"] = base64.b64encode(change.vector.data).decode("ascii")
        found["model"] = change.vector.model
    return found


def decode_change(payload: dict[str, Any]) -> Change:
    """The change that a record holds.

    Raises:
        KeyError, ValueError, TypeError: it is none of ours; the log goes on without it.
    """
    op = payload["op"]
    if op == "vectors":
        pairs = tuple((str(name), int(version)) for name, version in payload["of"])
        data = base64.b64decode(payload["data"], validate=True)
        dim = int(payload["dim"])
        if dim < 1 or len(data) != 4 * dim * len(pairs):
            raise ValueError("a record of vectors has another length than it says")
        return Vectors(str(payload["model"]), dim, pairs, data)
    if op == "retire":
        return Retire(
            tuple(str(name) for name in payload["ids"]),
            int(payload["at"]),
            _optional(payload.get("reason")),
        )
    if op not in ("add", "update"):
        raise ValueError(f"no such record: {op!r}")
    content = payload["content"]
    at = int(payload["at"])
    version = int(payload["version"]) if op == "update" else 1
    if version < 1:
        raise ValueError("a version counts from 1")
    surface = cast("Surface", payload["surface"])
    if surface not in ("pathway", "mem0"):
        raise ValueError(f"no such surface: {surface!r}")
    key: dict[str, str] | None = payload.get("key")
    vector: str | None = payload.get("vector")
    return Write(
        id=str(payload["id"]),
        at=at,
        surface=surface,
        version=version,
        content=orjson.dumps(content),
        digest=digest_of(content),
        tags=tuple(str(tag) for tag in payload["tags"]),
        text=_optional(payload.get("text")),
        created=int(payload.get("created", at)),
        supersedes=_optional(payload.get("supersedes")),
        key=Key(key["name"], key["digest"]) if key else None,
        vector=Vector(str(payload["model"]), base64.b64decode(vector, validate=True))
        if vector
        else None,
    )


def _optional(value: object) -> str | None:
    return None if value is None else str(value)
