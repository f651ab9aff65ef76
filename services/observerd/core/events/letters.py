"""Dead letters: work that a peer did not take, kept until it is done or given up.

Pure: which failures are worth keeping, how a letter is named, and what there may be. The name is
that of the work, so the same work that fails twice is one letter, and done elsewhere it is gone.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from shared.errors import LakehouseError, RateLimited, Timeout, Unavailable, Upstream

Kind = Literal["score", "refine", "feed"]

# Letters that may wait, the bytes that they may take, and settled ones that are remembered.
MOST_LETTERS, MOST_BYTES, MOST_SETTLED = 10_000, 64 * 1024 * 1024, 1000


@dataclass(frozen=True, slots=True)
class Letter:
    """One piece of work that waits.

    Attributes:
        work: the request as it came; `size` is that of its JSON.
        error, message: why it failed the last time.
        attempts: how often it was tried; `first` and `last` when (microseconds).
    """

    id: str
    kind: Kind
    run_id: str
    work: Mapping[str, Any]
    size: int
    error: str
    message: str
    first: int
    last: int
    attempts: int = 1


def name_letter(kind: Kind, *key: str) -> str:
    """The name of the letter of some work."""
    told = "\0".join((kind, *key)).encode("utf-8", "surrogatepass")
    return hashlib.sha256(told).hexdigest()[:24]


def is_worth_keeping(error: BaseException) -> bool:
    """Whether the work may succeed later as it is; what is wrong in itself never will."""
    return not isinstance(error, LakehouseError) or isinstance(
        error, Unavailable | Upstream | Timeout | RateLimited
    )


class Box:
    """Letters that wait, by age, and what became of the others."""

    def __init__(self) -> None:
        self.waiting: OrderedDict[str, Letter] = OrderedDict()
        # The results of replays, so that asking again gives the same.
        self.settled: OrderedDict[str, Any] = OrderedDict()
        self.bytes = 0
        self.kept = self.replayed = self.discarded = 0

    def has_room(self, letter: Letter) -> bool:
        """Whether a letter fits beside those that wait; one that waits already always does."""
        if letter.id in self.waiting:
            return True
        return len(self.waiting) < MOST_LETTERS and self.bytes + letter.size <= MOST_BYTES

    def keep(self, letter: Letter) -> None:
        """Takes a letter in, or counts another failure of it."""
        known = self.waiting.get(letter.id)
        if known is not None:
            self.waiting[letter.id] = replace(
                known,
                error=letter.error,
                message=letter.message,
                last=letter.last,
                attempts=known.attempts + 1,
            )
            return
        self.settled.pop(letter.id, None)
        self.waiting[letter.id] = letter
        self.bytes += letter.size
        self.kept += 1

    def settle(self, name: str, result: Any) -> None:
        """The work was done, here or elsewhere."""
        if self._remove(name):
            self.replayed += 1
            self.settled[name] = result
            while len(self.settled) > MOST_SETTLED:
                self.settled.popitem(last=False)

    def discard(self, name: str) -> None:
        """The work was given up."""
        if self._remove(name):
            self.discarded += 1

    def _remove(self, name: str) -> bool:
        letter = self.waiting.pop(name, None)
        if letter is None:
            return False
        self.bytes -= letter.size
        return True
