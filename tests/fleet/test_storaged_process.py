"""storaged as a process of its own, over real connections: its client and rude clients."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from shared.clients.storaged import StoragedClient
from shared.config import Config
from shared.daemons import ROOT
from shared.errors import Invalid, PreconditionFailed, TooLarge
from tests.support.apps import make_config

pytestmark = pytest.mark.anyio

OBJECTS = "/storage/objects"


class Storaged:
    """A storaged process with its data under a folder."""

    def __init__(self, root: Path, config: Config) -> None:
        self.config = config
        self.port = config.storaged.port
        self.data = config.data_dir("storaged")
        self.settings = root / "lakehouse.toml"
        self.settings.write_text(
            f'[fleet]\ndata_dir = "{self.data.parent}"\n[log]\nlevel = "error"\n'
            f"[storaged]\nport = {self.port}\ndefault_cap_bytes = 33554432\n"
        )
        self.process = self.launch()

    def launch(self) -> subprocess.Popen[bytes]:
        """Starts the process and waits until it answers."""
        command = [sys.executable, "-m", "services.storaged", "--config", str(self.settings)]
        process = subprocess.Popen(command, cwd=ROOT)
        try:
            wait_until(lambda: self.is_alive() or process.poll() is not None, 30)
            assert process.poll() is None
        except BaseException:
            process.kill()
            process.wait()
            raise
        return process

    def is_alive(self) -> bool:
        """Whether /health answers."""
        try:
            return b" 200 " in self.exchange(b"GET /health HTTP/1.1\r\nhost: localhost\r\n", b"")
        except OSError:
            return False

    def exchange(self, head: bytes, body: bytes) -> bytes:
        """Sends bytes as they are and reads to the end of the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(head + b"connection: close\r\n\r\n" + body)
            answer = b""
            while received := connection.recv(65536):
                answer += received
        return answer

    def leftovers(self) -> list[Path]:
        """Files in staging."""
        return list((self.data / "staging").iterdir())

    def stop(self) -> None:
        """Ends the process politely."""
        self.process.terminate()
        assert self.process.wait(20) in (0, -signal.SIGTERM)


def wait_until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Polls a condition."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "the condition did not come to hold"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def storaged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storaged]:
    """One process for all tests here; each keeps to keys of its own."""
    root = tmp_path_factory.mktemp("storaged")
    started = Storaged(root, make_config(root))
    yield started
    started.stop()


async def pieces(count: int, size: int = 262_144) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield bytes(size)


async def test_the_client_over_a_socket(storaged: Storaged, tmp_path: Path) -> None:
    content = os.urandom(20_000_000)
    source = tmp_path / "source"
    source.write_bytes(content)
    client = StoragedClient(storaged.config)
    for key in ("socket/a b/é+%2F?.parquet", "socket/plain.parquet"):
        info = await client.put_object(key, source)
        assert info.etag == f'"{hashlib.sha256(content).hexdigest()}"'
        assert Path(info.uri.removeprefix("file://")).read_bytes() == content
        async with client.get_object(key) as body:
            assert body.info == info
            assert await body.read() == content
    found = [info.key async for info in client.walk_objects("socket/")]
    assert found == ["socket/a b/é+%2F?.parquet", "socket/plain.parquet"]
    await client.aclose()


async def test_a_refusal_reaches_a_client_that_is_still_sending(storaged: Storaged) -> None:
    """An early answer must not be lost to a reset connection, whatever the body's size."""
    client = StoragedClient(storaged.config)
    await client.put_object("sending/taken", b"1")
    for count in (8, 40, 200):
        with pytest.raises(PreconditionFailed):
            await client.put_object("sending/taken", pieces(count), if_none_match=True)
        with pytest.raises((TooLarge, PreconditionFailed)):
            await client.put_object(
                "sending/taken", pieces(count), size=count * 262_144, if_none_match=True
            )
    with pytest.raises(TooLarge, match="33554432"):
        await client.put_object("sending/large", pieces(200))
    with pytest.raises(TooLarge, match="33554432"):
        await client.put_object("sending/large", pieces(200), size=200 * 262_144)
    with pytest.raises(Invalid, match="promised"):
        await client.put_object("sending/short", pieces(3), size=4 * 262_144)
    wait_until(lambda: not storaged.leftovers())
    assert [info.key async for info in client.walk_objects("sending/")] == ["sending/taken"]
    await client.aclose()


@pytest.mark.parametrize("sent", [0, 10, 3_000_000])
@pytest.mark.parametrize(
    "framing", [b"content-length: 4000000\r\n", b"transfer-encoding: chunked\r\n"]
)
async def test_a_half_sent_body_leaves_nothing(
    storaged: Storaged, sent: int, framing: bytes
) -> None:
    head = b"PUT /storage/objects/half HTTP/1.1\r\nhost: localhost\r\n" + framing
    part = bytes(sent)
    if b"chunked" in framing:
        part = b"%x\r\n%b" % (sent + 1_000_000, part)
    with socket.create_connection(("127.0.0.1", storaged.port)) as connection:
        connection.sendall(head + b"\r\n" + part)
        if sent > 2_000_000:
            wait_until(lambda: bool(storaged.leftovers()))
    wait_until(lambda: not storaged.leftovers())
    missing = storaged.exchange(b"GET /storage/objects/half HTTP/1.1\r\nhost: localhost\r\n", b"")
    assert b" 404 " in missing.split(b"\r\n", 1)[0]


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"/storage/objects/../../etc/passwd", b"400"),
        (b"/storage/objects/%2e%2e/%2e%2e/etc/passwd", b"400"),
        (b"/storage/objects/a/..%2f..%2fb", b"400"),
        (b"/storage/objects//etc/passwd", b"400"),
        (b"/storage/objects/%00", b"400"),
        (b"/storage/objects/a%0d%0ab", b"400"),
        (b"/storage/objects/%ff", b"400"),
        (b"/storage/objects/\xc3\xa9", b"4"),
        (b"/storage/objects/" + b"k" * 2000, b"400"),
        (b"/storage%2Fobjects/a", b"40"),
        (b"/storage/objects/a?b=/../c", b"404"),
        (b"/storage/objects/absent", b"404"),
    ],
)
async def test_targets_as_they_come_over_the_wire(
    storaged: Storaged, target: bytes, status: bytes
) -> None:
    answer = storaged.exchange(b"GET " + target + b" HTTP/1.1\r\nhost: localhost\r\n", b"")
    assert answer.split(b" ")[1].startswith(status)
    assert b"root:" not in answer
    assert str(storaged.data).encode() not in answer


async def test_expect_continue_is_refused_before_the_body(storaged: Storaged) -> None:
    head = (
        b"PUT /storage/objects/k HTTP/1.1\r\nhost: localhost\r\n"
        b"content-length: 99000000\r\nexpect: 100-continue\r\n"
    )
    assert storaged.exchange(head, b"").startswith(b"HTTP/1.1 413")
    assert not storaged.leftovers()


async def test_a_second_process_is_kept_out_of_the_data(storaged: Storaged, tmp_path: Path) -> None:
    settings = tmp_path / "second.toml"
    port = make_config(tmp_path).storaged.port
    settings.write_text(
        storaged.settings.read_text().replace(f"port = {storaged.port}", f"port = {port}")
    )
    command = [sys.executable, "-m", "services.storaged", "--config", str(settings)]
    second = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert second.returncode != 0
    assert b"in use by process" in second.stderr
    assert storaged.is_alive()
