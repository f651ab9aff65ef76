"""storaged over either place for objects, and a look at what is kept there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config as BotoConfig

from scripts.seaweed import BUCKET, READER, WRITER, Seaweed
from shared.config import Config
from tests.support.apps import make_config


class LocalPlace:
    """Files under a temporary folder."""

    def __init__(self, tmp_path: Path) -> None:
        self.tmp_path = tmp_path

    def configure(self, **keys: Any) -> Config:
        """A configuration with these keys of [storaged]."""
        return make_config(self.tmp_path, storaged=keys)

    def keep(self) -> list[str]:
        """Keys of all objects, and whatever uploads have left."""
        root = self.tmp_path / "data" / "storaged"
        left = [f"staging: {found.name}" for found in (root / "staging").rglob("*")]
        objects = root / "objects"
        # Folders too: those that are empty must be gone.
        return sorted([*(str(found.relative_to(objects)) for found in objects.rglob("*")), *left])

    def read(self, uri: str) -> bytes:
        """What an engine finds at an address."""
        return Path(uri.removeprefix("file://")).read_bytes()


class BucketPlace:
    """A prefix of its own in a real S3 server's bucket."""

    def __init__(self, tmp_path: Path, server: Seaweed, endpoint: str = "") -> None:
        self.tmp_path = tmp_path
        self.server = server
        self.endpoint = endpoint
        self.prefix = f"{tmp_path.name}/"
        self.storage: dict[str, Any] = server.settings(self.prefix, endpoint)
        self.client = bucket_client(server)

    def configure(self, **keys: Any) -> Config:
        """A configuration with these keys of [storaged]."""
        return make_config(self.tmp_path, storaged=keys, storage=self.storage)

    def keep(self) -> list[str]:
        """Keys of all objects, and whatever uploads have left."""
        return sorted([*self.objects(), *(f"upload: {key}" for key in self.uploads())])

    def objects(self) -> Iterator[str]:
        """Keys of all objects."""
        pages = self.client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=BUCKET, Prefix=self.prefix):
            for one in page.get("Contents", []):
                yield one["Key"].removeprefix(self.prefix)

    def uploads(self) -> list[str]:
        """Keys of multipart uploads that were neither finished nor removed."""
        answer = self.client.list_multipart_uploads(Bucket=BUCKET, Prefix=self.prefix)
        return [one["Key"].removeprefix(self.prefix) for one in answer.get("Uploads", [])]

    def read(self, uri: str) -> bytes:
        """What an engine finds at an address."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return bytes(self.client.get_object(Bucket=bucket, Key=key)["Body"].read())

    def put(self, key: str, body: bytes, **arguments: Any) -> None:
        """Stores an object as another program would."""
        self.client.put_object(Bucket=BUCKET, Key=self.prefix + key, Body=body, **arguments)


def bucket_client(server: Seaweed, *, reader: bool = False) -> Any:
    """boto3's client of the server, as users make it."""
    access, secret = READER if reader else WRITER
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=access,
        aws_secret_access_key=secret,
        config=BotoConfig(s3={"addressing_style": "path"}, retries={"max_attempts": 2}),
    )
