"""Files that lie in storage already, named by the request in place of being sent."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable

from services.ingestd.core.options import parse_reference
from shared.clients.storaged import StoragedClient
from shared.errors import Conflict, Invalid, NotFound

# A reference is a key of at most 4 KiB and a few characters around it. Bytes.
_MOST_BYTES = 16 * 1024


async def read_reference(pieces: AsyncIterator[bytes]) -> str:
    """The key that a request's body names.

    Raises:
        Invalid: the body is no reference.
    """
    body = b""
    async for piece in pieces:
        body += piece
        if len(body) > _MOST_BYTES:
            raise Invalid(
                "A body of application/json names an object, in at most 16 KiB. To send rows "
                "themselves, use text/csv."
            )
    return parse_reference(body)


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
