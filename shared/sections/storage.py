"""[storage]: where the fleet's objects lie, for all daemons that read or write them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from shared.sections.base import Section


def _check_endpoint(value: str) -> str:
    parts = urlsplit(value)
    plain = parts.scheme in ("http", "https") and parts.hostname and parts.path in ("", "/")
    if value and (not plain or parts.username or parts.query):
        raise ValueError("an S3 endpoint is http://host:port or https://host, and no more")
    return value.rstrip("/")


def _check_prefix(value: str) -> str:
    prefix = value.strip("/")
    if any(segment in ("", ".", "..") for segment in prefix.split("/") if prefix):
        raise ValueError("a prefix is names divided by single slashes")
    return f"{prefix}/" if prefix else ""


class StorageSection(Section):
    """Local files, or a bucket of an S3 server.

    `access_key` and `secret_key`, or the two in `key_file`, may write; those in
    `reader_key_file` may be of a user that only reads, and are what queries run with.
    """

    backend: Literal["local", "s3"] = "local"
    endpoint: Annotated[str, AfterValidator(_check_endpoint)] = ""
    bucket: Annotated[str, Field(pattern=r"^$|^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")] = ""
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]*$"), AfterValidator(_check_prefix)] = ""
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")] = "us-east-1"
    path_style: bool = True
    access_key: str = ""
    secret_key: SecretStr = SecretStr("")
    session_token: SecretStr = SecretStr("")
    key_file: Path | None = None
    reader_key_file: Path | None = None
    connect_timeout_s: float = Field(default=3.0, gt=0)
    read_timeout_s: float = Field(default=20.0, gt=0)
    retry_s: float = Field(default=20.0, ge=0)
    part_mb: int = Field(default=8, ge=5, le=512)
    upload_expiry_s: float = Field(default=86400.0, gt=0)

    @model_validator(mode="after")
    def _check_complete(self) -> StorageSection:
        if self.backend == "s3":
            if not self.bucket:
                raise ValueError("the s3 backend needs a bucket")
            if not self.key_file and not (self.access_key and self.secret_key.get_secret_value()):
                raise ValueError("the s3 backend needs key_file, or access_key and secret_key")
        return self

    @property
    def address(self) -> str:
        """What the addresses of all objects in the bucket begin with; empty for local files."""
        return f"s3://{self.bucket}/{self.prefix}" if self.backend == "s3" else ""

    @property
    def host(self) -> str:
        """The S3 server as host:port, the port left out where it is the scheme's own."""
        if self.endpoint:
            return urlsplit(self.endpoint).netloc
        return f"s3.{self.region}.amazonaws.com"

    @property
    def port(self) -> int:
        """The port that the S3 server listens on."""
        parts = urlsplit(self.endpoint or "https://aws")
        return parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def encrypted(self) -> bool:
        """Whether the server is spoken to over TLS."""
        return not self.endpoint.startswith("http://")
