"""storaged with an S3 server that is slow, failing, gone and back: nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from collections.abc import AsyncIterator, Generator
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripts.seaweed import WRITER, Seaweed
from services.storaged.app import create_app, make_backend
from services.storaged.store.s3 import S3Backend
from shared.errors import Unavailable
from tests.support.apps import client_of, make_config
from tests.support.s3_faults import Action, FaultyProxy, faulty_proxy
from tests.support.storaged import BucketPlace

# Beside the other tests of the S3 server, of which one is enough.
pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("s3")]

OBJECTS = "/storage/objects"
LARGE = 12 * 1024 * 1024
# How long storaged tries, and how long it takes a silent server for gone. Seconds.
RETRY_S, SILENCE_S = 8.0, 2.0


@pytest.fixture
def proxy(seaweed: Seaweed) -> Generator[FaultyProxy]:
    with faulty_proxy(seaweed.endpoint) as made:
        yield made


@pytest.fixture
def place(tmp_path: Path, seaweed: Seaweed, proxy: FaultyProxy) -> BucketPlace:
    made = BucketPlace(tmp_path, seaweed, proxy.endpoint)
    made.storage |= {"retry_s": RETRY_S, "read_timeout_s": SILENCE_S, "part_mb": 5}
    return made


def storaged(place: BucketPlace, **keys: Any) -> AbstractAsyncContextManager[httpx.AsyncClient]:
    return client_of(create_app(place.configure(**keys)))


def faults(method: str, query: str = "") -> list[dict[str, Any]]:
    """One of each kind, for requests of this method."""
    actions: list[Action] = ["reset", "lose", "hang", "status"]
    found: list[dict[str, Any]] = [{"action": one, "method": method} for one in actions]
    found.append({"action": "status", "method": method, "status": 503, "code": "SlowDown"})
    return [{**one, "query": query} for one in found]


def named(fault: dict[str, Any]) -> str:
    return f"{fault['method']}-{fault['action']}-{fault.get('status', '')}{fault['query']}"


@pytest.mark.parametrize("fault", faults("PUT") + faults("HEAD"), ids=named)
async def test_a_put_outlasts_a_fault(
    place: BucketPlace, proxy: FaultyProxy, fault: dict[str, Any]
) -> None:
    async with storaged(place) as client:
        proxy.add(**fault)
        put = await client.put(f"{OBJECTS}/k", content=b"rows", headers={"if-none-match": "*"})
        # A try that was done while its answer was lost is no other writer's.
        assert (put.status_code, put.json()["size"]) == (201, 4)
        assert proxy.faults[0].times == 0
        proxy.add(**fault)
        etag = put.json()["etag"]
        changed = await client.put(f"{OBJECTS}/k", content=b"more", headers={"if-match": etag})
        assert changed.status_code == 200
        assert (await client.get(f"{OBJECTS}/k")).content == b"more"
        assert place.keep() == ["k"]


@pytest.mark.parametrize(
    "fault",
    faults("POST", "uploads") + faults("PUT", "partNumber=2") + faults("POST", "uploadId"),
    ids=named,
)
async def test_a_multipart_upload_outlasts_a_fault(
    place: BucketPlace, proxy: FaultyProxy, fault: dict[str, Any]
) -> None:
    content = os.urandom(LARGE)
    async with storaged(place) as client:
        proxy.add(**fault)
        put = await client.put(f"{OBJECTS}/k", content=content, headers={"if-none-match": "*"})
        assert (put.status_code, put.json()["size"]) == (201, LARGE)
        assert proxy.faults[0].times == 0
        got = await client.get(f"{OBJECTS}/k")
        assert hashlib.sha256(got.content).digest() == hashlib.sha256(content).digest()
        assert got.headers["etag"] == put.json()["etag"]
        assert list(place.objects()) == ["k"]


async def test_a_server_that_is_gone_is_503_and_found_again(
    place: BucketPlace, proxy: FaultyProxy
) -> None:
    async with storaged(place) as client:
        assert (await client.put(f"{OBJECTS}/before", content=b"1")).status_code == 201
        proxy.down = True
        begun = time.monotonic()
        refused = await asyncio.gather(
            client.put(f"{OBJECTS}/k", content=b"2"),
            client.put(f"{OBJECTS}/large", content=bytes(LARGE)),
            client.get(f"{OBJECTS}/before"),
            client.delete(f"{OBJECTS}/before"),
            client.get(OBJECTS),
        )
        assert time.monotonic() - begun < RETRY_S + 4
        for answer in refused:
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["retry-after"]) > 0
            assert answer.json()["error"]["code"] == "unavailable"
            assert WRITER[1] not in answer.text
            assert "127.0.0.1" not in answer.text
        ready = await client.get("/ready")
        assert ready.status_code == 503
        assert "s3" in ready.text
        # Known to be away, it is not waited for again.
        begun = time.monotonic()
        assert (await client.get(f"{OBJECTS}/before")).status_code == 503
        assert time.monotonic() - begun < RETRY_S / 2
        proxy.down = False
        assert (await client.get("/ready")).status_code == 200
        assert (await client.get(f"{OBJECTS}/before")).content == b"1"
        assert (await client.put(f"{OBJECTS}/k", content=b"2")).status_code == 201
        assert place.keep() == ["before", "k"]


async def test_tries_end_with_the_callers_deadline(place: BucketPlace, proxy: FaultyProxy) -> None:
    async with storaged(place) as client:
        proxy.down = True
        begun = time.monotonic()
        refused = await client.put(f"{OBJECTS}/k", content=b"1", headers={"x-deadline-ms": "700"})
        assert refused.status_code in (503, 504)
        assert time.monotonic() - begun < 2


async def test_a_slow_server_is_waited_for(place: BucketPlace, proxy: FaultyProxy) -> None:
    async with storaged(place) as client:
        proxy.add("slow", seconds=SILENCE_S / 2, times=20)
        answers = await asyncio.gather(
            *(client.put(f"{OBJECTS}/{n}", content=b"1") for n in range(6))
        )
        assert [one.status_code for one in answers] == [201] * 6
        assert len(place.keep()) == 6


async def test_a_read_that_breaks_goes_on_where_it_was(
    place: BucketPlace, proxy: FaultyProxy
) -> None:
    content = os.urandom(3_000_000)
    async with storaged(place) as client:
        await client.put(f"{OBJECTS}/k", content=content)
        proxy.add("cut", method="GET", query="/k", times=3)
        assert (await client.get(f"{OBJECTS}/k")).content == content
        proxy.add("cut", method="GET", query="/k")
        part = await client.get(f"{OBJECTS}/k", headers={"range": "bytes=1000-2000999"})
        assert (part.status_code, part.content) == (206, content[1000:2_001_000])


def test_a_read_never_mixes_two_versions(place: BucketPlace, proxy: FaultyProxy) -> None:
    backend = make_backend(place.configure())
    place.put("k", b"a" * 4_000_000)
    proxy.add("cut", method="GET", query="/k", during=lambda: place.put("k", b"b" * 4_000_000))
    backend.start()
    try:
        reader = backend.open("k")
        reader.expect(0, 4_000_000)
        received: list[bytes] = []
        with pytest.raises(Unavailable, match="replaced or removed"):
            received.extend(reader.read(n * 500_000, 500_000) for n in range(8))
        assert 0 < len(received) < 8
        assert set(b"".join(received)) == {ord("a")}
    finally:
        backend.stop()


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"])
async def test_keys_that_are_refused_are_told_without_showing_them(
    place: BucketPlace, proxy: FaultyProxy, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with storaged(place) as client:
        proxy.add("status", method="PUT", status=403, code=code, times=9)
        begun = time.monotonic()
        refused = await client.put(f"{OBJECTS}/k", content=b"1")
        assert time.monotonic() - begun < RETRY_S
        assert refused.status_code == 503
        assert code in refused.json()["error"]["message"]
    ours = [one.getMessage() for one in caplog.records if one.name.startswith("lakehouse")]
    assert ours
    assert not [text for text in ours if WRITER[1] in text]


async def test_a_server_without_conditional_writes_has_them_from_storaged(
    place: BucketPlace, proxy: FaultyProxy
) -> None:
    async with storaged(place) as client:
        proxy.add("status", method="PUT", status=501, code="NotImplemented")
        answers = await asyncio.gather(
            *(
                client.put(f"{OBJECTS}/k", content=bytes([n]), headers={"if-none-match": "*"})
                for n in range(8)
            )
        )
        assert sorted(one.status_code for one in answers) == [201] + [412] * 7


@pytest.mark.parametrize("size", [10, LARGE])
async def test_of_many_creators_one_wins(tmp_path: Path, seaweed: Seaweed, size: int) -> None:
    place = BucketPlace(tmp_path, seaweed)
    async with storaged(place) as client:
        answers = await asyncio.gather(
            *(
                client.put(
                    f"{OBJECTS}/k", content=bytes([n]) * size, headers={"if-none-match": "*"}
                )
                for n in range(6)
            )
        )
        assert sorted(one.status_code for one in answers) == [201] + [412] * 5
        winner = next(n for n, one in enumerate(answers) if one.status_code == 201)
        got = await client.get(f"{OBJECTS}/k")
        assert got.content == bytes([winner]) * size
        assert place.keep() == ["k"]


async def test_updates_by_if_match_lose_none(tmp_path: Path, seaweed: Seaweed) -> None:
    async with storaged(BucketPlace(tmp_path, seaweed)) as client:
        await client.put(f"{OBJECTS}/n", content=b"0")

        async def increment() -> None:
            while True:
                got = await client.get(f"{OBJECTS}/n")
                put = await client.put(
                    f"{OBJECTS}/n",
                    content=str(int(got.content) + 1).encode(),
                    headers={"if-match": got.headers["etag"]},
                )
                if put.status_code == 200:
                    return
                assert put.status_code == 412

        await asyncio.gather(*(increment() for _ in range(12)))
        assert (await client.get(f"{OBJECTS}/n")).content == b"12"


async def test_a_body_that_breaks_off_leaves_nothing(
    place: BucketPlace, proxy: FaultyProxy
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield bytes(LARGE)
        raise ConnectionResetError

    async with storaged(place) as client:
        with suppress(ConnectionResetError):
            await client.put(f"{OBJECTS}/k", content=broken())
        assert any("uploads" in target for method, target in proxy.seen if method == "POST")
        deadline = time.monotonic() + 10
        while place.keep() and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        assert place.keep() == []


async def test_uploads_that_a_crash_left_are_removed_when_they_are_old(
    place: BucketPlace,
) -> None:
    for key in ("old", "new"):
        place.client.create_multipart_upload(Bucket="lake", Key=place.prefix + key)
    backend = make_backend(place.configure())
    assert isinstance(backend, S3Backend)
    backend.start()
    try:
        assert backend.remove_unfinished(time.time() - 3600) == 0
        assert len(place.uploads()) == 2
        assert backend.remove_unfinished(time.time() + 60) == 2
        assert place.uploads() == []
    finally:
        backend.stop()


async def test_objects_of_other_programs_are_objects(place: BucketPlace) -> None:
    place.put("theirs/a.csv", b"x,y\n", ContentType="text/csv")
    place.put("theirs/a\tb", b"a name that no key of ours has")
    async with storaged(place) as client:
        got = await client.get(f"{OBJECTS}/theirs/a.csv")
        assert (got.content, got.headers["content-type"]) == (b"x,y\n", "text/csv")
        assert "repr-digest" not in got.headers
        same = await client.get(
            f"{OBJECTS}/theirs/a.csv", headers={"if-none-match": got.headers["etag"]}
        )
        assert same.status_code == 304
        listed = (await client.get(OBJECTS)).json()["objects"]
        assert [(one["key"], one["etag"]) for one in listed] == [
            ("theirs/a.csv", got.headers["etag"])
        ]
        put = await client.put(
            f"{OBJECTS}/theirs/a.csv", content=b"z", headers={"if-match": got.headers["etag"]}
        )
        assert put.status_code == 200


async def test_what_was_acknowledged_outlives_the_servers_end(tmp_path: Path) -> None:
    with Seaweed(tmp_path / "weed") as server:
        settings = {**server.settings("p"), "retry_s": 30.0, "read_timeout_s": 5.0}
        config = make_config(tmp_path, storage=settings)
        acknowledged: dict[str, bytes] = {}
        refused: list[str] = []

        async def write(client: httpx.AsyncClient, writer: int) -> None:
            for number in range(12):
                key, content = f"{writer}/{number}", os.urandom(20_000)
                put = await client.put(f"{OBJECTS}/{key}", content=content)
                if put.status_code in (200, 201):
                    acknowledged[key] = content
                else:
                    assert put.status_code == 503, put.text
                    refused.append(put.text)

        async with client_of(create_app(config)) as client:
            client.timeout = 60
            writers = [asyncio.ensure_future(write(client, n)) for n in range(4)]
            while len(acknowledged) < 8:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            await asyncio.gather(*writers)
            assert refused == []
            for key, content in acknowledged.items():
                got = await client.get(f"{OBJECTS}/{key}")
                assert (got.status_code, got.content) == (200, content)
