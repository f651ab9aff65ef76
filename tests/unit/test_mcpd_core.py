"""mcpd's decisions: policy, rate, caps, whose fault, which origins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.mcpd.core.caps import ELLIPSIS, Room, fit_rows, render_cell
from services.mcpd.core.faults import MAX_DETAILS, can_model_fix, tell_host, tell_model
from services.mcpd.core.origins import OriginList, split_origin
from services.mcpd.core.policy import Access, is_offered
from services.mcpd.core.rates import CallRate
from shared import errors

DEFAULTS = ("http://localhost:*", "http://127.0.0.1:*", "http://[::1]:*")


def test_hints_follow_from_one_value() -> None:
    told = {access: access.hints for access in Access}
    assert [a for a, hints in told.items() if hints.read_only] == [Access.READ, Access.ASK]
    assert [a for a, hints in told.items() if hints.destructive] == [Access.RUN]
    assert [a for a, hints in told.items() if hints.idempotent] == [Access.READ, Access.ADD]
    assert [a for a, hints in told.items() if hints.open_world] == [Access.ASK, Access.RUN]


@pytest.mark.parametrize("access", Access)
def test_what_claims_to_be_read_only_is_what_a_read_only_server_offers(access: Access) -> None:
    assert is_offered(access, read_only=True) == access.hints.read_only
    assert is_offered(access, read_only=False)


def test_calls_are_let_through_in_a_burst_and_then_evenly() -> None:
    rate = CallRate(per_minute=60, burst=3, now=100.0)
    assert [rate.take(100.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert rate.take(100.0) == pytest.approx(1.0)
    assert rate.take(100.5) == pytest.approx(0.5)
    assert rate.take(101.0) == 0.0
    assert rate.take(101.0) > 0


def test_a_clock_that_stands_or_goes_back_gives_no_calls() -> None:
    rate = CallRate(per_minute=60, burst=1, now=100.0)
    assert rate.take(100.0) == 0.0
    assert rate.take(50.0) > 0
    assert rate.take(100.0) > 0


@given(
    st.lists(st.floats(0, 5), max_size=200),
    st.integers(1, 600),
    st.integers(1, 20),
)
def test_no_window_lets_more_through_than_its_burst_and_rate(
    gaps: list[float], per_minute: int, burst: int
) -> None:
    rate = CallRate(per_minute, burst, now=0.0)
    now, taken = 0.0, 0
    for gap in gaps:
        now += gap
        taken += rate.take(now) == 0.0
    assert taken <= burst + now * per_minute / 60 + 1e-6


def test_cells_are_scalars_or_json_text() -> None:
    room = Room(1000, 100)
    assert render_cell(True, room) is True
    assert render_cell(None, room) is None
    assert render_cell(1.5, room) == 1.5
    assert render_cell(2**53, room) == 2**53
    assert render_cell(2**53 + 1, room) == "9007199254740993"
    assert render_cell([1, {"ø": None}], room) == '[1,{"ø":null}]'
    assert not room.truncated


def test_a_long_text_is_cut_and_said_to_be() -> None:
    room = Room(1000, 16)
    assert render_cell("x" * 16, room) == "x" * 16
    assert not room.truncated
    assert render_cell("x" * 17, room) == "x" * 15 + ELLIPSIS
    assert room.truncated


def test_rows_stop_where_the_room_or_their_number_ends() -> None:
    few = Room(10_000, 100)
    assert fit_rows([[1], [2], [3]], 2, few) == [[1], [2]]
    assert few.truncated
    small = Room(60, 100)
    kept = fit_rows([["y" * 20]] * 10, 100, small)
    assert 1 <= len(kept) < 10
    assert small.truncated
    enough = Room(10_000, 100)
    assert len(fit_rows([["y" * 20]] * 10, 10, enough)) == 10
    assert not enough.truncated


@given(
    st.lists(st.lists(st.one_of(st.text(max_size=50), st.integers(), st.none()), max_size=4)),
    st.integers(1, 20),
    st.integers(100, 1000),
)
def test_what_is_kept_is_a_beginning_and_the_rest_is_told(
    rows: list[list[object]], max_rows: int, chars: int
) -> None:
    room = Room(chars, 64)
    kept = fit_rows(rows, max_rows, room)
    whole = fit_rows(rows, len(rows) + 1, Room(10**9, 64))
    assert kept == whole[: len(kept)]
    assert len(kept) <= max_rows
    if len(kept) < len(rows):
        assert room.truncated
    if len(kept) > 1:
        assert sum(len(str(cell)) for row in kept for cell in row) <= chars


def test_the_first_item_is_kept_however_large() -> None:
    room = Room(10, 10)
    assert room.fit(["x" * 50, "y"], len) == ["x" * 50]
    assert room.truncated


@pytest.mark.parametrize(
    ("error", "model"),
    [
        (errors.Invalid("x"), True),
        (errors.Forbidden("x"), True),
        (errors.NotFound("x"), True),
        (errors.Conflict("x"), True),
        (errors.TooLarge("x"), True),
        (errors.Unprocessable("x"), True),
        (errors.RateLimited("x"), True),
        (errors.Timeout("x"), True),
        (errors.Unauthorized("x"), False),
        (errors.Misdirected("x"), False),
        (errors.Internal("x"), False),
        (errors.Upstream("x"), False),
        (errors.Unavailable("x"), False),
        (errors.InsufficientStorage("x"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whose_a_failure_is(error: errors.LakehouseError, model: bool) -> None:
    assert can_model_fix(error) is model
    assert tell_host(error) == {"code": error.code, "status": error.status}


def test_a_model_is_told_code_message_and_details_that_fit() -> None:
    told = tell_model(errors.Invalid("Bad SQL.", details={"line": 3}))
    assert told == 'invalid: Bad SQL. Details: {"line": 3}'
    huge = tell_model(errors.Invalid("Bad SQL.", details={"sql": "x" * MAX_DETAILS}))
    assert huge == "invalid: Bad SQL."


@pytest.mark.parametrize(
    "origin",
    ["http://localhost", "http://localhost:6274", "HTTP://LOCALHOST:80", "http://[::1]:3000"],
)
def test_pages_of_this_machine_may_call(origin: str) -> None:
    OriginList(DEFAULTS).check([origin.encode()])
    assert split_origin(origin) is not None


@pytest.mark.parametrize(
    "origin",
    [
        "https://localhost",
        "http://evil.example",
        "http://localhost.evil.example",
        "http://localhost:80@evil.example",
        "http://127.0.0.1.nip.io",
        "http://127.0.0.2",
        "http://localhost:x",
        "http://[::1",
        "http://",
        "localhost",
        "null",
        "",
        "file://",
        "http://localhost/",
        "http://localhost\\@evil.example",
        "http://localhost http://evil.example",
    ],
)
def test_other_pages_may_not(origin: str) -> None:
    with pytest.raises(errors.Forbidden):
        OriginList(DEFAULTS).check([origin.encode()])


def test_every_origin_of_a_request_must_be_allowed_and_none_is_a_program() -> None:
    allowed = OriginList(["https://console.example", "http://10.0.0.1:8080"])
    allowed.check([])
    allowed.check([b"https://console.example:443", b"http://10.0.0.1:8080"])
    with pytest.raises(errors.Forbidden):
        allowed.check([b"https://console.example", b"http://evil.example"])
    with pytest.raises(errors.Forbidden):
        allowed.check([b"http://10.0.0.1:8081"])
