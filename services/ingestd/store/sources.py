"""Files that lie in storage already, named by the request in place of being sent."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

from services.ingestd.core.naming import shorten_name
from services.ingestd.core.reference import Reference, check_count, parse_reference
from shared.clients.storaged import StoragedClient
from shared.errors import Conflict, Invalid, NotFound
from shared.wire.storaged import ObjectInfo

# A key takes at most 4 KiB and a few characters around it. Bytes.
_MOST_BYTES = 4 * 1024 * 1024


async def read_reference(pieces: AsyncIterator[bytes], most: int) -> Reference:
    """The objects that a request's body names, at most so many.

    Raises:
        Invalid: the body is no reference.
    """
    body = bytearray()
    async for piece in pieces:
        body += piece
        if len(body) > _MOST_BYTES:
            raise Invalid(
                "A body of application/json names objects, in at most 4 MiB. To send rows "
                "themselves, use text/csv."
            )
    return parse_reference(bytes(body), most)


async def find_objects(
    objects: StoragedClient, reference: Reference, most: int
) -> list[ObjectInfo]:
    """What a reference stands for, in order.

    Raises:
        NotFound: there is no such object, or none under the prefix.
        Invalid: there are more than `most` under the prefix.
    """
    found: list[ObjectInfo] = []
    if reference.prefix is None:
        for key in reference.keys:
            try:
                found.append(await objects.head_object(key))
            except NotFound as error:
                raise no_object(key) from error
        return found
    async for info in objects.walk_objects(reference.prefix):
        # What programs put there to stand for a folder is no file.
        if not info.key.endswith("/"):
            found.append(info)
            check_count(len(found), most)
    if not found:
        raise NotFound(
            f"There is no object in storage whose key begins with '{reference.prefix}'. "
            f"GET /storage/objects?prefix={reference.prefix} lists them.",
            details={"prefix": reference.prefix},
        )
    return found


async def read_objects(
    objects: StoragedClient, infos: Sequence[ObjectInfo]
) -> AsyncGenerator[str | bytes]:
    """Objects one after the other: the name of each, then its bytes."""
    for info in infos:
        yield shorten_name(info.key)
        async for piece in read_object(objects, info.key):
            yield piece


async def read_object(
    objects: StoragedClient,
    key: str,
    *,
    etag: str | None = None,
    told: Callable[[int], None] | None = None,
) -> AsyncGenerator[bytes]:
    """The object's bytes as they come; one that is replaced meanwhile is read as it was.

    Args:
        etag: what it must be, if that matters.
        told: gets how many bytes have come so far.

    Raises:
        NotFound: there is none.
        Conflict: it is not the one of `etag`.
        Upstream: the connection to storaged broke off.
    """
    size = 0
    try:
        async with objects.get_object(key) as body:
            if etag is not None and body.info.etag != etag:
                raise Conflict(
                    f"The object '{key}' was replaced since the job was accepted. Nothing was "
                    "written. Send the request again for what it is now.",
                    details={"object": key},
                )
            async for piece in body:
                size += len(piece)
                yield piece
                if told is not None:
                    told(size)
    except NotFound as error:
        raise no_object(key) from error


def no_object(key: str) -> NotFound:
    """The answer where there is no such object."""
    return NotFound(
        f"There is no object '{key}' in storage. PUT /storage/objects/{key} stores it.",
        details={"object": key},
    )
