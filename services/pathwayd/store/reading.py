"""What the routes call to read: one trace, lists, history, searches, figures."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from services.pathwayd.core.drafts import check_length, check_model
from services.pathwayd.core.fields import read_filter, resolve_field
from services.pathwayd.core.traces import (
    MAX_DIGITS,
    Trace,
    find_trace,
    format_time,
    walk_back,
)
from services.pathwayd.store.answers import load_content, seq_of, show_trace, tell_step
from services.pathwayd.store.embedder import Embedder
from services.pathwayd.store.ledger import Ledger
from services.pathwayd.store.rooms import load_room
from shared.errors import Invalid, LakehouseError, NotFound, TooLarge
from shared.filters.language import Filter
from shared.telling import RunTeller, hash_request, judge_failure, since
from shared.wire import pathwayd as wire

if TYPE_CHECKING:
    from services.pathwayd.store.search import Answer, Found

MAX_QUERY_CHARS = 32_768
MAX_PAGE = 1000
# A page or history ends early behind so many bytes of content.
MAX_PAGE_BYTES = 16 << 20
# Steps of a history whose records are read together.
_STEPS = 50
_WITHOUT = wire.SemanticState(status="off")


@dataclass(frozen=True, slots=True)
class Query:
    """A search as both surfaces ask for it."""

    text: str | None
    k: int
    filter: Filter | None = None
    mode: wire.Mode = "hybrid"
    vector: list[float] | str | None = None
    vector_model: str | None = None
    threshold: float | None = None
    superseded: bool = False


class Reading:
    """Everything that changes nothing.

    Args:
        teller: told how each search went.
    """

    def __init__(self, ledger: Ledger, embedder: Embedder, teller: RunTeller | None = None) -> None:
        self._teller = teller
        self._ledger = ledger
        self._embedder = embedder

    # --- traces

    def show(self, trace: Trace, *, duplicate: bool = False) -> wire.Trace:
        """A trace as it is now."""
        memory = self._ledger.memory
        model = self._embedder.model
        embedded = memory is not None and memory.index.has_vector(trace.id, model)
        return show_trace(trace, embedded=embedded, duplicate=duplicate)

    async def get(self, trace_id: str, version: int | None) -> wire.Trace:
        """A trace as it is now, or as one of its versions was.

        Raises:
            NotFound: there is no such trace or version, or the log has lost it.
        """
        trace = find_trace(self._ledger.get, trace_id)
        shown = self.show(trace)
        if version is None or version == trace.version:
            return shown
        if not 1 <= version <= trace.version:
            raise NotFound(f"Trace {trace.id} has versions 1 to {trace.version}, not {version}.")
        seq = trace.seqs[version - 1]
        write = (await self._ledger.read_writes([seq])).get(seq)
        if write is None:
            raise NotFound(
                f"Version {version} of trace {trace.id} is lost: the log is damaged there. "
                "GET /pathway/stats tells what else is.",
                details={"id": trace.id, "version": version},
            )
        return shown.model_copy(
            update={
                "version": version,
                "content": load_content(write.content),
                "tags": list(write.tags),
                "text": write.text,
                "hash": write.digest.hex(),
                "updated_at": format_time(write.at),
                "embedded": False,
            }
        )

    def list(
        self, limit: int, cursor: str | None, tag: str | None, status: wire.Status | None
    ) -> wire.TraceList:
        """Traces by their last change, newest first."""
        found: list[Trace] = []
        room = MAX_PAGE_BYTES
        for trace in self._behind(cursor):
            if (tag is None or tag in trace.tags) and (status is None or trace.status == status):
                if len(found) == limit or room <= 0:
                    last = found[-1]
                    more = f"{last.seq}.{last.id}"
                    return wire.TraceList(traces=[self.show(t) for t in found], cursor=more)
                found.append(trace)
                room -= len(trace.content)
        return wire.TraceList(traces=[self.show(t) for t in found])

    def _behind(self, cursor: str | None) -> Iterator[Trace]:
        memory = self._ledger.opened()
        if memory is None:
            return
        traces = memory.state.traces
        newest = (traces[name] for name in reversed(memory.state.order))
        if cursor is None:
            yield from newest
            return
        number, dot, last = cursor.partition(".")
        if not dot or not number.isdecimal() or len(number) > MAX_DIGITS:
            raise Invalid("cursor: take it from the answer before, as it is.")
        seq = int(number)
        shown = traces.get(last)
        if shown is not None and shown.seq == seq:
            # One that has not changed since stands where it stood, and so does all behind it.
            for trace in newest:
                if trace.id == last:
                    break
            yield from newest
        else:
            yield from (trace for trace in newest if trace.seq <= seq)

    async def history(self, trace_id: str, limit: int) -> wire.History:
        """A trace's past through what it supersedes, newest first."""
        trace = find_trace(self._ledger.get, trace_id)
        chain, stop = walk_back(trace.id, self._ledger.get)
        problems: list[str] = []
        cycle = None
        if stop in chain:
            cycle = [*chain[chain.index(stop) :], stop]
            problems.append(f"the data is damaged: {' -> '.join(cycle)} supersede in a cycle")
        elif stop is not None:
            problems.append(f"trace {stop}, which {chain[-1]} supersedes, is not in the log")
        entries: list[wire.HistoryEntry] = []
        truncated = False
        room = MAX_PAGE_BYTES
        steps = (step for name in chain for step in self._past(find_trace(self._ledger.get, name)))
        while some := list(islice(steps, min(_STEPS, limit + 1 - len(entries)))):
            writes = await self._ledger.read_writes([seq_of(*step) for step in some])
            for past, version in some:
                if len(entries) == limit or room <= 0:
                    truncated = True
                    break
                told, size = tell_step(past, version, writes)
                room -= size
                entries.append(told)
                if told.lost:
                    problems.append(f"version {told.version} of {past.id} is lost from the log")
            if truncated:
                break
        return wire.History(
            id=trace.id,
            chain=chain,
            entries=entries,
            cycle=cycle,
            truncated=truncated,
            problems=problems,
        )

    @staticmethod
    def _past(trace: Trace) -> Iterator[tuple[Trace, int]]:
        """Its versions, newest first; before them 0 for its retirement."""
        if trace.retired is not None:
            yield trace, 0
        for version in range(trace.version, 0, -1):
            yield trace, version

    # --- searches

    async def search(self, body: wire.PathwaySearch) -> wire.PathwayResults:
        """The best hits for a query, a vector, or a filter alone."""
        if self._teller is None:
            return await self._search(body)
        begun = time.perf_counter()
        found: wire.PathwayResults | None = None
        status, code = "ok", None
        try:
            found = await self._search(body)
            return found
        except BaseException as error:
            status, code = judge_failure(error)
            raise
        finally:
            shown = {} if found is None else {"hits": len(found.hits), "mode": found.mode}
            self._teller.tell(
                "pathway.search",
                since(begun),
                status=status,
                error=code,
                inputs_hash=hash_request(body.model_dump_json(exclude_defaults=True)),
                attributes={**shown, "degraded": found.degraded if found else None},
            )

    async def _search(self, body: wire.PathwaySearch) -> wire.PathwayResults:
        given = None if body.filter is None else read_filter(body.filter, resolve_field)
        query = Query(
            text=body.query,
            k=body.k,
            filter=given,
            mode=body.mode,
            vector=body.vector,
            vector_model=body.vector_model,
            threshold=body.threshold,
            superseded=body.include_superseded,
        )
        answer, semantic = await self.run(query)
        wanted = body.mode if body.query is not None or body.vector is not None else "filter"
        weight = self._ledger.section.semantic_weight
        explain = await load_room("explaining")
        hits = [
            explain.show_hit(found, rank, answer, weight, full=body.explain)
            for rank, found in enumerate(answer.found, start=1)
        ]
        return wire.PathwayResults(
            hits=hits,
            mode=answer.mode,
            degraded=semantic.status == "unavailable" and wanted != "lexical",
            semantic=semantic,
            matched=answer.matched,
        )

    async def run(self, query: Query) -> tuple[Answer, wire.SemanticState]:
        """Searches; gives the answer and how meaning took part.

        Raises:
            Invalid, TooLarge: the query cannot be answered.
        """
        self._check(query)
        memory = self._ledger.opened()
        search = await load_room("search")
        vector, model, semantic = await self._find_vector(query)
        self._ledger.figures.searches.inc()
        if memory is None:
            return search.Answer((), 0, "filter", (), 0.0), semantic
        by_words = query.mode != "semantic" or vector is None
        ask = search.Ask(
            text=query.text if by_words else None,
            vector=vector,
            model=model,
            k=query.k,
            filter=query.filter,
            weight=self._ledger.section.semantic_weight,
            superseded=query.superseded,
            threshold=query.threshold,
        )
        pool = self._ledger.search_pool
        return await pool.run(search.search_view, memory.index.view(), ask), semantic

    def _check(self, query: Query) -> None:
        most = self._ledger.section.max_k
        if query.k > most:
            raise Invalid(f"k: {query.k} hits; at most {most}. Narrow the filter, or ask again.")
        if query.text is not None and not query.text.strip():
            raise Invalid("query: it is empty. Leave it out to list what filter keeps.")
        if query.text is not None and len(query.text) > MAX_QUERY_CHARS:
            raise TooLarge(f"query: {len(query.text)} characters; at most {MAX_QUERY_CHARS}.")
        if query.text is None and query.vector is None and query.filter is None:
            raise Invalid("Give a query, a vector, or a filter.")
        if query.mode == "lexical" and query.text is None and query.vector is not None:
            raise Invalid("mode lexical goes by words: give a query.")

    async def _find_vector(self, query: Query) -> tuple[Any, str | None, wire.SemanticState]:
        if query.mode == "lexical" or (query.text is None and query.vector is None):
            return None, None, _WITHOUT
        vectors = await load_room("vectors")
        try:
            if query.vector is not None:
                vector = vectors.read_vector(query.vector)
                model, dim = await self._embedder.find_space()
                check_model(query.vector_model, model)
                check_length(len(vector), model, dim)
            else:
                assert query.text is not None
                if self._ledger.memory is None:
                    return None, None, _WITHOUT
                model, made = await self._embedder.embed_query(query.text)
                vector = vectors.read_vector(made)
        except LakehouseError as error:
            if query.text is None or query.vector is not None:
                raise
            self._ledger.figures.degraded.inc()
            state = self._embedder.describe()
            return (
                None,
                None,
                state.model_copy(update={"status": "unavailable", "reason": error.message}),
            )
        state = self._embedder.describe()
        return (
            vectors.unit_query(vector),
            model,
            state.model_copy(
                update={"status": "partial" if state.pending else "ok", "model": model}
            ),
        )

    async def explain_hit(self, found: Found, answer: Answer) -> wire.Explanation:
        """How the score of a hit came about."""
        explain = await load_room("explaining")
        weight = self._ledger.section.semantic_weight
        return explain.explain_hit(found, answer, weight)

    # --- figures

    def stats(self) -> wire.PathwayStats:
        """Figures for people."""
        ledger = self._ledger
        if ledger.status == "loading":
            return wire.PathwayStats(status="loading", vectors=_WITHOUT)
        memory = ledger.memory
        counts = memory.state.counts if memory else {}
        problems = [*ledger.problems, *([ledger.failure] if ledger.failure else [])]
        if memory is not None and memory.state.orphans:
            problems.append(f"{memory.state.orphans} records speak of traces that are lost")
        return wire.PathwayStats(
            status="failed" if ledger.failure else "ready",
            **counts,
            vectors=self._embedder.describe(),
            unembeddable=len(self._embedder.refused),
            memory_bytes=memory.index.measure() if memory else {},
            log=ledger.describe_log(),
            problems=problems,
        )
