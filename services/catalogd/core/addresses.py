"""Which object of storaged an address means, where the address tells it.

In a bucket an address is the bucket's followed by the key. On local disk storaged gives every
segment of a key one name: folders end in `~`, and so does nothing else of a key made of plain
characters (all keys that ingestd makes); other keys are escaped there, and are not told.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_PLAIN_NAME = re.compile(r"[A-Za-z0-9._-]+")


def find_key(uri: str, bucket: str, folder: str) -> str | None:
    """The object's key, or None when the address is not storaged's or does not tell.

    Args:
        uri: a data file's address.
        bucket: what addresses of objects begin with when they lie in a bucket, else empty.
        folder: the address of storaged's folder of objects, with a slash at its end.
    """
    if bucket:
        return uri[len(bucket) :] if uri.startswith(bucket) else None
    if not uri.startswith(folder):
        return None
    *folders, name = uri[len(folder) :].split("/")
    if not all(part.endswith("~") for part in folders):
        return None
    segments = [*(part[:-1] for part in folders), name]
    return "/".join(segments) if are_plain(segments) else None


def are_plain(segments: Sequence[str]) -> bool:
    """Whether all segments stand for themselves on disk."""
    return all(_PLAIN_NAME.fullmatch(segment) for segment in segments)
