"""Changes to traces: checked, made durable, applied, answered.

Whatever a change depends on (its trace, its Idempotency-Key, its content) is claimed before
it is looked at, so that of two at once the second sees what the first has done. A caller
who goes away does not stop a change that has begun.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from services.pathwayd.core.content import check_unicode
from services.pathwayd.core.drafts import (
    Draft,
    check_length,
    check_model,
    is_same,
    make_draft,
    make_key,
    number_key,
    to_write,
)
from services.pathwayd.core.records import Key, Retire, Vector, Write
from services.pathwayd.core.traces import (
    Surface,
    Trace,
    check_changeable,
    check_new_id,
    check_version,
    find_trace,
)
from services.pathwayd.store.claims import Claims
from services.pathwayd.store.embedder import Embedder
from services.pathwayd.store.ledger import Ledger
from services.pathwayd.store.rooms import load_room
from shared.errors import Conflict, TooLarge
from shared.wire.pathwayd import (
    TraceAdd,
    TraceRetire,
    TraceRevise,
    TraceUpdate,
    WithVector,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Done:
    """What a change came to. `duplicate`: it had been carried out before."""

    trace: Trace
    duplicate: bool
    embedded: bool


class Service:
    """What the routes call to change something."""

    def __init__(self, ledger: Ledger, embedder: Embedder) -> None:
        self.ledger = ledger
        self.embedder = embedder
        self._section = ledger.section
        self._claims = Claims()
        self._running: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """Waits for the changes under way."""
        await asyncio.gather(*self._running, return_exceptions=True)

    # --- changes

    async def add(
        self,
        bodies: Sequence[TraceAdd],
        key: str | None,
        surface: Surface = "pathway",
        told: BaseModel | None = None,
    ) -> list[Done]:
        """Adds traces. Each of several has the request's key with its number.

        `told` is the request that the key goes with, where `bodies` do not follow from it alone;
        then ask `find_earlier` first whether it was carried out.

        Raises:
            Conflict: an id is taken, or a key was used for another request.
            Invalid, TooLarge: one cannot be kept; none is.
        """
        if len(bodies) > self._section.max_batch:
            raise TooLarge(
                f"{len(bodies)} traces at once; at most {self._section.max_batch}. "
                "Send them in several requests.",
                details={"limit": self._section.max_batch},
            )
        made = make_key(key, surface, *((told,) if told else bodies))
        drafts = [
            await self._draft(body, number_key(made, number)) for number, body in enumerate(bodies)
        ]
        done = await self._unbroken(self._add(drafts, surface))
        return await self._with_vectors(done)

    def find_earlier(
        self, key: str | None, told: BaseModel, surface: Surface = "pathway"
    ) -> list[Trace]:
        """The traces that an earlier request with this key has added; none without one.

        Raises:
            Conflict: that request was another one.
        """
        made = make_key(key, surface, told)
        found: list[Trace] = []
        while (trace := self._find_done(number_key(made, len(found)))) is not None:
            found.append(trace)
        return found

    async def update(
        self,
        trace_id: str,
        body: TraceUpdate,
        if_match: str | None,
        key: str | None,
        told: BaseModel | None = None,
        surface: Surface = "pathway",
    ) -> Done:
        """Writes the next version of a trace in place.

        `told` is the request that the key goes with, where that is not `body`.

        Raises:
            NotFound, Conflict, PreconditionFailed: as the checks in `core.traces`.
        """
        draft = await self._draft(body, make_key(key, f"update {trace_id}", told or body))
        changed = self._unbroken(
            self._update(trace_id, draft, body.expected_version, if_match, surface)
        )
        return (await self._with_vectors([await changed]))[0]

    async def revise(
        self, trace_id: str, body: TraceRevise, if_match: str | None, key: str | None
    ) -> Done:
        """Adds a trace that takes the place of another.

        Raises:
            Conflict: that one is retired or superseded, or the new id would close a cycle.
        """
        draft = await self._draft(body, make_key(key, f"revise {trace_id}", body))
        changed = self._unbroken(self._revise(trace_id, draft, body.expected_version, if_match))
        return (await self._with_vectors([await changed]))[0]

    async def retire(self, trace_id: str, body: TraceRetire, if_match: str | None) -> Done:
        """Retires a trace; one that is retired already stays as it is."""
        if body.reason is not None:
            check_unicode(body.reason, "reason")
        return await self._unbroken(self._retire(trace_id, body, if_match))

    async def retire_all(self, trace_ids: Sequence[str], reason: str) -> None:
        """Retires traces together: all of them or none."""
        await self._unbroken(self._retire_all(trace_ids, reason))

    # --- inside, each in a task of its own

    async def _add(self, drafts: Sequence[Draft], surface: Surface) -> list[Done]:
        async with self._claims.hold(name for draft in drafts for name in draft.claims):
            memory = self.ledger.opened()
            state = memory.state if memory else None
            writes: dict[str, Write] = {}
            fresh: dict[bytes, str] = {}
            results: list[Done | str] = []
            now = self.ledger.now_us()
            for draft in drafts:
                known = self._find_done(draft.key)
                if known is None and draft.dedupe:
                    same = fresh.get(draft.digest)
                    if same is not None:
                        results.append(same)
                        continue
                    known = state.find_content(draft.digest) if state else None
                if known is None and draft.id is not None:
                    taken = self.ledger.get(draft.id)
                    if taken is not None and is_same(taken, draft):
                        known = taken
                    elif draft.id in writes:
                        raise Conflict(f"The id {draft.id} comes twice in this request.")
                    else:
                        check_new_id(draft.id, None, self.ledger.get)
                if known is not None:
                    results.append(self._done(known, duplicate=True))
                    continue
                write = to_write(draft, draft.id or str(uuid.uuid4()), now, surface)
                writes[write.id] = write
                fresh[draft.digest] = write.id
                results.append(write.id)
            await self._commit(list(writes.values()))
            first: set[str] = set()
            return [self._settle_result(one, first) for one in results]

    def _settle_result(self, one: Done | str, first: set[str]) -> Done:
        if isinstance(one, Done):
            return one
        repeat = one in first
        first.add(one)
        return self._done(find_trace(self.ledger.get, one), duplicate=repeat)

    async def _update(
        self,
        trace_id: str,
        draft: Draft,
        expected: int | None,
        if_match: str | None,
        surface: Surface,
    ) -> Done:
        async with self._claims.hold([*draft.claims, f"id {trace_id}"]):
            known = self._find_done(draft.key)
            if known is not None:
                return self._done(known, duplicate=True)
            before = find_trace(self.ledger.get, trace_id)
            check_changeable(before, "updated", surface)
            check_version(before, expected, if_match)
            write = to_write(draft, trace_id, self.ledger.now_us(), before.surface, before)
            await self._commit([write])
            return self._done(find_trace(self.ledger.get, trace_id))

    async def _revise(
        self, trace_id: str, draft: Draft, expected: int | None, if_match: str | None
    ) -> Done:
        async with self._claims.hold([*draft.claims, f"id {trace_id}"]):
            known = self._find_done(draft.key)
            if known is not None:
                return self._done(known, duplicate=True)
            before = find_trace(self.ledger.get, trace_id)
            if draft.id is not None:
                taken = self.ledger.get(draft.id)
                repeats = taken is not None and taken.supersedes == trace_id
                if taken is not None and repeats and is_same(taken, draft, before.tags):
                    return self._done(taken, duplicate=True)
                check_new_id(draft.id, before, self.ledger.get)
            check_changeable(before, "revised", "pathway")
            check_version(before, expected, if_match)
            name = draft.id or str(uuid.uuid4())
            tags = before.tags if draft.tags is None else draft.tags
            now = self.ledger.now_us()
            write = to_write(draft, name, now, before.surface, None, tags, trace_id)
            await self._commit([write])
            return self._done(find_trace(self.ledger.get, name))

    async def _retire(self, trace_id: str, body: TraceRetire, if_match: str | None) -> Done:
        async with self._claims.hold([f"id {trace_id}"]):
            before = find_trace(self.ledger.get, trace_id)
            if before.retired is not None:
                return self._done(before, duplicate=True)
            check_version(before, body.expected_version, if_match)
            await self.ledger.commit([Retire((trace_id,), self.ledger.now_us(), body.reason)])
            self.embedder.forget([trace_id])
            return self._done(find_trace(self.ledger.get, trace_id))

    async def _retire_all(self, trace_ids: Sequence[str], reason: str) -> None:
        async with self._claims.hold(f"id {name}" for name in trace_ids):
            live = [t.id for t in map(self.ledger.get, trace_ids) if t and t.retired is None]
            if live:
                await self.ledger.commit([Retire(tuple(live), self.ledger.now_us(), reason)])
                self.embedder.forget(live)

    async def _commit(self, writes: Sequence[Write]) -> None:
        if writes:
            await self.ledger.commit(writes)
            self.embedder.add([write.id for write in writes if write.vector is None])

    async def _unbroken(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    # --- parts

    async def _draft(self, body: TraceAdd | TraceUpdate | TraceRevise, key: Key | None) -> Draft:
        limit = self._section.max_content_bytes
        return make_draft(body, limit, await self._read_vector(body), key)

    async def _read_vector(self, body: WithVector) -> Vector | None:
        if body.vector is None:
            return None
        vectors = await load_room("vectors")
        vector = vectors.read_vector(body.vector)
        model, dim = await self.embedder.find_space()
        check_model(body.vector_model, model)
        check_length(len(vector), model, dim)
        return Vector(model, vector.tobytes())

    def _find_done(self, key: Key | None) -> Trace | None:
        """The trace of an earlier request with this key.

        Raises:
            Conflict: that request was another one.
        """
        memory = self.ledger.opened()
        if key is None or memory is None or key.name not in memory.state.keys:
            return None
        digest, trace_id = memory.state.keys[key.name]
        if digest != key.digest:
            raise Conflict(
                f"The Idempotency-Key {key.name!r} was used for another request. "
                "Use a new key for a new request.",
                details={"id": trace_id},
            )
        return memory.state.get(trace_id)

    def _done(self, trace: Trace, *, duplicate: bool = False) -> Done:
        return Done(trace, duplicate, self.has_vector(trace))

    def has_vector(self, trace: Trace) -> bool:
        """Whether meaning finds a trace now."""
        memory = self.ledger.memory
        return memory is not None and memory.index.has_vector(trace.id, self.embedder.model)

    async def _with_vectors(self, done: Sequence[Done]) -> list[Done]:
        await self.embedder.wait_for([one.trace.id for one in done if not one.embedded])
        return [Done(one.trace, one.duplicate, self.has_vector(one.trace)) for one in done]
