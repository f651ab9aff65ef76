"""Which snapshot a caller means, and which ones need not be kept."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from shared.errors import Invalid, NotFound
from shared.wire.catalogd import TAG_NAME

TAG = re.compile(TAG_NAME)
# A query string turns the + of an offset into a space; take it for what it was.
_LOST_PLUS = re.compile(r" (\d\d:?\d\d)$")
_DAY_AND_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Iceberg's ids are signed 64-bit numbers.
_ID_DIGITS = 19


@dataclass(frozen=True, slots=True)
class At:
    """A moment in milliseconds since 1970."""

    ms: int


@dataclass(frozen=True, slots=True)
class Tag:
    """A name that somebody gave to a snapshot."""

    name: str


@dataclass(frozen=True, slots=True)
class Known:
    """A retained snapshot as the history has it.

    `ms` is when it became current, in milliseconds since 1970; `gap` says that the one
    before it is no longer kept, so that nobody can tell what was current until then.
    """

    id: int
    ms: int
    gap: bool = False


def parse_reference(text: str) -> int | At | Tag:
    """A snapshot id, the moment of an RFC 3339 time, or a tag: only tags begin with a letter.

    Raises:
        Invalid: it is none of them.
    """
    if TAG.fullmatch(text.strip()):
        return Tag(text.strip())
    given = text.strip().upper()
    if given.isascii() and given.isdigit() and len(given) <= _ID_DIGITS:
        return int(given)
    try:
        if not _DAY_AND_TIME.match(given):
            raise ValueError
        when = datetime.fromisoformat(_LOST_PLUS.sub(r"+\1", given))
    except ValueError:
        raise Invalid(
            f"{text[:60]!r} is neither a snapshot id nor a tag nor an RFC 3339 time such as "
            "2026-01-31T12:00:00Z. GET .../snapshots lists all three."
        ) from None
    if when.tzinfo is None:
        raise Invalid(f"The time {text[:60]!r} names no zone. End it with Z or an offset.")
    return At((when - _EPOCH) // timedelta(milliseconds=1))


def format_time(ms: int) -> str:
    """RFC 3339 in UTC with milliseconds."""
    when = _EPOCH + timedelta(milliseconds=ms)
    return f"{when:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"


def choose_snapshot(
    dataset: str,
    reference: int | At | Tag,
    retained: Collection[int],
    history: Sequence[Known],
    tags: Mapping[str, int],
) -> int:
    """The id of the snapshot that a reference means.

    Args:
        dataset: its name, for the message.
        reference: an id, a tag, or a moment: then what was current at it.
        retained: ids of all snapshots that can be read.
        history: which snapshot became current when, oldest first.
        tags: names of snapshots.

    Raises:
        NotFound: no such snapshot is kept; names the oldest that is.
    """
    if isinstance(reference, Tag):
        if reference.name in tags:
            return tags[reference.name]
        raise NotFound(
            f"Dataset {dataset} has no tag {reference.name!r}. GET .../snapshots lists its tags; "
            "a snapshot id or an RFC 3339 time will do as well.",
            details={"dataset": dataset, "tag": reference.name, "tags": sorted(tags)},
        )
    unbroken = 0
    for position, entry in enumerate(history):
        if entry.gap:
            unbroken = position
    if isinstance(reference, int):
        if reference in retained:
            return reference
        wanted = f"snapshot {reference}"
    else:
        current = [entry for entry in history[unbroken:] if entry.ms <= reference.ms]
        if current:
            return current[-1].id
        wanted = "snapshot of that time"
    oldest = history[unbroken] if history else None
    hint = (
        f"The oldest is {oldest.id} of {format_time(oldest.ms)}."
        if oldest
        else "It has no snapshots yet."
    )
    raise NotFound(
        f"Dataset {dataset} keeps no {wanted}. {hint}",
        details={
            "dataset": dataset,
            "oldest_snapshot_id": str(oldest.id) if oldest else None,
            "oldest_time": format_time(oldest.ms) if oldest else None,
        },
    )


def choose_expired(snapshots: Sequence[int], protected: Collection[int], keep: int) -> list[int]:
    """Ids that need not be kept: all but the last `keep` and those that a ref names.

    Args:
        snapshots: ids, oldest first.
        protected: ids that tags and branches point to.
        keep: how many of the newest stay.
    """
    old = snapshots[:-keep] if keep else snapshots
    return [snapshot for snapshot in old if snapshot not in protected]
