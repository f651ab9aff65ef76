"""Builds and refreshes of corpora: rows → texts → embedd → vectord, only what changed.

The parts of a job are read, embed, delete, calibrate. Each leaves its result in the ledger, and
a batch is noted there only after vectord made it durable. So a process that dies loses at most
the batch in hand, which is then done again: the same texts give the same vectors under the
same ids.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from services.matrixd.core.chunking import item_ids, split_text
from services.matrixd.core.corpora import all_columns, make_recipe, wanted_columns
from services.matrixd.core.documents import Account, Document
from services.matrixd.core.templates import check_columns
from services.matrixd.store.corpus import Corpus
from services.matrixd.store.figures import Figures
from services.matrixd.store.ledger import Ledger, Pending
from services.matrixd.store.peers import Patience, Peers
from services.matrixd.store.sources import Sources, Unusable
from shared.errors import Invalid, NotFound, Unavailable
from shared.pool import BlockingPool
from shared.sections.matrix import MatrixdSection
from shared.wire.embedd import EmbedResponse
from shared.wire.vectord import IndexInfo, IndexSpec, Query

# Rows noted in one transaction while reading.
_NOTED = 500
# Columns of a source remembered beside those that are read.
_COLUMNS = 500
# Items written in one call: with the longest texts and vectors, still less than vectord reads.
_PUT = 200
# Items deleted in one call.
_DELETED = 2000
# Probe queries sent in one call, and documents looked at to choose them, for each probe.
_PROBED = 32
_SAMPLED = 3
# A short text that tells which model a name stands for now, and its dimension.
TRIAL = "lakehouse"


class Builder:
    """Runs jobs.

    Args:
        section: sizes and limits.
        now: the time as RFC 3339.
    """

    def __init__(
        self,
        section: MatrixdSection,
        peers: Peers,
        ledger: Ledger,
        pool: BlockingPool,
        figures: Figures,
        now: Callable[[], str],
    ) -> None:
        self._section = section
        self._peers = peers
        self._ledger = ledger
        self._pool = pool
        self._figures = figures
        self._now = now
        self._sources = Sources(peers)
        self.places = asyncio.Semaphore(section.builds)

    async def run(self, corpus: Corpus) -> None:
        """Brings a corpus up to date with its source, or takes up a job where it stopped.

        Raises:
            LakehouseError: why it could not be done; what was done is kept.
        """
        patience = Patience(self._section.retry_s, lambda reason: _tell_waiting(corpus, reason))
        await self._prepare_index(corpus, patience)
        if corpus.state.job.phase == "read":
            await self._read(corpus, patience)
        if corpus.state.job.phase == "embed":
            await self._embed(corpus, patience)
        if corpus.state.job.phase == "delete":
            await self._delete(corpus, patience)
        if corpus.state.job.phase == "calibrate":
            await self._calibrate(corpus, patience)
        documents, items = await self._pool.run(self._ledger.count_held, corpus.uid)
        await self._pool.run(self._ledger.begin_reading, corpus.uid)
        now = self._now()
        done = {"status": "done", "error": None, "finished_at": now, "progress": 1.0}
        corpus.set(built=True, refreshed_at=now, documents=documents, items=items)
        await corpus.enter("done", **done)
        self._figures.jobs.inc()

    # --- the index

    async def _prepare_index(self, corpus: Corpus, patience: Patience) -> None:
        """The index is there, of the right model, and holds what the ledger says, or nothing."""
        trial = await patience.call(lambda: self._peers.embedd.embed([TRIAL], corpus.spec.model))
        state = corpus.state
        chunked = corpus.spec.chunking is not None
        of_old = corpus.chunked, state.model, state.dim
        anew = bool(state.model) and of_old != (chunked, trial.model, trial.dim)
        if anew:
            # Vectors of two models never mix, nor do chunks and whole documents.
            await patience.call(lambda: self._peers.vectord.delete_index(corpus.index))
        spec = IndexSpec(name=corpus.index, dim=trial.dim, model=trial.model)

        async def make() -> IndexInfo:
            info = await self._peers.vectord.create_index(spec)
            if info.status != "ready":
                raise Unavailable(f"The index of corpus {corpus.spec.name!r} is {info.status}.")
            return info

        info = await patience.call(make)
        _, items = await self._pool.run(self._ledger.count_held, corpus.uid)
        if not anew and info.count < items:
            # It lost something. What is not known, nor could be found in it later what the
            # source no longer has, so it is begun anew.
            anew = True
            await patience.call(lambda: self._peers.vectord.delete_index(corpus.index))
            info = await patience.call(make)
        if anew or info.created_at != state.index_made_at:
            # Another index than the one that was filled.
            await self._pool.run(self._ledger.forget_rows, corpus.uid)
            corpus.set_job(phase="read")
            # Until it is filled, a search says so.
            corpus.set(in_hand={}, built=False)
        await corpus.save(
            model=trial.model, dim=trial.dim, index_made_at=info.created_at, chunked=chunked
        )

    # --- reading

    async def _read(self, corpus: Corpus, patience: Patience) -> None:
        await self._take_back(corpus, patience)
        spec = corpus.spec
        snapshots = await patience.call(lambda: self._sources.read_snapshots(spec))
        account = await patience.call(lambda: self._read_once(corpus))
        found, waiting = await self._pool.run(self._ledger.count_found, corpus.uid)
        account.documents = found
        corpus.set(snapshots=snapshots, report=account.tell())
        await corpus.enter("embed", total=waiting, done=0, unchanged=found - waiting)

    async def _take_back(self, corpus: Corpus, patience: Patience) -> None:
        """Removes from the index what a job that was broken off may have put there.

        Another reading may not have these documents, and as they were never noted as held,
        nothing would delete them.
        """
        held = corpus.state.in_hand
        if not held:
            return
        names = [n for name, count in held.items() for n in item_ids(name, count, corpus.chunked)]
        # Noted first: an index that holds less than is noted would be begun anew.
        await self._pool.run(self._ledger.note_deleted, corpus.uid, list(held))
        await self._delete_items(corpus, names, patience)
        await corpus.save(in_hand={})

    async def _read_once(self, corpus: Corpus) -> Account:
        recipe = make_recipe(corpus.spec)
        account = Account()
        wanted = wanted_columns(corpus.spec, recipe)
        named = set(all_columns(recipe))
        seen: dict[str, None] = {}
        await self._pool.run(self._ledger.begin_reading, corpus.uid)
        batch: list[Document] = []

        async def note() -> None:
            first = account.rows - len(batch)
            again = await self._pool.run(self._ledger.note_found, corpus.uid, first, batch)
            for name in again:
                account.leave_out("duplicate_ids", name)
            batch.clear()
            corpus.set_job(rows_read=account.rows)

        async for row in self._sources.read(corpus.spec, recipe):
            account.rows += 1
            if isinstance(row, Unusable):
                account.leave_out("unusable", str(row))
                continue
            # To say what there is where a column is missing; lines may have keys without end.
            seen.update(dict.fromkeys(c for c in row if len(seen) < _COLUMNS or c in named))
            made = recipe.make(row)
            if isinstance(made, Document):
                batch.append(made)
                if len(batch) >= _NOTED:
                    await note()
            else:
                account.leave_out(*made)
        await note()
        if seen:
            check_columns(wanted, list(seen))
        return account

    # --- embedding

    async def _embed(self, corpus: Corpus, patience: Patience) -> None:
        _, waiting = await self._pool.run(self._ledger.count_found, corpus.uid)
        # What was done before the job was taken up again counts.
        corpus.set_job(done=corpus.state.job.total - waiting)
        after = -1
        writing: asyncio.Task[None] | None = None
        try:
            while pending := await self._pool.run(
                self._ledger.next_pending, corpus.uid, after, self._section.batch_texts
            ):
                after = pending[-1].seq
                for some, texts in self._portion(corpus, pending):
                    vectors = await self._embed_texts(
                        corpus, [piece for pieces in texts for piece in pieces], patience
                    )
                    if writing is not None:
                        await writing
                    # The next texts are embedded while these are written.
                    writing = asyncio.create_task(
                        self._write(corpus, some, texts, vectors, patience)
                    )
            if writing is not None:
                await writing
        finally:
            if writing is not None:
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)
        corpus.set(in_hand={})
        await corpus.enter("delete")

    def _portion(
        self, corpus: Corpus, pending: Sequence[Pending]
    ) -> Iterator[tuple[list[Pending], list[list[str]]]]:
        """Documents with their texts, so many at once that these make up a batch."""
        some: list[Pending] = []
        texts: list[list[str]] = []
        count = 0
        for one in pending:
            pieces = self._split(corpus, one)
            some.append(one)
            texts.append(pieces)
            count += len(pieces)
            if count >= self._section.batch_texts:
                yield some, texts
                some, texts, count = [], [], 0
        if some:
            yield some, texts

    def _split(self, corpus: Corpus, one: Pending) -> list[str]:
        chunking = corpus.spec.chunking
        return split_text(one.text, chunking.words, chunking.overlap) if chunking else [one.text]

    async def _embed_texts(
        self, corpus: Corpus, texts: Sequence[str], patience: Patience
    ) -> list[list[float]]:
        vectors: list[list[float]] = []
        for start in range(0, len(texts), self._section.batch_texts):
            some = texts[start : start + self._section.batch_texts]

            async def embed(some: Sequence[str] = some) -> EmbedResponse:
                return await self._peers.embedd.embed(some, corpus.state.model)

            answer = await patience.call(embed)
            vectors += answer.vectors
            if answer.truncated:
                report = corpus.state.report
                count = report.truncated_texts + len(answer.truncated)
                corpus.set(report=report.model_copy(update={"truncated_texts": count}))
        return vectors

    async def _write(
        self,
        corpus: Corpus,
        pending: Sequence[Pending],
        texts: Sequence[Sequence[str]],
        vectors: Sequence[Sequence[float]],
        patience: Patience,
    ) -> None:
        items: list[dict[str, Any]] = []
        extra: list[str] = []
        written: list[tuple[str, str, int]] = []
        for one, pieces in zip(pending, texts, strict=True):
            names = item_ids(one.id, len(pieces), corpus.chunked)
            for name, text in zip(names, pieces, strict=True):
                vector = vectors[len(items)]
                metadata = one.metadata
                items.append({"id": name, "vector": vector, "text": text, "metadata": metadata})
            extra += item_ids(one.id, one.items, corpus.chunked)[len(pieces) :]
            written.append((one.id, one.hash, len(pieces)))
        in_hand = {
            one.id: max(one.items, len(pieces)) for one, pieces in zip(pending, texts, strict=True)
        }
        await corpus.save(in_hand=in_hand)
        for start in range(0, len(items), _PUT):
            portion = items[start : start + _PUT]

            async def put(portion: list[dict[str, Any]] = portion) -> object:
                vectord = self._peers.vectord
                return await vectord.put_items(corpus.index, portion, model=corpus.state.model)

            await patience.call(put)
        await self._delete_items(corpus, extra, patience)
        await self._pool.run(self._ledger.note_written, corpus.uid, written)
        self._figures.documents.inc(len(written))
        job = corpus.state.job
        done = job.done + len(written)
        corpus.set_job(done=done, progress=round(min(0.98, done / max(1, job.total)), 4))
        documents, held = await self._pool.run(self._ledger.count_held, corpus.uid)
        corpus.set(documents=documents, items=held)

    # --- deleting

    async def _delete(self, corpus: Corpus, patience: Patience) -> None:
        while gone := await self._pool.run(self._ledger.find_vanished, corpus.uid, _DELETED):
            names = [n for name, count in gone for n in item_ids(name, count, corpus.chunked)]

            await self._delete_items(corpus, names, patience)
            await self._pool.run(self._ledger.note_deleted, corpus.uid, [name for name, _ in gone])
            corpus.set_job(deleted=corpus.state.job.deleted + len(gone))
        await corpus.enter("calibrate")

    async def _delete_items(self, corpus: Corpus, names: Sequence[str], patience: Patience) -> None:
        for start in range(0, len(names), _DELETED):
            some = names[start : start + _DELETED]

            async def delete(some: Sequence[str] = some) -> object:
                return await self._peers.vectord.delete_items(corpus.index, ids=some)

            await patience.call(delete)

    # --- calibrating

    async def _calibrate(self, corpus: Corpus, patience: Patience) -> None:
        job = corpus.state.job
        unchanged = not job.done and not job.deleted
        if unchanged and corpus.state.calibration is not None:
            return
        ranking: Any = await asyncio.to_thread(
            importlib.import_module, "services.matrixd.store.ranking"
        )
        held = await self._pool.run(self._ledger.held_ids, corpus.uid)
        documents = await self._sample(corpus, held, patience)
        probes: list[Any] = ranking.choose_probes(documents, self._section.probes)
        texts = [probe.text for probe in probes]
        vectors = await self._embed_texts(corpus, texts, patience) if texts else []
        lists: list[Any] = []
        for start in range(0, len(probes), _PROBED):
            queries = [
                Query(vector=vector, text=text, k=self._section.candidates, include=[])
                for text, vector in zip(
                    texts[start : start + _PROBED], vectors[start : start + _PROBED], strict=True
                )
            ]
            answer = await patience.call(
                lambda queries=queries: self._peers.vectord.find_candidates(corpus.index, queries)
            )
            lists += answer.results
        fitted = await self._pool.run(
            ranking.fit, corpus.spec.name, corpus.chunked, probes, lists, len(held)
        )
        corpus.set(calibration=fitted)

    async def _sample(
        self, corpus: Corpus, held: Sequence[tuple[str, int]], patience: Patience
    ) -> list[tuple[str, str]]:
        """Texts of some documents: those whose ids hash lowest, so that the same stay chosen."""
        chosen = await self._pool.run(_choose, held, self._section.probes * _SAMPLED)
        documents: list[tuple[str, str]] = []
        for name in chosen:
            item = item_ids(name, 1, corpus.chunked)[0]
            try:
                found = await patience.call(
                    lambda item=item: self._peers.vectord.get_item(corpus.index, item)
                )
            except (NotFound, Invalid):
                # An id like `..` is a good one, but cannot be asked for.
                continue
            documents.append((name, found.text or ""))
        return documents


def _choose(held: Sequence[tuple[str, int]], count: int) -> list[str]:
    return heapq.nsmallest(
        count, (name for name, _ in held), lambda name: hashlib.sha256(name.encode()).digest()
    )


def _tell_waiting(corpus: Corpus, reason: str | None) -> None:
    status = "running" if reason is None else "waiting"
    corpus.set_job(status=status, error=reason)
