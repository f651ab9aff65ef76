"""Files that lie in storage already, named by the request in place of being sent."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from services.ingestd.core.options import parse_reference
from shared.clients.storaged import StoragedClient
from shared.errors import Invalid, NotFound

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


async def read_object(objects: StoragedClient, key: str) -> AsyncGenerator[bytes]:
    """The object's bytes as they come; one that is replaced meanwhile is read as it was.

    Raises:
        NotFound: there is none.
        Upstream: the connection to storaged broke off.
    """
    try:
        async with objects.get_object(key) as body:
            async for piece in body:
                yield piece
    except NotFound as error:
        raise NotFound(
            f"There is no object '{key}' in storage. PUT /storage/objects/{key} stores it.",
            details={"object": key},
        ) from error
