"""Bytes of a stream cut into frames: server-sent events, or lines.

Both take pieces as the network gives them, in any cut, and bound what may wait for its end.
"""

from __future__ import annotations

from typing import NamedTuple

from services.chatd.core.faults import Fault


class ServerEvent(NamedTuple):
    """One server-sent event: its name (empty where it has none) and its data."""

    name: bytes
    data: bytes


class _Lines:
    """Complete lines of what was fed, without their ends."""

    def __init__(self, max_bytes: int) -> None:
        self._rest = b""
        self._max_bytes = max_bytes

    def take(self, data: bytes) -> list[bytes]:
        # A lone CR ends no line here: no provider sends that, and it may come before its LF.
        data = self._rest + data if self._rest else data
        *lines, self._rest = data.split(b"\n")
        self.check(len(self._rest))
        return lines

    def check(self, size: int) -> None:
        if size > self._max_bytes:
            raise Fault("oversized", f"one event is over {self._max_bytes} bytes")

    def last(self) -> bytes:
        rest, self._rest = self._rest, b""
        return rest


class EventCutter:
    """Server-sent events. Comments and events without data are passed over."""

    def __init__(self, max_bytes: int) -> None:
        self._lines = _Lines(max_bytes)
        self._name = b""
        self._data: list[bytes] = []
        self._size = 0

    def cut(self, data: bytes) -> list[ServerEvent]:
        """The events that are complete now."""
        events: list[ServerEvent] = []
        for line in self._lines.take(data):
            self._take_line(line, events)
        return events

    def end(self) -> list[ServerEvent]:
        """What waits without the blank line behind it: some servers leave that out."""
        events: list[ServerEvent] = []
        self._take_line(self._lines.last(), events)
        self._take_line(b"", events)
        return events

    def _take_line(self, line: bytes, events: list[ServerEvent]) -> None:
        if line.endswith(b"\r"):
            line = line[:-1]
        if not line:
            if self._data:
                events.append(ServerEvent(self._name, b"\n".join(self._data)))
            self._name, self._data, self._size = b"", [], 0
            return
        field, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if field == b"data":
            self._size += len(value)
            self._lines.check(self._size)
            self._data.append(value)
        elif field == b"event":
            self._name = value


class LineCutter:
    """Newline-delimited JSON. Blank lines are passed over."""

    def __init__(self, max_bytes: int) -> None:
        self._lines = _Lines(max_bytes)

    def cut(self, data: bytes) -> list[bytes]:
        """The lines that are complete now."""
        return [line for line in self._lines.take(data) if line.strip()]

    def end(self) -> list[bytes]:
        """A last line without its newline."""
        rest = self._lines.last()
        return [rest] if rest.strip() else []
