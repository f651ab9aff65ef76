"""Whether a request comes from the console's own pages.

Browsers say where a request comes from in two headers that no page can change. Requests that
change something must not come from elsewhere; the form token holds where both are missing.
"""

from __future__ import annotations

from urllib.parse import urlsplit

# Methods that change nothing (RFC 9110 §9.2.1).
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def is_own(host: str, origin: str | None, fetch_site: str | None) -> bool:
    """Whether a request that changes something may come from where it says.

    Args:
        host: its Host header, which has passed the allow-list.
        origin: its Origin header; None on clients that are no browser.
        fetch_site: its Sec-Fetch-Site header; None on old browsers, and off HTTPS and loopback.
    """
    if fetch_site is not None and fetch_site not in ("same-origin", "none"):
        return False
    return origin is None or urlsplit(origin).netloc.lower() == host.lower()


def safe_return(path: str) -> str:
    """Where to go after the login: a path of this gateway, the first page if it is anything else.

    A browser reads "//host" and "/\\host" as another server.
    """
    plain = path.isascii() and path.isprintable() and "\\" not in path
    own = path == "/docs" or path == "/console" or path.startswith("/console/")
    return path if plain and own and "//" not in path.partition("?")[0] else "/console"
