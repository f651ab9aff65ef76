"""What GET and HEAD are answered with: conditions, then ranges (RFC 9110 13 and 14)."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.storaged.core.objects import StoredObject
from services.storaged.core.ranges import Span, parse_range
from services.storaged.core.reads import plan_read
from shared.errors import Invalid, PreconditionFailed, RangeNotSatisfiable

MODIFIED = "Tue, 14 Nov 2023 22:13:20 GMT"
EARLIER = "Tue, 14 Nov 2023 22:13:19 GMT"
LATER = "Tue, 14 Nov 2023 22:13:21 GMT"
NOW = 1_700_000_100.0
STORED = StoredObject(
    key="a/b.bin",
    size=100,
    digest=hashlib.sha256(b"x").digest(),
    modified_ns=1_700_000_000_123_456_789,
    content_type="text/plain",
    uri="file:///data/é%/a~/b.bin",
)
ETAG = STORED.etag


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-0", Span(0, 0)),
        ("bytes=10-19", Span(10, 19)),
        ("bytes=90-", Span(90, 99)),
        ("bytes=90-1000", Span(90, 99)),
        ("bytes=-1", Span(99, 99)),
        ("bytes=-100", Span(0, 99)),
        ("bytes=-1000", Span(0, 99)),
        ("BYTES = 1-2", Span(1, 2)),
        (" bytes=1-2 ", Span(1, 2)),
        ("bytes=0-99999999999999999999", Span(0, 99)),
    ],
)
def test_one_range_is_served(header: str, span: Span) -> None:
    assert parse_range(header, 100) == span
    plan = plan_read("GET", {"range": header}, STORED, NOW)
    assert (plan.status, plan.offset, plan.length) == (206, span.first, span.length)
    assert plan.headers["content-range"] == f"bytes {span.first}-{span.last}/100"
    assert plan.headers["content-length"] == str(span.length)


@pytest.mark.parametrize(
    "header",
    ["bytes=5-2", "bytes=-", "bytes=", "bytes", "bytes=a-b", "bytes=1-2,4-5", "items=0-1",
     "bytes=1--2", "bytes=\u0661-\u0662", "bytes=0-" + "9" * 30, "", "bytes=+1-2"],
)  # fmt: skip
def test_other_range_headers_get_the_whole_object(header: str) -> None:
    plan = plan_read("GET", {"range": header}, STORED, NOW)
    assert (plan.status, plan.offset, plan.length) == (200, 0, 100)
    assert "content-range" not in plan.headers


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=999-1000"])
def test_a_range_outside_is_416_and_names_the_size(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable) as caught:
        plan_read("GET", {"range": header}, STORED, NOW)
    assert caught.value.headers == {"Content-Range": "bytes */100"}


def test_ranges_of_an_empty_object() -> None:
    empty = replace(STORED, size=0)
    with pytest.raises(RangeNotSatisfiable):
        plan_read("GET", {"range": "bytes=0-"}, empty, NOW)
    assert plan_read("GET", {"range": "bytes=-5"}, empty, NOW).status == 200


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 200))
def test_a_range_is_what_slicing_gives(first: int, last: int, size: int) -> None:
    content = bytes(index % 256 for index in range(size))
    if first >= size and last >= first:
        with pytest.raises(RangeNotSatisfiable):
            parse_range(f"bytes={first}-{last}", size)
        return
    span = parse_range(f"bytes={first}-{last}", size)
    expected = content[first : last + 1] if last >= first else content
    assert (content if span is None else content[span.first : span.last + 1]) == expected


@pytest.mark.parametrize(
    "headers",
    [
        {"if-none-match": ETAG},
        {"if-none-match": "*"},
        {"if-none-match": f'"other", W/{ETAG}'},
        {"if-modified-since": MODIFIED},
        {"if-modified-since": LATER},
        {"if-match": ETAG, "if-none-match": ETAG},
    ],
)
def test_a_version_that_the_caller_has_is_304(headers: dict[str, str]) -> None:
    plan = plan_read("GET", {**headers, "range": "bytes=0-1"}, STORED, NOW)
    assert (plan.status, plan.length) == (304, 0)
    assert plan.headers["etag"] == ETAG
    assert "content-length" not in plan.headers


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"if-none-match": '"other"'},
        {"if-none-match": '"other"', "if-modified-since": LATER},
        {"if-modified-since": EARLIER},
        {"if-modified-since": "yesterday"},
        {"if-match": "*"},
        {"if-match": f'"other", {ETAG}', "if-unmodified-since": EARLIER},
        {"if-unmodified-since": MODIFIED},
    ],
)
def test_another_version_is_sent_whole(headers: dict[str, str]) -> None:
    assert plan_read("GET", headers, STORED, NOW).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"if-match": '"other"'},
        {"if-match": f"W/{ETAG}"},
        {"if-unmodified-since": EARLIER},
        {"if-match": '"other"', "if-none-match": ETAG},
    ],
)
def test_a_version_that_the_caller_does_not_want_is_412(headers: dict[str, str]) -> None:
    with pytest.raises(PreconditionFailed):
        plan_read("GET", headers, STORED, NOW)


@pytest.mark.parametrize("value", ["abc", '"a" "b"', "", '"a', "W/abc"])
def test_malformed_etags_are_told(value: str) -> None:
    for name in ("if-match", "if-none-match"):
        with pytest.raises(Invalid, match="quoted"):
            plan_read("GET", {name: value}, STORED, NOW)


@pytest.mark.parametrize(
    ("if_range", "status"),
    [
        (ETAG, 206),
        ('"other"', 200),
        (f"W/{ETAG}", 200),
        (MODIFIED, 206),
        (LATER, 200),
        ("nonsense", 200),
    ],
)
def test_if_range_keeps_or_drops_the_range(if_range: str, status: int) -> None:
    headers = {"range": "bytes=0-1", "if-range": if_range}
    assert plan_read("GET", headers, STORED, NOW).status == status


def test_if_range_by_date_needs_an_object_at_rest() -> None:
    headers = {"range": "bytes=0-1", "if-range": MODIFIED}
    assert plan_read("GET", headers, STORED, 1_700_000_000.5).status == 200


def test_head_has_the_length_of_the_whole_and_no_body() -> None:
    plan = plan_read("HEAD", {"range": "bytes=0-1"}, STORED, NOW)
    assert (plan.status, plan.length) == (200, 0)
    assert plan.headers["content-length"] == "100"


def test_headers_describe_the_object() -> None:
    headers = plan_read("GET", {}, STORED, NOW).headers
    assert headers["etag"] == f'"{hashlib.sha256(b"x").hexdigest()}"'
    assert headers["last-modified"] == MODIFIED
    assert headers["accept-ranges"] == "bytes"
    assert headers["content-type"] == "text/plain"
    assert headers["repr-digest"] == "sha-256=:LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE=:"
    assert headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in headers["content-security-policy"]
    # Headers are ASCII; what is not, and the escape character itself, is percent-encoded.
    assert headers["x-lakehouse-uri"] == "file:///data/%C3%A9%25/a~/b.bin"


def test_the_wire_model_says_the_same() -> None:
    info = STORED.to_info()
    assert (info.key, info.size, info.etag) == ("a/b.bin", 100, ETAG)
    assert info.last_modified == "2023-11-14T22:13:20Z"
    assert info.uri == STORED.uri
