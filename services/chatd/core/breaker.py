"""The circuit breaker of one provider.

Closed, it lets everyone through. After so many failures one after another it opens, and
everyone is told so at once. When it has been open long enough a single call may try: its
success closes the circuit, its failure opens it for as long again.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

State = Literal["closed", "open", "half_open"]


class Pass(NamedTuple):
    """Leave to call the provider; `probe` is true for the one that an open circuit lets try."""

    probe: bool


class Breaker:
    """Counts failures; time is given in seconds of any clock that does not go back.

    Args:
        failures: in a row, after which it opens.
        open_s: how long it stays open.
    """

    def __init__(self, failures: int, open_s: float) -> None:
        self._limit = failures
        self._open_s = open_s
        self._failed = 0
        self._opened_at: float | None = None
        self._probing = False

    def state(self, now: float) -> State:
        """Its state; half open means that the next call is the probe, or is under way."""
        if self._opened_at is None:
            return "closed"
        return "half_open" if now - self._opened_at >= self._open_s else "open"

    def enter(self, now: float) -> Pass | None:
        """Leave for one call, or None. Each leave ends in exactly one of the three outcomes."""
        state = self.state(now)
        if state == "closed":
            return Pass(probe=False)
        if state == "open" or self._probing:
            return None
        self._probing = True
        return Pass(probe=True)

    def wait_s(self, now: float) -> float:
        """Seconds until a probe may go through."""
        if self._opened_at is None:
            return 0.0
        return max(0.0, self._opened_at + self._open_s - now)

    def succeed(self, leave: Pass) -> None:
        """The call was answered."""
        self._end(leave)
        self._failed = 0
        self._opened_at = None

    def fail(self, leave: Pass, now: float) -> None:
        """The call failed in a way that speaks of the provider's health."""
        self._end(leave)
        self._failed += 1
        # One that began before the circuit opened says nothing new.
        if leave.probe or (self._opened_at is None and self._failed >= self._limit):
            self._opened_at = now

    def abandon(self, leave: Pass) -> None:
        """The call ended without telling anything: its client left, say."""
        self._end(leave)

    def _end(self, leave: Pass) -> None:
        if leave.probe:
            self._probing = False
