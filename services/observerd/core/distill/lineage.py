"""What an artefact was made from, and whether anything held out is among it.

The first test of the firewall, and the only one that no rewording escapes: a held-out id taints
whatever was derived from it, over any number of steps. An artefact that does not say what it was
made from is treated as tainted: silence is no proof.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

# The end of a path whose origin nobody recorded.
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Taint:
    """Why an artefact may not be used: the steps from it to what is held out, or to the gap."""

    artefact: str
    path: tuple[str, ...]
    unknown: bool

    @property
    def reason(self) -> str:
        """Names the path."""
        way = " <- ".join(self.path)
        return f"lineage unknown: {way}" if self.unknown else f"derived from held-out data: {way}"


def find_taints(
    artefacts: Iterable[str], parents: Mapping[str, Collection[str]], held_out: Collection[str]
) -> dict[str, Taint]:
    """The tainted ones of some artefacts.

    Args:
        parents: what each artefact was made from; an original has an empty collection. One
            that is not listed has an unknown lineage.
        held_out: ids that may never reach training, nor anything made from them.
    """
    held = frozenset(held_out)
    found: dict[str, Taint] = {}
    for artefact in artefacts:
        taint = _trace(artefact, parents, held)
        if taint is not None:
            found[artefact] = taint
    return found


def _trace(
    artefact: str, parents: Mapping[str, Collection[str]], held: frozenset[str]
) -> Taint | None:
    """Breadth first, so that the shortest path is told; a held-out origin beats an unknown one."""
    came_from: dict[str, str | None] = {artefact: None}
    waiting = deque([artefact])
    gap: str | None = None
    while waiting:
        at = waiting.popleft()
        if at in held:
            return Taint(artefact, _path(at, came_from), unknown=False)
        if at not in parents:
            gap = gap or at
            continue
        for parent in sorted(parents[at]):
            if parent not in came_from:
                came_from[parent] = at
                waiting.append(parent)
    if gap is not None:
        return Taint(artefact, (*_path(gap, came_from), UNKNOWN), unknown=True)
    return None


def _path(at: str, came_from: Mapping[str, str | None]) -> tuple[str, ...]:
    steps: list[str] = []
    step: str | None = at
    while step is not None:
        steps.append(step)
        step = came_from[step]
    return tuple(reversed(steps))
