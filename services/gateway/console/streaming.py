"""A daemon's answer passed on piece by piece, its connection given back whatever happens."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TypeVar

from starlette.responses import StreamingResponse

from services.gateway.console.desk import HEADERS
from shared.edge import Receive, Scope, Send

T = TypeVar("T")


class Streamed(StreamingResponse):
    """A response that closes what it reads from when it is over."""

    def __init__(
        self,
        pieces: AsyncIterable[bytes],
        stack: AsyncExitStack,
        media_type: str,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(pieces, 200, {**HEADERS, **headers}, media_type)
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._stack:
            await super().__call__(scope, receive, send)


async def stream_from(
    opened: AbstractAsyncContextManager[T],
    pieces_of: Callable[[T], AsyncIterable[bytes]],
    media_type: str,
    **headers: str,
) -> Streamed:
    """An answer out of a client's stream.

    Args:
        opened: the stream; what opening it raises is raised here, while a page can still say so.
        pieces_of: its bytes.
        media_type: what they are.
        headers: further ones, `_` for `-`.
    """
    async with AsyncExitStack() as stack:
        pieces = pieces_of(await stack.enter_async_context(opened))
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return Streamed(pieces, stack.pop_all(), media_type, named)
