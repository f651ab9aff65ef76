"""Who may call: a shared token, and the networks that clients may come from (ADR-003)."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterable
from typing import Protocol

from shared.errors import Forbidden, Unauthorized


class Admission(Protocol):
    """Decides before a request is read whether its sender may come in; raises if not."""

    def check(self, peer: str, authorization: bytes | None, api_key: bytes | None) -> None:
        """Lets the request pass or raises; see `Gatekeeper.check`."""
        ...


class Gatekeeper:
    """Checks token and client address. With an empty token everyone is let in.

    Args:
        token: the shared secret.
        allow_ips: networks in CIDR form.
    """

    def __init__(self, token: str, allow_ips: Iterable[str]) -> None:
        self.enabled = bool(token)
        self._token = token.encode()
        self._networks = [ipaddress.ip_network(n, strict=False) for n in allow_ips]
        self._known: dict[str, bool] = {}

    def check(self, peer: str, authorization: bytes | None, api_key: bytes | None) -> None:
        """Lets the request pass or raises.

        Args:
            peer: client IP address as text; empty on transports that have none.
            authorization: the `Authorization` header.
            api_key: the `x-api-key` header, which the Anthropic SDK sends instead.

        Raises:
            Forbidden: the address is outside the allow-list.
            Unauthorized: no token, or a wrong one.
        """
        if not self.enabled:
            return
        self.check_address(peer)
        given = api_key
        if authorization is not None and authorization[:7].lower() == b"bearer ":
            given = authorization[7:].strip()
        if not self.is_token(given or b""):
            raise Unauthorized(
                "A valid token is required: send it as 'Authorization: Bearer <token>'.",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def check_address(self, peer: str) -> None:
        """Lets a client's address pass or raises; the token is not looked at.

        Raises:
            Forbidden: the address is outside the allow-list.
        """
        if self.enabled and peer and not self._is_allowed(peer):
            raise Forbidden(
                "This client address is not on the allow-list. Add its network to auth.allow_ips.",
            )

    def is_token(self, given: bytes) -> bool:
        """Whether this is the token: in constant time, so that timing tells nothing about it."""
        return hmac.compare_digest(given, self._token)

    def _is_allowed(self, peer: str) -> bool:
        known = self._known.get(peer)
        if known is None:
            try:
                address = ipaddress.ip_address(peer.partition("%")[0])
                if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
                    address = address.ipv4_mapped
                known = any(address in network for network in self._networks)
            except ValueError:
                known = False
            if len(self._known) > 4096:
                self._known.clear()
            self._known[peer] = known
        return known
