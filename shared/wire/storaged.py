"""storaged: objects by key."""

from __future__ import annotations

from shared.wire.base import Response

# Where the collection lives; an object's path is this, a slash and its percent-encoded key.
OBJECTS_PATH = "/storage/objects"
# Response header of GET and HEAD: the address that engines read (ObjectInfo.uri).
URI_HEADER = "x-lakehouse-uri"
# What an object is when its PUT named no Content-Type.
DEFAULT_CONTENT_TYPE = "application/octet-stream"


class ObjectInfo(Response):
    """One stored object.

    `etag` is quoted as in the HTTP header; `size` in bytes; `uri` is the address that
    engines read and Iceberg records (`file:///…` or `s3://…`); `last_modified` is
    RFC 3339 in UTC, to the second.
    """

    key: str
    etag: str
    size: int
    uri: str
    last_modified: str
    content_type: str = DEFAULT_CONTENT_TYPE


class ObjectList(Response):
    """A page of a listing in UTF-8 byte order of the keys.

    `prefixes` holds what a `delimiter` rolled up. `next_cursor` is opaque and absent on
    the last page.
    """

    objects: list[ObjectInfo]
    prefixes: list[str]
    next_cursor: str | None = None


class Deleted(Response):
    """Answer to DELETE: `deleted` is false when there was nothing under the key."""

    key: str
    deleted: bool
