"""Raw-HTTP attacks on a real gateway process: nothing gets past it as a second request.

Each case is bytes on a socket. What must hold: the answer is a 4xx or nothing, the
connection is closed, the daemon behind has seen no smuggled request, and the gateway goes
on serving.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from scripts.private_fleet import reserve_ports
from shared.daemons import ROOT

SMUGGLED = b"GET /v1/storage/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
HOST = b"Host: localhost\r\n"
STATUS_LINE = re.compile(rb"HTTP/1\.1 \d\d\d ")
POST = b"POST /v1/storage/x HTTP/1.1\r\n" + HOST


class Recorder:
    """A daemon that answers everything and remembers the heads it read."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError, ValueError):
            stream = connection.makefile("rb")
            while True:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    line = stream.readline()
                    if not line:
                        return
                    head += line
                self.heads.append(head)
                self._skip_body(stream, head.lower())
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    def _skip_body(self, stream: object, head: bytes) -> None:
        read, readline = stream.read, stream.readline  # type: ignore[attr-defined]
        for line in head.split(b"\r\n"):
            if line.startswith(b"content-length:"):
                read(int(line.split(b":")[1]))
            if line.startswith(b"transfer-encoding:"):
                while size := int(readline(), 16):
                    read(size + 2)
                readline()

    def close(self) -> None:
        self._listener.close()


@dataclass
class Target:
    """The gateway under attack."""

    port: int
    daemon: Recorder
    process: subprocess.Popen[bytes]
    token: str = field(default="")

    def send(self, data: bytes, limit_s: float = 5.0) -> tuple[bytes, bool]:
        """Sends bytes and reads until the end; gives what came, and whether it ended."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=limit_s) as connection:
            received = b""
            with suppress(ConnectionError):
                connection.sendall(data)
            try:
                while piece := connection.recv(65536):
                    received += piece
            except ConnectionError:
                pass
            except TimeoutError:
                return received, False
            return received, True

    def is_serving(self) -> bool:
        closing = b"GET /v1/storage/alive HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n"
        received, ended = self.send(closing)
        return ended and received.startswith(b"HTTP/1.1 200 ") and received.endswith(b"ok")

    def memory_mib(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(x.split()[1]) for x in status.splitlines() if "VmHWM" in x) / 1024


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("gateway")
    daemon = Recorder()
    (port,) = reserve_ports(1)
    config = folder / "lakehouse.toml"
    config.write_text(
        f"[fleet]\ndata_dir = {str(folder)!r}\n"
        f"[gateway]\nport = {port}\nmax_body_bytes = 1000000\n"
        f"[storaged]\nport = {daemon.port}\n[log]\nlevel = 'error'\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "services.gateway", "--config", str(config)],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith("LAKEHOUSE_")},
    )
    try:
        running = Target(port, daemon, process)
        deadline = time.monotonic() + 20
        while True:
            with suppress(OSError):
                if running.is_serving():
                    break
            assert time.monotonic() < deadline, "the gateway did not start"
            assert process.poll() is None
            time.sleep(0.05)
        yield running
    finally:
        process.terminate()
        process.wait(15)
        daemon.close()


def chunked(*pieces: bytes) -> bytes:
    return POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(pieces)


ATTACKS: dict[str, bytes] = {
    # Two opinions on where the body ends.
    "length-and-chunked": POST
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "chunked-and-length": POST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 60\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "two-lengths": POST + b"Content-Length: 0\r\nContent-Length: 60\r\n\r\n" + SMUGGLED,
    "two-equal-lengths": POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok" + SMUGGLED,
    "list-of-lengths": POST + b"Content-Length: 2, 2\r\n\r\nok" + SMUGGLED,
    "negative-length": POST + b"Content-Length: -1\r\n\r\n" + SMUGGLED,
    "signed-length": POST + b"Content-Length: +0\r\n\r\n" + SMUGGLED,
    "hex-length": POST + b"Content-Length: 0x0\r\n\r\n" + SMUGGLED,
    "length-with-blank": POST + b"Content-Length: 0 0\r\n\r\n" + SMUGGLED,
    "empty-length": POST + b"Content-Length:\r\n\r\n" + SMUGGLED,
    "overflowing-length": POST + b"Content-Length: 18446744073709551616\r\n\r\n" + SMUGGLED,
    "endless-length": POST + b"Content-Length: " + b"9" * 400 + b"\r\n\r\n" + SMUGGLED,
    "length-over-the-cap": POST + b"Content-Length: 1000001\r\n\r\n" + SMUGGLED,
    # Transfer codings that one side might take for chunked.
    "unknown-coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "coding-list": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunked-not-last": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "identity-coding": POST + b"Transfer-Encoding: identity\r\n\r\n" + SMUGGLED,
    "two-codings": POST
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "coding-with-vertical-tab": POST
    + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "coding-before-colon-blank": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "coding-folded": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "old-version-chunked": b"POST /v1/storage/x HTTP/1.0\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    # Chunks that do not add up.
    "chunk-overflow": chunked(b"10000000000000002\r\nok\r\n0\r\n\r\n", SMUGGLED),
    "chunk-negative": chunked(b"-2\r\nok\r\n0\r\n\r\n", SMUGGLED),
    "chunk-hex-prefix": chunked(b"0x2\r\nok\r\n0\r\n\r\n", SMUGGLED),
    "chunk-no-size": chunked(b"\r\nok\r\n0\r\n\r\n", SMUGGLED),
    "chunk-blank-size": chunked(b"2 \r\nok\r\n0\r\n\r\n", SMUGGLED),
    "chunk-bare-line-feed": chunked(b"2\nok\n0\n\n", SMUGGLED),
    "chunk-longer-than-said": chunked(b"2\r\nokok\r\n0\r\n\r\n", SMUGGLED),
    "length-in-a-trailer": chunked(b"2\r\nok\r\n0\r\nContent-Length: 60\r\n\r\n", SMUGGLED),
    "chunk-extension-line-feed": chunked(b"2;a\nb\r\nok\r\n0\r\n\r\n", SMUGGLED),
    "chunks-over-the-cap": chunked(*[b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n"] * 20, SMUGGLED),
    # Hosts.
    "no-host": b"GET /v1/storage/x HTTP/1.1\r\n\r\n",
    "two-hosts": b"GET /v1/storage/x HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    "two-different-hosts": b"GET /v1/storage/x HTTP/1.1\r\n" + HOST + b"Host: evil.example\r\n\r\n",
    "evil-host": b"GET /v1/storage/x HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "host-with-user": b"GET /v1/storage/x HTTP/1.1\r\nHost: localhost@evil.example\r\n\r\n",
    "empty-host": b"GET /v1/storage/x HTTP/1.1\r\nHost:\r\n\r\n",
    "no-host-old-version": b"GET /v1/storage/x HTTP/1.0\r\n\r\n",
    # Lines and headers.
    "folded-header": POST + b"X-A: b\r\n c: d\r\n\r\n" + SMUGGLED,
    "bare-line-feeds": b"GET /v1/storage/x HTTP/1.1\nHost: localhost\n\n" + SMUGGLED,
    "bare-line-feed-in-header": POST + b"X-A: b\nX-C: d\r\n\r\n" + SMUGGLED,
    "bare-carriage-return": POST + b"X-A: b\rX-C: d\r\n\r\n" + SMUGGLED,
    "nul-in-value": POST + b"X-A: b\x00c\r\n\r\n" + SMUGGLED,
    "nul-in-name": POST + b"X\x00A: b\r\n\r\n" + SMUGGLED,
    "control-in-value": POST + b"X-A: b\x01c\r\n\r\n" + SMUGGLED,
    "no-colon": POST + b"X-A\r\n\r\n" + SMUGGLED,
    "empty-name": POST + b": b\r\n\r\n" + SMUGGLED,
    "blank-in-name": POST + b"X A: b\r\n\r\n" + SMUGGLED,
    "200-kilobyte-header": POST + b"X-A: " + b"b" * 200_000 + b"\r\n\r\n",
    "200-kilobytes-of-headers": POST
    + b"".join(b"X-%d: b\r\n" % n for n in range(25_000))
    + b"\r\n",
    "header-over-the-cap": POST + b"X-A: " + b"b" * 33_000 + b"\r\n\r\n",
    "head-without-end": POST + b"X-A: b\r\n" * 100_000,
    "header-name-without-end": POST + b"x" * 500_000,
    # Request lines.
    "absolute-form": b"GET http://evil.example/v1/storage/x HTTP/1.1\r\n" + HOST + b"\r\n",
    "absolute-form-own-host": b"GET http://localhost/v1/storage/x HTTP/1.1\r\n" + HOST + b"\r\n",
    "connect": b"CONNECT localhost:22 HTTP/1.1\r\n" + HOST + b"\r\n" + SMUGGLED,
    "asterisk": b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    "relative-path": b"GET v1/storage/x HTTP/1.1\r\n" + HOST + b"\r\n",
    "fragment": b"GET /v1/storage/x#/../smuggled HTTP/1.1\r\n" + HOST + b"\r\n",
    "blank-in-target": b"GET /v1/storage/x y HTTP/1.1\r\n" + HOST + b"\r\n",
    "tab-in-target": b"GET /v1/storage/x\ty HTTP/1.1\r\n" + HOST + b"\r\n",
    "bytes-in-target": b"GET /v1/storage/\xff\xfe HTTP/1.1\r\n" + HOST + b"\r\n",
    "carriage-return-in-target": b"GET /v1/storage/x\rY: z HTTP/1.1\r\n" + HOST + b"\r\n",
    "200-kilobyte-target": b"GET /v1/storage/" + b"x" * 200_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "no-version": b"GET /v1/storage/x\r\n" + HOST + b"\r\n",
    "version-two": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "version-1.9": b"GET /v1/storage/x HTTP/1.9\r\n" + HOST + b"\r\n",
    "version-nonsense": b"GET /v1/storage/x HTTP/x.y\r\n" + HOST + b"\r\n",
    "method-nonsense": b"G\x00T /v1/storage/x HTTP/1.1\r\n" + HOST + b"\r\n",
    "method-lower-case": b"get /v1/storage/x HTTP/1.1\r\n" + HOST + b"\r\n",
    "not-http": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_and_reaches_nobody(target: Target, name: str) -> None:
    seen = len(target.daemon.heads)
    received, ended = target.send(ATTACKS[name])
    assert ended, f"the connection stayed open: {received[:200]!r}"
    if received:
        status = int(received.split(b" ")[1])
        assert 400 <= status < 500, received[:200]
        assert len(STATUS_LINE.findall(received)) == 1, received
    passed = target.daemon.heads[seen:]
    assert not any(b"smuggled" in head for head in passed)
    # A streamed body is on its way before it turns out to be bad; nothing else is.
    assert len(passed) <= (1 if b"chunked\r\n\r\n" in ATTACKS[name] else 0), passed
    assert target.is_serving()


def test_a_hundred_kinds_of_rubbish_leave_memory_alone(target: Target) -> None:
    assert target.memory_mib() < 200


HARMLESS: dict[str, tuple[bytes, int]] = {
    # What looks like an attack and is a request like any other: it must pass as exactly one.
    "hidden-in-a-body": (POST + b"Content-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED, 1),
    "hidden-in-a-get-body": (
        b"GET /v1/storage/x HTTP/1.1\r\n"
        + HOST
        + b"Content-Length: %d\r\n\r\n" % len(SMUGGLED)
        + SMUGGLED,
        1,
    ),
    "hidden-in-a-chunk": (
        chunked(b"%x\r\n" % len(SMUGGLED), SMUGGLED, b"\r\n0\r\n\r\n"),
        1,
    ),
    "hidden-in-a-trailer": (
        chunked(b"2\r\nok\r\n0\r\nX-Evil: 1\r\nHost: evil.example\r\n\r\n"),
        1,
    ),
    "websocket": (
        b"GET /v1/storage/x HTTP/1.1\r\n" + HOST + b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        1,
    ),
    "http2-upgrade": (
        b"GET /v1/storage/x HTTP/1.1\r\n"
        + HOST
        + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        + b"HTTP2-Settings: AAMAAABk\r\n\r\n",
        1,
    ),
    "pipelined": (3 * (b"GET /v1/storage/x HTTP/1.1\r\n" + HOST + b"\r\n"), 3),
    "empty-lines-before": (b"\r\n\r\nGET /v1/storage/x HTTP/1.1\r\n" + HOST + b"\r\n", 1),
    "encoded-line-break": (b"GET /v1/storage/x%0d%0aX:%20y HTTP/1.1\r\n" + HOST + b"\r\n", 1),
    "dot-segments": (b"GET /v1/storage/../../smuggle HTTP/1.1\r\n" + HOST + b"\r\n", 1),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_only_looks_like_an_attack_passes_as_one_request_each(
    target: Target, name: str
) -> None:
    data, expected = HARMLESS[name]
    seen = len(target.daemon.heads)
    received, _ = target.send(data, limit_s=0.5)
    assert received.count(b"HTTP/1.1 200 OK") == expected, received
    heads = target.daemon.heads[seen:]
    assert len(heads) == expected
    for head in heads:
        assert head.split(b" ")[1].startswith(b"/storage/")
        lowered = head.lower()
        assert lowered.count(b"\r\nhost:") == 1
        for gone in (b"evil", b"upgrade", b"http2-settings", b"trailer"):
            assert gone not in lowered
        assert lowered.count(b"content-length:") + lowered.count(b"transfer-encoding:") <= 1


def test_rubbish_behind_a_request_costs_only_its_connection(target: Target) -> None:
    good = b"GET /v1/storage/x HTTP/1.1\r\n" + HOST + b"\r\n"
    received, ended = target.send(good + b"\x00rubbish\r\n\r\n")
    assert ended
    assert len(STATUS_LINE.findall(received)) == 1
    # The good one may have been answered already when the rubbish was read, or not yet.
    assert received.startswith((b"HTTP/1.1 200", b"HTTP/1.1 400"))
    assert target.is_serving()


def test_half_a_request_holds_nothing_up(target: Target) -> None:
    held = []
    for _ in range(200):
        connection = socket.create_connection(("127.0.0.1", target.port))
        connection.sendall(POST[:40])
        held.append(connection)
    begun = time.monotonic()
    assert target.is_serving()
    assert time.monotonic() - begun < 2
    for connection in held:
        connection.close()


def test_a_body_cut_short_is_cut_short_for_the_daemon_too(target: Target) -> None:
    seen = len(target.daemon.heads)
    with socket.create_connection(("127.0.0.1", target.port)) as connection:
        connection.sendall(POST + b"Content-Length: 100\r\n\r\nhalf")
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(5)
        with suppress(ConnectionError):
            assert b"200" not in connection.recv(1000)
    assert target.is_serving()
    assert not any(b"smuggled" in head for head in target.daemon.heads[seen:])
