"""Request ids and deadlines."""

from __future__ import annotations

import time

import pytest

from shared import context


@pytest.mark.parametrize("given", [b"abc", b"A-1.b_c:d", b"x" * 128])
def test_safe_ids_are_kept(given: bytes) -> None:
    assert context.accept_request_id(given) == given.decode()


@pytest.mark.parametrize("given", [None, b"", b"a b", b"x" * 129, b"a\nb", "ø".encode(), b'"'])
def test_unsafe_ids_are_replaced(given: bytes | None) -> None:
    made = context.accept_request_id(given)
    assert len(made) == 16
    assert made != context.accept_request_id(given)


@pytest.mark.parametrize(
    ("given", "value"),
    [(b"250", 250.0), (b"0", 0.0), (None, None), (b"-1", None), (b"1.5", None), (b"9" * 13, None)],
)
def test_deadline_header(given: bytes | None, value: float | None) -> None:
    assert context.parse_deadline_ms(given) == value


def test_remaining_time_is_never_negative() -> None:
    assert context.remaining_s() is None
    token = context.deadline.set(time.monotonic() - 5)
    assert context.remaining_s() == 0.0
    context.deadline.reset(token)
