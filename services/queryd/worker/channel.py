"""The worker's end of the socket: whole frames in, frames out, nothing held back."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from services.queryd.core.frames import HEADER_SIZE, Kind, pack, pack_header, unpack, unpack_header

# Most buffers one sendmsg call takes (UIO_MAXIOV is 1,024).
_IOV = 512


class Hangup(Exception):
    """The daemon is gone; so is the worker's reason to live."""


class Channel:
    """Blocking frames over one socket, which is the worker's only open descriptor."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(True)

    def receive(self) -> tuple[Kind, Any]:
        """The next frame, with its payload read as JSON.

        Raises:
            Hangup: the daemon closed its end.
        """
        kind, length = unpack_header(self._read(HEADER_SIZE))
        return kind, unpack(self._read(length))

    def send(self, kind: Kind, payload: object) -> None:
        """A frame with a JSON payload."""
        self._send([pack(kind, payload)])

    def send_data(self, parts: Sequence[memoryview | bytes]) -> None:
        """A DATA frame whose payload is all parts in a row, gathered without a copy."""
        views = [memoryview(part).cast("B") for part in parts if len(part)]
        total = sum(view.nbytes for view in views)
        if total:
            self._send([memoryview(pack_header(Kind.DATA, total)), *views])

    def close(self) -> None:
        """Hangs up."""
        self._socket.close()

    def _send(self, parts: Sequence[memoryview | bytes]) -> None:
        views = [memoryview(part) for part in parts]
        first = 0
        try:
            while first < len(views):
                sent = self._socket.sendmsg(views[first : first + _IOV])
                while first < len(views) and sent >= views[first].nbytes:
                    sent -= views[first].nbytes
                    first += 1
                if sent:
                    views[first] = views[first][sent:]
        except OSError:
            raise Hangup from None

    def _read(self, length: int) -> bytearray:
        data = bytearray(length)
        view, got = memoryview(data), 0
        while got < length:
            try:
                count = self._socket.recv_into(view[got:])
            except OSError:
                raise Hangup from None
            if count == 0:
                raise Hangup
            got += count
        return data
