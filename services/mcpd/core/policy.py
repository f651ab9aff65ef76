"""What a tool may do: one value, from which all that hosts are told about it follows.

Hosts decide by the four hints whether to ask their user. They are derived here together with
the decision whether a tool is offered at all, so that the two cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Hints:
    """The four hints of the protocol."""

    read_only: bool
    destructive: bool
    idempotent: bool
    open_world: bool


class Access(Enum):
    """What calling a tool amounts to.

    READ looks and changes nothing. ASK goes to a model, perhaps in the cloud: it changes
    nothing here, and asking twice gives two answers. ADD writes, only ever adding, and again
    with the same arguments adds nothing. RUN starts work whose steps may do anything.
    """

    READ = "read"
    ASK = "ask"
    ADD = "add"
    RUN = "run"

    @property
    def writes(self) -> bool:
        """Whether it changes something: left out where mcpd is read-only."""
        return self in (Access.ADD, Access.RUN)

    @property
    def hints(self) -> Hints:
        """What hosts are told."""
        return Hints(
            read_only=not self.writes,
            destructive=self is Access.RUN,
            idempotent=self in (Access.READ, Access.ADD),
            open_world=self in (Access.ASK, Access.RUN),
        )


def is_offered(access: Access, read_only: bool) -> bool:
    """Whether a tool exists for callers."""
    return not (read_only and access.writes)
