"""The taxonomy: statuses as the contract has them, and errors that keep their class."""

from __future__ import annotations

import pytest

from shared import errors

CONTRACT = {
    "invalid": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "not_acceptable": 406,
    "conflict": 409,
    "precondition_failed": 412,
    "too_large": 413,
    "unsupported_media_type": 415,
    "range_not_satisfiable": 416,
    "misdirected": 421,
    "unprocessable": 422,
    "rate_limited": 429,
    "headers_too_large": 431,
    "internal": 500,
    "upstream": 502,
    "unavailable": 503,
    "timeout": 504,
    "insufficient_storage": 507,
}


def test_codes_and_statuses_are_the_contracts() -> None:
    assert {code: cls.status for code, cls in errors.BY_CODE.items()} == CONTRACT


@pytest.mark.parametrize("code", [c for c, s in CONTRACT.items() if s < 500])
def test_a_peers_4xx_keeps_its_class_message_and_details(code: str) -> None:
    original = errors.BY_CODE[code]("what to do", details={"column": "a"})
    rebuilt = errors.from_response("catalogd", original.status, original.envelope("catalogd", "r"))
    assert type(rebuilt) is type(original)
    assert (rebuilt.message, rebuilt.details) == ("what to do", {"column": "a"})


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        (500, errors.Upstream),
        (502, errors.Upstream),
        (503, errors.Unavailable),
        (504, errors.Timeout),
        (507, errors.InsufficientStorage),
        (599, errors.Upstream),
    ],
)
def test_a_peers_5xx_is_a_broken_dependency(status: int, cls: type[errors.LakehouseError]) -> None:
    rebuilt = errors.from_response("catalogd", status, {"error": {"message": "x"}})
    assert type(rebuilt) is cls
    assert rebuilt.details["peer"] == "catalogd"


@pytest.mark.parametrize("body", [None, "text", [], {}, {"error": "x"}, {"error": {"details": 3}}])
def test_bodies_that_are_no_envelope_still_give_an_error(body: object) -> None:
    rebuilt = errors.from_response("storaged", 404, body)
    assert isinstance(rebuilt, errors.NotFound)
    assert "storaged answered 404" in rebuilt.message


def test_an_unknown_4xx_is_invalid() -> None:
    assert isinstance(errors.from_response("storaged", 418, {}), errors.Invalid)
