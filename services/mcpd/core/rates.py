"""How often tools may be called: a bucket of calls that fills evenly."""

from __future__ import annotations


class CallRate:
    """Lets `burst` calls through at once, and on average `per_minute`.

    Args:
        per_minute: calls that become free in a minute.
        burst: most that are free at a time.
        now: seconds on the clock that `take` is told of.
    """

    def __init__(self, per_minute: int, burst: int, now: float) -> None:
        self._per_s = per_minute / 60
        self._burst = burst
        self._free = float(burst)
        self._at = now

    def take(self, now: float) -> float:
        """Takes a call. Gives 0 when it may go on, else the seconds until one is free."""
        self._free = min(self._burst, self._free + max(0.0, now - self._at) * self._per_s)
        self._at = max(self._at, now)
        if self._free >= 1:
            self._free -= 1
            return 0.0
        return (1 - self._free) / self._per_s
