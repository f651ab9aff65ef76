"""What goes on to the next hop, what stops here, and how the body is framed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.core.headers import (
    RequestPlan,
    connection_tokens,
    drop_named,
    is_idempotent,
    plan_request,
    write_head,
)
from shared.errors import Invalid


def write(plan: RequestPlan, **changes: Any) -> bytes:
    given: dict[str, Any] = {
        "method": b"GET",
        "target": b"/x",
        "fixed": b"host: daemon:1\r\n",
        "own": [b"x-request-id: r1\r\n"],
        "plan": plan,
        "body": b"",
        **changes,
    }
    return write_head(**given)


def test_end_to_end_headers_pass_in_order_and_repeated() -> None:
    headers = [
        (b"accept", b"text/csv"),
        (b"cookie", b"a=1"),
        (b"x-thing", b"one"),
        (b"cookie", b"b=2"),
        (b"x-thing", b"two"),
        (b"x-empty", b""),
    ]
    assert plan_request(headers).lines == [b"%b: %b\r\n" % pair for pair in headers]


@pytest.mark.parametrize(
    "name",
    [
        b"connection",
        b"keep-alive",
        b"te",
        b"trailer",
        b"upgrade",
        b"proxy-connection",
        b"proxy-authorization",
        b"proxy-anything",
        b"http2-settings",
        b"host",
        b"authorization",
        b"x-api-key",
        b"x-request-id",
        b"x-forwarded-for",
        b"expect",
    ],
)
def test_what_belongs_to_this_hop_stops_here(name: bytes) -> None:
    plan = plan_request([(name, b"secret"), (b"accept", b"*/*")])
    assert plan.lines == [b"accept: */*\r\n"]
    assert b"secret" not in write(plan)


def test_connection_takes_the_fields_it_names_with_it() -> None:
    plan = plan_request(
        [
            (b"x-hop", b"1"),
            (b"connection", b"close, X-Hop"),
            (b"x-kept", b"2"),
            (b"x-other", b"3"),
            (b"connection", b" x-other ,,"),
        ]
    )
    assert plan.lines == [b"x-kept: 2\r\n"]


def test_connection_cannot_take_what_this_hop_writes() -> None:
    plan = plan_request(
        [(b"connection", b"host, content-length, x-request-id"), (b"content-length", b"3")]
    )
    head = write(plan, method=b"POST", body=b"abc")
    assert b"host: daemon:1\r\n" in head
    assert b"x-request-id: r1\r\n" in head
    assert b"content-length: 3\r\n" in head


def test_forwarded_for_is_one_list() -> None:
    plan = plan_request([(b"x-forwarded-for", b"1.1.1.1"), (b"x-forwarded-for", b"2.2.2.2")])
    assert plan.forwarded_for == b"1.1.1.1, 2.2.2.2"


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-length", b"-1")],
        [(b"content-length", b"+5")],
        [(b"content-length", b"5, 5")],
        [(b"content-length", b"0x10")],
        [(b"content-length", b" 5")],
        [(b"content-length", b"")],
        [(b"content-length", b"5"), (b"content-length", b"5")],
        [(b"content-length", b"5"), (b"transfer-encoding", b"chunked")],
        [(b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")],
        [(b"transfer-encoding", b"gzip, chunked")],
        [(b"transfer-encoding", b"identity")],
        [(b"transfer-encoding", b"xchunked")],
    ],
)
def test_ambiguous_framing_is_refused(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(Invalid):
        plan_request(headers)


def test_a_body_in_hand_is_framed_by_its_length_whatever_came() -> None:
    chunked = plan_request([(b"transfer-encoding", b"chunked")])
    head = write(chunked, method=b"POST", body=b"abc")
    assert b"content-length: 3\r\n" in head
    assert b"transfer-encoding" not in head


def test_a_body_that_follows_keeps_its_framing() -> None:
    chunked = plan_request([(b"transfer-encoding", b"Chunked")])
    assert b"transfer-encoding: chunked\r\n" in write(chunked, body=None)
    counted = plan_request([(b"content-length", b"00070")])
    assert b"content-length: 70\r\n" in write(counted, body=None)


def test_no_body_is_not_framed_but_an_empty_one_is() -> None:
    assert b"content-length" not in write(plan_request([]))
    empty = plan_request([(b"content-length", b"0")])
    assert not empty.has_body
    assert b"content-length: 0\r\n" in write(empty, method=b"POST")


def test_expectation_passes_only_while_the_body_is_out() -> None:
    plan = plan_request([(b"expect", b"100-Continue"), (b"content-length", b"3")])
    assert plan.expects_continue
    assert b"expect: 100-continue\r\n" in write(plan, body=None)
    assert b"expect" not in write(plan, body=b"abc")


def test_the_head_is_well_formed() -> None:
    head = write(plan_request([(b"accept", b"*/*")]), target=b"/a%2F..//b?c=%00")
    assert head == (
        b"GET /a%2F..//b?c=%00 HTTP/1.1\r\n"
        b"host: daemon:1\r\nx-request-id: r1\r\naccept: */*\r\n\r\n"
    )


@pytest.mark.parametrize("bad", [b"a\r\nx: y", b"a\nb", b"a\rb", b"a\x00b"])
def test_a_line_break_anywhere_is_refused(bad: bytes) -> None:
    with pytest.raises(Invalid):
        write(plan_request([(b"x-thing", bad)]))
    with pytest.raises(Invalid):
        write(plan_request([]), target=b"/" + bad)


def test_a_blank_in_the_target_is_refused() -> None:
    with pytest.raises(Invalid):
        write(plan_request([]), target=b"/a HTTP/1.1")


@given(
    st.lists(
        st.tuples(st.sampled_from([b"x-a", b"x-b", b"accept"]), st.binary(max_size=30)), max_size=6
    ),
    st.binary(max_size=30),
)
def test_one_request_in_is_one_request_out(
    headers: list[tuple[bytes, bytes]], target: bytes
) -> None:
    try:
        head = write(plan_request(headers), target=b"/" + target)
    except Invalid:
        return
    assert head.count(b"\r\n\r\n") == 1
    assert head.endswith(b"\r\n\r\n")
    assert head.count(b"\n") == len(headers) + 4
    assert head.split(b"\r\n", 1)[0].count(b" ") == 2


def test_response_headers_named_by_connection_are_dropped() -> None:
    headers = [(b"x-hop", b"1"), (b"set-cookie", b"a"), (b"set-cookie", b"b")]
    assert drop_named(headers, b",close, X-Hop") == headers[1:]
    assert connection_tokens(b" , A ,b") == {b"a", b"b"}


def test_idempotent_methods() -> None:
    assert all(is_idempotent(m) for m in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS"))
    assert not any(is_idempotent(m) for m in ("POST", "PATCH", "get"))
