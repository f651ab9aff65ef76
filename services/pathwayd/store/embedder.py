"""The way to embedd: vectors for queries at once, for traces in the background.

A trace is durable before its vector is asked for. While embedd is away, traces wait, and
searches go by words and say so. The model is what embedd says that the configured name
means; when that changes, all traces are embedded again, and until then those that have a
vector of the new model are found by meaning and the others by words.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from services.pathwayd.core.records import Vectors
from services.pathwayd.store.ledger import Ledger
from shared.clients.embedd import EmbeddClient
from shared.errors import Invalid, LakehouseError, Timeout, TooLarge, Unprocessable
from shared.wire.embedd import EmbedModel, EmbedModels, EmbedResponse
from shared.wire.pathwayd import SemanticState

if TYPE_CHECKING:
    from services.pathwayd.store.memory import Memory

logger = logging.getLogger("lakehouse.pathwayd")

# Waits after failures, doubling. Seconds.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 10.0
# After it stayed silent, searches do not wait for it for so long. Seconds.
_SILENT_S = 5.0
# So many waiting traces, and a caller does not wait for its own.
_LONG_QUEUE = 256
# What is wrong with a text and not with embedd.
_TEXT_ERRORS = (Invalid, TooLarge, Unprocessable)


class Embedder:
    """Asks embedd; one task looks after the traces that wait."""

    def __init__(self, ledger: Ledger, client: EmbeddClient) -> None:
        self.failure: str | None = None
        # Traces that embedd refuses, and why.
        self.refused: dict[str, str] = {}
        self._ledger = ledger
        self._section = ledger.section
        self._client = client
        # What embedd says the model is; None until it was asked.
        self._model: str | None = None
        # How many numbers its vectors have; None until embedd said so.
        self._dim: int | None = None
        self._pending: dict[str, None] = {}
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}
        self._wake = asyncio.Event()
        self._silent_until = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look after the traces."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Ends it; what waits is found again at the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._release(list(self._waiters))
        await self._client.aclose()

    async def check(self) -> str:
        """ "ok" when embedd is alive, else the reason why not; for `/ready`."""
        return await self._client.check()

    # --- what callers see

    @property
    def model(self) -> str | None:
        """The model in use; None while it is not known."""
        memory = self._ledger.memory
        return self._model or (memory.model if memory else None)

    async def find_space(self) -> tuple[str, int]:
        """The model in use, and how many numbers its vectors have.

        Raises:
            Unavailable: embedd cannot be asked, and no trace has a vector yet.
        """
        memory, model = self._ledger.memory, self.model
        space = memory.index.spaces.get(model) if memory and model else None
        if model is not None and space is not None:
            return model, space.dim
        if self._model is None or self._dim is None:
            await self._resolve()
        if self._model is None or self._dim is None:
            # Only the model itself knows: it is asked for a vector.
            answer = await self._client.embed(["probe"], self._section.model or None)
            self._note_model(answer.model, answer.dim)
            return answer.model, answer.dim
        return self._model, self._dim

    def describe(self) -> SemanticState:
        """How many traces meaning finds now."""
        memory, model = self._ledger.memory, self.model
        total = len(memory.index.row_of) if memory else 0
        pending = len(self._pending)
        state = "unavailable" if self.failure and pending else "partial" if pending else "ok"
        return SemanticState(
            status=state,
            model=model,
            embedded=max(0, total - pending - len(self.refused)),
            pending=pending,
            reason=self.failure,
        )

    async def embed_query(self, text: str) -> tuple[str, list[float]]:
        """The model and vector of a query.

        Raises:
            LakehouseError: embedd did not give one; the message says why.
        """
        if time.monotonic() < self._silent_until:
            raise Timeout(self.failure or "embedd does not answer.")
        try:
            async with asyncio.timeout(self._section.embed_timeout_s):
                answer = await self._client.embed([text], self._section.model or None)
        except (TimeoutError, Timeout):
            self._silent_until = time.monotonic() + _SILENT_S
            raise Timeout("embedd did not answer in time.") from None
        self._note_model(answer.model, answer.dim)
        if self.failure is not None:
            # It is back: whoever waits need not wait any longer.
            self._wake.set()
        return answer.model, answer.vectors[0]

    def add(self, trace_ids: Sequence[str]) -> None:
        """Takes traces that need a vector."""
        for name in trace_ids:
            self.refused.pop(name, None)
            self._pending[name] = None
        if trace_ids:
            self._wake.set()

    def forget(self, trace_ids: Sequence[str]) -> None:
        """Lets go of traces that are searched no more."""
        for name in trace_ids:
            self.refused.pop(name, None)
        self._settle(trace_ids)

    async def wait_for(self, trace_ids: Sequence[str]) -> None:
        """Waits until traces have their vectors, or it is clear that they will not soon."""
        waiting = [name for name in trace_ids if name in self._pending]
        limit = self._section.embed_wait_s
        if not waiting or not limit or self.failure or len(self._pending) > _LONG_QUEUE:
            return
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in waiting]
        for name, future in zip(waiting, futures, strict=True):
            self._waiters.setdefault(name, []).append(future)
        await asyncio.wait(futures, timeout=limit)

    # --- the background

    async def _run(self) -> None:
        await self._ledger.loaded.wait()
        memory = self._ledger.memory
        if memory is not None and self._ledger.failure is None:
            if memory.model is None:
                self.add(list(memory.index.row_of))
            else:
                self.add(memory.index.list_unembedded(memory.model))
            self._wake.set()
        wait_s = _FIRST_WAIT_S
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                if self._model is None:
                    await self._resolve()
                while self._pending:
                    await self._embed_some()
                    wait_s = _FIRST_WAIT_S
                self._tidy()
                self.failure = None
            except Exception as error:
                # Whatever it is, the traces that wait are tried again, and nobody waits for them.
                told = isinstance(error, LakehouseError)
                reason = error.message if told else "they cannot be embedded; the log says why"
                if self.failure is None:
                    logger.warning("Traces wait for their vectors: %s", reason, exc_info=not told)
                self.failure = reason
                self._release(list(self._waiters))
                asyncio.get_running_loop().call_later(wait_s, self._wake.set)
                wait_s = min(wait_s * 2, _LONGEST_WAIT_S)
            self._ledger.figures.pending.set(len(self._pending))

    async def _resolve(self) -> None:
        """Finds out what the configured name means, without a model being loaded for it."""
        found = find_listed(await self._client.list_models(), self._section.model)
        if found is not None:
            self._note_model(found.id, found.dim)
            return
        answer = await self._client.embed(["probe"], self._section.model or None)
        self._note_model(answer.model, answer.dim)

    def _note_model(self, model: str, dim: int | None) -> None:
        """Takes what embedd says of its model: its id, and the length of its vectors if known."""
        # It answers: searches need not go without it any longer.
        self._silent_until = 0.0
        memory = self._ledger.memory
        before = self._model or (memory.model if memory else None)
        if model != self._model:
            self._model, self._dim = model, None
        self._dim = dim or self._dim
        if memory is None:
            return
        space = memory.index.spaces.get(model)
        foreign = space is not None and dim is not None and space.dim != dim
        if foreign:
            logger.warning("Vectors kept for %s are not of its length; it makes them anew", model)
            memory.index.drop_space(model)
        if foreign or before != model:
            if before not in (None, model):
                logger.warning("The model is now %s; traces are embedded again", model)
            self.refused.clear()
            self.add(memory.index.list_unembedded(model))

    async def _embed_some(self) -> None:
        memory = self._ledger.memory
        assert memory is not None
        names: list[str] = []
        texts: list[str] = []
        for name in list(islice(self._pending, self._section.embed_batch)):
            row = memory.index.row_of.get(name)
            text = "" if row is None else memory.index.text_of(memory.index.entries[row])
            if row is None or memory.index.has_vector(name, self._model):
                self._settle([name])
            elif not text.strip():
                self._refuse(name, "it has no text")
            else:
                names.append(name)
                texts.append(text)
        if names:
            await self._embed_texts(memory, names, texts)

    async def _embed_texts(self, memory: Memory, names: list[str], texts: list[str]) -> None:
        of = [(name, memory.index.entries[memory.index.row_of[name]].version) for name in names]
        try:
            answer = await self._client.embed(texts, self._section.model or None)
        except _TEXT_ERRORS as error:
            if len(names) == 1:
                self._refuse(names[0], error.message)
                return
            # One of them is to blame; the others are not to suffer for it.
            for name, text in zip(names, texts, strict=True):
                if name in memory.index.row_of:
                    await self._embed_texts(memory, [name], [text])
            return
        self._note_model(answer.model, answer.dim)
        await self._ledger.commit([to_change(answer, of)])
        self._ledger.figures.embedded.inc(len(names))
        for name, version in of:
            row = memory.index.row_of.get(name)
            if row is not None and memory.index.entries[row].version != version:
                continue  # it moved on meanwhile, and its new version still waits
            if row is not None and not memory.index.has_vector(name, answer.model):
                self._refuse(name, "the model gave no direction for it")
            else:
                self._settle([name])

    def _refuse(self, name: str, reason: str) -> None:
        self.refused[name] = reason
        self._settle([name])

    def _settle(self, names: Sequence[str]) -> None:
        for name in names:
            self._pending.pop(name, None)
        self._release(names)

    def _release(self, names: Sequence[str]) -> None:
        for name in names:
            for future in self._waiters.pop(name, ()):
                if not future.done():
                    future.set_result(None)

    def _tidy(self) -> None:
        """Lets go of what an earlier model made, once all is of the new one."""
        memory = self._ledger.memory
        if memory is not None and self._model in memory.index.spaces:
            memory.index.drop_spaces(self._model)


def find_listed(models: EmbedModels, name: str) -> EmbedModel | None:
    """What a configured name means; None when the list does not tell."""
    for model in models.models:
        names = (model.id, f"{model.provider}/{model.model}", *model.aliases)
        if model.default if not name else name in names:
            return model
    return None


def to_change(answer: EmbedResponse, of: Sequence[tuple[str, int]]) -> Vectors:
    """The log's record of an answer."""
    import numpy as np

    data: Any = np.array(answer.vectors, "<f4")
    return Vectors(answer.model, answer.dim, tuple(of), data.tobytes())
