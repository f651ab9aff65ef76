"""Formats, limits, frames, and what an engine's error means."""

from __future__ import annotations

import math

import orjson
import pytest

from services.queryd.core.accept import Format, choose_format
from services.queryd.core.frames import (
    HEADER_SIZE,
    Kind,
    error_payload,
    pack,
    pack_header,
    read_error,
    unpack,
    unpack_header,
)
from services.queryd.core.limits import choose_max_rows, choose_timeout, refuse_engine
from services.queryd.core.problems import Cause, explain_problem, read_problem
from services.queryd.core.statement import read_statement
from shared.errors import (
    Forbidden,
    Invalid,
    LakehouseError,
    NotAcceptable,
    NotFound,
    Timeout,
    Unavailable,
    Unprocessable,
)
from shared.wire.queryd import ARROW_TYPE, NDJSON_TYPE, PARQUET_TYPE

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, Format.JSON),
        ("", Format.JSON),
        ("*/*", Format.JSON),
        ("application/*", Format.JSON),
        (BROWSER, Format.JSON),
        ("application/json", Format.JSON),
        (ARROW_TYPE, Format.ARROW),
        (NDJSON_TYPE.upper(), Format.NDJSON),
        (f"{NDJSON_TYPE}; charset=utf-8", Format.NDJSON),
        (f"{ARROW_TYPE}, application/json;q=0.5", Format.ARROW),
        (f"application/json;q=0.4, {NDJSON_TYPE};q=0.6", Format.NDJSON),
        (f"*/*;q=0.1, {ARROW_TYPE}", Format.ARROW),
        ("application/json;q=0, */*", Format.ARROW),
        ("text/csv", Format.CSV),
        ("text/*", Format.CSV),
        ("text/csv; header=present, application/json;q=0.9", Format.CSV),
        (PARQUET_TYPE, Format.PARQUET),
    ],
)
def test_the_accept_header_decides_the_format(accept: str | None, form: Format) -> None:
    assert choose_format(accept) is form


@pytest.mark.parametrize(
    "accept",
    ["text/html", "application/xml", "application/json;q=0", "*/*;q=x", "image/*"],
)
def test_a_format_nobody_makes_is_not_acceptable(accept: str) -> None:
    with pytest.raises(NotAcceptable) as caught:
        choose_format(accept)
    assert caught.value.details["formats"] == [form.value for form in Format]


def test_a_timeout_can_only_be_lowered() -> None:
    assert choose_timeout(None, None, 60) == 60
    assert choose_timeout(5, 30, 60) == 5
    assert choose_timeout(90, 30, 60) == 30
    assert choose_timeout(math.inf, None, 60) == 60
    with pytest.raises(Timeout):
        choose_timeout(5, 0, 60)


def test_rows_are_limited_by_format_and_server() -> None:
    assert choose_max_rows(None, Format.JSON, 10, 100) == 10
    assert choose_max_rows(None, Format.ARROW, 10, 100) == 100
    assert choose_max_rows(50, Format.JSON, 10, 100) == 50
    assert choose_max_rows(500, Format.NDJSON, 10, 100) == 100
    assert choose_max_rows(0, Format.JSON, 10, 100) == 0


def test_another_engine_is_told_to_be_absent() -> None:
    refuse_engine("duckdb")
    with pytest.raises(Unprocessable, match="'spark' is not configured"):
        refuse_engine("spark")


def test_frames_come_out_as_they_went_in() -> None:
    payload = {"big": 2**200, "nan": math.nan, "text": "é\ud800", "list": [1.5, None, True]}
    frame = pack(Kind.OPEN, payload)
    kind, length = unpack_header(frame[:HEADER_SIZE])
    assert (kind, length) == (Kind.OPEN, len(frame) - HEADER_SIZE)
    found = unpack(frame[HEADER_SIZE:])
    assert math.isnan(found.pop("nan"))
    assert found == {k: v for k, v in payload.items() if k != "nan"}
    assert unpack_header(pack_header(Kind.DATA, 2**40)) == (Kind.DATA, 2**40)
    with pytest.raises(ValueError, match="valid Kind"):
        unpack_header(b"?" * HEADER_SIZE)


def test_errors_keep_their_class_through_a_frame() -> None:
    error = read_error(unpack(pack(Kind.ERROR, error_payload(NotFound("x", details={"a": 1})))[9:]))
    assert type(error) is NotFound
    assert (error.message, error.details) == ("x", {"a": 1})
    assert type(read_error({"code": "?", "message": "x"})).status == 500


def wrap(kind: str, message: str, **facts: str) -> str:
    """An engine's error text as the worker asks for it."""
    inner = {"exception_type": kind, "exception_message": message, **facts}
    return f"{kind} Error: {orjson.dumps(inner).decode()}"


OUT = (
    "failed to allocate data of size 16.0 MiB (178.2 MiB/179.0 MiB used)\n\nPossible solutions:\n*"
)
SPILLED = "failed to offload data block (1.0 MiB/1.0 MiB used). Set by 'max_temp_directory_size'."
NESTED = wrap("Invalid Input", "get_next failed(): IOError: " + wrap("Conversion", "bad 'x'")[18:])


@pytest.mark.parametrize(
    ("name", "text", "cause", "harmless", "cls"),
    [
        ("BinderException", wrap("Binder", "no column"), Cause.STATEMENT, True, Invalid),
        ("OSError", wrap("Conversion", "no number"), Cause.STATEMENT, True, Invalid),
        ("OSError", NESTED, Cause.STATEMENT, True, Invalid),
        ("X", "Not implemented Error: not yet", Cause.STATEMENT, True, Invalid),
        ("X", "Catalog Error: no such table", Cause.STATEMENT, True, Invalid),
        ("UnicodeEncodeError", "surrogates", Cause.STATEMENT, True, Invalid),
        ("PermissionException", wrap("Permission", "'/a'"), Cause.REFUSED, True, Forbidden),
        ("OutOfMemoryException", wrap("Out of Memory", OUT), Cause.MEMORY, False, Unprocessable),
        ("OSError", wrap("Out of Memory", OUT), Cause.MEMORY, False, Unprocessable),
        ("MemoryError", "", Cause.MEMORY, False, Unprocessable),
        ("RuntimeError", "std::bad_alloc", Cause.MEMORY, False, Unprocessable),
        ("ArrowMemoryError", "malloc of size 9 failed", Cause.MEMORY, False, Unprocessable),
        ("X", wrap("Out of Memory", SPILLED), Cause.TEMP, False, Unprocessable),
        ("X", wrap("IO", "write: No space left on device"), Cause.TEMP, False, Unprocessable),
        ("IOException", wrap("IO", "Cannot open 'a.parquet'"), Cause.FILES, False, Unavailable),
        ("InternalException", wrap("INTERNAL", "odd"), Cause.ENGINE, False, Unprocessable),
        ("FatalException", wrap("FATAL", "worse"), Cause.ENGINE, False, Unprocessable),
        ("SystemError", "what", Cause.UNKNOWN, False, Unprocessable),
    ],
)
def test_the_innermost_kind_of_an_error_decides(
    name: str, text: str, cause: Cause, harmless: bool, cls: type[LakehouseError]
) -> None:
    problem = read_problem(name, text)
    assert (problem.cause, problem.harmless) == (cause, harmless)
    error = explain_problem(problem, "SELECT 1", read_statement("SELECT 1"), 512, 64)
    assert type(error) is cls
    if cause is Cause.MEMORY:
        assert "512 MB" in error.message
    if cause is Cause.TEMP:
        assert "64 MB" in error.message


def test_a_message_is_one_line_without_advice_on_settings() -> None:
    text = wrap("Invalid Input", "More than one row\nreturned.\n\nUse SET x=1 to revert.")
    assert read_problem("X", text).message == "More than one row returned"
    assert len(read_problem("X", wrap("Binder", "x" * 10_000)).message) == 1000


def test_a_place_in_the_engines_text_becomes_one_in_the_callers() -> None:
    sql = "EXPLAIN   -- why\nSELECT é, foo"
    statement = read_statement(sql)
    at = statement.runnable.encode().index(b"foo")
    problem = read_problem("X", wrap("Binder", "no foo", position=str(at)))
    error = explain_problem(problem, sql, statement, 1, 1)
    assert error.details == {"line": 2, "column": 11}
    assert error.message == "no foo (line 2, column 11)."
