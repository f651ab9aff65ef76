"""What a query is expected to take, from what its very text took before.

A query's cost is not known when it starts, but many come again: a page that is looked at every
minute, an agent that asks one thing too large over and over. Whose a query is tells little: all
who come through one proxy look like one caller.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from hashlib import blake2b

# From here on a query lasts, less than this is brief. Seconds.
LONG_S = 0.3
# Weight of the newest time in a mean of those before it.
_NEWEST = 0.25
# Less than this is as good as nothing. Seconds.
_LEAST_S = 0.001


class Expectation:
    """Times of queries by their text, of those last seen.

    Args:
        most: texts remembered, about 200 bytes each.
    """

    def __init__(self, most: int = 4096) -> None:
        self._most = most
        # Natural logarithms of seconds: parameters may make one text fast and slow, and then
        # its usual time counts, not its worst. Whatever was seen last stands last.
        self._means: OrderedDict[bytes, float] = OrderedDict()

    def expect(self, sql: str) -> float | None:
        """Seconds that a query should take; None where nothing is known of it."""
        mean = self._means.get(_digest(sql))
        return None if mean is None else math.exp(mean)

    def note(self, sql: str, seconds: float, *, finished: bool = True) -> None:
        """Remembers what a query took.

        Args:
            finished: whether it came to its end. One that was broken off only tells that it is
                long, if it was: how little it took says nothing.
        """
        if not finished and seconds < LONG_S:
            return
        key, newest = _digest(sql), math.log(max(seconds, _LEAST_S))
        before = self._means.pop(key, newest)
        self._means[key] = before + _NEWEST * (newest - before)
        if len(self._means) > self._most:
            self._means.popitem(last=False)


def _digest(sql: str) -> bytes:
    # Of one size, whatever the size of a text.
    return blake2b(sql.encode("utf-8", "replace"), digest_size=16).digest()
