"""Whatever was recorded, retired and restarted in whatever order: what is in force decides."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from services.matrixd.core.cold import ColdList
from services.matrixd.core.episodes import Entry
from services.matrixd.core.playbook import Episode, Playbook
from services.matrixd.store.figures import Figures
from services.matrixd.store.memory import Memory
from shared.pool import BlockingPool
from tests.unit.test_matrixd_routing import Twins

MODEL = "m"
EPISODES = 44
Asked = tuple[str, np.ndarray, ColdList]


@cache
def make_world() -> tuple[list[Episode], list[Asked]]:
    """Episodes of two sources over two corpora, so that trust and routing take part; questions."""
    twins = Twins()
    episodes = [
        replace(
            twins.episode(n, n % 15, n % 2, flips=0.3 if n % 4 == 3 else 0.0),
            source="careless" if n % 4 == 3 else "judge",
        )
        for n in range(EPISODES)
    ]
    asked = [(each.query, each.vector, twins.search(each.vector)) for each in episodes[:3]]
    for need in (4, 14, 30, 50):
        text, vector = twins.ask(need, need % 2)
        asked.append((text, vector.astype(np.float32), twins.search(vector)))
    return episodes, asked


@dataclass
class Run:
    """A memory on disk that is put through a sequence, beside what must be in force in it."""

    folder: Path
    memory: Memory = field(init=False)
    pool: BlockingPool = field(init=False)
    in_force: dict[str, Episode] = field(default_factory=dict[str, Episode])
    times: dict[int, int] = field(default_factory=dict[int, int])

    async def start(self) -> None:
        self.pool = BlockingPool("test", 2, 100)
        self.memory = Memory(self.folder, self.pool, Figures(CollectorRegistry()), lambda: "t")
        await self.memory.open()
        await self.memory.prepare()

    async def stop(self) -> None:
        await self.memory.aclose()
        self.pool.close()

    async def record(self, number: int) -> None:
        """Records one of the episodes; again only when it was retired meanwhile."""
        episode = make_world()[0][number]
        name = f"{episode.id}.{self.times.get(number, 0)}"
        found = await self.memory.add(
            Entry(
                id=name,
                seq=0,
                basis=name,
                body=name,
                query=episode.query,
                ratings=(),
                source=episode.source,
                run_id=None,
                corpora=("people", "titles"),
                models=(MODEL,),
                recorded_at="t",
            ),
            {MODEL: replace(episode, id=name)},
        )
        self.in_force[name] = replace(episode, id=name, seq=found.seq)

    async def retire(self, numbers: set[int]) -> None:
        names = [f"{make_world()[0][n].id}.{self.times.get(n, 0)}" for n in sorted(numbers)]
        gone = [name for name in names if name in self.in_force]
        for number, name in zip(sorted(numbers), names, strict=True):
            if self.in_force.pop(name, None) is not None:
                self.times[number] = self.times.get(number, 0) + 1
        if gone:
            await self.memory.retire([*gone, "nobody"], "why")

    async def describe(self) -> Any:
        return await self.memory.describe(list(self.memory.entries))

    def tell(self) -> list[Any]:
        """What it answers, to the bit, and what it holds its own notes to lose."""
        told: list[Any] = []
        for text, vector, cold in make_world()[1]:
            found = self.memory.rerank(MODEL, text, vector.tolist(), cold, True)
            refs, scores = (found.refs, found.scores) if found else (cold.refs, cold.p0)
            more = (found.activated, found.notes, found.moves, found.routing) if found else None
            told.append((refs, scores.tobytes(), more))
        for playbook in self.memory._playbooks.values():
            sample = playbook._measure_sample()
            told.append([(losses.tobytes(), clarity) for losses, clarity in sample])
        return told

    def expect(self) -> list[Any]:
        """What a playbook made of nothing but what is in force answers."""
        other = Run(self.folder)
        other.memory = Memory(self.folder, self.pool, Figures(CollectorRegistry()), lambda: "t")
        other.memory.entries = self.memory.entries
        made = Playbook.build(self.in_force.values())
        other.memory._playbooks = {(MODEL, len(make_world()[1][0][1])): made}
        return other.tell()


numbers = st.integers(0, EPISODES - 1)
steps = st.one_of(
    st.tuples(st.just("record"), st.lists(numbers, min_size=1, max_size=9)),
    st.tuples(st.just("together"), st.lists(numbers, min_size=2, max_size=9, unique=True)),
    st.tuples(st.just("retire"), st.sets(numbers, min_size=1, max_size=12)),
    st.tuples(st.just("both"), st.lists(numbers, min_size=2, max_size=8, unique=True)),
    st.tuples(st.just("ask"), st.none()),
    st.tuples(st.just("restart"), st.none()),
)


async def play(
    folder: Path, sequence: list[tuple[str, Any]]
) -> AsyncGenerator[tuple[str, Any, Any]]:
    """Plays a sequence; gives what is found after it, and what must be."""
    run = Run(folder)
    await run.start()
    try:
        # Enough for a router, which is the part that is not learnt at each change.
        for number in range(14):
            await run.record(number)
        for what, of in sequence:
            if what == "record":
                for number in of:
                    await run.record(number)
                    run.tell()  # what was worked out on the way must not show in the end
            elif what == "together":
                await asyncio.gather(*(run.record(number) for number in of))
            elif what == "retire":
                await run.retire(of)
            elif what == "both":
                half = len(of) // 2
                await asyncio.gather(
                    run.retire(set(of[:half])), *(run.record(number) for number in of[half:])
                )
            elif what == "ask":
                run.tell()
            else:
                await run.stop()
                await run.start()
        yield "nothing else shows", run.tell(), run.expect()
        told, described, entries = run.tell(), await run.describe(), run.memory.entries
        await run.stop()
        await run.start()
        yield "a restart: entries", run.memory.entries, entries
        yield "a restart: answers", run.tell(), told
        yield "a restart: notes", await run.describe(), described
        await run.memory.retire(list(run.in_force), "all")
        colds = [(cold.refs, cold.p0.tobytes()) for _, _, cold in make_world()[1]]
        yield "all retired: answers", [each[:2] for each in run.tell()], [*colds, []]
        yield "all retired: notes", await run.describe(), ({}, {})
    finally:
        await run.stop()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps, max_size=8))
def test_only_what_is_in_force_decides_whatever_came_before(
    sequence: list[tuple[str, Any]],
) -> None:
    async def compare(folder: Path) -> list[str]:
        return [what async for what, found, wanted in play(folder, sequence) if found != wanted]

    with tempfile.TemporaryDirectory() as folder:
        assert asyncio.run(compare(Path(folder))) == []
