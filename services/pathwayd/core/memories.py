"""mem0's memories as traces: which fields are where, whose they are, when they end."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from datetime import date
from typing import Any

from services.pathwayd.core.traces import parse_time
from shared.errors import Invalid
from shared.filters.language import All, Compare, Field, Filter, Not
from shared.filters.language import Any as AnyOf

ENTITIES = ("user_id", "agent_id", "run_id")
MAX_ID_CHARS = 256
_DAY_US = 86_400_000_000
# Fields of a memory itself; a filter on any other name looks into its metadata.
_OWN = frozenset((*ENTITIES, "actor_id", "role", "hash", "expiration_date"))
_EXPIRES = Field("content", "expires_at")


def read_entities(given: Mapping[str, str | None]) -> dict[str, str]:
    """The ids that say whose memories are meant.

    Raises:
        Invalid: there is none, or one is empty, too long, or holds white space.
    """
    found = {name: value for name in ENTITIES if (value := given.get(name)) is not None}
    for name, value in found.items():
        if not value.strip() or len(value) > MAX_ID_CHARS or any(c.isspace() for c in value):
            raise Invalid(
                f"{name}: 1 to {MAX_ID_CHARS} characters without white space.",
                details={"field": name},
            )
    if not found:
        raise Invalid(f"At least one of {', '.join(ENTITIES)} is needed.")
    return found


def read_expiration(given: str) -> int:
    """When a memory ends, in microseconds since 1970: a day is included in the memory's life.

    Raises:
        Invalid: it is neither a date nor a time.
    """
    try:
        starts = parse_time(given)
        # Days to the end of the calendar are days, though none comes after the last.
        return starts + _DAY_US if _is_day(given) else starts
    except (ValueError, OverflowError):
        raise Invalid(
            "expiration_date: expected a date like 2026-12-31, or a time like 2026-12-31T18:00:00Z."
        ) from None


def _is_day(given: str) -> bool:
    with contextlib.suppress(ValueError):
        return bool(date.fromisoformat(given))
    return False


def build_content(
    memory: str,
    entities: Mapping[str, str],
    metadata: Mapping[str, Any] | None,
    expiration_date: str | None,
    role: str | None = None,
    actor_id: str | None = None,
) -> dict[str, Any]:
    """The content of the trace that holds a memory."""
    found: dict[str, Any] = {"memory": memory, **entities}
    if role is not None:
        found["role"] = role
    if actor_id is not None:
        found["actor_id"] = actor_id
    found["metadata"] = dict(metadata or {})
    found["hash"] = hash_memory(memory)
    if expiration_date is not None:
        found["expiration_date"] = expiration_date
        found["expires_at"] = read_expiration(expiration_date)
    return found


def change_content(
    before: Mapping[str, Any],
    text: str | None,
    metadata: Mapping[str, Any] | None,
    expiration_date: str | None,
) -> dict[str, Any]:
    """The content of a memory's next version; what is None stays."""
    entities = {name: before[name] for name in ENTITIES if name in before}
    return build_content(
        before["memory"] if text is None else text,
        entities,
        before.get("metadata") if metadata is None else metadata,
        before.get("expiration_date") if expiration_date is None else expiration_date,
        before.get("role"),
        before.get("actor_id"),
    )


def hash_memory(memory: str) -> str:
    """What mem0 calls a memory's hash: MD5 of its text, which guards nothing."""
    return hashlib.md5(memory.encode("utf-8"), usedforsecurity=False).hexdigest()


def resolve_field(name: str) -> Field:
    """Where the field of a filter is."""
    if name in ("created_at", "updated_at", "id"):
        return Field("trace", name)
    if name in _OWN:
        return Field("content", name)
    return Field("content", f"metadata.{name.removeprefix('metadata.')}")


def with_entities(filters: Mapping[str, Any] | None, entities: Mapping[str, str]) -> dict[str, Any]:
    """The filters of a search with the ids that were given beside them.

    Raises:
        Invalid: an id is given in both places, differently.
    """
    found = dict(filters or {})
    for name, value in entities.items():
        if found.setdefault(name, value) != value:
            raise Invalid(f"{name}: {value!r} beside filters, {found[name]!r} in them. Choose one.")
    return found


def check_owned(given: Filter) -> None:
    """Passes when a filter can only keep memories of somebody.

    Raises:
        Invalid: it names no user_id, agent_id or run_id that every hit must have.
    """
    if not _names_owner(given):
        raise Invalid(
            f"filters: must name one of {', '.join(ENTITIES)}, for example "
            '{"user_id": "alice"}; under OR in every branch, and not under NOT.'
        )


def _names_owner(given: Filter) -> bool:
    if isinstance(given, Compare):
        absent = given.operator in ("ne", "nin") or given.operand is False
        return given.field.name in ENTITIES and not absent
    if isinstance(given, Not):
        return False
    if isinstance(given, AnyOf):
        return bool(given.parts) and all(_names_owner(part) for part in given.parts)
    return any(_names_owner(part) for part in given.parts)


def restrict(given: Filter, now_us: int, *, expired: bool) -> Filter:
    """The filter, for memories alone, and without those that have ended unless `expired`."""
    parts: list[Filter] = [Compare(Field("trace", "surface"), "eq", "mem0"), given]
    if not expired:
        parts.append(Not(Compare(_EXPIRES, "lte", now_us)))
    return All(tuple(parts))


def is_expired(content: Mapping[str, Any], now_us: int) -> bool:
    """Whether a memory has ended."""
    ends = content.get("expires_at")
    return isinstance(ends, int) and ends <= now_us


def owned_by(entities: Mapping[str, str]) -> Filter:
    """The filter that keeps the memories of all these ids together."""
    return All(tuple(Compare(Field("content", n), "eq", v) for n, v in entities.items()))
