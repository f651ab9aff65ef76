"""A workflow drawn: its nodes in layers, what depends on what from left to right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

WIDTH, HEIGHT = 184, 52
GAP_X, GAP_Y = 56, 20
MARGIN = 8
# Passes of the ordering within layers; more change next to nothing.
_SWEEPS = 4
# What the names of an edge's places in other layers begin with; no node's name does.
_BEND = "\0"


@dataclass(frozen=True, slots=True)
class Box:
    """A node's place: its upper left corner in pixels."""

    node: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Edge:
    """A dependency as an SVG path, from the right side of one box to the left of another."""

    before: str
    after: str
    path: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """The whole picture, in pixels."""

    width: float
    height: float
    boxes: list[Box]
    edges: list[Edge]


def draw_graph(depends_on: Mapping[str, Sequence[str]]) -> Drawing:
    """Places a graph without cycles: each node right of all that it depends on.

    An edge that passes other layers has a place of its own in each, so that it is not drawn
    over their nodes.

    Args:
        depends_on: the names before each node; names that are no node are passed over.
    """
    before = {n: [d for d in deps if d in depends_on] for n, deps in depends_on.items()}
    layers = _layer(before)
    depth = {node: at for at, layer in enumerate(layers) for node in layer}
    routes: list[list[str]] = []
    joined: dict[str, list[str]] = {node: [] for node in before}
    for node, names in before.items():
        for first in names:
            bends = [f"{_BEND}{first} {node} {at}" for at in range(depth[first] + 1, depth[node])]
            for at, bend in enumerate(bends, start=depth[first] + 1):
                layers[at].append(bend)
            route = [first, *bends, node]
            for one, following in pairwise(route):
                joined.setdefault(following, []).append(one)
            routes.append(route)
    layers = _order(layers, joined)
    height = max((_height_of(layer) for layer in layers), default=0.0)
    boxes: dict[str, Box] = {}
    for column, layer in enumerate(layers):
        x = MARGIN + column * (WIDTH + GAP_X)
        y = MARGIN + (height - _height_of(layer)) / 2
        for node in layer:
            boxes[node] = Box(node, x, y)
            y += _size(node) + GAP_Y
    edges = [Edge(route[0], route[-1], _path(route, boxes)) for route in routes]
    width = len(layers) * WIDTH + max(0, len(layers) - 1) * GAP_X
    nodes = [boxes[node] for node in before]
    return Drawing(width + 2 * MARGIN, height + 2 * MARGIN, nodes, edges)


def _layer(before: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Each node one layer behind the last of those before it."""
    depth: dict[str, int] = {}
    left = list(before)
    while left:
        ready = [n for n in left if all(d in depth for d in before[n])]
        if not ready:  # a cycle, which observerd refuses; drawn all the same
            ready = left
        for node in ready:
            depth[node] = 1 + max((depth.get(d, -1) for d in before[node]), default=-1)
        left = [n for n in left if n not in depth]
    layers: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for node, at in depth.items():
        layers[at].append(node)
    return layers


def _order(layers: list[list[str]], before: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Nodes near the middle of what they are joined to, so that fewer lines cross."""
    after: dict[str, list[str]] = {node: [] for node in before}
    for node, names in before.items():
        for first in names:
            after[first].append(node)
    for sweep in range(_SWEEPS):
        joined = before if sweep % 2 == 0 else after
        place = {n: i - len(layer) / 2 for layer in layers for i, n in enumerate(layer)}
        for at in range(len(layers)) if sweep % 2 == 0 else reversed(range(len(layers))):
            wanted = {
                n: sum(place[d] for d in joined[n]) / len(joined[n]) if joined[n] else place[n]
                for n in layers[at]
            }
            layers[at] = sorted(layers[at], key=wanted.__getitem__)
            size = len(layers[at])
            place |= {n: i - size / 2 for i, n in enumerate(layers[at])}
    return layers


def _size(node: str) -> float:
    return 8.0 if node.startswith(_BEND) else float(HEIGHT)


def _height_of(layer: Sequence[str]) -> float:
    return sum(_size(node) for node in layer) + GAP_Y * max(0, len(layer) - 1)


def _path(route: Sequence[str], boxes: Mapping[str, Box]) -> str:
    """From the right side of the first to the left of the last, straight through its bends."""
    parts: list[str] = []
    for one, following in pairwise(route):
        first, second = boxes[one], boxes[following]
        x1, y1 = first.x + WIDTH, first.y + _size(one) / 2
        last = following == route[-1]
        x2, y2 = second.x - (3 if last else 0), second.y + _size(following) / 2
        middle = (x1 + x2) / 2
        start = f"M{x1:g},{y1:g}" if one == route[0] else f"L{x1:g},{y1:g}"
        parts.append(f"{start} C{middle:g},{y1:g} {middle:g},{y2:g} {x2:g},{y2:g}")
    return " ".join(parts)
