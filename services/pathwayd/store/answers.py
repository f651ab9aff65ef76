"""Traces as the wire shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from services.pathwayd.core.records import Write
from services.pathwayd.core.traces import Trace as Held
from services.pathwayd.core.traces import format_time
from shared.wire.pathwayd import Event, HistoryEntry, Trace


def show_trace(held: Held, *, embedded: bool, duplicate: bool = False) -> Trace:
    """A trace as it is now."""
    return Trace(
        id=held.id,
        version=held.version,
        status=held.status,
        surface=held.surface,
        content=load_content(held.content),
        tags=list(held.tags),
        text=held.text,
        hash=held.digest.hex(),
        created_at=format_time(held.created),
        updated_at=format_time(held.updated),
        retired_at=None if held.retired is None else format_time(held.retired),
        reason=held.reason,
        supersedes=held.supersedes,
        superseded_by=held.superseded_by,
        embedded=embedded,
        duplicate=duplicate,
    )


def load_content(blob: bytes) -> Any:
    """Content as it was sent."""
    return orjson.loads(blob)


def seq_of(trace: Held, version: int) -> int:
    """The record that a step of a history is read from; 0 where the trace itself has it all."""
    return trace.seqs[version - 1] if 0 < version < trace.version else 0


def tell_step(trace: Held, version: int, writes: Mapping[int, Write]) -> tuple[HistoryEntry, int]:
    """One step of a trace's history, and the bytes of its content."""
    if not version:
        return tell_retired(trace), len(trace.content)
    first: Event = "add" if trace.supersedes is None else "revise"
    event: Event = "update" if version > 1 else first
    content, tags, at = trace.content, trace.tags, trace.updated
    if version != trace.version:
        write = writes.get(trace.seqs[version - 1])
        if write is None:
            lost = HistoryEntry(id=trace.id, version=version, event=event, at=None, lost=True)
            return lost, 0
        content, tags, at = write.content, write.tags, write.at
    told = HistoryEntry(
        id=trace.id,
        version=version,
        event=event,
        at=format_time(at),
        content=load_content(content),
        tags=list(tags),
    )
    return told, len(content)


def tell_retired(trace: Held) -> HistoryEntry:
    """The retirement of a trace as its history shows it."""
    assert trace.retired is not None
    return HistoryEntry(
        id=trace.id,
        version=trace.version,
        event="retire",
        at=format_time(trace.retired),
        content=load_content(trace.content),
        tags=list(trace.tags),
        reason=trace.reason,
    )
