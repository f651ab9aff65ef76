"""A version to be written, checked as far as it can be without looking at other traces."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import orjson
from pydantic import BaseModel

from services.pathwayd.core.content import (
    check_json,
    check_unicode,
    clean_tags,
    digest_of,
    encode_content,
)
from services.pathwayd.core.records import Key, Vector, Write
from services.pathwayd.core.traces import Surface, Trace
from shared.errors import Conflict, Invalid, TooLarge
from shared.wire.pathwayd import TraceAdd, TraceRevise, TraceUpdate

MAX_KEY_CHARS = 255


@dataclass(frozen=True, slots=True)
class Draft:
    """A version to be written, checked as far as it can be without looking at others."""

    id: str | None
    content: bytes
    digest: bytes
    tags: tuple[str, ...] | None
    text: str | None
    vector: Vector | None
    key: Key | None = None
    dedupe: bool = False

    @property
    def claims(self) -> list[str]:
        """What nobody else may touch meanwhile."""
        found = [f"key {self.key.name}"] if self.key else []
        if self.id:
            found.append(f"id {self.id}")
        if self.dedupe:
            found.append(f"content {self.digest.hex()}")
        return found


def make_draft(
    body: TraceAdd | TraceUpdate | TraceRevise,
    limit: int,
    vector: Vector | None,
    key: Key | None,
) -> Draft:
    """The draft that a request asks for; `limit` bounds the bytes of its content.

    Raises:
        Invalid, TooLarge: it cannot be kept.
    """
    content = encode_content(body.content, limit)
    if body.text is not None:
        check_unicode(body.text, "text")
        if len(body.text) > limit:
            raise TooLarge(f"text has {len(body.text)} characters; {limit} are allowed.")
    return Draft(
        id=None if isinstance(body, TraceUpdate) else body.id,
        content=content,
        digest=digest_of(body.content),
        tags=None if body.tags is None else clean_tags(body.tags),
        text=body.text,
        vector=vector,
        key=key,
        dedupe=isinstance(body, TraceAdd) and body.dedupe,
    )


def make_key(name: str | None, what: str, *asked: BaseModel) -> Key | None:
    """An Idempotency-Key with the digest of what was asked for; None without one.

    Raises:
        Invalid: the name is empty or too long, or a body is none that can be kept.
    """
    if name is None:
        return None
    if not 1 <= len(name) <= MAX_KEY_CHARS:
        raise Invalid(f"Idempotency-Key: 1 to {MAX_KEY_CHARS} characters.")
    plain = [body.model_dump(mode="python") for body in asked]
    for body in plain:
        check_json(body, "body", depth=-4)
    told = orjson.dumps([what, *plain], option=orjson.OPT_SORT_KEYS)
    return Key(name, hashlib.sha256(told).hexdigest()[:32])


def number_key(key: Key | None, number: int) -> Key | None:
    """The key of one of several traces that a request adds: the request's for the first."""
    return key if key is None or number == 0 else Key(f"{key.name}#{number}", key.digest)


def check_model(given: str | None, model: str) -> None:
    """Passes when a caller's vector is of the model in use.

    Raises:
        Conflict: it is of another, whose vectors cannot be compared.
    """
    if given is not None and given != model:
        raise Conflict(
            f"Vectors here are of {model}; yours is of {given}, and the two cannot be compared. "
            "Leave the vector out to have the text embedded.",
            details={"model": model, "vector_model": given},
        )


def check_length(given: int, model: str, dim: int) -> None:
    """Passes when a caller's vector is as long as those of the model.

    Raises:
        Invalid: it is not.
    """
    if given != dim:
        raise Invalid(
            f"vector: {given} numbers; those of {model} have {dim}. "
            "Leave the vector out to have the text embedded.",
            details={"model": model, "dim": dim},
        )


def to_write(
    draft: Draft,
    name: str,
    now: int,
    surface: Surface,
    before: Trace | None = None,
    tags: tuple[str, ...] | None = None,
    supersedes: str | None = None,
) -> Write:
    """The record of a draft; `before` is the version that it follows in place."""
    inherited = before.tags if before else ()
    return Write(
        id=name,
        at=now,
        surface=surface,
        version=before.version + 1 if before else 1,
        content=draft.content,
        digest=draft.digest,
        tags=draft.tags if draft.tags is not None else tags or inherited,
        text=draft.text,
        created=before.created if before else now,
        supersedes=before.supersedes if before else supersedes,
        key=draft.key,
        vector=draft.vector,
    )


def is_same(trace: Trace, draft: Draft, inherited: tuple[str, ...] = ()) -> bool:
    """Whether an add with the id of a trace asks for that very trace, as it was added."""
    tags = inherited if draft.tags is None else draft.tags
    same = trace.digest == draft.digest and trace.text == draft.text and trace.tags == tags
    return same and trace.version == 1 and trace.status != "retired"
