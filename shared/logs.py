"""Logs on stderr: one JSON object a line, or a readable line on a terminal.

Standard `logging` carries events; `AccessLog` writes the one line per request directly,
because it is on every hot path. Secrets are never passed to either.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import TextIO

import orjson

from shared.context import request_id
from shared.sections.common import LogSection

FLUSH_S = 0.05


class JsonFormatter(logging.Formatter):
    """One JSON object per event."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self.service = service

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, object] = {
            "t": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self.service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id.get():
            event["request_id"] = request_id.get()
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(event, default=str).decode()


def is_json(section: LogSection, stream: TextIO) -> bool:
    """Whether the stream gets JSON lines under this configuration."""
    return section.format == "json" or (section.format == "auto" and not stream.isatty())


def configure_logging(section: LogSection, service: str) -> None:
    """Points the root logger at stderr in the configured form. Called once, in `serve`."""
    handler = logging.StreamHandler(sys.stderr)
    if is_json(section, sys.stderr):
        handler.setFormatter(JsonFormatter(service))
    else:
        handler.setFormatter(
            logging.Formatter(f"%(asctime)s {service:<9} %(levelname)-7s %(message)s", "%H:%M:%S")
        )
    logging.basicConfig(level=section.level.upper(), handlers=[handler], force=True)
    # Its line per call repeats what the peer's access log says.
    logging.getLogger("httpx").setLevel(logging.WARNING)


class AccessLog:
    """Writes one line per request to a stream.

    On a running event loop lines are written together, `FLUSH_S` after the first of them:
    a system call a request would be a tenth of what a small request costs.

    Args:
        service: name put into every line.
        stream: where lines go; None writes nothing (tests).
        as_json: JSON objects, or short text for people.
    """

    def __init__(self, service: str, stream: TextIO | None, as_json: bool) -> None:
        self.service = service
        self.stream = stream
        self.as_json = as_json
        self._lines: list[str] = []
        self._flushing_on: asyncio.AbstractEventLoop | None = None

    def write(
        self,
        *,
        request: str,
        method: str,
        route: str,
        path: str,
        status: int,
        ms: float,
        received: int,
        sent: int,
        peer: str,
    ) -> None:
        """One request: id, route template and path, status, milliseconds, bytes, peer."""
        if self.stream is None:
            return
        now = time.time()
        if self.as_json:
            line = orjson.dumps(
                {
                    "t": f"{_second(int(now))}.{int(now * 1000) % 1000:03d}+00:00",
                    "level": "info",
                    "service": self.service,
                    "request_id": request,
                    "method": method,
                    "route": route,
                    "path": path,
                    "status": status,
                    "ms": round(ms, 3),
                    "bytes_in": received,
                    "bytes_out": sent,
                    "peer": peer,
                }
            ).decode()
        else:
            clock = _second(int(now))[11:]
            line = f"{clock} {self.service:<9} {status} {ms:8.1f} ms {method} {path}"
        self._lines.append(line)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
            return
        if self._flushing_on is not loop:
            self._flushing_on = loop
            loop.call_later(FLUSH_S, self.flush)

    def flush(self) -> None:
        """Writes the lines that wait."""
        self._flushing_on = None
        lines, self._lines = self._lines, []
        if self.stream is None or not lines:
            return
        try:
            self.stream.write("\n".join(lines) + "\n")
            self.stream.flush()
        except (OSError, ValueError):
            # The log's reader is gone; requests go on.
            self.stream = None


@lru_cache(maxsize=2)
def _second(at: int) -> str:
    """A point in time to the second, in UTC; every line of that second has the same one."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")
