"""What may be tried again, and when."""

from __future__ import annotations

from collections.abc import Iterator

from services.observerd.core.workflow.plan import Node
from shared.errors import LakehouseError, RateLimited, Timeout, Unavailable, Upstream

TRANSIENT = (RateLimited, Timeout, Unavailable, Upstream)
LONGEST_S = 60.0


def is_transient(error: BaseException) -> bool:
    """Whether trying again may help. One fatal error in the chain makes all of it fatal.

    Errors outside of the taxonomy are defects, and stay what they are however often tried.
    """
    told = [one for one in _chain(error) if isinstance(one, LakehouseError)]
    return bool(told) and all(isinstance(one, TRANSIENT) for one in told)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    queue: list[BaseException] = [error]
    while queue:
        one = queue.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, BaseExceptionGroup):
            queue += one.exceptions  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        queue += [linked for linked in (one.__cause__, one.__context__) if linked is not None]


def may_repeat(node: Node) -> bool:
    """Whether a node may run a second time without being asked to."""
    return node.spec.idempotent or not node.side_effects


def retry_after(node: Node, failures: int, error: BaseException) -> float | None:
    """Seconds until a node is tried again after its `failures`-th failure; None for never."""
    retry = node.spec.retry
    if failures >= retry.attempts or not may_repeat(node) or not is_transient(error):
        return None
    return min(LONGEST_S, retry.delay_s * 2 ** (failures - 1))
