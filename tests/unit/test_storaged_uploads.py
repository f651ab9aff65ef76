"""What a PUT may ask for: conditions, digests, caps."""

from __future__ import annotations

import base64
import hashlib

import pytest

from services.storaged.core.caps import choose_cap
from services.storaged.core.conditions import Expects, WriteCondition, parse_write_condition
from services.storaged.core.uploads import parse_upload
from shared.config import Config, load
from shared.daemons import ROOT
from shared.errors import Invalid, PreconditionFailed, TooLarge, UnsupportedMediaType

BODY = b"hello"
SHA256 = hashlib.sha256(BODY).digest()
DIGEST = f"sha-256=:{base64.b64encode(SHA256).decode()}:"


def test_the_plainest_put() -> None:
    plan = parse_upload({"content-length": "5"})
    assert plan.content_type == "application/octet-stream"
    assert (plan.length, plan.sha256) == (5, None)
    assert plan.condition == WriteCondition(Expects.ANYTHING)
    plan.check_received(5, SHA256)


def test_a_chunked_put_has_no_length() -> None:
    plan = parse_upload({"transfer-encoding": "chunked", "content-type": " text/csv "})
    assert (plan.length, plan.content_type) == (None, "text/csv")
    plan.check_received(5, SHA256)


@pytest.mark.parametrize("size", [4, 6])
def test_a_body_of_another_length_than_declared_is_refused(size: int) -> None:
    with pytest.raises(Invalid, match="Content-Length said 5"):
        parse_upload({"content-length": "5"}).check_received(size, SHA256)


@pytest.mark.parametrize("name", ["content-digest", "repr-digest"])
@pytest.mark.parametrize("value", [DIGEST, f"md5=:AAAA:, {DIGEST}", f"{DIGEST}, sha-512=:AAAA:"])
def test_a_right_digest_passes_and_a_wrong_one_does_not(name: str, value: str) -> None:
    plan = parse_upload({name: value})
    assert plan.sha256 == SHA256
    plan.check_received(5, SHA256)
    with pytest.raises(Invalid, match="SHA-256"):
        plan.check_received(5, hashlib.sha256(b"other").digest())


def test_other_digest_algorithms_alone_are_passed_over() -> None:
    assert parse_upload({"content-digest": "md5=:AAAA:"}).sha256 is None


@pytest.mark.parametrize(
    "value", ["sha-256=abc", "sha-256=:abc:", "sha-256=::", "sha-256=:!!!!:", "sha-256="]
)
def test_malformed_digests_are_refused(value: str) -> None:
    with pytest.raises(Invalid, match="RFC 9530"):
        parse_upload({"content-digest": value})


def test_digests_that_disagree_are_refused() -> None:
    other = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    with pytest.raises(Invalid, match="different"):
        parse_upload({"content-digest": DIGEST, "repr-digest": f"sha-256=:{other}:"})


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({"content-range": "bytes 0-4/10"}, Invalid),
        ({"content-encoding": "gzip"}, UnsupportedMediaType),
        ({"content-type": "x" * 201}, Invalid),
        ({"content-type": "text/plain; name=é"}, Invalid),
        ({"content-type": ""}, Invalid),
    ],
)
def test_what_put_does_not_do_is_refused(headers: dict[str, str], error: type[Exception]) -> None:
    with pytest.raises(error):
        parse_upload(headers)


@pytest.mark.parametrize(
    ("headers", "condition"),
    [
        ({}, WriteCondition()),
        ({"if-none-match": "*"}, WriteCondition(Expects.NOTHING)),
        ({"if-match": "*"}, WriteCondition(Expects.SOMETHING)),
        ({"if-match": '"a"'}, WriteCondition(Expects.ONE_OF, ('"a"',))),
        ({"if-match": '"a", W/"b"'}, WriteCondition(Expects.ONE_OF, ('"a"', 'W/"b"'))),
        ({"if-modified-since": "whenever", "if-range": '"a"'}, WriteCondition()),
    ],
)
def test_conditions_of_a_put(headers: dict[str, str], condition: WriteCondition) -> None:
    assert parse_write_condition("PUT", headers) == condition


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("PUT", {"if-none-match": '"a"'}),
        ("PUT", {"if-none-match": "*", "if-match": "*"}),
        ("PUT", {"if-match": "abc"}),
        ("PUT", {"if-unmodified-since": "Tue, 14 Nov 2023 22:13:20 GMT"}),
        ("DELETE", {"if-none-match": "*"}),
    ],
)
def test_conditions_that_cannot_be_kept_are_refused(method: str, headers: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        parse_write_condition(method, headers)


@pytest.mark.parametrize(
    ("condition", "current", "passes"),
    [
        (WriteCondition(), None, True),
        (WriteCondition(), '"a"', True),
        (WriteCondition(Expects.NOTHING), None, True),
        (WriteCondition(Expects.NOTHING), '"a"', False),
        (WriteCondition(Expects.SOMETHING), '"a"', True),
        (WriteCondition(Expects.SOMETHING), None, False),
        (WriteCondition(Expects.ONE_OF, ('"a"', '"b"')), '"b"', True),
        (WriteCondition(Expects.ONE_OF, ('"a"',)), '"b"', False),
        (WriteCondition(Expects.ONE_OF, ('W/"a"',)), '"a"', False),
        (WriteCondition(Expects.ONE_OF, ('"a"',)), None, False),
    ],
)
def test_what_a_condition_lets_pass(
    condition: WriteCondition, current: str | None, passes: bool
) -> None:
    if passes:
        condition.check(current)
    else:
        with pytest.raises(PreconditionFailed):
            condition.check(current)


def test_the_longest_prefix_decides_the_cap() -> None:
    caps = {"a/": 10, "a/b/": 20, "a/b": 15}
    assert choose_cap("a/x", caps, 5).limit_bytes == 10
    assert choose_cap("a/b/x", caps, 5).limit_bytes == 20
    assert choose_cap("a/bx", caps, 5).limit_bytes == 15
    assert choose_cap("b", caps, 5).limit_bytes == 5


def test_a_cap_names_itself_when_it_refuses() -> None:
    cap = choose_cap("a/x", {"a/": 10}, 5)
    cap.check(10)
    with pytest.raises(TooLarge, match="'a/' may have at most 10 bytes") as caught:
        cap.check(11)
    assert caught.value.details == {"prefix": "a/", "limit_bytes": 10}


def test_the_shipped_caps_are_those_of_the_decision_and_can_be_reached() -> None:
    for config in (Config(base_dir=ROOT), load(ROOT / "config" / "lakehouse.toml", {})):
        section = config.storaged
        gib = 1024**3
        assert section.caps == {"_vectors/": 4 * gib, "uploads/": 64 * gib}
        assert section.default_cap_bytes == gib // 4
        # The edge counts every body against max_body_bytes before storaged sees its cap.
        largest = max(section.default_cap_bytes, *section.caps.values())
        assert section.max_body_bytes >= largest
        assert config.gateway.max_body_bytes >= largest
