"""The routes of dead letters."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Path, Query

from services.observerd.store.letters import Letters
from shared.wire.observerd_letters import (
    LETTER,
    LetterContent,
    LetterKind,
    LetterList,
    LetterReplayed,
    LettersReplayed,
    Replay,
)

LETTERS = "/observer/letters"
Id = Annotated[str, Path(pattern=LETTER, description="Id of the letter")]


def add_letter_routes(app: FastAPI, letters: Letters) -> None:
    """Work that a peer did not take."""

    @app.get(LETTERS, tags=["letters"])
    async def list_letters(
        kind: LetterKind | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        cursor: Annotated[int, Query(ge=0, le=2**31)] = 0,
    ) -> LetterList:
        """Letters that wait, oldest first, each with the reason."""
        return letters.list(kind, limit, cursor)

    @app.post(LETTERS + "/replay", tags=["letters"])
    async def replay_letters(asked: Replay | None = None) -> LettersReplayed:
        """Tries the oldest letters again; those that fail wait on."""
        return await letters.replay_all(asked or Replay())

    @app.get(LETTERS + "/{letter}", tags=["letters"])
    async def get_letter(letter: Id) -> LetterContent:
        """One letter with the request as it came."""
        return letters.get(letter)

    @app.post(LETTERS + "/{letter}/replay", tags=["letters"])
    async def replay_letter(letter: Id) -> LetterReplayed:
        """Tries one again; a settled one gives the result that it had."""
        return await letters.replay(letter)

    @app.delete(LETTERS + "/{letter}", tags=["letters"], status_code=204)
    async def discard_letter(letter: Id) -> None:
        """Gives one up."""
        await letters.discard(letter)
