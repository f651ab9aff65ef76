"""Dead letters over the journal: kept, listed, tried again, given up.

A letter is durable before its failure is answered. A replay does the work and then writes that
it is settled: a process that dies in between does the work again, so each kind's work must be
safe to repeat. Where no letter can be written, the failure is answered all the same, and counted.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from services.observerd.core.events.letters import Box, Kind, Letter, name_letter
from services.observerd.store.figures import Figures
from services.observerd.store.kept import Kept
from shared.errors import LakehouseError, NotFound
from shared.wire.observerd import LetterFigures
from shared.wire.observerd_letters import (
    LetterContent,
    LetterList,
    LetterReplayed,
    LettersReplayed,
    LetterView,
    Replay,
)

logger = logging.getLogger("lakehouse.observerd")

# Does the work of a letter again; gives its result or raises why not.
Handler = Callable[[Mapping[str, Any]], Awaitable[Any]]

# Why work failed: the exception, or a code and a message.
Why = BaseException | tuple[str, str]

_CHECKPOINT_RECORDS = 2000


class Letters(Kept):
    """All dead letters.

    Args:
        folder: of their journal.
        figures: where they are counted.
    """

    def __init__(self, folder: Path, figures: Figures) -> None:
        super().__init__("letters", folder, max_record_bytes=16 * 1024 * 1024)
        self._box = Box()
        self._figures = figures
        self._handlers: dict[Kind, Handler] = {}
        self._writing = asyncio.Lock()
        self._replaying = asyncio.Lock()
        self._refused = 0
        self._since = 0

    def handle(self, kind: Kind, handler: Handler) -> None:
        """Says who does the work of a kind again."""
        self._handlers[kind] = handler

    # --- start and stop

    async def open(self) -> None:
        """Reads what waits."""
        await super().open()
        self._figures.letters.set(len(self._box.waiting))

    def _load(self) -> None:
        checkpoint = self._journal.latest_checkpoint()
        if checkpoint is not None:
            state = orjson.loads(b"".join(checkpoint.chunks()))
            for fields in state["waiting"]:
                self._box.keep(Letter(**fields))
            self._box.settled.update(state["settled"])
            counts = state["counts"]
            self._box.kept, self._box.replayed = counts["kept"], counts["replayed"]
            self._box.discarded = counts["discarded"]
        start = None if checkpoint is None else checkpoint.seq + 1
        for record in self._journal.replay(start):
            self._since += 1
            try:
                self._fold(record.payload)
            except (KeyError, TypeError):
                # One record that cannot be read must not cost the others.
                logger.exception("Record %d of the letters cannot be read", record.seq)

    def _fold(self, payload: Mapping[str, Any]) -> None:
        what = payload["what"]
        if what == "kept":
            self._box.keep(Letter(**payload["letter"]))
        elif what == "settled":
            self._box.settle(payload["id"], payload["result"])
        elif what == "discarded":
            self._box.discard(payload["id"])

    async def _write(self, payload: dict[str, Any]) -> None:
        # Whoever leaves meanwhile: what is durable must also be in memory, in the same order.
        await asyncio.shield(asyncio.ensure_future(self._append(payload)))

    async def _append(self, payload: dict[str, Any]) -> None:
        async with self._writing:
            await self._journal.append(payload)
            self._fold(payload)
            self._figures.letters.set(len(self._box.waiting))
            self._since += 1
            if self._since < _CHECKPOINT_RECORDS:
                return
            box = self._box
            state = {
                "waiting": [dataclasses.asdict(letter) for letter in box.waiting.values()],
                "settled": dict(box.settled),
                "counts": {
                    "kept": box.kept,
                    "replayed": box.replayed,
                    "discarded": box.discarded,
                },
            }
            try:
                last = self._journal.last_seq
                await self._pool.run(self._journal.compact, last, [orjson.dumps(state)])
                self._since = 0
            except LakehouseError as error:
                logger.warning("The letters' checkpoint waits: %s", error.message)

    # --- what fails, and what does not any more

    async def keep(
        self, kind: Kind, key: tuple[str, ...], run_id: str, work: Mapping[str, Any], why: Why
    ) -> str | None:
        """Keeps work that failed, durably; gives its letter's id, None where there is no room.

        Args:
            key: what makes two requests the same work.
        """
        now = time.time_ns() // 1000
        error, message = _explain(why)
        letter = Letter(
            name_letter(kind, *key),
            kind,
            run_id,
            work,
            len(orjson.dumps(work)),
            error,
            message[:4000],
            now,
            now,
        )
        try:
            if self._box.has_room(letter):
                await self._write({"what": "kept", "letter": dataclasses.asdict(letter)})
                return letter.id
            logger.error("There is no room for a dead letter; discard or replay some.")
        except LakehouseError as failure:
            logger.error("A dead letter could not be kept: %s", failure.message)
        self._refused += 1
        self._figures.refused_letters.inc()
        return None

    async def settle(self, kind: Kind, key: tuple[str, ...], result: Any) -> None:
        """Work that succeeded has no letter any more, whoever did it."""
        name = name_letter(kind, *key)
        if name in self._box.waiting:
            try:
                await self._write({"what": "settled", "id": name, "result": result})
            except LakehouseError as failure:
                # It will be replayed, which does no harm.
                logger.warning("A letter waits on: %s", failure.message)

    # --- routes

    def list(self, kind: Kind | None, limit: int, cursor: int) -> LetterList:
        """Letters that wait, oldest first."""
        found = [one for one in self._box.waiting.values() if kind in (None, one.kind)]
        page = found[cursor : cursor + limit]
        more = cursor + limit < len(found)
        return LetterList(
            letters=[LetterView(**_show(one)) for one in page],
            next_cursor=str(cursor + limit) if more else None,
        )

    def get(self, name: str) -> LetterContent:
        """One letter with its content.

        Raises:
            NotFound: none of that id waits.
        """
        letter = self._find(name)
        return LetterContent(**_show(letter), work=dict(letter.work))

    def _find(self, name: str) -> Letter:
        letter = self._box.waiting.get(name)
        if letter is None:
            raise NotFound(
                f"No letter {name!r} waits: it was settled or discarded, or never was. "
                "GET /observer/letters lists those that do."
            )
        return letter

    async def replay(self, name: str) -> LetterReplayed:
        """Tries a letter's work again. Settled ones give the result they had.

        Raises:
            NotFound: there is no such letter.
        """
        async with self._replaying:
            return await self._try(name)

    async def _try(self, name: str) -> LetterReplayed:
        if name not in self._box.waiting and name in self._box.settled:
            result = self._box.settled[name]
            return LetterReplayed(id=name, settled=True, already=True, result=result)
        letter = self._find(name)
        try:
            result = await self._handlers[letter.kind](letter.work)
        except Exception as failure:
            if not isinstance(failure, LakehouseError):
                logger.exception("Letter %s could not be replayed", name)
            error, message = _explain(failure)
            again = dataclasses.replace(
                letter, error=error, message=message[:4000], last=time.time_ns() // 1000
            )
            await self._write({"what": "kept", "letter": dataclasses.asdict(again)})
            return LetterReplayed(id=name, settled=False, error=error, message=message)
        await self._write({"what": "settled", "id": name, "result": result})
        return LetterReplayed(id=name, settled=True, result=result)

    async def replay_all(self, asked: Replay) -> LettersReplayed:
        """Tries the oldest letters again, one after the other."""
        async with self._replaying:
            names = [
                one.id for one in self._box.waiting.values() if asked.kind in (None, one.kind)
            ][: asked.limit]
            # One that was settled or given up meanwhile is no failure of this.
            done = [await self._try(name) for name in names if name in self._box.waiting]
        settled = sum(one.settled for one in done)
        return LettersReplayed(letters=done, settled=settled, waiting=len(self._box.waiting))

    async def discard(self, name: str) -> None:
        """Gives a letter up.

        Raises:
            NotFound: there is no such letter.
        """
        self._find(name)
        await self._write({"what": "discarded", "id": name})

    def figures(self) -> LetterFigures:
        """Counts since the first start; `refused` since this one."""
        box = self._box
        return LetterFigures(
            waiting=len(box.waiting),
            bytes=box.bytes,
            kept=box.kept,
            replayed=box.replayed,
            discarded=box.discarded,
            refused=self._refused,
        )


def _explain(why: Why) -> tuple[str, str]:
    if isinstance(why, LakehouseError):
        return why.code, why.message
    return (type(why).__name__, str(why)) if isinstance(why, BaseException) else why


def _show(letter: Letter) -> dict[str, Any]:
    fields = dataclasses.asdict(letter)
    fields["bytes"] = fields.pop("size")
    del fields["work"]
    return fields
