"""The fleet's bucket as workers read it: what they are told of it, and when."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path

from shared.config import Config
from shared.errors import Unavailable
from shared.s3keys import S3Keys, read_reader_keys

_PACKAGE, _EXTENSION = "duckdb_extension_httpfs", "httpfs.duckdb_extension"


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where s3:// addresses lead.

    Attributes:
        address: what all addresses of the bucket begin with.
        port: of the server; workers can connect to no other.
        extension: DuckDB's httpfs.
        secret: what a worker makes its secret of, sent over its socket with the query.
    """

    address: str
    port: int
    extension: str
    secret: dict[str, str | bool] = field(repr=False)


def find_bucket(config: Config) -> Bucket | None:
    """The bucket that [storage] names, None where objects are local files.

    Raises:
        Unavailable: its keys or DuckDB's extension for it are missing.
    """
    section = config.storage
    if not section.address:
        return None
    keys: S3Keys = read_reader_keys(config)
    return Bucket(
        address=section.address,
        port=section.port,
        extension=find_extension(),
        secret={
            "key_id": keys.access,
            "secret": keys.secret,
            "session_token": keys.token,
            "endpoint": section.host,
            "region": section.region,
            "url_style": "path" if section.path_style else "vhost",
            "use_ssl": section.encrypted,
        },
    )


def find_extension() -> str:
    """The path of DuckDB's httpfs, as installed with the project.

    Raises:
        Unavailable: it is not installed.
    """
    found = importlib.util.find_spec(_PACKAGE)
    folder = Path(found.origin).parent if found and found.origin else None
    paths = sorted(folder.glob(f"extensions/*/{_EXTENSION}")) if folder else []
    if not paths:
        raise Unavailable("DuckDB's httpfs is missing. Run scripts/setup, which installs it.")
    return str(paths[-1])
