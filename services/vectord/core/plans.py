"""How a dense search goes about its work: scan exactly, or ask the graph for more than k.

A filter is never pushed into the graph walk: hnswlib's filter is a Python call per node.
Rows that are allowed are scanned when they are few; otherwise the graph gives the nearest
`width` rows of all and those not allowed are dropped. A width that turns out too small is
doubled, and in the end the scan answers, so that recall cannot collapse.
"""

from __future__ import annotations

import math

# Scanning so many rows costs less than a graph search of the width they would need.
SCAN_ROWS = 4000
# Beyond this width a graph search costs more than scanning what is allowed.
MAX_WIDTH = 4096
# How much wider than k / (allowed part) to ask, since neighbours share their metadata.
SPREAD = 2.0


def plan_width(k: int, ef: int, covered: int, allowed: int) -> int | None:
    """How many candidates to ask the graph for; None when a scan is better.

    Args:
        k: hits wanted. ef: candidates the graph looks at anyway.
        covered: rows in the graph. allowed: those of them that may be hits.
    """
    if allowed <= SCAN_ROWS or k * 2 >= allowed:
        return None
    if allowed == covered:
        return min(max(k, ef), covered)
    share = allowed / covered
    width = max(ef, math.ceil(k / share * SPREAD), math.ceil(min(ef / share, 4 * ef)))
    return min(width, covered) if width <= MAX_WIDTH else None


def widen(width: int, covered: int) -> int | None:
    """The next width after one that found too few; None when it is time to scan."""
    wider = width * 4
    return wider if wider <= min(MAX_WIDTH, covered) else None


def should_merge(delta: int, total: int, merge_rows: int, idle: bool) -> bool:
    """Whether the graph should take up the rows that are scanned beside it now."""
    if idle and delta >= max(1, merge_rows // 4):
        return True
    return delta >= max(merge_rows, min(total // 20, 8 * merge_rows))


def should_compact(dead: int, total: int, fraction: float, merge_rows: int) -> bool:
    """Whether so many rows are dead that rebuilding without them pays."""
    return dead >= max(1, merge_rows // 4) and dead > total * fraction
