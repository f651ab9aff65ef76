"""The HTTP face of matrixd: wiring and thin routes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated

from fastapi import FastAPI, Header, Path, Query, Response
from fastapi.responses import StreamingResponse

from services.matrixd.store.composing import Composer
from services.matrixd.store.figures import Figures
from services.matrixd.store.gathering import Gatherer
from services.matrixd.store.memory import Memory
from services.matrixd.store.peers import Peers
from services.matrixd.store.recording import Recorder
from services.matrixd.store.registry import Registry
from services.matrixd.store.relevance import RelevanceFilter
from services.matrixd.store.reporting import Observed
from services.matrixd.store.search import Searcher
from shared.clients.observerd import ObserverdClient
from shared.config import Config
from shared.lockfile import DirectoryLock
from shared.pool import BlockingPool
from shared.reporter import Reporter
from shared.runtime import Transports, create_base
from shared.wire.matrixd import (
    CORPUS_NAME,
    CorpusDeleted,
    CorpusInfo,
    CorpusList,
    CorpusSpec,
    MatrixAnswer,
    MatrixSearch,
    Tuning,
)
from shared.wire.matrixd_context import (
    Composed,
    ComposeRequest,
    Downgraded,
    DowngradeRequest,
    RelevanceAnswer,
    RelevanceRequest,
)
from shared.wire.matrixd_playbook import (
    EpisodeInfo,
    EpisodeList,
    Recorded,
    RecordRequest,
    Retired,
    RetireReason,
    RetireRequest,
)

CORPORA = "/matrix/corpora"
PLAYBOOK = "/matrix/playbook"

Name = Annotated[str, Path(pattern=CORPUS_NAME, description="Name of the corpus")]
Episode = Annotated[str, Path(min_length=1, max_length=200, description="Id of the episode")]
Wait = Annotated[
    float | None, Query(ge=0, le=300, description="Seconds to wait for the job; then 202")
]
Prefer = Annotated[str, Header(description="respond-async: do not wait for the job")]
Key = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=200)]


def create_app(config: Config, *, transports: Transports | None = None) -> FastAPI:
    """Builds the daemon.

    Args:
        config: sections `matrixd` and `models`, the data directory, the peers' addresses.
        transports: in-process transports by service name, for tests.
    """
    section = config.matrixd
    folder = config.data_dir("matrixd")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            stack.callback(DirectoryLock(folder).acquire().release)
            stack.callback(pool.close)
            stack.push_async_callback(peers.aclose)
            stack.push_async_callback(observer.aclose)
            stack.push_async_callback(reporter.aclose)
            stack.push_async_callback(memory.aclose)
            await memory.open()
            stack.push_async_callback(registry.close)
            await registry.open()
            yield

    async def check_ready() -> dict[str, str]:
        checks = {client.service: await client.check() for client in (peers.embedd, peers.vectord)}
        return checks | {"playbook": memory.check()}

    app = create_base("matrixd", config, lifespan=lifespan, ready=check_ready)
    figures = Figures(app.state.metrics.registry)
    peers = Peers.of(config, transports)
    pool = BlockingPool("matrixd", 2, section.max_concurrency + section.max_queue)
    memory = Memory(folder / "playbook", pool, figures, _now)
    registry = Registry(section, folder, peers, figures, _now)
    gatherer = Gatherer(section, registry, peers, figures)
    searcher = Searcher(gatherer, memory, figures, pool)
    observer = ObserverdClient(config, transports)
    reporter = Reporter(observer.record, figures.unreported.inc)
    observed = Observed(reporter)
    add_corpus_routes(app, registry)
    relevance = RelevanceFilter(section, peers, figures, pool)
    add_search_routes(app, searcher, observed)
    add_context_routes(app, relevance, Composer(config.models, searcher, relevance), observed)
    add_playbook_routes(
        app, Recorder(section, registry, gatherer, searcher, memory, peers, pool, _now)
    )
    return app


def add_corpus_routes(app: FastAPI, registry: Registry) -> None:
    """The routes of corpora."""

    @app.post(
        CORPORA,
        tags=["matrix"],
        status_code=201,
        responses={200: {"model": CorpusInfo}, 202: {"model": CorpusInfo}},
    )
    async def create_corpus(
        spec: CorpusSpec,
        response: Response,
        replace: bool = False,
        wait: Wait = None,
        prefer: Prefer = "",
    ) -> CorpusInfo:
        """Makes a corpus: 201 when it was built meanwhile, 202 while it is; 200 when it exists.

        Another spec under an existing name is 409, or with `replace` changes that corpus.
        """
        info, response.status_code = await registry.create(
            spec, replace=replace, wait_s=_to_wait(wait, prefer)
        )
        return info

    @app.get(CORPORA, tags=["matrix"])
    async def list_corpora() -> CorpusList:
        """All corpora by name."""
        return registry.list()

    @app.get(CORPORA + "/{name}", tags=["matrix"])
    async def get_corpus(name: Name) -> CorpusInfo:
        """One corpus: its spec, what it holds, and how far its job is."""
        return registry.find(name).describe()

    @app.delete(CORPORA + "/{name}", tags=["matrix"])
    async def delete_corpus(name: Name) -> CorpusDeleted:
        """Removes a corpus and its index; `deleted` is false when there was none."""
        return await registry.delete(name)

    @app.put(CORPORA + "/{name}/tuning", tags=["matrix"])
    async def tune_corpus(name: Name, tuning: Tuning) -> CorpusInfo:
        """Sets how a corpus is searched from now on; what is left out is the default again."""
        return await registry.tune(name, tuning)

    @app.post(CORPORA + "/{name}/refresh", tags=["matrix"], responses={202: {"model": CorpusInfo}})
    async def refresh_corpus(
        name: Name, response: Response, wait: Wait = None, prefer: Prefer = ""
    ) -> CorpusInfo:
        """Brings a corpus up to date with its source; only what changed is embedded."""
        info, response.status_code = await registry.refresh(name, wait_s=_to_wait(wait, prefer))
        return info


def add_search_routes(app: FastAPI, searcher: Searcher, observed: Observed) -> None:
    """Searching."""

    @app.post("/matrix/search", tags=["matrix"])
    async def search_matrix(request: MatrixSearch) -> MatrixAnswer:
        """Documents of many corpora as one list; a corpus that is down is told, not fatal."""
        return await observed.search(request, searcher.search)


def add_context_routes(
    app: FastAPI, relevance: RelevanceFilter, composer: Composer, observed: Observed
) -> None:
    """What reaches the model."""

    @app.post("/matrix/relevance", tags=["matrix"])
    async def filter_relevant(request: RelevanceRequest) -> RelevanceAnswer:
        """Drops candidates that are near the query in vector space but about something else."""
        return await relevance.filter(request)

    @app.post("/matrix/downgrade", tags=["matrix"])
    async def check_downgrade(request: DowngradeRequest) -> Downgraded:
        """A strong model in the composed mode is put into the isolated one, unless forced."""
        return composer.downgrade(request)

    @app.post("/matrix/compose", tags=["matrix"])
    async def compose_context(request: ComposeRequest) -> Composed:
        """The slice of the corpora that a model needs for a query, as messages with citations."""
        return await observed.compose(request, composer.compose)


def add_playbook_routes(app: FastAPI, recorder: Recorder) -> None:
    """What worked and what failed."""

    @app.post(PLAYBOOK, tags=["playbook"], status_code=201, responses={200: {"model": Recorded}})
    async def record_episode(
        request: RecordRequest, response: Response, idempotency_key: Key = None
    ) -> Recorded:
        """Records ratings of documents for a query; 200 when it is recorded already."""
        recorded, response.status_code = await recorder.record(request, idempotency_key)
        return recorded

    @app.get(PLAYBOOK, tags=["playbook"])
    async def list_episodes(
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        cursor: str | None = None,
        source: str | None = None,
        run_id: str | None = None,
        retired: bool = False,
    ) -> EpisodeList:
        """Episodes, newest first, with what was derived from them."""
        return await recorder.list(limit, cursor, source, run_id, retired)

    @app.get(PLAYBOOK + "/export", tags=["playbook"], response_class=StreamingResponse)
    async def export_episodes() -> StreamingResponse:
        """All episodes as JSON lines."""
        return StreamingResponse(recorder.export(), media_type="application/x-ndjson")

    @app.post(PLAYBOOK + "/retire", tags=["playbook"])
    async def retire_episodes(request: RetireRequest) -> Retired:
        """Withdraws episodes by id, source or run, or all: searches are as if never recorded."""
        return await recorder.retire(request)

    @app.get(PLAYBOOK + "/{episode}", tags=["playbook"])
    async def get_episode(episode: Episode) -> EpisodeInfo:
        """One episode, retired or not."""
        return await recorder.find(episode)

    @app.post(PLAYBOOK + "/{episode}/retire", tags=["playbook"])
    async def retire_episode(episode: Episode, request: RetireReason | None = None) -> Retired:
        """Withdraws one episode; again changes nothing."""
        return await recorder.retire_one(episode, request.reason if request else "")


def _to_wait(wait: float | None, prefer: str) -> float | None:
    return 0.0 if wait is None and "respond-async" in prefer.lower() else wait


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
