"""The access keys of the S3 server, from the configuration or from a file of their owner's."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from shared.config import Config
from shared.errors import Unavailable
from shared.keyfile import read_key

ACCESS_KEY, SECRET_KEY, SESSION_TOKEN = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)


@dataclass(frozen=True, slots=True)
class S3Keys:
    """What signs requests; only `access` may be shown."""

    access: str
    secret: str = field(repr=False)
    token: str = field(default="", repr=False)


def read_writer_keys(config: Config) -> S3Keys:
    """The keys that storaged writes with.

    Raises:
        Unavailable: the key file is missing, incomplete, or open to others.
    """
    section = config.storage
    if section.key_file is not None:
        return _read_file(config.base_dir / section.key_file)
    return S3Keys(
        section.access_key,
        section.secret_key.get_secret_value(),
        section.session_token.get_secret_value(),
    )


def read_reader_keys(config: Config) -> S3Keys:
    """The keys that queries read with: those of the reader where there are any.

    Raises:
        Unavailable: as `read_writer_keys`.
    """
    if config.storage.reader_key_file is not None:
        return _read_file(config.base_dir / config.storage.reader_key_file)
    return read_writer_keys(config)


def _read_file(path: Path) -> S3Keys:
    try:
        access, secret = read_key(path, ACCESS_KEY), read_key(path, SECRET_KEY)
    except Unavailable as error:
        raise Unavailable(f"The S3 server's keys: {error.message}") from None
    try:
        token = read_key(path, SESSION_TOKEN)
    except Unavailable:
        token = ""  # only keys that expire have one
    return S3Keys(access, secret, token)
