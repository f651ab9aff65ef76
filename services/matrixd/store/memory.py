"""The playbook: an append-only log of episodes, and the notes derived from those in force.

The log is the truth. What searches use is built from it at the start, extended with every
episode, and built anew without those that are retired; so a retired episode has no effect
whatever, and a restart changes nothing.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import importlib
import logging
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from services.matrixd.core.episodes import Entry
from services.matrixd.store.figures import Figures
from shared.errors import Unavailable
from shared.journal import Journal
from shared.pool import BlockingPool
from shared.wire.matrixd import NoteUsed
from shared.wire.matrixd_playbook import RatedDocument

logger = logging.getLogger("lakehouse.matrixd")

T = TypeVar("T")
Ref = tuple[str, str]
# A model and the length of its vectors: one that changed under its name is another.
Basis = tuple[str, int]
PLAYBOOK = "services.matrixd.core.playbook"
_WARM_AFTER_S = 0.1


@dataclass(frozen=True, slots=True)
class Told:
    """What the playbook made of a cold list: documents, best first, and why."""

    refs: tuple[Ref, ...]
    scores: Any
    activated: bool
    notes: list[NoteUsed]
    moves: dict[Ref, list[dict[str, Any]]]
    routing: dict[str, float]


class Memory:
    """Episodes by id, and one playbook a model.

    Args:
        folder: of the log.
        now: the time as RFC 3339.
    """

    def __init__(
        self, folder: Path, pool: BlockingPool, figures: Figures, now: Callable[[], str]
    ) -> None:
        self._journal = Journal(folder)
        self._pool = pool
        # Notes are worked out beside the searches, whose threads they must not take: one change
        # at a time, and what is warmed after it, so that nothing is ever refused.
        self._work = BlockingPool("playbook", 2, 2)
        self._figures = figures
        self._now = now
        self.entries: dict[str, Entry] = {}
        self.by_basis: dict[str, list[Entry]] = {}
        # Episodes in force as the core takes them, and what was derived of them.
        self._episodes: dict[Basis, dict[str, Any]] = {}
        self._playbooks: dict[Basis, Any] = {}
        self._core: Any = None
        self._changing = asyncio.Lock()
        self._loading: asyncio.Task[None] | None = None
        self._warming: asyncio.Task[None] | None = None
        self._writing: set[asyncio.Future[Any]] = set()
        self._stale = False

    # --- start and stop

    async def open(self) -> None:
        """Opens the log; its episodes are read beside the first requests."""
        await asyncio.to_thread(self._journal.open)
        self._loading = asyncio.get_running_loop().create_task(
            self._load(), context=contextvars.Context()
        )

    async def aclose(self) -> None:
        """Closes the log."""
        await asyncio.gather(*self._writing, return_exceptions=True)
        tasks = [task for task in (self._loading, self._warming) if task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._journal.aclose()
        self._work.close()

    def check(self) -> str:
        """ "ok", or why the playbook cannot be used or written."""
        if self._loading is not None and not self._loading.done():
            return "the playbook is being read"
        if self._loading is not None and self._loading.exception() is not None:
            return "the playbook could not be read; the log has the reason"
        failure = self._journal.failure
        return "ok" if failure is None else failure.message

    async def prepare(self) -> None:
        """Waits until the playbook is there.

        Raises:
            Unavailable: it could not be read.
        """
        assert self._loading is not None, "open comes first"
        await asyncio.shield(asyncio.wait([self._loading]))
        if self._loading.exception() is not None:
            raise Unavailable("The playbook could not be read. matrixd's log has the reason.")

    async def _load(self) -> None:
        if self._journal.last_seq:
            self._core = await asyncio.to_thread(importlib.import_module, PLAYBOOK)
            await self._work.run(self._replay)
            self._count()
            self._warm()

    def _replay(self) -> None:
        for record in self._journal.replay():
            payload = record.payload
            try:
                if payload.get("kind") == "episode":
                    self._take(record.seq, payload)
                elif payload.get("kind") == "retire":
                    self._withdraw(payload["ids"], payload["at"], payload["reason"])
            except (AttributeError, KeyError, TypeError, ValueError):
                # One record that cannot be read must not cost the others.
                self._figures.unreadable.inc()
                logger.exception("Record %d of the playbook cannot be read", record.seq)
        for basis, episodes in self._episodes.items():
            self._playbooks[basis] = _learnt(self._core.Playbook.build(episodes.values()))

    # --- changes

    async def add(
        self,
        entry: Entry,
        views: Mapping[str, Any],
    ) -> Entry:
        """Records an episode; durable, and used by every later search, on return.

        Args:
            entry: as it will stand, but for its seq.
            views: the core's `Episode` by model.
        """
        core = await self.core()
        record = {
            "kind": "episode",
            "id": entry.id,
            "at": entry.recorded_at,
            "basis": entry.basis,
            "body": entry.body,
            "query": entry.query,
            "ratings": [one.model_dump() for one in entry.ratings],
            "source": entry.source,
            "run_id": entry.run_id,
            "corpora": list(entry.corpora),
            "views": {model: episode.to_json() for model, episode in views.items()},
        }
        return await self._see_through(self._add(core, record))

    async def _see_through(self, change: Coroutine[Any, Any, T]) -> T:
        """A change to its end, whoever has gone away: what is in the log must be in force."""
        task = asyncio.ensure_future(change)
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        return await asyncio.shield(task)

    async def _add(self, core: Any, record: dict[str, Any]) -> Entry:
        seq = await self._journal.append(record)
        async with self._changing:
            held = self.entries.get(record["id"])
            if held is not None:
                return held
            entry, episodes = self._take(seq, record)
            for basis, episode in episodes.items():
                before = self._playbooks.get(basis)
                if before is None:
                    self._playbooks[basis] = await self._work.run(core.Playbook.build, [episode])
                else:
                    self._playbooks[basis] = await self._work.run(_grow, before, episode)
            self._figures.recorded.inc()
            self._count()
            self._warm()
            return entry

    async def retire(self, ids: Collection[str], reason: str) -> None:
        """Withdraws episodes; on return that is durable and no search knows of them."""
        at = self._now()
        record = {"kind": "retire", "ids": sorted(ids), "at": at, "reason": reason}
        await self._see_through(self._forget(record))

    async def _forget(self, record: dict[str, Any]) -> None:
        await self._journal.append(record)
        async with self._changing:
            bases = self._withdraw(record["ids"], record["at"], record["reason"])
            for basis in bases:
                left = self._playbooks[basis]
                self._playbooks[basis] = await self._work.run(_shrink, left, record["ids"])
            self._count()
            self._warm()

    def _warm(self) -> None:
        """Has what searches need of the newest notes worked out beside them, once at a time."""
        self._stale = True
        if self._warming is None or self._warming.done():
            self._warming = asyncio.get_running_loop().create_task(
                self._keep_warm(), context=contextvars.Context()
            )

    async def _keep_warm(self) -> None:
        while self._stale:
            # Of many records in a row only the last state is worth the work.
            await asyncio.sleep(_WARM_AFTER_S)
            self._stale = False
            for playbook in list(self._playbooks.values()):
                await self._work.run(playbook.settle)

    def _take(self, seq: int, payload: dict[str, Any]) -> tuple[Entry, dict[Basis, Any]]:
        entry = Entry(
            id=payload["id"],
            seq=seq,
            basis=payload["basis"],
            body=payload["body"],
            query=payload["query"],
            ratings=tuple(RatedDocument.model_validate(one) for one in payload["ratings"]),
            source=payload["source"],
            run_id=payload["run_id"],
            corpora=tuple(payload["corpora"]),
            models=tuple(payload["views"]),
            recorded_at=payload["at"],
        )
        if entry.id in self.entries:
            # Acknowledged late and sent again: the first record counts.
            return self.entries[entry.id], {}
        made: dict[Basis, Any] = {}
        for model, view in payload["views"].items():
            episode = dataclasses.replace(self._core.Episode.from_json(view), seq=seq)
            made[model, len(episode.vector)] = episode
        self.entries[entry.id] = entry
        self.by_basis.setdefault(entry.basis, []).append(entry)
        for basis, episode in made.items():
            self._episodes.setdefault(basis, {})[entry.id] = episode
        return entry, made

    def _withdraw(self, ids: Iterable[str], at: str, reason: str) -> set[Basis]:
        bases: set[Basis] = set()
        for name in ids:
            entry = self.entries.get(name)
            if entry is not None and entry.retired_at is None:
                entry.retired_at, entry.retire_reason = at, reason or None
                for basis, episodes in self._episodes.items():
                    if episodes.pop(name, None) is not None:
                        bases.add(basis)
        return bases

    def _count(self) -> None:
        self._figures.episodes.set(sum(1 for e in self.entries.values() if e.retired_at is None))

    async def core(self) -> Any:
        """The playbook's core, which brings numpy, loaded once."""
        if self._core is None:
            self._core = await asyncio.to_thread(importlib.import_module, PLAYBOOK)
        return self._core

    # --- use

    def rerank(
        self,
        model: str,
        query: str,
        vector: list[float],
        cold: Any,
        explain: bool,
    ) -> Told | None:
        """The cold list with the playbook's evidence; None when it has nothing to say."""
        playbook = self._playbooks.get((model, len(vector)))
        if playbook is None:
            return None
        playbook.settle()
        done = playbook.rerank(query, _to_unit(vector), cold, explain=explain)
        notes = [
            NoteUsed(
                episode_id=use.episode_id,
                query=self.entries[use.episode_id].query,
                similarity=float(use.similarity),
                probability=float(use.probability),
            )
            for use in done.notes
        ]
        moves = {
            ref: [{"episode_id": one.episode_id, "delta": float(one.delta)} for one in found]
            for ref, found in done.contributions.items()
        }
        return Told(done.refs, done.scores, done.activated, notes, moves, dict(done.routing))

    async def describe(
        self, names: Collection[str]
    ) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
        """What was derived of these episodes that are in force, by id, and of each source."""
        return await self._pool.run(
            lambda: (self._describe_notes(frozenset(names)), self._describe_sources())
        )

    def _describe_notes(self, names: Collection[str]) -> dict[str, dict[str, Any]]:
        notes: dict[str, dict[str, Any]] = {}
        for playbook in list(self._playbooks.values()):
            for view in playbook.notes(names):
                notes.setdefault(view.id, _plain(view))
        return notes

    def _describe_sources(self) -> dict[str, dict[str, Any]]:
        sources: dict[str, dict[str, Any]] = {}
        for playbook in list(self._playbooks.values()):
            for name, view in playbook.sources().items():
                sources.setdefault(name, _plain(view))
        return sources


def _plain(view: Any) -> dict[str, Any]:
    """A view of the core as JSON-ready data."""
    return {name: _plain_value(value) for name, value in dataclasses.asdict(view).items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            "/".join(key) if isinstance(key, tuple) else str(key): _plain_value(one)
            for key, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain_value(one) for one in value]
    item = getattr(value, "item", None)
    return item() if item is not None else value


def _grow(playbook: Any, episode: Any) -> Any:
    """The playbook with an episode, its router learnt: no search is to wait for that."""
    return _learnt(playbook.record(episode))


def _shrink(playbook: Any, ids: Collection[str]) -> Any:
    """The playbook without these episodes, its router learnt."""
    return _learnt(playbook.retire(ids))


def _learnt(playbook: Any) -> Any:
    if playbook.must_learn:
        _ = playbook.router
    return playbook


def _to_unit(vector: list[float]) -> Any:
    ranking: Any = importlib.import_module("services.matrixd.store.ranking")
    return ranking.to_unit(vector)
