"""The provider inside embedd: batches of the local model in a few threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from services.embedd.core.lru import Entry
from services.embedd.core.names import Wanted, make_id
from services.embedd.core.wordpiece import Encoding
from services.embedd.store.figures import LaneFigures
from services.embedd.store.lane import Lane
from services.embedd.store.minilm import (
    DIM,
    MAX_TOKENS,
    RECIPE,
    MiniLM,
)
from services.embedd.store.provider import Model
from shared.errors import Invalid, NotFound
from shared.heap import return_freed_memory
from shared.pool import BlockingPool
from shared.sections.embed import LocalEmbedder
from shared.wire.embedd import EmbedModel

# Text that is tokenised on the spot rather than in a thread: well under a millisecond, which
# the way to a thread and back takes as well. Characters.
LIGHT_CHARS = 2_000
# After so long without a batch the C library gives back what batches left free: up to half
# of the daemon's memory, in a few milliseconds.
TIDY_AFTER_S = 2.0
# Calls that the pools hold at most; the queue of texts is bounded elsewhere.
POOL_QUEUE = 10_000


class LocalProvider:
    """Runs one MiniLM. ONNX releases the interpreter while it computes; threads are enough."""

    def __init__(self, name: str, section: LocalEmbedder, model: MiniLM) -> None:
        self.name = name
        self._section = section
        self._model = model
        self._id = make_id(name, section.model, section.sha256)
        self._compute = BlockingPool(f"embedd-{name}", section.threads, POOL_QUEUE)
        # Of its own: tokenising never waits for a batch under way.
        self._tokenise = BlockingPool(f"embedd-{name}-tokens", 1, POOL_QUEUE)
        self._runtime: str | None = None
        self._tidy_at: asyncio.TimerHandle | None = None
        self._tidying: asyncio.Task[None] | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """The one model it runs."""
        return (self._section.model,)

    async def start(self) -> None:
        """Loads the model when so configured.

        Raises:
            Unavailable: it is to be loaded and cannot be.
        """
        if self._section.preload:
            await self._compute.run(self._model.load)

    async def resolve(self, wanted: Wanted, dimensions: int | None) -> Model:
        """The model, if it is the one that is wanted."""
        if wanted.model != self._section.model:
            raise NotFound(
                f"The provider {self.name} runs {self._section.model} only. "
                "GET /embed/models lists what there is.",
                details={"model": wanted.model, "known": [self._id]},
            )
        if wanted.digest and not self._section.sha256.startswith(wanted.digest):
            raise NotFound(
                f"{wanted.model} is installed as {self._id}, not with the hash {wanted.digest}. "
                "Vectors of the two do not mix: embed again, or install the earlier file.",
                details={"model": wanted.model, "known": [self._id]},
            )
        if dimensions not in (None, DIM):
            raise Invalid(
                f"{self._id} gives {DIM} dimensions and was not trained to be cut to "
                f"{dimensions}. Leave dimensions out, or ask for {DIM}.",
                details={"field": "dimensions", "limit": DIM},
            )
        if self._runtime is None:
            self._runtime = await self._tokenise.run(self._model.describe_runtime)
        recipe = ("local", self._section.sha256, RECIPE, self._runtime)
        return Model(self._id, self._section.model, DIM, recipe)

    def make_lane(
        self, model: Model, keep: Callable[[bytes, Entry], None], figures: LaneFigures
    ) -> Lane[Encoding]:
        """Batches by length, as many at once as there are threads."""
        return Lane(
            prepare=self._encode,
            compute=self._embed,
            keep=keep,
            figures=figures,
            at_once=self._section.threads,
            max_items=self._section.batch_tokens,
            max_padded=self._section.batch_tokens,
        )

    async def describe(self) -> list[EmbedModel]:
        """The model and whether it can be served."""
        return [
            EmbedModel(
                id=self._id,
                provider=self.name,
                model=self._section.model,
                dim=DIM,
                max_tokens=MAX_TOKENS,
                status=await self.check(),
            )
        ]

    async def check(self) -> str:
        """Whether the file is there and the pinned one; loads nothing."""
        return await self._tokenise.run(self._model.check)

    async def aclose(self) -> None:
        """Waits for the batches under way."""
        if self._tidy_at is not None:
            self._tidy_at.cancel()
        self._compute.close()
        self._tokenise.close()

    async def _encode(self, texts: Sequence[str]) -> list[tuple[Encoding, int]]:
        if self._model.can_encode and sum(map(len, texts)) <= LIGHT_CHARS:
            encodings = self._model.encode(texts)
        else:
            encodings = await self._tokenise.run(self._model.encode, texts)
        return [(encoding, len(encoding.ids)) for encoding in encodings]

    async def _embed(self, batch: list[Encoding]) -> list[Entry]:
        entries = await self._compute.run(self._model.embed, batch)
        if self._tidy_at is not None:
            self._tidy_at.cancel()
        self._tidy_at = asyncio.get_running_loop().call_later(TIDY_AFTER_S, self._tidy)
        return entries

    def _tidy(self) -> None:
        self._tidying = asyncio.get_running_loop().create_task(
            self._compute.run(return_freed_memory)
        )
