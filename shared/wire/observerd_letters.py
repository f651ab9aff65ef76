"""observerd: dead letters, work that a peer did not take."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from shared.wire.base import Request, Response

LETTER = r"^[0-9a-f]{24}$"
LetterKind = Literal["score", "refine", "feed"]


class LetterView(Response):
    """A letter without its content: whose work, why it failed, how often, when (microseconds)."""

    id: str
    kind: LetterKind
    run_id: str
    error: str
    message: str
    attempts: int
    first: int
    last: int
    bytes: int


class LetterContent(LetterView):
    """A letter with the request as it came."""

    work: dict[str, Any]


class LetterList(Response):
    """Letters that wait, oldest first. `next_cursor` asks for what follows."""

    letters: list[LetterView]
    next_cursor: str | None = None


class Replay(Request):
    """Which letters to try again: those of a kind, or all; the oldest `limit`."""

    kind: LetterKind | None = None
    limit: int = Field(default=100, ge=1, le=1000)


class LetterReplayed(Response):
    """What came of one letter: its `result` when it is settled, else why it waits on.

    `already` says that an earlier replay had settled it.
    """

    id: str
    settled: bool
    already: bool = False
    result: Any = None
    error: str | None = None
    message: str | None = None


class LettersReplayed(Response):
    """What came of each letter that was tried."""

    letters: list[LetterReplayed]
    settled: int
    waiting: int
