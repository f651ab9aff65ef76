"""What becomes of a node."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from shared.wire.observerd_workflows import NodeState, SkipCause

ENDED: frozenset[NodeState] = frozenset({"completed", "failed", "skipped", "cancelled"})
# Both mean that what the node was for did not happen, through no decision of the author's.
BROKEN: frozenset[NodeState] = frozenset({"failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a node failed; `type` is the error's code."""

    type: str
    message: str
    details: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Result:
    """The end of a node. `output` belongs to `completed` alone, `error` to `failed`."""

    state: NodeState
    output: Any = None
    skip_cause: SkipCause | None = None
    error: Problem | None = None


class Unresolved(Exception):
    """A reference has no value in this run; the message says which and why."""
