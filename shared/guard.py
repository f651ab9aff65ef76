"""What a request must satisfy before anything of it is believed."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from typing import Any

from shared.errors import HeadersTooLarge, Invalid, Misdirected


class Guard:
    """Refuses requests that an HTTP/1.1 server must not take at their word.

    Args:
        max_header_bytes: names and values of all headers together.
        allowed_hosts: host names without port; `*` lets any pass.
    """

    def __init__(self, max_header_bytes: int, allowed_hosts: Iterable[str]) -> None:
        self.max_header_bytes = max_header_bytes
        names = {name.lower().encode() for name in allowed_hosts}
        self.any_host = b"*" in names
        self.allowed_hosts = names
        self._seen: set[bytes] = set()

    def check(self, scope: MutableMapping[str, Any], headers: dict[bytes, bytes]) -> None:
        """Fills `headers` (last value wins) and raises on what must not pass.

        Raises:
            HeadersTooLarge, Invalid, Misdirected.
        """
        size = 0
        hosts = 0
        for name, value in scope["headers"]:
            size += len(name) + len(value)
            headers[name] = value
            if name == b"host":
                hosts += 1
        if size > self.max_header_bytes:
            raise HeadersTooLarge(
                f"The request headers are {size} bytes; at most {self.max_header_bytes} are read."
            )
        if hosts != 1:
            raise Invalid("Send exactly one Host header.")
        if not scope["path"].startswith("/"):
            raise Invalid("The request target must begin with '/'.")
        if not self.any_host:
            self._check_host(headers[b"host"])

    def _check_host(self, host: bytes) -> None:
        if host in self._seen:
            return
        name, _, port = host.lower().rpartition(b":")
        # "[::1]:80" splits at the last colon; "[::1]" and "localhost" have no port.
        if not name or not port.isdigit():
            name = host.lower()
        if name not in self.allowed_hosts:
            raise Misdirected(
                "This server does not answer to that Host. Add the name to http.allowed_hosts.",
            )
        if len(self._seen) < 1024:
            self._seen.add(host)
