"""mem0's surface over traces: PUT is an update, DELETE a retirement, history the versions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Literal

import orjson

from services.pathwayd.core import memories as rules
from services.pathwayd.core.facts import leave_out, list_sayings
from services.pathwayd.core.fields import read_filter
from services.pathwayd.core.traces import Trace, format_time
from services.pathwayd.store.claims import Claims
from services.pathwayd.store.facts import FactFinder
from services.pathwayd.store.ledger import Ledger
from services.pathwayd.store.reading import MAX_PAGE, Query, Reading
from services.pathwayd.store.service import Service
from shared.errors import Forbidden, Invalid, NotFound, TooLarge
from shared.filters.language import MAX_OPTIONS
from shared.wire import pathwayd_mem0 as wire
from shared.wire.pathwayd import TraceAdd, TraceRetire, TraceUpdate

TOP_K = 20
THRESHOLD = 0.1


class Memories:
    """What the mem0 routes call."""

    def __init__(
        self, ledger: Ledger, service: Service, reading: Reading, finder: FactFinder
    ) -> None:
        self._finder = finder
        # The keys of requests for which a model is being asked.
        self._asking = Claims()
        self._ledger = ledger
        self._service = service
        self._reading = reading

    async def add(self, body: wire.MemoryAdd, key: str | None) -> wire.MemoriesAdded:
        """One memory for each message as it stands, or for each fact in them with `infer`.

        Raises:
            Invalid: nobody's memories are meant, or there is nothing to remember.
            Unavailable: facts are to be extracted, and no chat model does.
        """
        entities = rules.read_entities(body.model_dump(include=set(rules.ENTITIES)))
        messages = body.messages
        if isinstance(messages, str):
            messages = [wire.Message(role="user", content=messages)]
        # As in mem0: instructions to a model are nobody's memory.
        kept = [m for m in messages if m.role != "system" and m.content.strip()]
        if not kept:
            raise Invalid("messages: none of them has a content to remember.")
        # What was recalled is not remembered again: it would grow with each recall.
        kept = [m for m in kept if not m.recalled]
        if body.infer:
            return await self._add_facts(body, entities, kept, key)
        adds = [
            TraceAdd(
                content=rules.build_content(
                    m.content, entities, body.metadata, body.expiration_date, m.role, m.name
                ),
                tags=["mem0"],
                text=m.content,
            )
            for m in kept
        ]
        done = await self._service.add(adds, key, "mem0") if adds else []
        return wire.MemoriesAdded(
            results=[
                wire.MemoryEvent(
                    id=one.trace.id, memory=m.content, event="ADD", role=m.role, actor_id=m.name
                )
                for one, m in zip(done, kept, strict=True)
            ]
        )

    async def _add_facts(
        self,
        body: wire.MemoryAdd,
        entities: Mapping[str, str],
        messages: Sequence[wire.Message],
        key: str | None,
    ) -> wire.MemoriesAdded:
        # Checked before a model is asked, which takes long.
        size, most = sum(len(m.content) for m in messages), self._ledger.section.max_content_bytes
        if size > most:
            raise TooLarge(
                f"messages: {size} characters; facts are extracted from {most} at once. "
                "Send them in several requests.",
                details={"limit": most},
            )
        rules.build_content("", entities, body.metadata, body.expiration_date)
        async with self._asking.hold([] if key is None else [key]):
            # A model may say it otherwise the second time; the key goes with what was asked.
            earlier = self._service.find_earlier(key, body, "mem0")
            if earlier:
                return wire.MemoriesAdded(results=[show_event(trace, "ADD") for trace in earlier])
            recalled = await self._find_recalled(messages, entities)
            said = leave_out_all(messages, recalled)
            facts = await self._finder.find(said) if said else []
            # What is known already is not another memory: so a request without a key can be
            # repeated too.
            known = {fact: await self._find_known(fact, entities) for fact in facts}
            fresh = [fact for fact in facts if known[fact] is None]
            adds = [
                TraceAdd(
                    content=rules.build_content(
                        fact, entities, body.metadata, body.expiration_date
                    ),
                    tags=["mem0"],
                    text=fact,
                    # Of two requests at once the second has it from the first.
                    dedupe=True,
                )
                for fact in fresh
            ]
            done = await self._service.add(adds, key, "mem0", told=body) if adds else []
        made = dict(zip(fresh, done, strict=True))
        results = [show_event(trace, "NONE") for trace in recalled]
        for fact in facts:
            trace = known[fact]
            if trace is not None:
                results.append(show_event(trace, "NONE"))
            else:
                one = made[fact]
                results.append(show_event(one.trace, "NONE" if one.duplicate else "ADD"))
        return wire.MemoriesAdded(results=results)

    async def _find_recalled(
        self, messages: Sequence[wire.Message], entities: Mapping[str, str]
    ) -> list[Trace]:
        """The memories of the same owners that stand in the messages word for word.

        A model that was shown memories repeats them, and its client may not mark that.
        """
        sayings = {saying for m in messages for saying in list_sayings(m.content)}
        hashes = [rules.hash_memory(saying) for saying in islice(sayings, MAX_OPTIONS)]
        owners = [{name: value} for name, value in entities.items()]
        given = rules.restrict(
            read_filter({"hash": {"in": hashes}, "OR": owners}, rules.resolve_field),
            self._ledger.now_us(),
            expired=True,
        )
        answer, _ = await self._reading.run(Query(None, self._ledger.section.max_k, given))
        return [found.trace for found in answer.found]

    async def _find_known(self, fact: str, entities: Mapping[str, str]) -> Trace | None:
        filters = rules.with_entities({"hash": rules.hash_memory(fact)}, entities)
        given = rules.restrict(
            read_filter(filters, rules.resolve_field), self._ledger.now_us(), expired=False
        )
        answer, _ = await self._reading.run(Query(None, 1, given))
        return answer.found[0].trace if answer.found else None

    async def list(self, query: wire.ListQuery) -> wire.Memories:
        """Somebody's memories, newest first."""
        entities = rules.read_entities(query.model_dump())
        given = rules.restrict(
            rules.owned_by(entities), self._ledger.now_us(), expired=query.show_expired
        )
        answer, _ = await self._reading.run(Query(None, self._check_top(query.top_k), given))
        return wire.Memories(results=[show_memory(found.trace) for found in answer.found])

    def get(self, memory_id: str) -> wire.Memory:
        """One memory.

        Raises:
            NotFound: there is none of this id, or it was deleted.
        """
        return show_memory(self._find(memory_id))

    async def search(self, body: wire.MemorySearch) -> wire.Memories:
        """Somebody's memories that fit a query."""
        beside = body.model_dump(include=set(rules.ENTITIES))
        entities = rules.read_entities(beside) if any(beside.values()) else {}
        filters = rules.with_entities(body.filters, entities)
        given = read_filter(filters, rules.resolve_field, wildcard=True)
        rules.check_owned(given)
        query = Query(
            text=body.query,
            k=self._check_top(body.top_k or body.limit or TOP_K),
            filter=rules.restrict(given, self._ledger.now_us(), expired=body.show_expired),
            threshold=THRESHOLD if body.threshold is None else body.threshold,
        )
        answer, semantic = await self._reading.run(query)
        results: list[wire.Memory] = []
        for found in answer.found:
            more: dict[str, Any] = {"score": found.score}
            if body.explain:
                details = await self._reading.explain_hit(found, answer)
                more["score_details"] = details.model_dump()
            results.append(show_memory(found.trace).model_copy(update=more))
        return wire.Memories(results=results, semantic=semantic.status)

    async def update(self, memory_id: str, body: wire.MemoryUpdate, key: str | None) -> wire.Said:
        """Changes what is given of a memory: a new version."""
        text = body.text if body.text is not None else body.data
        if text is None and body.metadata is None and body.expiration_date is None:
            raise Invalid("Give text, metadata or expiration_date.")
        if text is not None and not text.strip():
            raise Invalid("text: it is empty. DELETE the memory to be rid of it.")
        trace = self._find(memory_id)
        content = rules.change_content(
            orjson.loads(trace.content), text, body.metadata, body.expiration_date
        )
        # Of two changes at once one is told to try again, so that neither undoes the other.
        update = TraceUpdate(
            content=content, text=content["memory"], expected_version=trace.version
        )
        await self._service.update(memory_id, update, None, key, body, "mem0")
        return wire.Said(message="Memory updated successfully!")

    async def history(self, memory_id: str) -> Sequence[wire.MemoryHistory]:
        """A memory's newest changes, oldest first; a deleted one keeps its history."""
        created = format_time(self._find(memory_id, deleted=True).created)
        # One more than is told, so that the first row knows what was there before it.
        past = await self._reading.history(memory_id, limit=MAX_PAGE + 1)
        entries = past.entries[::-1]
        rows: list[wire.MemoryHistory] = []
        before: Mapping[str, Any] = {}
        if past.truncated or len(entries) > MAX_PAGE:
            oldest = entries.pop(0).content
            before = oldest if isinstance(oldest, dict) else {}
        for entry in entries:
            now: Mapping[str, Any] = entry.content if isinstance(entry.content, dict) else {}
            deleted = entry.event == "retire"
            event = "DELETE" if deleted else "ADD" if entry.event == "add" else "UPDATE"
            rows.append(
                wire.MemoryHistory(
                    id=f"{memory_id}:{entry.version}{':deleted' if deleted else ''}",
                    memory_id=memory_id,
                    old_memory=before.get("memory"),
                    new_memory=None if deleted else now.get("memory"),
                    event=event,
                    created_at=created,
                    updated_at=entry.at,
                    is_deleted=deleted,
                    actor_id=now.get("actor_id"),
                    role=now.get("role"),
                )
            )
            before = now
        return rows

    async def delete(self, memory_id: str) -> wire.Said:
        """Deletes a memory; its history stays. Deleting it twice is harmless."""
        self._find(memory_id, deleted=True)
        await self._service.retire(memory_id, TraceRetire(reason="deleted"), None)
        return wire.Said(message="Memory deleted successfully!")

    async def delete_all(self, given: Mapping[str, str | None]) -> wire.Said:
        """Deletes all memories of somebody, together."""
        entities = rules.read_entities(given)
        await self._retire(
            lambda content: all(content.get(n) == v for n, v in entities.items()), "deleted"
        )
        return wire.Said(message="All relevant memories deleted")

    async def reset(self) -> wire.Said:
        """Deletes all memories of everybody; traces of the pathway routes stay.

        Raises:
            Forbidden: the operator switched it off.
        """
        if not self._ledger.section.mem0_reset:
            raise Forbidden("POST /mem0/reset is switched off here ([pathwayd] mem0_reset).")
        await self._retire(lambda _: True, "reset")
        return wire.Said(message="All memories reset")

    async def _retire(self, chosen: Callable[[dict[str, Any]], bool], reason: str) -> None:
        memory = self._ledger.opened()
        held = list(memory.state.traces.values()) if memory else []
        names = await self._ledger.search_pool.run(choose_memories, held, chosen)
        await self._service.retire_all(names, reason)

    def _check_top(self, top_k: int) -> int:
        most = self._ledger.section.max_k
        if top_k > most:
            raise Invalid(f"top_k: {top_k} memories; at most {most}. Narrow the filters.")
        return top_k

    def _find(self, memory_id: str, *, deleted: bool = False) -> Trace:
        trace = self._ledger.get(memory_id)
        if trace is None or trace.surface != "mem0" or (trace.retired and not deleted):
            raise NotFound(
                f"There is no memory {json.dumps(memory_id[:200])}. GET /mem0/memories?user_id=… "
                "lists somebody's.",
                details={"id": memory_id[:200]},
            )
        return trace


def choose_memories(held: Sequence[Trace], chosen: Callable[[dict[str, Any]], bool]) -> list[str]:
    """The ids of the memories whose contents are chosen; takes a while, so not on the loop."""
    alive = (trace for trace in held if trace.surface == "mem0" and trace.retired is None)
    return [trace.id for trace in alive if chosen(orjson.loads(trace.content))]


def leave_out_all(
    messages: Sequence[wire.Message], recalled: Sequence[Trace]
) -> list[wire.Message]:
    """The messages without what is a memory already; those of which nothing is left go."""
    texts = {orjson.loads(trace.content)["memory"].strip() for trace in recalled}
    left = [m.model_copy(update={"content": leave_out(m.content, texts)}) for m in messages]
    return [m for m in left if m.content.strip()]


def show_event(trace: Trace, event: Literal["ADD", "NONE"]) -> wire.MemoryEvent:
    """What became of a fact."""
    memory = orjson.loads(trace.content)["memory"]
    return wire.MemoryEvent(id=trace.id, memory=memory, event=event)


def show_memory(trace: Trace) -> wire.Memory:
    """A trace as mem0's clients know it."""
    content = orjson.loads(trace.content)
    return wire.Memory(
        id=trace.id,
        memory=content["memory"],
        hash=content["hash"],
        created_at=format_time(trace.created),
        updated_at=format_time(trace.updated) if trace.version > 1 else None,
        metadata=content["metadata"] or None,
        user_id=content.get("user_id"),
        agent_id=content.get("agent_id"),
        run_id=content.get("run_id"),
        actor_id=content.get("actor_id"),
        role=content.get("role"),
        expiration_date=content.get("expiration_date"),
    )
