"""Access lines and log events."""

from __future__ import annotations

import asyncio
import io
import json
import logging

import pytest

from shared.context import request_id
from shared.logs import AccessLog, JsonFormatter, is_json
from shared.sections.common import LogSection


def write_line(as_json: bool) -> str:
    stream = io.StringIO()
    AccessLog("queryd", stream, as_json).write(
        request="r1",
        method="POST",
        route="/sql",
        path="/sql",
        status=200,
        ms=1.23456,
        received=10,
        sent=20,
        peer="127.0.0.1",
    )
    return stream.getvalue()


def test_json_line_has_every_field() -> None:
    line = json.loads(write_line(as_json=True))
    assert line.pop("t").endswith("+00:00")
    assert line == {
        "level": "info",
        "service": "queryd",
        "request_id": "r1",
        "method": "POST",
        "route": "/sql",
        "path": "/sql",
        "status": 200,
        "ms": 1.235,
        "bytes_in": 10,
        "bytes_out": 20,
        "peer": "127.0.0.1",
    }


def test_console_line_is_for_people() -> None:
    line = write_line(as_json=False)
    assert line.count("\n") == 1
    assert "queryd" in line
    assert "200" in line
    assert "POST /sql" in line


def test_a_closed_stream_stops_the_log_and_not_the_request() -> None:
    stream = io.StringIO()
    log = AccessLog("queryd", stream, as_json=True)
    stream.close()
    log.write(request="", method="", route="", path="", status=1, ms=0, received=0, sent=0, peer="")
    assert log.stream is None


def test_events_carry_request_id_and_exception() -> None:
    token = request_id.set("r9")
    try:
        raise ValueError("why")
    except ValueError as error:
        record = logging.LogRecord("a", logging.ERROR, "", 0, "it %s", ("broke",), None)
        record.exc_info = (type(error), error, error.__traceback__)
        event = json.loads(JsonFormatter("queryd").format(record))
    request_id.reset(token)
    assert (event["message"], event["request_id"], event["level"]) == ("it broke", "r9", "error")
    assert "ValueError: why" in event["exception"]


def test_auto_is_json_off_a_terminal() -> None:
    assert is_json(LogSection(), io.StringIO())
    assert not is_json(LogSection(format="console"), io.StringIO())


@pytest.mark.anyio
async def test_on_a_loop_lines_are_written_together_and_none_is_lost() -> None:
    stream = io.StringIO()
    log = AccessLog("queryd", stream, as_json=True)

    def write(number: int) -> None:
        log.write(
            request=str(number), method="", route="", path="", status=1, ms=0, received=0, sent=0,
            peer="",
        )  # fmt: skip

    for number in range(3):
        write(number)
    assert stream.getvalue() == ""
    async with asyncio.timeout(5):
        while stream.getvalue().count("\n") < 3:
            await asyncio.sleep(0)
    write(3)
    log.flush()
    ids = [json.loads(line)["request_id"] for line in stream.getvalue().splitlines()]
    assert ids == ["0", "1", "2", "3"]
