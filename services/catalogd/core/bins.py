"""Which files of a dataset are put together into one.

Neighbours in the order of their commits, so that rows stay in that order; each group at most as
large as a file should become. By itself catalogd leaves a file that is larger than the rest of
its group where it is: so a file is written again only when what it goes into is at least twice
its size, and a dataset of any size costs a row a bounded number of rewrites.
"""

from __future__ import annotations

from collections.abc import Sequence

# A file of this part of the target is large enough.
FULL = 0.75
# Files of one group: each is open while the group is merged.
MOST_FILES = 500


def plan_groups(
    sizes: Sequence[int], target: int, *, least: int, tiered: bool, budget: int
) -> list[list[int]]:
    """Groups of positions to merge, each in order.

    Args:
        sizes: of the files in order of their commits, bytes.
        target: what a file should become at most, bytes.
        least: files that make a group worth while.
        tiered: leave out files that are larger than the rest of their group.
        budget: bytes to merge at most; the first group is taken whatever its size.
    """
    groups: list[list[int]] = []
    spent = 0
    for group in _fill(sizes, target):
        chosen = _even(group, sizes) if tiered else group
        if len(chosen) < max(2, least):
            continue
        cost = sum(sizes[position] for position in chosen)
        if groups and spent + cost > budget:
            break
        groups.append(chosen)
        spent += cost
    return groups


def _fill(sizes: Sequence[int], target: int) -> list[list[int]]:
    groups: list[list[int]] = [[]]
    total = 0
    for position, size in enumerate(sizes):
        if size >= target * FULL:
            continue
        if groups[-1] and (total + size > target or len(groups[-1]) >= MOST_FILES):
            groups.append([])
            total = 0
        groups[-1].append(position)
        total += size
    return groups


def _even(group: list[int], sizes: Sequence[int]) -> list[int]:
    chosen = list(group)
    total = sum(sizes[position] for position in chosen)
    for position in sorted(group, key=lambda position: -sizes[position]):
        if 2 * sizes[position] <= total:
            break
        chosen.remove(position)
        total -= sizes[position]
    return chosen
