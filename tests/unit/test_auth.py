"""Token and address checks."""

from __future__ import annotations

import pytest

from shared.auth import Gatekeeper
from shared.errors import Forbidden, Unauthorized

NETWORKS = ("127.0.0.0/8", "::1/128", "10.1.0.0/16")


def test_without_a_token_everyone_passes() -> None:
    Gatekeeper("", NETWORKS).check("203.0.113.9", None, None)


@pytest.mark.parametrize(
    ("authorization", "api_key"),
    [(b"Bearer tok", None), (b"bearer tok", None), (b"Bearer  tok ", None), (None, b"tok")],
)
def test_the_token_is_taken_from_either_header(
    authorization: bytes | None, api_key: bytes | None
) -> None:
    Gatekeeper("tok", NETWORKS).check("127.0.0.1", authorization, api_key)


@pytest.mark.parametrize(
    ("authorization", "api_key"),
    [
        (None, None),
        (b"Bearer wrong", None),
        (b"Basic tok", None),
        (b"Bearer ", None),
        (None, b"tokk"),
        # A Bearer token that was sent counts, even beside a right key.
        (b"Bearer wrong", b"tok"),
    ],
)
def test_anything_else_is_refused(authorization: bytes | None, api_key: bytes | None) -> None:
    with pytest.raises(Unauthorized) as refused:
        Gatekeeper("tok", NETWORKS).check("127.0.0.1", authorization, api_key)
    assert refused.value.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("peer", ["127.3.2.1", "::1", "10.1.255.1", "::ffff:127.0.0.1"])
def test_addresses_on_the_list_pass(peer: str) -> None:
    Gatekeeper("tok", NETWORKS).check(peer, b"Bearer tok", None)


@pytest.mark.parametrize("peer", ["10.2.0.1", "203.0.113.9", "fe80::1%eth0", "nonsense"])
def test_addresses_off_the_list_are_refused_even_with_the_token(peer: str) -> None:
    gatekeeper = Gatekeeper("tok", NETWORKS)
    for _ in range(2):  # the second answer comes from memory
        with pytest.raises(Forbidden):
            gatekeeper.check(peer, b"Bearer tok", None)
