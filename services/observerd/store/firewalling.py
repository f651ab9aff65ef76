"""The firewall's pairs and hits, between the wire and the core."""

from __future__ import annotations

from collections.abc import Iterable

from services.observerd.core.distill.firewall import Hit, Pair
from shared.wire.observerd_distill import FirewallHit, HeldOutPair


def read_pairs(given: Iterable[HeldOutPair]) -> list[Pair]:
    """What a request says is held out."""
    return [Pair(one.id, one.prompt, one.answer) for one in given]


def show_hit(hit: Hit) -> FirewallHit:
    """A hit as it is answered."""
    return FirewallHit(
        test=hit.test,
        where=hit.where,
        held_out=hit.held_out,
        value=hit.value,
        decision=hit.decision,
    )
