"""The typed client, joined to storaged in one process."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.storaged.app import create_app
from shared.clients.storaged import StoragedClient, object_path
from shared.errors import Invalid, NotFound, PreconditionFailed, RangeNotSatisfiable, TooLarge
from tests.support.apps import make_config, running

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def joined(tmp_path: Path, **keys: Any) -> AsyncGenerator[StoragedClient]:
    """A client and the storaged it talks to."""
    config = make_config(tmp_path, storaged=keys)
    async with running(create_app(config)) as transport:
        client = StoragedClient(config, {"storaged": transport})
        try:
            yield client
        finally:
            await client.aclose()


async def pieces(*contents: bytes) -> AsyncIterator[bytes]:
    for content in contents:
        yield content


async def read(client: StoragedClient, key: str, *byte_range: Any) -> bytes:
    async with client.get_object(key, *byte_range) as body:
        return await body.read()


async def test_every_kind_of_source(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    file = tmp_path / "source.bin"
    file.write_bytes(content)
    halves = (content[:1_000_000], content[1_000_000:])
    async with joined(tmp_path) as client:
        infos = [
            await client.put_object("from/bytes", content, content_type="text/csv"),
            await client.put_object("from/file", file),
            await client.put_object("from/pieces", pieces(*halves)),
            await client.put_object("from/sized", pieces(*halves), size=len(content)),
        ]
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        assert [(info.etag, info.size) for info in infos] == [(etag, len(content))] * 4
        for info in infos:
            assert await read(client, info.key) == content
            assert await client.head_object(info.key) == info
        assert (await client.head_object("from/bytes")).content_type == "text/csv"


async def test_a_file_as_source_may_be_empty(tmp_path: Path) -> None:
    file = tmp_path / "empty"
    file.touch()
    async with joined(tmp_path) as client:
        assert (await client.put_object("k", file)).size == 0
        assert await read(client, "k") == b""


@pytest.mark.parametrize("size", [5, 7])
async def test_a_source_that_breaks_its_promise_stores_nothing(tmp_path: Path, size: int) -> None:
    async with joined(tmp_path) as client:
        with pytest.raises(Invalid, match="promised"):
            await client.put_object("k", pieces(b"abc", b"def"), size=size)
        with pytest.raises(NotFound):
            await client.head_object("k")


async def test_a_source_that_fails_tells_its_own_reason(tmp_path: Path) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield bytes(2_000_000)
        raise LookupError("the source broke")

    async with joined(tmp_path) as client:
        with pytest.raises(LookupError, match="the source broke"):
            await client.put_object("k", failing())
        with pytest.raises(NotFound):
            await client.head_object("k")


async def test_conditions(tmp_path: Path) -> None:
    async with joined(tmp_path) as client:
        first = await client.put_object("k", b"1", if_none_match=True)
        with pytest.raises(PreconditionFailed) as caught:
            await client.put_object("k", b"2", if_none_match=True)
        assert caught.value.details["etag"] == first.etag
        second = await client.put_object("k", b"2", if_match=first.etag)
        with pytest.raises(PreconditionFailed):
            await client.put_object("k", b"3", if_match=first.etag)
        with pytest.raises(PreconditionFailed):
            await client.delete_object("k", if_match=first.etag)
        assert await client.delete_object("k", if_match=second.etag) is True
        assert await client.delete_object("k") is False


async def test_ranges_and_what_they_describe(tmp_path: Path) -> None:
    content = os.urandom(2_000_000)
    async with joined(tmp_path) as client:
        info = await client.put_object("k", content)
        assert await read(client, "k", (0, 9)) == content[:10]
        assert await read(client, "k", (1_500_000, None)) == content[1_500_000:]
        assert await read(client, "k", (-10, None)) == content[-10:]
        async with client.get_object("k", (5, 6)) as body:
            assert (body.length, body.info) == (2, info)
        with pytest.raises(RangeNotSatisfiable):
            await read(client, "k", (2_000_000, None))


async def test_errors_keep_their_class(tmp_path: Path) -> None:
    async with joined(tmp_path, default_cap_bytes=10) as client:
        with pytest.raises(TooLarge, match="at most 10 bytes"):
            await client.put_object("k", bytes(11))
        with pytest.raises(NotFound):
            await read(client, "k")
        with pytest.raises(Invalid, match="control"):
            await client.put_object("a\x00b", b"1")


@pytest.mark.parametrize("key", ["..", ".", "a/../b", "a/./b", "lone\ud800"])
async def test_keys_that_would_become_others_on_the_way_are_refused(key: str) -> None:
    with pytest.raises(Invalid):
        object_path(key)


@pytest.mark.parametrize(
    "key",
    [
        "a b",
        "a+b",
        "a%2Fb",
        "a%b",
        "a?b#c",
        "a;b,c",
        "é/日本",
        "e\u0301",
        "a&b=c",
        "\U0001f600",
        "~",
    ],
)
async def test_keys_arrive_byte_for_byte(tmp_path: Path, key: str) -> None:
    async with joined(tmp_path) as client:
        info = await client.put_object(key, key.encode())
        assert info.key == key
        assert await read(client, key) == key.encode()
        assert (await client.list_objects(prefix=key)).objects == [info]


async def test_listing_and_walking(tmp_path: Path) -> None:
    async with joined(tmp_path) as client:
        keys = [f"p/{n:02}" for n in range(25)] + ["p/x/1", "q"]
        for key in keys:
            await client.put_object(key, b"1")
        page = await client.list_objects("p/", "/", limit=10)
        assert [info.key for info in page.objects] == keys[:10]
        rest = await client.list_objects("p/", "/", cursor=page.next_cursor)
        assert [info.key for info in rest.objects] == keys[10:25]
        assert (rest.prefixes, rest.next_cursor) == (["p/x/"], None)
        assert [info.key async for info in client.walk_objects()] == keys
        assert [info.key async for info in client.walk_objects("p/x")] == ["p/x/1"]


async def test_walking_follows_every_page(tmp_path: Path) -> None:
    async with joined(tmp_path) as client:
        root = tmp_path / "data" / "storaged" / "objects"
        keys = [f"{n:05}" for n in range(2345)]
        for key in keys:
            (root / key).touch()
        assert [info.key async for info in client.walk_objects()] == keys


async def test_the_address_survives_a_folder_that_headers_cannot_spell(tmp_path: Path) -> None:
    async with joined(tmp_path / "données 100%") as client:
        put = await client.put_object("a.parquet", b"x")
        head = await client.head_object("a.parquet")
    assert head.uri == put.uri
    assert Path(head.uri.removeprefix("file://")).read_bytes() == b"x"
