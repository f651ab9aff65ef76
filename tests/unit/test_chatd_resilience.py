"""Faults, waits, the breaker, prices, tokens and keys: decisions without a network."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chatd.core.breaker import Breaker
from services.chatd.core.chat import Answer, Chat, Message, Text, TextDelta, Usage
from services.chatd.core.faults import (
    Fault,
    error_of,
    fault_of_body,
    fault_of_status,
    parse_retry_after,
)
from services.chatd.core.frames import EventCutter, LineCutter
from services.chatd.core.pricing import Price, PriceTable
from services.chatd.core.redaction import Redactor
from services.chatd.core.retry import RetryRule
from services.chatd.core.tokens import estimate_text, estimate_usage


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"error": "out of memory"}, 500, "out of memory"),
        ({"error": {"message": "slow down", "code": 429}}, 429, "slow down"),
        ({"error": {"message": "slow down", "code": "429"}}, 429, "slow down"),
        ({"error": {"message": "x", "type": "overloaded_error"}, "type": "error"}, 529, "x"),
        ({"error": {"message": "x", "code": "insufficient_quota", "type": "y"}}, 402, "x"),
        ([{"error": {"code": 503, "message": "x", "status": "UNAVAILABLE"}}], 503, "x"),
        ({"error": {"status": "RESOURCE_EXHAUSTED", "message": "x"}}, 429, "x"),
        ({"type": "error", "code": "server_error", "message": "x"}, 500, "x"),
        ({"error": {"message": "no code"}}, 500, "no code"),
    ],
)
def test_errors_inside_200_carry_their_own_status(body: object, status: int, message: str) -> None:
    fault = fault_of_body(body, status=200)
    assert fault is not None
    assert (fault.status, fault.message) == (status, message)


@pytest.mark.parametrize("body", [{}, {"error": None}, {"choices": []}, [], "error", None])
def test_a_body_without_an_error_has_none(body: object) -> None:
    assert fault_of_body(body, status=200) is None


@pytest.mark.parametrize(
    ("status", "answer", "retry", "fall_back", "sick"),
    [
        (400, 400, False, False, False),
        (401, 503, False, True, False),
        (402, 503, False, True, False),
        (403, 503, False, True, False),
        (404, 404, False, True, False),
        (408, 502, True, True, True),
        (413, 413, False, False, False),
        (422, 422, False, False, False),
        (429, 429, True, True, False),
        (500, 502, True, True, True),
        (502, 502, True, True, True),
        (503, 503, True, True, True),
        (504, 504, True, True, True),
        (529, 503, True, True, True),
    ],
)
def test_what_each_status_means(
    status: int, answer: int, retry: bool, fall_back: bool, sick: bool
) -> None:
    fault = fault_of_status(status, None, "why", None)
    assert (fault.can_retry, fault.can_fall_back, fault.is_sickness) == (retry, fall_back, sick)
    error = error_of(fault, "p", "m")
    assert error.status == answer
    assert "why" in error.message
    assert (error.headers.get("x-should-retry") == "false") == (status in (401, 402, 403))


def test_redirects_are_no_answer() -> None:
    fault = fault_of_status(302, None, "", None)
    assert fault.kind == "malformed"
    assert error_of(fault, "p", "m").status == 502


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:30 GMT"}, 20.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_retry_after_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert parse_retry_after(headers, 10.0) == seconds


def test_waits_double_within_bounds_and_retry_after_wins() -> None:
    rule = RetryRule(attempts=4, base_s=1, max_s=3, retry_after_max_s=10)
    fault = Fault("cut", "x")
    assert [rule.wait_s(fault, n, lambda: 1.0) for n in (1, 2, 3)] == [1, 2, 3]
    assert [rule.wait_s(fault, n, lambda: 0.0) for n in (1, 2, 3)] == [0.5, 1, 1.5]
    assert rule.wait_s(fault, 4, lambda: 1.0) is None
    limited = Fault("status", "x", status=429, retry_after_s=7)
    assert rule.wait_s(limited, 1, lambda: 1.0) == 7
    assert rule.wait_s(Fault("status", "x", status=429, retry_after_s=11), 1, lambda: 0.0) is None
    assert rule.wait_s(Fault("silent", "x"), 1, lambda: 0.0) is None
    assert rule.wait_s(Fault("oversized", "x"), 1, lambda: 0.0) is None


def test_the_breaker_lets_a_single_probe_through() -> None:
    breaker = Breaker(failures=2, open_s=10)
    first, second = breaker.enter(0), breaker.enter(0)
    assert first is not None
    assert second is not None
    breaker.fail(first, 1)
    assert breaker.state(1) == "closed"
    breaker.fail(second, 2)
    assert breaker.state(2) == "open"
    assert breaker.enter(11.9) is None
    assert breaker.wait_s(7) == 5
    probe = breaker.enter(12)
    assert probe is not None
    assert probe.probe
    assert breaker.enter(12) is None, "a second probe"
    breaker.fail(probe, 13)
    assert breaker.enter(22.9) is None
    probe = breaker.enter(23)
    assert probe is not None
    breaker.abandon(probe)  # its client left: the next may probe
    probe = breaker.enter(23)
    assert probe is not None
    breaker.succeed(probe)
    assert breaker.state(23) == "closed"


def test_a_late_outcome_does_not_end_somebody_elses_probe() -> None:
    breaker = Breaker(failures=1, open_s=10)
    early, late = breaker.enter(0), breaker.enter(0)
    assert early is not None
    assert late is not None
    breaker.fail(early, 0)
    probe = breaker.enter(10)
    assert probe is not None
    breaker.abandon(late)
    assert breaker.enter(10) is None
    breaker.fail(late, 10)
    assert breaker.enter(10) is None


def test_prices_by_pattern_and_cached_tokens() -> None:
    table = PriceTable([Price("a/big*", 10, 50, 1, 12), Price("a/*", 1, 2, 1, 1)])
    usage = Usage(input=1_000_000, output=100_000, cached=400_000, cache_written=100_000)
    assert table.cost("a", "big-1", usage) == pytest.approx(5 + 0.4 + 1.2 + 5)
    assert table.cost("a", "small", Usage(1_000_000, 0)) == 1
    assert table.cost("b", "big-1", usage) is None
    assert table.cost("b", "x", Usage(1, 1, cost=0.25)) == 0.25


def test_tokens_are_reckoned_alike_in_pieces_and_whole() -> None:
    chat = Chat("m", (Message("user", (Text("a" * 40),)),))
    pieces = Answer([TextDelta("ab"), TextDelta("c" * 30)])
    whole = Answer([TextDelta("ab" + "c" * 30)])
    assert estimate_usage(chat, pieces) == estimate_usage(chat, whole)
    assert estimate_usage(chat, whole).input == 14
    assert estimate_usage(chat, whole).output == 8
    assert estimate_text("") == 0
    assert estimate_text("日本") == 3


def test_keys_are_taken_out_wherever_they_stand() -> None:
    redactor = Redactor(["sk-canary-1", "sk-canary-12", "", "abc"])
    shown = redactor.clean("bad key sk-canary-12, not sk-canary-1; abc")
    assert shown == "bad key [key], not [key]; abc"


@given(st.lists(st.integers(1, 40), max_size=20), st.booleans())
def test_events_are_the_same_in_any_cut(cuts: list[int], crlf: bool) -> None:
    text = 'event: a\ndata: {"x":\ndata: 1}\n\n: ping\n\ndata: two\nid: 3\n\ndata:[DONE]\n\n'
    data = text.replace("\n", "\r\n" if crlf else "\n").encode()
    cutter = EventCutter(1000)
    found = []
    at = 0
    for size in [*cuts, len(data)]:
        found += cutter.cut(data[at : at + size])
        at += size
    found += cutter.end()
    assert found == [(b"a", b'{"x":\n1}'), (b"", b"two"), (b"", b"[DONE]")]


def test_events_and_lines_are_bounded() -> None:
    with pytest.raises(Fault, match="over 10 bytes"):
        EventCutter(10).cut(b"data: 12345678901")
    with pytest.raises(Fault, match="over 10 bytes"):
        EventCutter(10).cut(b"data: 123456\ndata: 123456\n")
    with pytest.raises(Fault, match="over 10 bytes"):
        LineCutter(10).cut(b"12345678901")


def test_the_last_line_and_event_need_no_end() -> None:
    lines = LineCutter(100)
    assert lines.cut(b'{"a": 1}\n\n{"b"') == [b'{"a": 1}']
    assert lines.cut(b": 2}") == []
    assert lines.end() == [b'{"b": 2}']
    events = EventCutter(100)
    assert events.cut(b"data: x") == []
    assert events.end() == [(b"", b"x")]
