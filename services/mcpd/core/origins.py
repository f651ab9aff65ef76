"""Which web pages may call: a browser names the page's origin, and no page can change that.

The list is explicit. That an Origin equals the Host proves nothing: under DNS rebinding both
are the attacker's name.
"""

from __future__ import annotations

from collections.abc import Iterable

from shared.errors import Forbidden

_DEFAULT_PORTS = {"http": "80", "https": "443"}


class OriginList:
    """The origins that may call; `http://name:*` means any port of that name.

    Args:
        allowed: as `shared.sections.mcp` has checked them.
    """

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = {part for part in map(split_origin, allowed) if part is not None}

    def check(self, origins: list[bytes]) -> None:
        """Lets a request pass by its `Origin` headers. Programs send none.

        Raises:
            Forbidden: the page is not on the list.
        """
        for raw in origins:
            found = split_origin(raw.decode("latin-1"))
            if found is not None:
                scheme, host, _ = found
                if found in self._allowed or (scheme, host, "*") in self._allowed:
                    continue
            raise Forbidden(
                "Web pages of this Origin may not call. Add it to mcpd.allowed_origins.",
            )


def split_origin(text: str) -> tuple[str, str, str] | None:
    """Scheme, host and port of an origin; None for `null` and whatever is none."""
    scheme, mark, rest = text.strip().lower().partition("://")
    if not mark or scheme not in _DEFAULT_PORTS or set("/?#@\\ ") & set(rest):
        return None
    if rest.startswith("["):
        host, closed, port = rest.partition("]")
        host, port = host + closed, port.removeprefix(":")
    else:
        host, _, port = rest.partition(":")
    if not host or (port and port != "*" and not port.isdigit()):
        return None
    return scheme, host, port or _DEFAULT_PORTS[scheme]
