"""The server under every daemon: what it adds to uvicorn's, over real sockets."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from shared.http1 import SERVED, Served, pace
from tests.support.sockets import Client, connected, request, serving, until

pytestmark = pytest.mark.anyio

MiB = 1024 * 1024
OK = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
BODY = {"type": "http.response.body", "body": b"ok"}


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The loop that the daemons run on: its transports are not asyncio's."""
    return ("asyncio", {"use_uvloop": True})


class App:
    """An ASGI app that does what its `serve` says, and remembers what it was given."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.bodies: list[bytes] = []
        self.gone = asyncio.Event()
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.start: dict[str, Any] = OK
        self.errors: list[BaseException] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        self.entered.set()
        try:
            await self.serve(scope, receive, send)
        except BaseException as error:
            self.errors.append(error)
            raise

    async def serve(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        self.bodies.append(body)
        await send(dict(self.start))
        await send(dict(BODY))


class Waiting(App):
    """Answers when it is released; knows when its client left."""

    async def serve(self, scope: Any, receive: Any, send: Any) -> None:
        served: Served = scope["extensions"][SERVED]
        served.watch(self.gone.set)
        await self.release.wait()
        await send(dict(self.start))
        await send(dict(BODY))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slowness in tenths of seconds."""
    for name, value in {"TICK_S": 0.05, "HEAD_S": 0.2, "STALL_S": 0.3}.items():
        monkeypatch.setattr(pace, name, value)


async def ask(client: Client, data: bytes) -> Any:
    await client.send(data)
    reply = await client.read()
    assert reply is not None
    return reply


async def test_the_scope_is_asgis_and_the_target_untouched() -> None:
    app = App()
    async with serving(app) as port, connected(port) as client:
        await ask(client, request("/a%20b%2Fc/../d?x=%20&y=?#".rstrip("#"), "PATCH", "X-A:  b \t "))
    scope = app.scopes[0]
    assert scope["method"] == "PATCH"
    assert scope["path"] == "/a b/c/../d"
    assert scope["raw_path"] == b"/a%20b%2Fc/../d"
    assert scope["query_string"] == b"x=%20&y=?"
    assert scope["headers"] == [(b"host", b"localhost"), (b"x-a", b"b")]
    assert scope["client"][0] == "127.0.0.1"


async def test_head_and_body_leave_together_and_a_lone_head_at_once() -> None:
    class Slow(App):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            await send(dict(self.start))
            await self.release.wait()
            await send(dict(BODY))

    app = Slow()
    async with serving(app) as port, connected(port) as client:
        await client.send(request("/"))
        assert b"200 OK" in await client.reader.readuntil(b"\r\n\r\n")
        app.release.set()
        assert await client.reader.readexactly(2) == b"ok"


async def test_unknown_lengths_are_chunked_and_known_ones_checked() -> None:
    app = App()
    app.start = {**OK, "headers": []}
    async with serving(app) as port, connected(port) as client:
        reply = await ask(client, request("/"))
        assert (reply.body, reply.all(b"transfer-encoding")) == (b"ok", [b"chunked"])
        for length in (b"1", b"3"):
            app.start = {**OK, "headers": [(b"content-length", length)]}
            async with connected(port) as other:
                await other.send(request("/"))
                wrong = await other.read()
                assert wrong is None or not wrong.complete
    assert all("Content-Length" in str(error) for error in app.errors)
    assert len(app.errors) == 2


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x-a", b"b\r\nx-c: d")],
        [(b"x-a", b"b\nc")],
        [(b"x-a", b"b\x00c")],
        [(b"x a", b"b")],
        [(b"x-a\r\n", b"b")],
        [(b"", b"b")],
    ],
)
async def test_an_app_cannot_split_its_answer(headers: list[tuple[bytes, bytes]]) -> None:
    app = App()
    app.start = {**OK, "headers": headers}
    async with serving(app) as port, connected(port) as client:
        await client.send(request("/"))
        assert b"x-c" not in await client.wait_closed()
    assert isinstance(app.errors[0], RuntimeError)


async def test_a_trailer_is_no_header() -> None:
    app = App()
    async with serving(app) as port, connected(port) as client:
        await ask(
            client,
            request("/", "POST", "Transfer-Encoding: chunked")
            + b"2\r\nhi\r\n0\r\nX-Role: admin\r\n\r\n",
        )
    assert app.bodies == [b"hi"]
    assert b"x-role" not in dict(app.scopes[0]["headers"])


async def test_refusals_have_the_envelope() -> None:
    async with serving(App()) as port, connected(port) as client:
        reply = await ask(client, b"GET http://evil/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
        error = json.loads(reply.body)["error"]
        assert (reply.status, error["code"], error["service"]) == (400, "invalid", "gateway")
        assert reply.all(b"x-request-id") == [error["request_id"].encode()]
        assert await client.wait_closed() == b""


async def test_a_head_over_the_cap_is_431_before_it_ends() -> None:
    async with serving(App(), max_head_bytes=2000) as port, connected(port) as client:
        reply = await ask(client, b"GET / HTTP/1.1\r\nX-A: " + b"b" * 3000)
        assert reply.status == 431


async def test_pipelined_requests_are_answered_in_order() -> None:
    app = App()
    async with serving(app) as port, connected(port) as client:
        await client.send(b"".join(request(f"/{n}", "POST", body=b"%d" % n) for n in range(5)))
        for _ in range(5):
            reply = await client.read()
            assert reply is not None
            assert reply.body == b"ok"
    assert app.bodies == [b"0", b"1", b"2", b"3", b"4"]


async def test_rubbish_behind_a_request_does_not_take_its_answer() -> None:
    app = Waiting()
    async with serving(app) as port, connected(port) as client:
        await client.send(request("/") + b"\x00\x00\r\n\r\n")
        await app.entered.wait()
        app.release.set()
        reply = await client.read()
        assert reply is not None
        assert (reply.status, reply.body) == (200, b"ok")
        assert await client.wait_closed() == b""


async def test_a_bad_chunk_ends_the_request_that_it_is_in() -> None:
    app = Waiting()
    async with serving(app) as port, connected(port) as client:
        await client.send(request("/", "POST", "Transfer-Encoding: chunked") + b"2\r\nhi\r\n")
        await app.entered.wait()
        reply = await ask(client, b"zz\r\n")
        assert reply.status == 400
        assert app.gone.is_set()


async def test_a_bad_chunk_under_an_answer_breaks_it_off() -> None:
    class Streaming(App):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            await send({**OK, "headers": []})
            await send({**BODY, "more_body": True})
            await self.release.wait()

    async with serving(Streaming()) as port, connected(port) as client:
        await client.send(request("/", "POST", "Transfer-Encoding: chunked") + b"2\r\nhi\r\n")
        await client.reader.readuntil(b"ok\r\n")
        await client.send(b"zz\r\n")
        assert b"HTTP/1.1" not in await client.wait_closed()


async def test_a_client_that_leaves_is_told_of_by_a_call() -> None:
    app = Waiting()
    async with serving(app) as port:
        async with connected(port) as client:
            await client.send(request("/"))
            await app.entered.wait()
            assert not app.gone.is_set()
        await asyncio.wait_for(app.gone.wait(), 1)


async def test_watching_after_the_client_left_tells_at_once() -> None:
    class Late(App):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            assert (await receive())["type"] == "http.request"
            assert (await receive())["type"] == "http.disconnect"
            scope["extensions"][SERVED].watch(self.gone.set)
            with pytest.raises(OSError, match="gone"):
                await send(dict(self.start))

    app = Late()
    async with serving(app) as port:
        async with connected(port) as client:
            await client.send(request("/"))
            await app.entered.wait()
        await asyncio.wait_for(app.gone.wait(), 1)


async def test_a_finished_request_is_not_gone() -> None:
    app = Waiting()
    app.release.set()
    async with serving(app) as port:
        async with connected(port) as client:
            assert (await ask(client, request("/"))).body == b"ok"
        await asyncio.sleep(0.05)
    assert not app.gone.is_set()


async def test_an_answer_to_half_an_upload_can_be_read() -> None:
    class Refusing(App):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            headers = [(b"content-length", b"2"), (b"connection", b"close")]
            await send({**OK, "status": 413, "headers": headers})
            await send(dict(BODY))

    async with serving(Refusing()) as port, connected(port) as client:
        await client.send(request("/", "PUT", f"Content-Length: {64 * MiB}"))
        for _ in range(16):
            await client.send(b"x" * MiB)
        reply = await client.read()
        assert reply is not None
        assert (reply.status, reply.body) == (413, b"ok")


async def test_the_body_is_held_back_until_it_is_asked_for() -> None:
    app = Waiting()
    async with serving(app) as port, connected(port) as client:
        await client.send(request("/", "PUT", f"Content-Length: {64 * MiB}"))
        sent = 0

        async def upload() -> None:
            nonlocal sent
            for _ in range(64):
                await client.send(b"x" * MiB)
                sent += MiB

        uploading = asyncio.create_task(upload())
        await app.entered.wait()
        await asyncio.sleep(0.2)
        assert sent < 32 * MiB
        # And a reset is noticed although nobody reads.
        uploading.cancel()
        client.abort()
        await asyncio.wait_for(app.gone.wait(), 0.25)


async def test_old_clients_get_plain_bytes_and_a_close() -> None:
    app = App()
    app.start = {**OK, "headers": []}
    async with serving(app) as port, connected(port) as client:
        await client.send(b"GET / HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n")
        head, _, body = (await client.wait_closed()).partition(b"\r\n\r\n")
    assert body == b"ok"
    assert b"connection: close" in head
    assert b"chunked" not in head


async def test_continue_is_sent_when_the_body_is_asked_for() -> None:
    app = App()
    async with serving(app) as port, connected(port) as client:
        await client.send(request("/", "PUT", "Expect: 100-continue", "Content-Length: 2"))
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert (await ask(client, b"hi")).body == b"ok"


# Slow clients.


@pytest.mark.usefixtures("quick")
async def test_a_head_that_drips_is_cut_off() -> None:
    async with serving(App()) as port, connected(port) as client:
        closed = asyncio.create_task(client.wait_closed())
        for piece in request("/", "GET", *["X-A: b"] * 50):
            await client.send(bytes([piece]))
            await asyncio.sleep(0.01)
            if closed.done():
                break
        assert closed.done()
        assert await closed == b""


@pytest.mark.usefixtures("quick")
async def test_a_connection_that_says_nothing_or_blank_lines_is_cut_off() -> None:
    async with serving(App()) as port, connected(port) as silent, connected(port) as blank:
        closed = asyncio.create_task(blank.wait_closed())
        while not closed.done():
            await blank.send(b"\r\n")
            await asyncio.sleep(0.01)
        assert await silent.wait_closed(2) == b""


@pytest.mark.usefixtures("quick")
async def test_a_body_that_stands_still_is_cut_off_and_a_moving_one_not() -> None:
    app = App()
    async with serving(app) as port, connected(port) as still, connected(port) as moving:
        await still.send(request("/", "PUT", "Content-Length: 100") + b"half")
        await moving.send(request("/", "PUT", "Content-Length: 60"))
        for _ in range(60):
            await moving.send(b"x")
            await asyncio.sleep(0.01)
        reply = await moving.read()
        assert reply is not None
        assert reply.body == b"ok"
        assert await still.wait_closed(2) == b""


@pytest.mark.usefixtures("quick")
async def test_a_client_that_does_not_take_its_answer_is_cut_off() -> None:
    class Large(App):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            scope["extensions"][SERVED].watch(self.gone.set)
            await send({**OK, "headers": []})
            while True:
                await send({**BODY, "body": b"x" * MiB, "more_body": True})

    app = Large()
    async with serving(app) as port, connected(port) as client:
        client.writer.transport.pause_reading()
        await client.send(request("/"))
        assert await asyncio.wait_for(app.gone.wait(), 3)


@pytest.mark.usefixtures("quick")
async def test_a_slow_app_is_nobodys_slowness() -> None:
    app = Waiting()
    async with serving(app) as port, connected(port) as client, connected(port) as waiting:
        await client.send(request("/"))
        head = request("/", "PUT", "Expect: 100-continue", "Content-Length: 2")
        await waiting.send(head)
        await until(lambda: len(app.scopes) == 2)
        await asyncio.sleep(0.6)
        app.release.set()
        for one in (client, waiting):
            reply = await one.read()
            assert reply is not None
            assert reply.body == b"ok"


@pytest.mark.usefixtures("quick")
async def test_a_kept_connection_outlives_the_time_for_a_head() -> None:
    app = App()
    async with serving(app) as port, connected(port) as client:
        assert (await ask(client, request("/"))).body == b"ok"
        await asyncio.sleep(0.5)
        assert (await ask(client, request("/"))).body == b"ok"
