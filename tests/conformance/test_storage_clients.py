"""boto3 and pyarrow beside storaged, as people use them: what one stores the other reads."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError
from pyarrow import fs

from scripts.seaweed import BUCKET, WRITER, Seaweed
from services.catalogd.app import create_app as create_catalogd
from services.ingestd.app import create_app as create_ingestd
from services.storaged.app import create_app as create_storaged
from tests.support.apps import running
from tests.support.storaged import BucketPlace, LocalPlace, bucket_client

pytestmark = pytest.mark.anyio

OBJECTS = "/storage/objects"
ROWS = pa.table({"id": pa.array(range(5000), pa.int64()), "city": ["Oslo", "Bergen"] * 2500})


@pytest.fixture
def place(tmp_path: Path, seaweed: Seaweed) -> BucketPlace:
    return BucketPlace(tmp_path, seaweed)


@pytest.fixture
async def fleet(place: BucketPlace) -> AsyncGenerator[dict[str, httpx.AsyncClient]]:
    """storaged, catalogd and ingestd over the bucket, in this process."""
    config = place.configure()
    async with AsyncExitStack() as stack:
        transports: dict[str, httpx.AsyncBaseTransport] = {}
        clients: dict[str, httpx.AsyncClient] = {}
        for name, create in (
            ("storaged", create_storaged),
            ("catalogd", create_catalogd),
            ("ingestd", create_ingestd),
        ):
            app = create(config, transports=dict(transports))
            transports[name] = await stack.enter_async_context(running(app))
            clients[name] = await stack.enter_async_context(
                httpx.AsyncClient(
                    transport=transports[name], base_url="http://127.0.0.1", timeout=60
                )
            )
        yield clients


def arrow_bucket(server: Seaweed) -> fs.S3FileSystem:
    """pyarrow's file system of the server, as users make it."""
    return fs.S3FileSystem(
        access_key=WRITER[0],
        secret_key=WRITER[1],
        endpoint_override=server.endpoint.removeprefix("http://"),
        scheme="http",
        region="us-east-1",
    )


async def test_boto3_reads_what_storaged_stores(
    place: BucketPlace, fleet: dict[str, httpx.AsyncClient]
) -> None:
    small, large = os.urandom(1000), os.urandom(20_000_000)
    for key, content in (("a/small.bin", small), ("a/large.bin", large)):
        put = await fleet["storaged"].put(
            f"{OBJECTS}/{key}", content=content, headers={"content-type": "text/csv"}
        )
        assert put.status_code == 201
        bucket, _, name = put.json()["uri"].removeprefix("s3://").partition("/")
        got = place.client.get_object(Bucket=bucket, Key=name)
        assert got["ContentType"] == "text/csv"
        assert got["Body"].read() == content
        part = place.client.get_object(Bucket=bucket, Key=name, Range="bytes=10-19")
        assert part["Body"].read() == content[10:20]
        sink = io.BytesIO()
        place.client.download_fileobj(bucket, name, sink)
        assert sink.getvalue() == content
    listed = place.client.list_objects_v2(Bucket=BUCKET, Prefix=f"{place.prefix}a/")
    assert [one["Size"] for one in listed["Contents"]] == [20_000_000, 1000]


async def test_storaged_reads_what_boto3_stores(
    place: BucketPlace, fleet: dict[str, httpx.AsyncClient]
) -> None:
    content = os.urandom(12_000_000)
    place.client.upload_fileobj(
        io.BytesIO(content),
        BUCKET,
        f"{place.prefix}uploads/big.bin",
        Config=TransferConfig(multipart_threshold=5_000_000, multipart_chunksize=5_000_000),
    )
    got = await fleet["storaged"].get(f"{OBJECTS}/uploads/big.bin")
    assert hashlib.sha256(got.content).digest() == hashlib.sha256(content).digest()
    part = await fleet["storaged"].get(
        f"{OBJECTS}/uploads/big.bin", headers={"range": "bytes=-7", "if-match": got.headers["etag"]}
    )
    assert (part.status_code, part.content) == (206, content[-7:])
    gone = await fleet["storaged"].delete(f"{OBJECTS}/uploads/big.bin")
    assert gone.json()["deleted"] is True
    with pytest.raises(ClientError, match="404"):
        place.client.head_object(Bucket=BUCKET, Key=f"{place.prefix}uploads/big.bin")


async def test_conditions_hold_between_boto3_and_storaged(
    place: BucketPlace, fleet: dict[str, httpx.AsyncClient]
) -> None:
    put = await fleet["storaged"].put(f"{OBJECTS}/k", content=b"1", headers={"if-none-match": "*"})
    assert put.status_code == 201
    with pytest.raises(ClientError, match="PreconditionFailed"):
        place.put("k", b"2", IfNoneMatch="*")
    place.put("k", b"2")
    stale = await fleet["storaged"].put(
        f"{OBJECTS}/k", content=b"3", headers={"if-match": put.json()["etag"]}
    )
    assert stale.status_code == 412
    assert (await fleet["storaged"].get(f"{OBJECTS}/k")).content == b"2"


async def test_a_reader_may_read_and_nothing_else(
    place: BucketPlace, seaweed: Seaweed, fleet: dict[str, httpx.AsyncClient]
) -> None:
    await fleet["storaged"].put(f"{OBJECTS}/k", content=b"1")
    reader = bucket_client(seaweed, reader=True)
    key = f"{place.prefix}k"
    assert reader.get_object(Bucket=BUCKET, Key=key)["Body"].read() == b"1"
    attempts: list[Any] = [
        lambda: reader.put_object(Bucket=BUCKET, Key=key, Body=b"2"),
        lambda: reader.delete_object(Bucket=BUCKET, Key=key),
        lambda: reader.create_multipart_upload(Bucket=BUCKET, Key=key),
    ]
    for attempt in attempts:
        with pytest.raises(ClientError, match="AccessDenied"):
            attempt()


async def test_what_pyarrow_writes_is_ingested_and_read_back_by_pyarrow(
    place: BucketPlace, seaweed: Seaweed, fleet: dict[str, httpx.AsyncClient]
) -> None:
    bucket = arrow_bucket(seaweed)
    folder = f"{BUCKET}/{place.prefix}raw"
    ds.write_dataset(
        ROWS, folder, filesystem=bucket, format="parquet", max_rows_per_file=2000,
        max_rows_per_group=2000,
    )  # fmt: skip
    listed = await fleet["storaged"].get(OBJECTS, params={"prefix": "raw/"})
    keys = [one["key"] for one in listed.json()["objects"]]
    assert len(keys) == 3
    made = await fleet["catalogd"].post(
        "/catalog/datasets", json={"name": "cities", "objects": keys}
    )
    assert made.status_code == 201, made.text
    files = (await fleet["catalogd"].get("/catalog/datasets/cities/files")).json()["files"]
    found = ds.dataset([one["uri"].removeprefix("s3://") for one in files], filesystem=bucket)
    assert found.to_table().sort_by("id").equals(ROWS)
    ingested = await fleet["ingestd"].post(
        "/ingest",
        params={"dataset": "workers"},
        content=b"id,name\n1,Kari\n2,Ola\n",
        headers={"content-type": "text/csv"},
    )
    assert ingested.status_code == 200, ingested.text
    (file,) = (await fleet["catalogd"].get("/catalog/datasets/workers/files")).json()["files"]
    table = pq.read_table(file["uri"].removeprefix("s3://"), filesystem=bucket)
    assert table.to_pylist() == [{"id": 1, "name": "Kari"}, {"id": 2, "name": "Ola"}]


async def test_pyarrow_opens_local_objects_by_their_address(tmp_path: Path) -> None:
    sink = io.BytesIO()
    pq.write_table(ROWS, sink)
    app = create_storaged(LocalPlace(tmp_path).configure())
    async with (
        running(app) as transport,
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        put = await client.put(f"{OBJECTS}/datasets/a b=c/ø.parquet", content=sink.getvalue())
        filesystem, path = fs.FileSystem.from_uri(put.json()["uri"])
        assert pq.read_table(path, filesystem=filesystem).equals(ROWS)
