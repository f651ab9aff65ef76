"""Something between storaged and its S3 server that makes trouble as it is told."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit

# reset: the connection breaks before the server hears of the request; lose: after it has
# answered; hang: no answer; status: an error in its place; cut: half of the answer's body;
# slow: the answer comes late.
Action = Literal["reset", "lose", "hang", "status", "cut", "slow"]

_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}


@dataclass
class Fault:
    """What is to happen to the next `times` requests that fit."""

    action: Action
    method: str = ""
    query: str = ""
    times: int = 1
    status: int = 500
    code: str = "InternalError"
    seconds: float = 0.0
    during: Callable[[], None] | None = None

    def fits(self, method: str, target: str) -> bool:
        return self.times > 0 and method.startswith(self.method) and self.query in target


class FaultyProxy:
    """A proxy on a port of its own; signatures hold, as it changes nothing it passes on."""

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.faults: list[Fault] = []
        self.seen: list[tuple[str, str]] = []
        self.down = False
        self.released = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(self, action: Action, **fields: Any) -> None:
        """Arranges one fault."""
        self.faults.append(Fault(action, **fields))

    def take(self, method: str, target: str) -> Fault | None:
        """The fault of a request, if it is to have one."""
        with self._lock:
            self.seen.append((method, target))
            if self.down:
                return Fault("reset")
            for fault in self.faults:
                if fault.fits(method, target):
                    fault.times -= 1
                    return fault
        return None

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except (ConnectionError, TimeoutError):
                    self.close_connection = True

            def log_message(self, format: str, *args: object) -> None: ...

            def relay(self) -> None:
                fault = proxy.take(self.command, self.path)
                length = int(self.headers.get("content-length", 0))
                if fault and fault.action == "reset":
                    return self.break_off()
                body = self.rfile.read(length)
                if fault and fault.action == "hang":
                    proxy.released.wait(60)
                    return self.break_off()
                if fault and fault.action == "slow":
                    time.sleep(fault.seconds)
                if fault and fault.action == "status":
                    text = f"<Error><Code>{fault.code}</Code><Message>m</Message></Error>".encode()
                    return self.answer(fault.status, [("content-type", "application/xml")], text)
                connection = http.client.HTTPConnection(proxy.upstream, timeout=30)
                headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
                try:
                    connection.request(self.command, self.path, body, headers)
                    response = connection.getresponse()
                    content = response.read()
                    status, given = response.status, response.getheaders()
                except OSError:
                    return self.break_off()  # the server is away: so it looks from here
                finally:
                    connection.close()
                if fault and fault.action == "lose":
                    return self.break_off()
                cut = len(content) // 2 if fault and fault.action == "cut" else None
                self.answer(status, given, content, cut)
                if cut is not None:
                    if fault and fault.during:
                        fault.during()
                    self.break_off()

            def answer(
                self,
                status: int,
                headers: list[tuple[str, str]],
                content: bytes,
                cut: int | None = None,
            ) -> None:
                self.send_response_only(status)
                stated = ""
                for name, value in headers:
                    if name.lower() == "content-length":
                        stated = value
                    elif name.lower() not in _HOP:
                        self.send_header(name, value)
                # A HEAD says how long a body would be.
                own = stated if self.command == "HEAD" and stated else str(len(content))
                self.send_header("content-length", own)
                self.end_headers()
                self.wfile.write(content[:cut])
                self.wfile.flush()

            def break_off(self) -> None:
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = relay

        return Handler


@contextmanager
def faulty_proxy(upstream: str) -> Generator[FaultyProxy]:
    """A running proxy in front of a server."""
    proxy = FaultyProxy(upstream)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
