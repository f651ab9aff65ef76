"""Who of those that wait is served next: the caller that has used the least worker time.

Start-time fair queueing (Goyal, Vin and Cheng, 1996) over callers: each has a tag, the worker
seconds it has used since the server was last idle. The least tag goes first, so that callers
who always want more get equal shares, and one with a single query passes another's hundred. A
caller that comes anew starts where the least of the others stands: idleness saves up nothing.
What a query will cost is not known when it starts; the caller's mean is charged and set right
at its end, or all of a caller's queries would start before the first was paid for.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

# Seconds that a caller may owe at most: who had the server alone for an hour is not shut out
# for one when others come.
_MOST_DEBT_S = 10.0
# Weight of the last query in a caller's mean cost.
_NEWEST = 0.25


@dataclass(frozen=True, slots=True)
class Turn:
    """One query that runs.

    Attributes:
        caller: whose it is.
        charged_s: seconds it was charged when it started.
        brief: it is known to take little time, and does not count towards its caller's share.
    """

    caller: str
    charged_s: float
    brief: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting(Generic[T]):
    arrival: int
    item: T
    brief: bool


@dataclass(slots=True)
class _Account(Generic[T]):
    tag: float
    mean_s: float = 0.0
    running: int = 0
    # Those of them that count towards its share.
    counting: int = 0
    waiting: deque[_Waiting[T]] = field(default_factory=deque[_Waiting[T]])

    def find_ready(self, most: int) -> _Waiting[T] | None:
        """The first that may run, were there a worker; what is brief passes what may not."""
        for one in self.waiting:
            if one.brief or self.counting < most:
                return one
        return None


def name_caller(named: str | None, forwarded: str | None, peer: str | None) -> str:
    """Whose a request is, for a fair share: not who may do what.

    Args:
        named: `x-caller`, by which programs on one machine tell themselves apart.
        forwarded: `x-forwarded-for`; the gateway puts its own client's address last.
        peer: the address of who connected.
    """
    if named and named.strip():
        return f"name {named.strip()[:64]}"
    address = (forwarded or "").rpartition(",")[2].strip() or peer or ""
    return f"address {address[:64]}"


class FairQueue(Generic[T]):
    """Those that wait, by caller; `T` stands for one waiting query.

    Args:
        most: queries of one caller that may run at once, besides those known to be brief.
    """

    def __init__(self, most: int = 1 << 30) -> None:
        self._most = most
        self._accounts: dict[str, _Account[T]] = {}
        self._floor = 0.0
        self._arrivals = 0
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def items(self) -> list[T]:
        """All that wait, in no order that means anything."""
        return [one.item for account in self._accounts.values() for one in account.waiting]

    def push(self, caller: str, item: T, *, brief: bool = False) -> None:
        """Lets one more wait; `brief` if it is known to take little time."""
        self._arrivals += 1
        self._waiting += 1
        self._account(caller).waiting.append(_Waiting(self._arrivals, item, brief))

    def crowd_out(self, caller: str) -> T | None:
        """Takes away the one to refuse in place of `caller`'s next query, when all places are
        taken: the newest of whoever waits with the most. None when that is `caller` itself, or
        would be with one more.
        """
        account = max(self._accounts.values(), key=lambda a: len(a.waiting), default=None)
        own = self._accounts.get(caller)
        if account is None or len(account.waiting) <= (len(own.waiting) if own else 0) + 1:
            return None
        self._waiting -= 1
        return account.waiting.pop().item

    def may_start(self, caller: str, *, brief: bool = False) -> bool:
        """Whether one more of `caller`'s queries may run."""
        account = self._accounts.get(caller)
        return brief or account is None or account.counting < self._most

    def has_ready(self) -> bool:
        """Whether one waits that may run, were there a worker."""
        return any(account.find_ready(self._most) for account in self._accounts.values())

    def pop(self) -> tuple[Turn, T] | None:
        """The next to be served, started as `start` does."""
        ready = [
            (account.tag, one.arrival, name, one)
            for name, account in self._accounts.items()
            if (one := account.find_ready(self._most)) is not None
        ]
        if not ready:
            return None
        *_, caller, one = min(ready)
        self._accounts[caller].waiting.remove(one)
        self._waiting -= 1
        return self.start(caller, brief=one.brief), one.item

    def drop(self, caller: str, item: T) -> bool:
        """Takes away one that waits no longer; False when it was not there any more."""
        account = self._accounts.get(caller)
        for entry in account.waiting if account else ():
            if entry.item is item:
                account.waiting.remove(entry)  # pyright: ignore[reportOptionalMemberAccess]
                self._waiting -= 1
                self._forget()
                return True
        return False

    def start(self, caller: str, *, brief: bool = False) -> Turn:
        """Notes that a query of `caller` runs from now on; `finish` takes what it gives."""
        account = self._account(caller)
        self._floor = max(self._floor, account.tag)
        account.tag += account.mean_s
        account.running += 1
        account.counting += not brief
        return Turn(caller, account.mean_s, brief)

    def finish(self, turn: Turn, seconds: float) -> None:
        """Notes that a query has ended.

        Args:
            seconds: how long it had its worker.
        """
        account = self._account(turn.caller)
        account.running -= 1
        account.counting -= not turn.brief
        account.tag = min(account.tag + seconds - turn.charged_s, self._floor + _MOST_DEBT_S)
        account.mean_s += _NEWEST * (seconds - account.mean_s)
        self._forget()

    def _account(self, caller: str) -> _Account[T]:
        account = self._accounts.get(caller)
        if account is None:
            account = self._accounts[caller] = _Account(self._floor)
        elif not account.waiting and not account.running:
            account.tag = max(account.tag, self._floor)
        return account

    def _forget(self) -> None:
        """Drops accounts that say no more than a new one would; all of them in idle moments."""
        idle = [n for n, a in self._accounts.items() if not a.waiting and not a.running]
        quiet = len(idle) == len(self._accounts)
        for name in idle:
            if quiet or self._accounts[name].tag <= self._floor:
                del self._accounts[name]
        if quiet:
            self._floor = 0.0
