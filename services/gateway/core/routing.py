"""Which daemon a request goes to, and which target it sees there.

The decision is made on the bytes of the request line, and those bytes are what is sent on:
nothing is decoded, merged or resolved in between, so the gateway and a daemon can never
read one path in two ways. `/v1/stor%61ge` is therefore an unknown prefix, `/v1//storage`
has an empty one, and `/v1/storage/../sql` belongs to storaged, dots and all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType


class Shape(Enum):
    """Whose error body a route's callers can read."""

    HOUSE = "house"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    ICEBERG = "iceberg"


@dataclass(frozen=True, slots=True)
class Route:
    """One entry of the table.

    `path` is the public one without a trailing slash; all beneath it belongs to it.
    `strip` says whether `/v1` is taken off on the way to `daemon`. `label` names the
    route in metrics and logs, where the real path would be one series a request.
    """

    path: bytes
    daemon: str
    strip: bool = True
    shape: Shape = Shape.HOUSE

    @property
    def label(self) -> str:
        """The route as metrics and people name it."""
        return f"{self.path.decode('ascii')}/*"


VERSION = b"/v1"

# Other people's protocols: their clients know these paths, so the daemon serves them whole.
PROTOCOL_ROUTES: tuple[Route, ...] = (
    Route(b"/v1/chat/completions", "chatd", strip=False, shape=Shape.OPENAI),
    Route(b"/v1/responses", "chatd", strip=False, shape=Shape.OPENAI),
    Route(b"/v1/models", "chatd", strip=False, shape=Shape.OPENAI),
    Route(b"/v1/messages", "chatd", strip=False, shape=Shape.ANTHROPIC),
    Route(b"/v1/embeddings", "embedd", strip=False, shape=Shape.OPENAI),
)

PREFIX_ROUTES: tuple[Route, ...] = (
    Route(b"/v1/storage", "storaged"),
    Route(b"/v1/catalog", "catalogd"),
    Route(b"/v1/iceberg", "catalogd", shape=Shape.ICEBERG),
    Route(b"/v1/ingest", "ingestd"),
    Route(b"/v1/sql", "queryd"),
    Route(b"/v1/vectors", "vectord"),
    Route(b"/v1/embed", "embedd"),
    Route(b"/v1/pathway", "pathwayd"),
    Route(b"/v1/mem0", "pathwayd"),
    Route(b"/v1/matrix", "matrixd"),
    Route(b"/v1/observer", "observerd"),
    Route(b"/v1/chat", "chatd"),
    Route(b"/v1/mcp", "mcpd"),
)

ROUTES: tuple[Route, ...] = PROTOCOL_ROUTES + PREFIX_ROUTES


def _index_routes() -> Mapping[bytes, tuple[Route, ...]]:
    """Routes by the first segment after `/v1/`, protocol routes first: they win."""
    index: dict[bytes, tuple[Route, ...]] = {}
    for route in ROUTES:
        first = route.path[len(VERSION) + 1 :].split(b"/", 1)[0]
        index[first] = (*index.get(first, ()), route)
    return MappingProxyType(index)


_BY_SEGMENT = _index_routes()
_START = len(VERSION) + 1


def find_route(raw_path: bytes) -> Route | None:
    """The route of a raw path (no query), or None when no prefix is its own.

    Matching is on whole segments of undecoded bytes, case included.
    """
    if raw_path[:_START] != b"/v1/":
        return None
    end = raw_path.find(b"/", _START)
    first = raw_path[_START:] if end < 0 else raw_path[_START:end]
    for route in _BY_SEGMENT.get(first, ()):
        path = route.path
        if raw_path.startswith(path) and raw_path[len(path) : len(path) + 1] in (b"", b"/"):
            return route
    return None


def find_shape(raw_path: bytes) -> Shape:
    """The error shape for a path, also where no route takes it."""
    route = find_route(raw_path)
    return Shape.HOUSE if route is None else route.shape


def public_prefixes() -> list[str]:
    """Every path that the gateway routes, for people who missed one."""
    return sorted(route.path.decode("ascii") for route in ROUTES)


def public_path(daemon: str, path: str) -> str | None:
    """Where the gateway shows a daemon's own path, or None where it does not.

    The reverse of routing: `/sql/tables` of queryd is `/v1/sql/tables`, `/v1/models` of
    chatd stays, `/health` of anyone is not routed.
    """
    raw = path.encode("utf-8")
    whole = find_route(raw)
    if whole is not None and whole.daemon == daemon and not whole.strip:
        return path
    stripped = find_route(VERSION + raw)
    if stripped is not None and stripped.daemon == daemon and stripped.strip:
        return f"/v1{path}"
    return None
