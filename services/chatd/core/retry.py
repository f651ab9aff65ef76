"""How long to wait before another try, and when not to try at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from services.chatd.core.faults import Fault


@dataclass(frozen=True, slots=True)
class RetryRule:
    """Limits of trying again at one provider.

    Attributes:
        attempts: tries at most, the first one counted.
        base_s, max_s: the backoff doubles from one to the other.
        retry_after_max_s: the longest Retry-After that is waited out; a longer one ends it.
    """

    attempts: int
    base_s: float
    max_s: float
    retry_after_max_s: float

    def wait_s(self, fault: Fault, tried: int, dice: Callable[[], float]) -> float | None:
        """Seconds to wait before the next try, or None for no other.

        Args:
            tried: tries so far.
            dice: uniform over [0, 1).
        """
        if tried >= self.attempts or not fault.can_retry:
            return None
        # Between half and all of it, so that callers who failed together come back apart.
        backoff = min(self.max_s, self.base_s * 2 ** (tried - 1)) * (0.5 + dice() / 2)
        if fault.retry_after_s is None:
            return backoff
        if fault.retry_after_s > self.retry_after_max_s:
            return None
        return max(fault.retry_after_s, backoff)
