"""All corpora of this daemon: made, found again, brought up to date, deleted."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path

from services.matrixd.core.corpora import State, check_same, check_spec, make_recipe
from services.matrixd.store.builder import TRIAL, Builder
from services.matrixd.store.corpus import Corpus
from services.matrixd.store.figures import Figures
from services.matrixd.store.ledger import Ledger
from services.matrixd.store.peers import PASSING, Peers, tell
from services.matrixd.store.sources import Sources
from shared.errors import LakehouseError, NotFound
from shared.pool import BlockingPool
from shared.sections.matrix import MatrixdSection
from shared.wire.matrixd import CorpusDeleted, CorpusInfo, CorpusList, CorpusSpec, Job, Tuning

logger = logging.getLogger("lakehouse.matrixd")

_RETRY_S = 1.0
# Looks at a dataset before a refresh that failed is tried again.
_FAILED_POLLS = 12


class Registry:
    """The corpora by name.

    Args:
        section: [matrixd].
        folder: where the ledger lies.
        now: the time as RFC 3339.
    """

    def __init__(
        self,
        section: MatrixdSection,
        folder: Path,
        peers: Peers,
        figures: Figures,
        now: Callable[[], str],
    ) -> None:
        self._section = section
        self._peers = peers
        self._figures = figures
        self._now = now
        self._ledger = Ledger(folder)
        # One thread: SQLite's connection is used by nobody else.
        self._pool = BlockingPool("matrixd-ledger", 1, 10_000)
        self._builder = Builder(section, peers, self._ledger, self._pool, figures, now)
        self._sources = Sources(peers)
        self._corpora: dict[str, Corpus] = {}
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    # --- start and stop

    async def open(self) -> None:
        """Reads the ledger and takes up what was under way."""
        for kept in await self._pool.run(self._ledger.open):
            corpus = Corpus(kept.uid, kept.spec, kept.state, self._ledger, self._pool)
            if kept.gone:
                self._spawn(self._purge(corpus))
                continue
            if kept.state.model and kept.state.chunked is None:
                # Kept before this was told apart from the spec.
                corpus.set(chunked=kept.spec.chunking is not None)
            self._corpora[kept.spec.name] = corpus
            if kept.state.job.status in ("running", "waiting"):
                self._start(corpus)
            else:
                corpus.idle.set()
        self._figures.corpora.set(len(self._corpora))
        self._spawn(self._follow_ingests())

    async def close(self) -> None:
        """Stops jobs where they are; they go on at the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._pool.run(self._ledger.close)
        self._pool.close()

    # --- routes

    async def create(
        self, spec: CorpusSpec, *, replace: bool, wait_s: float | None
    ) -> tuple[CorpusInfo, int]:
        """Makes a corpus and begins to build it; gives it with the status to answer.

        The same spec again is the corpus as it is (a failed build is begun anew). `wait_s` is
        how long to wait for the build.

        Raises:
            Invalid, NotFound: the spec or its source.
            Conflict: another corpus has this name, and `replace` does not say to change it.
        """
        check_spec(spec)
        existing = self._corpora.get(spec.name)
        if existing is None or existing.spec != spec:
            if existing is not None and not replace:
                check_same(existing.spec, spec)
            await self._sources.check(spec, make_recipe(spec))
            await self._check_model(spec)
        status = 201
        async with self._changing:
            corpus = self._corpora.get(spec.name)
            if corpus is None:
                job = Job(started_at=self._now())
                state = State(job=job, created_at=self._now())
                uid = secrets.token_hex(4)
                corpus = Corpus(uid, spec, state, self._ledger, self._pool)
                await corpus.save()
                self._corpora[spec.name] = corpus
                self._figures.corpora.set(len(self._corpora))
                self._start(corpus)
            elif corpus.spec != spec:
                if not replace:
                    check_same(corpus.spec, spec)
                interrupted = await self._stop(corpus)
                before, corpus.spec = corpus.spec, spec
                try:
                    await self._begin(corpus)
                except LakehouseError:
                    corpus.spec = before
                    if interrupted:
                        self._start(corpus)
                    raise
                status = 200
            else:
                status = 200
                if corpus.state.job.status == "failed":
                    await self._begin_or_follow(corpus)
        return await self._wait(corpus, wait_s, status)

    async def _check_model(self, spec: CorpusSpec) -> None:
        """Passes when embedd knows the model that a spec names, or cannot be asked now."""
        if spec.model is not None:
            with contextlib.suppress(*PASSING):
                await self._peers.embedd.embed([TRIAL], spec.model)

    async def refresh(self, name: str, *, wait_s: float | None) -> tuple[CorpusInfo, int]:
        """Brings a corpus up to date with its source; one at a time, a second one follows.

        Raises:
            NotFound: there is none of this name.
        """
        corpus = self.find(name)
        async with self._changing:
            await self._begin_or_follow(corpus)
        return await self._wait(corpus, wait_s, 200)

    async def tune(self, name: str, tuning: Tuning) -> CorpusInfo:
        """Sets how a corpus is searched from now on, durably.

        Raises:
            NotFound: there is none of this name.
        """
        corpus = self.find(name)
        async with self._changing:
            await corpus.save(tuning=tuning)
        return corpus.describe()

    def list(self) -> CorpusList:
        """All corpora by name."""
        return CorpusList(corpora=[self._corpora[n].describe() for n in sorted(self._corpora)])

    def names(self) -> list[str]:
        """Names of all corpora, sorted."""
        return sorted(self._corpora)

    def find(self, name: str) -> Corpus:
        """One corpus.

        Raises:
            NotFound: there is none of this name.
        """
        corpus = self._corpora.get(name)
        if corpus is None:
            known = ", ".join(self.names()[:20]) or "none yet"
            raise NotFound(f"There is no corpus {name!r}. There are: {known}.")
        return corpus

    def get(self, name: str) -> Corpus | None:
        """One corpus, if there is one of this name."""
        return self._corpora.get(name)

    async def delete(self, name: str) -> CorpusDeleted:
        """Removes a corpus; from here on it is gone, its index follows."""
        async with self._changing:
            corpus = self._corpora.get(name)
            if corpus is None:
                return CorpusDeleted(name=name, deleted=False)
            interrupted = await self._stop(corpus)
            try:
                await self._pool.run(self._ledger.mark_gone, corpus.uid)
            except LakehouseError:
                if interrupted:
                    self._start(corpus)
                raise
            del self._corpora[name]
            corpus.idle.set()
            self._figures.corpora.set(len(self._corpora))
        self._spawn(self._purge(corpus))
        return CorpusDeleted(name=name, deleted=True)

    # --- jobs

    async def _begin_or_follow(self, corpus: Corpus) -> None:
        """Begins a job now, or has one follow that which is under way."""
        if corpus.task is None:
            await self._begin(corpus)
        else:
            corpus.again = True

    async def _begin(self, corpus: Corpus) -> None:
        await corpus.save(job=Job(started_at=self._now()))
        self._start(corpus)

    def _start(self, corpus: Corpus) -> None:
        corpus.idle.clear()
        corpus.again = False
        corpus.task = self._spawn(self._run(corpus))

    async def _stop(self, corpus: Corpus) -> bool:
        """Stops the corpus' job where it is; says whether there was one.

        Those who wait for it go on waiting: for the next job, or for being told that the
        corpus is gone.
        """
        if corpus.task is None:
            return False
        corpus.task.cancel()
        await asyncio.gather(corpus.task, return_exceptions=True)
        corpus.task = None
        return True

    async def _run(self, corpus: Corpus) -> None:
        job: Job | None = None
        while True:
            reason = await self._run_once(corpus, job)
            if reason is not None and not corpus.again:
                await self._fail(corpus, reason)
            if not corpus.again:
                break
            corpus.again = False
            job = Job(started_at=self._now())
        corpus.task = None
        corpus.idle.set()

    async def _run_once(self, corpus: Corpus, job: Job | None) -> str | None:
        """Runs one job, a new one when it is given; gives why it failed, if it did."""
        try:
            async with self._builder.places:
                if job is not None:
                    await corpus.save(job=job)
                await self._builder.run(corpus)
        except LakehouseError as error:
            logger.warning("Corpus %s could not be built: %s", corpus.spec.name, tell(error))
            reason = tell(error)
        except Exception:
            logger.exception("Corpus %s could not be built", corpus.spec.name)
            reason = "internal: an unexpected failure; matrixd's log has it"
        else:
            return None
        self._figures.job_failures.inc()
        return reason

    async def _fail(self, corpus: Corpus, reason: str) -> None:
        corpus.set_job(status="failed", error=reason, finished_at=self._now())
        try:
            await corpus.save()
        except Exception:
            # In memory it has failed; at the next start the job is taken up again.
            logger.exception("The failure of corpus %s could not be kept", corpus.spec.name)

    async def _wait(
        self, corpus: Corpus, wait_s: float | None, status: int
    ) -> tuple[CorpusInfo, int]:
        """The corpus once it is idle, or 202 when that takes longer than asked.

        Raises:
            NotFound: it was deleted meanwhile.
        """
        try:
            async with asyncio.timeout(self._section.answer_wait_s if wait_s is None else wait_s):
                await corpus.idle.wait()
        except TimeoutError:
            return corpus.describe(), 202
        if self._corpora.get(corpus.spec.name) is not corpus:
            raise NotFound(f"Corpus {corpus.spec.name!r} was deleted while it was built.")
        return corpus.describe(), status

    async def _follow_ingests(self) -> None:
        """Refreshes corpora whose datasets have changed, for as long as the daemon runs."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._section.poll_s)
            for corpus in list(self._corpora.values()):
                if corpus.spec.refresh != "on_ingest" or corpus.task is not None:
                    continue
                if corpus.state.job.status == "failed" and loop.time() < corpus.patient_until:
                    continue
                try:
                    snapshots = await self._sources.read_snapshots(corpus.spec)
                    if snapshots != corpus.state.snapshots:
                        corpus.patient_until = loop.time() + _FAILED_POLLS * self._section.poll_s
                        await self.refresh(corpus.spec.name, wait_s=0)
                except NotFound:
                    continue  # deleted meanwhile
                except LakehouseError as error:
                    logger.info("Datasets cannot be looked at: %s", error.message)
                    break
                except Exception:
                    # One answer that nobody can read must not end the watch for good.
                    logger.exception("Datasets cannot be looked at")
                    break

    async def _purge(self, corpus: Corpus) -> None:
        """Removes what is left of a deleted corpus, however long that takes."""
        while True:
            try:
                await self._peers.vectord.delete_index(corpus.index)
            except PASSING:
                await asyncio.sleep(_RETRY_S)
            else:
                await self._pool.run(self._ledger.forget, corpus.uid)
                return

    def _spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        # A context of its own: the request's deadline is not the job's.
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(
            work,  # pyright: ignore[reportArgumentType]
            context=contextvars.Context(),
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
