"""The playbook's routes: recording, reading, retiring, exporting."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import orjson

from services.matrixd.core.chunking import item_ids
from services.matrixd.core.episodes import (
    Entry,
    basis_of,
    check_ratings,
    check_repeat,
    choose_retired,
    hash_body,
    name_episode,
)
from services.matrixd.store.gathering import Asked, Gathered, Gatherer, to_parts
from services.matrixd.store.memory import Memory
from services.matrixd.store.peers import Peers
from services.matrixd.store.registry import Registry
from services.matrixd.store.search import Searcher
from shared.errors import Conflict, Invalid, NotFound, Unavailable, Unprocessable
from shared.pool import BlockingPool
from shared.sections.matrix import MatrixdSection
from shared.wire.matrixd_playbook import (
    EpisodeInfo,
    EpisodeList,
    RatedDocument,
    Recorded,
    RecordRequest,
    Retired,
    RetireRequest,
)

# How much of the query's cold list is kept with an episode, and of each corpus at least.
COLD_KEPT = 50
EACH_KEPT = 10
Ref = tuple[str, str]
_CURSOR = re.compile(r"[0-9]{1,20}")


class Recorder:
    """What callers do with the playbook."""

    def __init__(
        self,
        section: MatrixdSection,
        registry: Registry,
        gatherer: Gatherer,
        searcher: Searcher,
        memory: Memory,
        peers: Peers,
        pool: BlockingPool,
        now: Callable[[], str],
    ) -> None:
        self._section = section
        self._registry = registry
        self._gatherer = gatherer
        self._searcher = searcher
        self._memory = memory
        self._peers = peers
        self._pool = pool
        self._now = now
        self._under_way: dict[str, asyncio.Task[Entry]] = {}
        self._retiring = asyncio.Lock()

    async def record(self, request: RecordRequest, key: str | None) -> tuple[Recorded, int]:
        """Records an episode; gives it with the status to answer.

        The same content, or the same key, again is the episode that exists: 200.

        Raises:
            Invalid, Unprocessable: the ratings. Conflict: the key was used for another episode.
            Unavailable: a rated corpus cannot be reached; nothing is recorded.
        """
        await self._memory.prepare()
        ratings = check_ratings(request, self._section.max_ratings)
        body = hash_body(request, ratings)
        basis = basis_of(body, key)
        # Of two at once the second waits, then finds the first's.
        while (other := self._under_way.get(basis)) is not None:
            await asyncio.wait([other])
        existing = self._memory.by_basis.get(basis, [])
        name, _ = name_episode(body, key, existing)
        held = self._memory.entries.get(name)
        if held is not None:
            check_repeat(held, body)
            return _answer(held, duplicate=True), 200
        if len(self._memory.entries) >= self._section.max_memory_notes:
            raise Conflict(
                f"The playbook holds {len(self._memory.entries)} episodes, which is its limit "
                "(max_memory_notes). Raise it, or export and begin a new playbook."
            )
        # A caller who goes away leaves it to its end, so that the next one finds it.
        making = asyncio.create_task(self._make(request, ratings, name, basis, body))
        self._under_way[basis] = making
        making.add_done_callback(lambda _: self._under_way.pop(basis))
        return _answer(await asyncio.shield(making), duplicate=False), 201

    async def _make(
        self,
        request: RecordRequest,
        ratings: tuple[RatedDocument, ...],
        name: str,
        basis: str,
        body: str,
    ) -> Entry:
        rated = list(dict.fromkeys(one.corpus for one in ratings))
        self._check_corpora([*rated, *(request.corpora or ())])
        names = self._choose(rated, request.corpora)
        gathered = await self._gatherer.gather(request.query, names, None, ("vector",))
        for corpus in rated:
            answer = gathered.answers[corpus]
            if answer.status not in ("ok", "building"):
                raise Unavailable(
                    f"Corpus {corpus!r}, which is rated, cannot be searched now "
                    f"({answer.reason}). Nothing was recorded; send it again later.",
                    details={"corpus": corpus},
                )
        ranking = await self._searcher.ranking()
        core = await self._memory.core()
        documents = await self._find_vectors(ranking, gathered, ratings)

        def view(model: str, asked: Sequence[Asked]) -> Any:
            parts = to_parts(asked, ranking.Part)
            here = {part.corpus for part in parts}
            cold = ranking.rank(parts)
            told = self._memory.rerank(model, request.query, gathered.vectors[model], cold, False)
            shown = core.find_shown(
                cold,
                cold.refs if told is None else told.refs,
                {(one.corpus, one.id) for one in ratings},
            )
            episode = core.Episode(
                id=name,
                seq=0,
                query=request.query,
                vector=ranking.to_unit(gathered.vectors[model]),
                cold=cold.keep(COLD_KEPT, EACH_KEPT, shown),
                ratings=tuple(
                    core.Rating(one.corpus, one.id, float(one.rating))
                    for one in ratings
                    if one.corpus in here
                ),
                source=request.source,
                run_id=request.run_id or "",
                shown=shown,
            )
            return episode.with_vectors(documents)

        # In the pool: what the playbook shows may first have to be worked out from all notes.
        views = await self._pool.run(
            lambda: {model: view(model, asked) for model, asked in gathered.asked.items()}
        )
        entry = Entry(
            id=name,
            seq=0,
            basis=basis,
            body=body,
            query=request.query,
            ratings=ratings,
            source=request.source,
            run_id=request.run_id,
            corpora=tuple(names),
            models=tuple(views),
            recorded_at=self._now(),
        )
        return await self._memory.add(entry, {m: v for m, v in views.items() if v.ratings})

    def _check_corpora(self, names: Sequence[str]) -> None:
        unknown = sorted({name for name in names if self._registry.get(name) is None})
        if unknown:
            known = ", ".join(self._registry.names()[:20]) or "none yet"
            raise Unprocessable(
                f"There is no corpus {', '.join(map(repr, unknown))}; there are: {known}. "
                "Nothing was recorded.",
                details={"unknown": unknown},
            )

    def _choose(self, rated: list[str], asked: Sequence[str] | None) -> list[str]:
        others = asked if asked is not None else self._registry.names()
        names = list(dict.fromkeys([*rated, *others]))
        if len(rated) > self._section.max_corpora:
            raise Invalid(f"Ratings of {len(rated)} corpora; at most {self._section.max_corpora}.")
        return sorted(names[: self._section.max_corpora])

    async def _find_vectors(
        self, ranking: Any, gathered: Gathered, ratings: Sequence[RatedDocument]
    ) -> dict[Ref, Any]:
        """Vectors of all rated documents; those far from the query are fetched one by one."""
        found: dict[Ref, Any] = {}
        chunked: dict[str, tuple[str, bool]] = {}
        for asked in gathered.asked.values():
            found |= ranking.vectors_of(to_parts(asked, ranking.Part))
            chunked |= {a.corpus.spec.name: (a.corpus.index, a.corpus.chunked) for a in asked}
        wanted = [(one.corpus, one.id) for one in ratings]
        missing: list[dict[str, str]] = []
        for ref in wanted:
            if ref not in found:
                index, is_chunked = chunked[ref[0]]
                item = item_ids(ref[1], 1, is_chunked)[0]
                try:
                    answer = await self._peers.vectord.get_item(index, item)
                except (NotFound, Invalid):
                    missing.append({"corpus": ref[0], "id": ref[1]})
                else:
                    found[ref] = ranking.to_unit(answer.vector)
        if missing:
            first = missing[0]
            raise Unprocessable(
                f"Corpus {first['corpus']!r} has no document {first['id']!r}"
                + (f", nor {len(missing) - 1} others" if len(missing) > 1 else "")
                + ". Rate documents by the corpus and id of a search's hits. Nothing was recorded.",
                details={"missing": missing[:50]},
            )
        return found

    # --- reading

    async def find(self, name: str) -> EpisodeInfo:
        """One episode, retired or not.

        Raises:
            NotFound: there is none of this id.
        """
        await self._memory.prepare()
        entry = self._find(name)
        notes, _ = await self._memory.describe([name])
        return entry.describe(notes.get(name))

    async def list(
        self, limit: int, cursor: str | None, source: str | None, run_id: str | None, retired: bool
    ) -> EpisodeList:
        """A page of the episodes, newest first.

        Raises:
            Invalid: the cursor is not one that was given.
        """
        await self._memory.prepare()
        if cursor is not None and not _CURSOR.fullmatch(cursor):
            raise Invalid("cursor: give next_cursor of the page before.")
        entries = sorted(self._memory.entries.values(), key=lambda entry: -entry.seq)
        chosen = [
            entry
            for entry in entries
            if (retired or entry.retired_at is None)
            and (source is None or entry.source == source)
            and (run_id is None or entry.run_id == run_id)
            and (cursor is None or entry.seq < int(cursor))
        ]
        page = chosen[:limit]
        notes, sources = await self._memory.describe([entry.id for entry in page])
        return EpisodeList(
            episodes=[entry.describe(notes.get(entry.id)) for entry in page],
            total=len(entries),
            retired=sum(1 for entry in entries if entry.retired_at is not None),
            sources=sources,
            next_cursor=str(page[-1].seq) if len(chosen) > limit else None,
        )

    async def export(self) -> AsyncGenerator[bytes]:
        """All episodes as JSON lines, oldest first, retired ones told as such."""
        await self._memory.prepare()
        for entry in sorted(self._memory.entries.values(), key=lambda entry: entry.seq):
            told = dataclasses.asdict(entry) | {"ratings": [r.model_dump() for r in entry.ratings]}
            del told["basis"], told["body"]
            told["episode_id"] = told.pop("id")
            yield orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SORT_KEYS)

    # --- retiring

    async def retire_one(self, name: str, reason: str) -> Retired:
        """Withdraws one episode; again changes nothing.

        Raises:
            NotFound: there is none of this id.
        """
        await self._memory.prepare()
        return await self._retire([self._find(name)], reason)

    async def retire(self, request: RetireRequest) -> Retired:
        """Withdraws many episodes at once, those too that are being recorded when it is asked.

        Raises:
            Invalid: it does not say which. NotFound: an id that does not exist.
        """
        await self._memory.prepare()
        if self._under_way:
            # One whose caller left would else appear after all of its run was withdrawn.
            await asyncio.wait(list(self._under_way.values()))
        chosen = choose_retired(request, list(self._memory.entries.values()))
        known = {entry.id for entry in chosen}
        unknown = [name for name in request.episode_ids or () if name not in known]
        if unknown:
            raise NotFound(
                f"There is no episode {unknown[0]!r}. Nothing was retired.",
                details={"unknown": unknown[:50]},
            )
        return await self._retire(chosen, request.reason)

    async def _retire(self, chosen: Sequence[Entry], reason: str) -> Retired:
        # Of two at once the second finds that they are retired already.
        async with self._retiring:
            fresh = [entry.id for entry in chosen if entry.retired_at is None]
            if fresh:
                await self._memory.retire(fresh, reason)
        return Retired(
            retired=len(fresh),
            already=len(chosen) - len(fresh),
            episode_ids=[entry.id for entry in chosen],
        )

    def _find(self, name: str) -> Entry:
        entry = self._memory.entries.get(name)
        if entry is None:
            raise NotFound(f"There is no episode {name!r}. GET /matrix/playbook lists them.")
        return entry


def _answer(entry: Entry, *, duplicate: bool) -> Recorded:
    return Recorded(
        episode_id=entry.id,
        duplicate=duplicate,
        retired=entry.retired_at is not None,
        seq=entry.seq,
        recorded_at=entry.recorded_at,
    )
