"""Which writes count, after rollbacks.

The writes of a dataset have numbers that only grow. A rollback has a number too, and names the
write whose state it brings back: of all writes between the two nothing is left, until another
rollback brings them back in turn. So the writes that count are those of some spans of numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Span(NamedTuple):
    """Numbers above `after`, up to and with `until` (None: no end)."""

    after: int
    until: int | None

    def holds(self, number: int) -> bool:
        """Whether the number lies in it."""
        return self.after < number and (self.until is None or number <= self.until)


@dataclass(frozen=True, slots=True)
class Rollback:
    """A rollback: its own number, and that of the last write of the state it brought back."""

    number: int
    target: int


def list_spans(rollbacks: Iterable[Rollback]) -> list[Span]:
    """The spans of numbers whose writes the current state has, newest first."""
    earlier = sorted(rollbacks, key=lambda rollback: rollback.number)
    spans: list[Span] = []
    until: int | None = None
    while earlier:
        latest = earlier.pop()
        if until is not None and latest.number > until:
            continue  # itself undone
        spans.append(Span(latest.number, until))
        until = latest.target
    return [*spans, Span(0, until)]


def is_superseded(
    number: int, mode: str, later: Iterable[tuple[int, str]], spans: Sequence[Span]
) -> bool:
    """Whether the rows of a write are gone, or may be.

    A replace takes away the rows of all before it. A rewrite may have changed rows of rewrites
    before it: an upsert sent again after another one may say something else by then. An append
    sent again after a rewrite would come twice, so that one counts as there.

    Args:
        number: the write's.
        mode: the write's.
        later: numbers and modes of writes after it.
        spans: from `list_spans`.
    """

    def counts(one: int) -> bool:
        return any(span.holds(one) for span in spans)

    if not counts(number):
        return True
    overtaking = {"replace", "rewrite"} if mode == "rewrite" else {"replace"}
    return any(kind in overtaking and one > number and counts(one) for one, kind in later)
