"""Restart backoff and exit descriptions. The supervisor itself runs in tests/fleet."""

from __future__ import annotations

import signal

import pytest

from shared.supervisor import compute_backoff, describe_exit


@pytest.mark.parametrize(
    ("failures", "seconds"), [(0, 0.2), (1, 0.2), (2, 0.4), (3, 0.8), (7, 10.0), (10_000, 10.0)]
)
def test_backoff_doubles_up_to_its_limit(failures: int, seconds: float) -> None:
    assert compute_backoff(failures, 0.2, 10.0) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("status", "words"),
    [(int(signal.SIGKILL), "signal SIGKILL"), (3 << 8, "exit 3"), (0, "exit 0")],
)
def test_exit_in_words(status: int, words: str) -> None:
    assert describe_exit(status) == words
