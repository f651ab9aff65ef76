"""Every route and status of storaged, in process, with real files and with a real S3 server."""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from services.storaged.app import create_app
from tests.support.apps import client_of
from tests.support.storaged import BucketPlace, LocalPlace

pytestmark = pytest.mark.anyio

OBJECTS = "/storage/objects"


Place = LocalPlace | BucketPlace


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where objects lie: the routes are to show no difference."""
    return make_place(request, tmp_path)


def make_place(request: pytest.FixtureRequest, folder: Path) -> Place:
    if request.param == "local":
        return LocalPlace(folder)
    return BucketPlace(folder, request.getfixturevalue("seaweed"))


@pytest.fixture(scope="module", params=["local", "s3"])
async def still(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[tuple[Place, httpx.AsyncClient]]:
    """A place and a client of its storaged, for tests whose requests are all refused."""
    place = make_place(request, tmp_path_factory.mktemp("still"))
    async with storaged(place) as client:
        yield place, client


def storaged(place: Place, **keys: Any) -> AbstractAsyncContextManager[httpx.AsyncClient]:
    """A client of a storaged with its objects there."""
    return client_of(create_app(place.configure(**keys)))


def assert_nothing_left(place: Place) -> None:
    assert place.keep() == []


async def pieces(*contents: bytes) -> AsyncIterator[bytes]:
    for content in contents:
        yield content


def assert_error(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["code"] == code
    assert error["service"] == "storaged"
    assert "/data/" not in error["message"]
    return dict(error)


async def test_put_then_get_then_head(place: Place) -> None:
    content = os.urandom(10_000)
    async with storaged(place) as client:
        created = await client.put(
            f"{OBJECTS}/a/b.bin", content=content, headers={"content-type": "text/csv"}
        )
        assert created.status_code == 201
        info = created.json()
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        assert (info["key"], info["etag"], info["size"]) == ("a/b.bin", etag, 10_000)
        assert info["content_type"] == "text/csv"
        assert created.headers["etag"] == etag
        got = await client.get(f"{OBJECTS}/a/b.bin")
        assert (got.status_code, got.content) == (200, content)
        assert got.headers["content-type"] == "text/csv"
        assert got.headers["etag"] == etag
        assert got.headers["accept-ranges"] == "bytes"
        head = await client.head(f"{OBJECTS}/a/b.bin")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == "10000"
        same = {"etag", "last-modified", "content-type", "x-lakehouse-uri", "content-length"}
        assert {k: head.headers[k] for k in same} == {k: got.headers[k] for k in same}


async def test_engines_open_the_object_by_its_uri(place: Place) -> None:
    async with storaged(place) as client:
        put = await client.put(f"{OBJECTS}/datasets/0b5e/f-0.parquet", content=b"PAR1")
        uri = put.json()["uri"]
        assert uri.startswith("file:///" if isinstance(place, LocalPlace) else "s3://lake/")
        assert uri.endswith(".parquet")
        assert place.read(uri) == b"PAR1"
        head = await client.head(f"{OBJECTS}/datasets/0b5e/f-0.parquet")
        assert unquote(head.headers["x-lakehouse-uri"]) == uri


async def test_put_again_replaces(place: Place) -> None:
    async with storaged(place) as client:
        for status, content in ((201, b"one"), (200, b"one"), (200, b"two")):
            response = await client.put(f"{OBJECTS}/k", content=content)
            assert response.status_code == status
            assert (await client.get(f"{OBJECTS}/k")).content == content
        assert place.keep() == ["k"]


@pytest.mark.parametrize("size", [0, 1, 1024 * 1024, 1024 * 1024 + 1, 5_000_000])
@pytest.mark.parametrize("chunked", [False, True])
async def test_bodies_of_all_sizes_come_back_whole(place: Place, size: int, chunked: bool) -> None:
    content = os.urandom(size)
    third = size // 3
    body = pieces(content[:third], b"", content[third:]) if chunked else content
    async with storaged(place) as client:
        put = await client.put(f"{OBJECTS}/k.bin", content=body)
        assert (put.status_code, put.json()["size"]) == (201, size)
        got = await client.get(f"{OBJECTS}/k.bin")
        assert got.content == content
        assert got.headers["content-length"] == str(size)


async def test_create_only(place: Place) -> None:
    create = {"if-none-match": "*"}
    async with storaged(place) as client:
        assert (await client.put(f"{OBJECTS}/k", content=b"1", headers=create)).status_code == 201
        small = await client.put(f"{OBJECTS}/k", content=b"2", headers=create)
        large = await client.put(f"{OBJECTS}/k", content=bytes(3_000_000), headers=create)
        chunked = await client.put(f"{OBJECTS}/k", content=pieces(b"2"), headers=create)
        etag = f'"{hashlib.sha256(b"1").hexdigest()}"'
        for refused in (small, large, chunked):
            error = assert_error(refused, 412, "precondition_failed")
            assert error["details"]["etag"] == etag
        assert (await client.get(f"{OBJECTS}/k")).content == b"1"
        assert place.keep() == ["k"]


async def test_replace_only_what_was_read(place: Place) -> None:
    async with storaged(place) as client:
        url = f"{OBJECTS}/k"
        absent = await client.put(url, content=b"1", headers={"if-match": "*"})
        assert_error(absent, 412, "precondition_failed")
        first = await client.put(url, content=b"1")
        stale = '"0123"'
        refused = await client.put(url, content=b"2", headers={"if-match": stale})
        assert_error(refused, 412, "precondition_failed")
        etag = first.json()["etag"]
        second = await client.put(url, content=b"2", headers={"if-match": f"{stale}, {etag}"})
        assert second.status_code == 200
        assert (await client.put(url, content=b"3", headers={"if-match": "*"})).status_code == 200
        assert (await client.get(url)).content == b"3"


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"if-none-match": '"a"'}, 400, "invalid"),
        ({"if-none-match": "*", "if-match": "*"}, 400, "invalid"),
        ({"if-match": "unquoted"}, 400, "invalid"),
        ({"if-unmodified-since": "Tue, 14 Nov 2023 22:13:20 GMT"}, 400, "invalid"),
        ({"content-range": "bytes 0-4/10"}, 400, "invalid"),
        ({"content-digest": "sha-256=:AAAA:"}, 400, "invalid"),
        ({"content-type": "x" * 300}, 400, "invalid"),
        ({"content-encoding": "gzip"}, 415, "unsupported_media_type"),
    ],
)
async def test_puts_that_are_refused_leave_nothing(
    place: Place, headers: dict[str, str], status: int, code: str
) -> None:
    async with storaged(place) as client:
        response = await client.put(f"{OBJECTS}/a/b", content=b"hello", headers=headers)
        assert_error(response, status, code)
        assert (await client.get(f"{OBJECTS}/a/b")).status_code == 404
        assert_nothing_left(place)


@pytest.mark.parametrize("size", [5, 3_000_000])
async def test_a_digest_is_checked(place: Place, size: int) -> None:
    content = os.urandom(size)
    right = base64.b64encode(hashlib.sha256(content).digest()).decode()
    wrong = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    async with storaged(place) as client:
        refused = await client.put(
            f"{OBJECTS}/k", content=content, headers={"content-digest": f"sha-256=:{wrong}:"}
        )
        assert_error(refused, 400, "invalid")
        assert_nothing_left(place)
        stored = await client.put(
            f"{OBJECTS}/k", content=content, headers={"content-digest": f"sha-256=:{right}:"}
        )
        assert stored.status_code == 201
        got = await client.get(f"{OBJECTS}/k")
        assert got.headers["repr-digest"] == f"sha-256=:{right}:"


@pytest.mark.parametrize("chunked", [False, True])
async def test_caps_by_prefix(place: Place, chunked: bool) -> None:
    def body(size: int) -> bytes | AsyncIterator[bytes]:
        return pieces(bytes(size - 1), b"x") if chunked else bytes(size)

    caps = {"big/": 2_000_000, "big/small/": 10}
    async with storaged(place, caps=caps, default_cap_bytes=100) as client:
        for key, cap in (("k", 100), ("big/k", 2_000_000), ("big/small/k", 10)):
            refused = await client.put(f"{OBJECTS}/{key}", content=body(cap + 1))
            error = assert_error(refused, 413, "too_large")
            assert error["details"]["limit_bytes"] == cap
            assert_nothing_left(place)
            assert (await client.put(f"{OBJECTS}/{key}", content=body(cap))).status_code == 201
            await client.delete(f"{OBJECTS}/{key}")


async def test_caps_count_bytes_whatever_the_header_says(place: Place) -> None:
    async with storaged(place, default_cap_bytes=100) as client:
        lying = await client.put(
            f"{OBJECTS}/k", content=pieces(bytes(101)), headers={"content-length": "5"}
        )
        assert_error(lying, 400, "invalid")
        assert_nothing_left(place)


async def test_ranges(place: Place) -> None:
    content = os.urandom(3_000_000)
    async with storaged(place) as client:
        await client.put(f"{OBJECTS}/k", content=content)
        for header, part in (
            ("bytes=0-0", content[:1]),
            ("bytes=1000000-2500000", content[1_000_000:2_500_001]),
            ("bytes=2999999-", content[-1:]),
            ("bytes=-10", content[-10:]),
        ):
            got = await client.get(f"{OBJECTS}/k", headers={"range": header})
            assert (got.status_code, got.content) == (206, part)
            assert got.headers["content-length"] == str(len(part))
            assert got.headers["content-range"].endswith("/3000000")
        for header in ("bytes=0-1,3-4", "bytes=2-1", "lines=1-2"):
            got = await client.get(f"{OBJECTS}/k", headers={"range": header})
            assert (got.status_code, got.content) == (200, content)
        outside = await client.get(f"{OBJECTS}/k", headers={"range": "bytes=3000000-"})
        assert_error(outside, 416, "range_not_satisfiable")
        assert outside.headers["content-range"] == "bytes */3000000"


async def test_conditional_reads(place: Place) -> None:
    async with storaged(place) as client:
        etag = (await client.put(f"{OBJECTS}/k", content=b"hello")).json()["etag"]
        for method in ("GET", "HEAD"):
            same = await client.request(method, f"{OBJECTS}/k", headers={"if-none-match": etag})
            assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
            other = await client.request(method, f"{OBJECTS}/k", headers={"if-match": '"a"'})
            assert other.status_code == 412
        part = {"range": "bytes=0-1"}
        kept = await client.get(f"{OBJECTS}/k", headers={**part, "if-range": etag})
        dropped = await client.get(f"{OBJECTS}/k", headers={**part, "if-range": '"a"'})
        assert (kept.status_code, kept.content) == (206, b"he")
        assert (dropped.status_code, dropped.content) == (200, b"hello")


async def test_what_is_not_there(place: Place) -> None:
    async with storaged(place) as client:
        await client.put(f"{OBJECTS}/a/b", content=b"1")
        for key in ("x", "a", "a/b/c", "a/B"):
            missing = await client.get(f"{OBJECTS}/{key}")
            assert_error(missing, 404, "not_found")
            head = await client.head(f"{OBJECTS}/{key}")
            assert (head.status_code, head.content) == (404, b"")
            gone = await client.delete(f"{OBJECTS}/{key}")
            assert (gone.status_code, gone.json()) == (200, {"key": key, "deleted": False})
        assert (await client.get(f"{OBJECTS}/a/b")).content == b"1"


async def test_an_object_and_those_beneath_its_key_live_side_by_side(place: Place) -> None:
    keys = ["a", "a/b", "a/b/c", "a~", "A", "cafe\u0301", "caf\u00e9"]
    async with storaged(place) as client:
        for key in keys:
            put = await client.put(f"{OBJECTS}/{key}", content=key.encode())
            assert put.status_code == 201
        for key in keys:
            assert (await client.get(f"{OBJECTS}/{key}")).content == key.encode()
        listed = (await client.get(OBJECTS)).json()["objects"]
        assert [one["key"] for one in listed] == sorted(keys, key=str.encode)


async def test_delete(place: Place) -> None:
    async with storaged(place) as client:
        etag = (await client.put(f"{OBJECTS}/a/b/c", content=b"1")).json()["etag"]
        other = await client.delete(f"{OBJECTS}/a/b/c", headers={"if-match": '"x"'})
        assert_error(other, 412, "precondition_failed")
        bad = await client.delete(f"{OBJECTS}/a/b/c", headers={"if-none-match": "*"})
        assert_error(bad, 400, "invalid")
        gone = await client.delete(f"{OBJECTS}/a/b/c", headers={"if-match": etag})
        assert gone.json() == {"key": "a/b/c", "deleted": True}
        assert (await client.get(f"{OBJECTS}/a/b/c")).status_code == 404
        again = await client.delete(f"{OBJECTS}/a/b/c", headers={"if-match": "*"})
        assert_error(again, 412, "precondition_failed")
        assert_nothing_left(place)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/", "empty"),
        ("/a%2F..%2Fb", "'..'"),
        ("/%2e%2e", "'..'"),
        ("/a%00b", "control"),
        ("/a%0Ab", "control"),
        ("/a//b", "'//'"),
        ("/a/", "ends with '/'"),
        ("/%FF", "UTF-8"),
        ("/a%zz", "escape"),
        ("/" + "k" * 2000, "2000 bytes"),
        ("/" + "n" * 300, "too long"),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
async def test_bad_keys(
    still: tuple[Place, httpx.AsyncClient], method: str, path: str, reason: str
) -> None:
    place, client = still
    error = assert_error(await raw_request(client, method, OBJECTS + path), 400, "invalid")
    assert reason in error["message"]
    assert_nothing_left(place)


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/a%2Fb", "a/b"),
        ("/a+b", "a+b"),
        ("/a%20b", "a b"),
        ("/%252F", "%2F"),
        ("/caf%C3%A9", "café"),
        ("/a%3Fb", "a?b"),
        ("/%F0%9F%98%80.parquet", "\U0001f600.parquet"),
    ],
)
async def test_keys_are_decoded_once(place: Place, path: str, key: str) -> None:
    async with storaged(place) as client:
        put = await raw_request(client, "PUT", OBJECTS + path, b"1")
        assert put.status_code == 201
        assert put.json()["key"] == key
        assert (await client.get(OBJECTS)).json()["objects"][0]["key"] == key


async def raw_request(
    client: httpx.AsyncClient, method: str, path: str, content: bytes = b""
) -> httpx.Response:
    """A request whose path is not tidied up by the client library."""
    request = client.build_request(method, "/", content=content)
    request.extensions["raw_path"] = path.encode()
    request.url = _RawUrl(request.url, path)
    return await client.send(request)


class _RawUrl(httpx.URL):
    """A URL that gives out its path as it was written."""

    def __init__(self, base: httpx.URL, path: str) -> None:
        super().__init__(base)
        self._raw = path

    @property
    def raw_path(self) -> bytes:
        return self._raw.encode()

    @property
    def path(self) -> str:
        return unquote(self._raw)


async def test_listing_pages_and_prefixes(place: Place) -> None:
    keys = ["a", "b/1", "b/2", "b/c/1", "b0", "d/1", "é/1"]
    async with storaged(place) as client:
        for key in reversed(keys):
            await client.put(f"{OBJECTS}/{key}", content=b"1")
        whole = (await client.get(OBJECTS)).json()
        assert [one["key"] for one in whole["objects"]] == keys
        assert whole["next_cursor"] is None
        assert whole["objects"][0]["size"] == 1
        assert whole["objects"][0]["etag"] == f'"{hashlib.sha256(b"1").hexdigest()}"'
        folded = (await client.get(OBJECTS, params={"delimiter": "/"})).json()
        assert [one["key"] for one in folded["objects"]] == ["a", "b0"]
        assert folded["prefixes"] == ["b/", "d/", "é/"]
        beneath = (await client.get(OBJECTS, params={"prefix": "b/", "delimiter": "/"})).json()
        assert [one["key"] for one in beneath["objects"]] == ["b/1", "b/2"]
        assert beneath["prefixes"] == ["b/c/"]
        assert [one["key"] for one in (await all_pages(client, limit=2, prefix="b"))] == keys[1:5]


async def all_pages(client: httpx.AsyncClient, **params: Any) -> list[dict[str, Any]]:
    """All objects of a listing, page by page."""
    found: list[dict[str, Any]] = []
    while True:
        response = await client.get(OBJECTS, params=params)
        assert response.status_code == 200, response.text
        page = response.json()
        assert len(page["objects"]) <= params.get("limit", 1000)
        found += page["objects"]
        if page["next_cursor"] is None:
            return found
        params["cursor"] = page["next_cursor"]


@pytest.mark.parametrize(
    "params",
    [
        {"limit": "0"},
        {"limit": "1001"},
        {"limit": "many"},
        {"cursor": "AAAA"},
        {"cursor": ""},
        {"delimiter": ""},
        {"prefix": "p" * 1025},
    ],
)
async def test_bad_listings(still: tuple[Place, httpx.AsyncClient], params: dict[str, str]) -> None:
    _, client = still
    assert_error(await client.get(OBJECTS, params=params), 400, "invalid")


@pytest.mark.parametrize("prefix", ["../", "/", "a//", "a/../", "\x00", "~", "x" * 600 + "/"])
async def test_prefixes_that_no_key_has_list_nothing(place: Place, prefix: str) -> None:
    async with storaged(place) as client:
        await client.put(f"{OBJECTS}/a/b", content=b"1")
        page = (await client.get(OBJECTS, params={"prefix": prefix})).json()
        assert page == {"objects": [], "prefixes": [], "next_cursor": None}


async def test_a_method_that_objects_do_not_have(place: Place) -> None:
    async with storaged(place) as client:
        assert_error(await client.post(f"{OBJECTS}/a"), 405, "method_not_allowed")
        assert_error(await client.put(OBJECTS, content=b"1"), 405, "method_not_allowed")


async def test_a_full_disk_is_507(tmp_path: Path) -> None:
    place = LocalPlace(tmp_path)
    async with storaged(place, min_free_bytes=1 << 60) as client:
        for content in (b"small", bytes(3_000_000), pieces(b"chunked")):
            refused = await client.put(f"{OBJECTS}/k", content=content)
            error = assert_error(refused, 507, "insufficient_storage")
            assert error["details"]["min_free_bytes"] == 1 << 60
        assert_nothing_left(place)
        ready = await client.get("/ready")
        assert_error(ready, 503, "unavailable")
        assert "free_space" in ready.text


async def test_ready_and_figures(place: Place) -> None:
    async with storaged(place, default_cap_bytes=1000) as client:
        ready = (await client.get("/ready")).json()
        local = isinstance(place, LocalPlace)
        assert ready["checks"] == (
            {"data_dir": "ok", "free_space": "ok"} if local else {"s3": "ok"}
        )
        await client.put(f"{OBJECTS}/k", content=b"hello")
        await client.put(f"{OBJECTS}/k", content=b"hello!")
        await client.put(f"{OBJECTS}/k", content=bytes(1001))
        await client.get(f"{OBJECTS}/k", headers={"range": "bytes=0-1"})
        await client.delete(f"{OBJECTS}/k")
        figures = (await client.get("/metrics")).text.splitlines()
        for line in (
            'lakehouse_storaged_bytes_total{direction="in"} 11.0',
            'lakehouse_storaged_bytes_total{direction="out"} 2.0',
            'lakehouse_storaged_objects_stored_total{result="created"} 1.0',
            'lakehouse_storaged_objects_stored_total{result="replaced"} 1.0',
            'lakehouse_storaged_uploads_refused_total{code="too_large"} 1.0',
            "lakehouse_storaged_objects_deleted_total 1.0",
        ):
            assert line in figures


async def test_a_restart_changes_nothing(place: Place) -> None:
    config = place.configure()
    content = gzip.compress(b"rows")
    async with client_of(create_app(config)) as client:
        await client.put(
            f"{OBJECTS}/a/b.csv.gz", content=content, headers={"content-type": "application/gzip"}
        )
        before = await client.get(f"{OBJECTS}/a/b.csv.gz")
    async with client_of(create_app(config)) as client:
        after = await client.get(f"{OBJECTS}/a/b.csv.gz")
        assert after.content == content
        for name in ("etag", "last-modified", "content-type", "x-lakehouse-uri"):
            assert after.headers[name] == before.headers[name]


async def test_openapi_describes_the_routes(place: Place) -> None:
    async with storaged(place) as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
        assert set(paths[OBJECTS]) == {"get"}
        of_object = paths[f"{OBJECTS}/{{key}}"]
        assert set(of_object) == {"put", "get", "head", "delete"}
        for operation in of_object.values():
            assert [one["name"] for one in operation["parameters"]] == ["key"]
