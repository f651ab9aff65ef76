"""The gateway's own errors in the words of each protocol's clients."""

from __future__ import annotations

import pytest

from services.gateway.core.routing import Shape
from services.gateway.core.shapes import shape_error
from shared.errors import BY_CODE, LakehouseError, NotFound, RateLimited, TooLarge, Unavailable

ALL = pytest.mark.parametrize("error", [cls("Why.") for cls in BY_CODE.values()])


def body(shape: Shape, error: LakehouseError) -> dict[str, object]:
    return shape_error(shape, error, service="gateway", request_id="r1")


@ALL
def test_openai_errors_have_all_four_keys(error: LakehouseError) -> None:
    inner = body(Shape.OPENAI, error)["error"]
    assert isinstance(inner, dict)
    assert set(inner) == {"message", "type", "param", "code"}
    assert inner["message"] == "Why."
    assert isinstance(inner["code"], str)
    assert (inner["type"] == "server_error") == (error.status >= 500)


@ALL
def test_anthropic_errors_say_error_twice(error: LakehouseError) -> None:
    whole = body(Shape.ANTHROPIC, error)
    inner = whole["error"]
    assert isinstance(inner, dict)
    assert (whole["type"], whole["request_id"]) == ("error", "r1")
    assert set(inner) == {"type", "message"}


@ALL
def test_iceberg_errors_carry_the_status_as_a_number(error: LakehouseError) -> None:
    inner = body(Shape.ICEBERG, error)["error"]
    assert isinstance(inner, dict)
    assert set(inner) == {"message", "type", "code"}
    assert inner["code"] == error.status
    assert str(inner["type"]).endswith(("Exception", "Error"))


@ALL
def test_the_house_has_its_envelope(error: LakehouseError) -> None:
    assert body(Shape.HOUSE, error) == error.envelope("gateway", "r1")


@pytest.mark.parametrize(
    ("error", "openai", "anthropic", "iceberg"),
    [
        (NotFound("x"), "not_found_error", "not_found_error", "NotFoundException"),
        (RateLimited("x"), "rate_limit_error", "rate_limit_error", "TooManyRequestsException"),
        (TooLarge("x"), "invalid_request_error", "request_too_large", "BadRequestException"),
        (Unavailable("x"), "server_error", "overloaded_error", "ServiceUnavailableException"),
    ],
)
def test_types_are_each_protocols_own(
    error: LakehouseError, openai: str, anthropic: str, iceberg: str
) -> None:
    for shape, kind in (
        (Shape.OPENAI, openai),
        (Shape.ANTHROPIC, anthropic),
        (Shape.ICEBERG, iceberg),
    ):
        inner = body(shape, error)["error"]
        assert isinstance(inner, dict)
        assert inner["type"] == kind
