"""What jobs lean on: patience with peers that are away, a state that is kept or not changed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import cast

import pytest

from services.matrixd.core.corpora import State
from services.matrixd.store.corpus import Corpus
from services.matrixd.store.ledger import Ledger
from services.matrixd.store.peers import Patience
from shared.errors import InsufficientStorage, Unavailable
from shared.pool import BlockingPool
from shared.wire.matrixd import CorpusSpec, Job, Tuning

pytestmark = pytest.mark.anyio


async def test_patience_begins_with_the_first_failure() -> None:
    told: list[str | None] = []
    tries = 0

    async def work() -> str:
        nonlocal tries
        tries += 1
        if tries == 1:
            # Longer than the patience, and only then does the peer go away.
            await asyncio.sleep(0.4)
            raise Unavailable("away")
        return "done"

    assert await Patience(0.3, told.append).call(work) == "done"
    assert told == ["away", None]


async def test_patience_ends() -> None:
    async def work() -> str:
        raise Unavailable("away")

    with pytest.raises(Unavailable, match="away"):
        await Patience(0.15, lambda _: None).call(work)


class FullDisk:
    """A ledger that can keep nothing."""

    def keep(self, *_: object) -> None:
        raise InsufficientStorage("full")


@pytest.fixture
def pool() -> Iterator[BlockingPool]:
    made = BlockingPool("test", 1, 10)
    yield made
    made.close()


async def test_a_state_that_cannot_be_kept_is_not_changed(pool: BlockingPool) -> None:
    spec = CorpusSpec.model_validate(
        {"name": "w", "source": {"dataset": "w"}, "id": "id", "text": "text"}
    )
    state = State(job=Job(status="done"), created_at="t")
    corpus = Corpus("uid", spec, state, cast("Ledger", FullDisk()), pool)
    with pytest.raises(InsufficientStorage):
        await corpus.save(tuning=Tuning(lexical=3.0), job=Job())
    assert corpus.state == state
