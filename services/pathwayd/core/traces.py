"""A trace, and what may be done to it.

Nothing here changes a trace: each change gives a new one, so that whoever holds the old one
reads it undisturbed.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from shared.errors import Conflict, Invalid, NotFound, PreconditionFailed

# Of a number that a caller writes as text; int() refuses thousands of them.
MAX_DIGITS = 20
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Surface = Literal["pathway", "mem0"]
Status = Literal["live", "superseded", "retired"]


class Trace(NamedTuple):
    """One trace as it is now. Times are microseconds since 1970.

    `seqs` are the log's records of its versions, oldest first; 0 where one is lost. `seq` is
    the last record that changed it, whatever that was.
    """

    id: str
    surface: Surface
    version: int
    content: bytes
    digest: bytes
    tags: tuple[str, ...]
    text: str | None
    created: int
    updated: int
    supersedes: str | None
    superseded_by: str | None
    retired: int | None
    reason: str | None
    seqs: tuple[int, ...]
    seq: int

    @property
    def status(self) -> Status:
        """Retired beats superseded beats live."""
        if self.retired is not None:
            return "retired"
        return "live" if self.superseded_by is None else "superseded"


Lookup = Callable[[str], Trace | None]


def find_trace(lookup: Lookup, trace_id: str) -> Trace:
    """One trace.

    Raises:
        NotFound: there is none of this id.
    """
    trace = lookup(trace_id)
    if trace is None:
        raise NotFound(
            f"There is no trace {trace_id[:200]!r}. POST /pathway/search finds traces; "
            "POST /pathway/traces adds one.",
            details={"id": trace_id[:200]},
        )
    return trace


def check_changeable(trace: Trace, verb: str, surface: Surface) -> None:
    """Passes when a trace may be updated or revised through a surface.

    Raises:
        Conflict: it is retired, another trace took its place, or it is of the other surface,
            whose contents have a form.
    """
    if trace.surface != surface:
        raise Conflict(
            f"{trace.id} is a memory; PUT /mem0/memories/{trace.id} changes it.",
            details={"id": trace.id, "surface": trace.surface},
        )
    if trace.retired is not None:
        raise Conflict(
            f"Trace {trace.id} is retired and cannot be {verb}. Add a new trace instead.",
            details={"id": trace.id, "status": "retired", "version": trace.version},
        )
    if trace.superseded_by is not None:
        raise Conflict(
            f"Trace {trace.id} was superseded by {trace.superseded_by}, so it cannot be {verb}. "
            f"Work on {trace.superseded_by} (or what came after it) instead.",
            details={
                "id": trace.id,
                "status": "superseded",
                "superseded_by": trace.superseded_by,
            },
        )


def check_version(trace: Trace, expected: int | None, if_match: str | None) -> None:
    """Passes when the caller knows the trace as it is.

    Raises:
        Conflict: `expected` (a field of the body) is another version.
        PreconditionFailed: `if_match` (the header) names other versions only.
        Invalid: the header cannot be read.
    """
    details = {"id": trace.id, "version": trace.version}
    again = "Read the trace again, then decide whether the change still stands."
    if expected is not None and expected != trace.version:
        raise Conflict(
            f"Trace {trace.id} is at version {trace.version}, not {expected}. {again}",
            details={**details, "expected_version": expected},
        )
    if if_match is not None and trace.version not in read_if_match(if_match, trace.version):
        raise PreconditionFailed(
            f"Trace {trace.id} is at version {trace.version}; If-Match asks for {if_match}. "
            f"{again}",
            details=details,
        )


def read_if_match(header: str, current: int) -> set[int]:
    """The versions that an If-Match header lets pass: `"3"`, a list of such, or `*`.

    Raises:
        Invalid: it is none of these.
    """
    if header.strip() == "*":
        return {current}
    found: set[int] = set()
    for part in header.split(","):
        tag = part.strip()
        inside = tag[1:-1]
        quoted = len(tag) >= 3 and tag[0] == tag[-1] == '"'
        if not quoted or not inside.isdecimal() or len(inside) > MAX_DIGITS:
            raise Invalid(
                'If-Match takes the ETag of a trace, which is its version in quotes: "3".',
                details={"if_match": header[:200]},
            )
        found.add(int(inside))
    return found


def check_new_id(trace_id: str, predecessor: Trace | None, lookup: Lookup) -> None:
    """Passes when a caller's own id may be given to a new trace.

    Raises:
        Conflict: a trace has it; the message says so when using it would close a cycle.
    """
    taken = lookup(trace_id)
    if taken is None:
        return
    if predecessor is not None:
        chain, _ = walk_back(predecessor.id, lookup)
        if trace_id in chain:
            cycle = [*chain[: chain.index(trace_id) + 1], chain[0]]
            raise Conflict(
                f"A trace cannot supersede its own successor: {' -> '.join(cycle)} would be a "
                "cycle. Leave the id out, or choose a new one.",
                details={"cycle": cycle},
            )
    do = "PUT it to update it, or choose" if taken.status == "live" else "Choose"
    said = "" if taken.status == "live" else f", {taken.status}"
    raise Conflict(
        f"There is a trace {trace_id} already{said}. {do} another id.",
        details={"id": trace_id, "status": taken.status, "version": taken.version},
    )


def walk_back(trace_id: str, lookup: Lookup) -> tuple[list[str], str | None]:
    """The ids from a trace backwards through what it supersedes, and where that went wrong.

    The second is None, or the id that comes up again (a cycle in damaged data), or one that
    is not there. The ids are those found, each once.
    """
    chain: list[str] = []
    seen: set[str] = set()
    here: str | None = trace_id
    while here is not None:
        if here in seen:
            return chain, here
        trace = lookup(here)
        if trace is None:
            return chain, here
        seen.add(here)
        chain.append(here)
        here = trace.supersedes
    return chain, None


def format_time(us: int) -> str:
    """Microseconds since 1970 as RFC 3339 in UTC, always of one length, so that texts sort."""
    when = _EPOCH + timedelta(microseconds=us)
    return f"{when.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def parse_time(given: str) -> int:
    """A day or a time as microseconds since 1970; without a zone it is UTC's.

    Raises:
        ValueError, OverflowError: it is neither.
    """
    when = datetime.fromisoformat(given)
    since = (when if when.tzinfo else when.replace(tzinfo=UTC)) - _EPOCH
    return since // timedelta(microseconds=1)
