"""The routes of queryd and what they stand on."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Query, Request, Response

from services.queryd.core.accept import Format, choose_format
from services.queryd.core.fairness import name_caller
from services.queryd.core.limits import choose_max_rows, choose_timeout, refuse_engine
from services.queryd.store.bucket import find_bucket
from services.queryd.store.catalogue import Catalogue, list_tables
from services.queryd.store.describe import Describer
from services.queryd.store.figures import Figures
from services.queryd.store.pool import WorkerPool
from services.queryd.store.response import AnswerResponse
from services.queryd.store.runner import Query as SqlQuery
from services.queryd.store.runner import Runner
from shared import context
from shared.clients.catalogd import CatalogdClient
from shared.config import Config
from shared.lockfile import DirectoryLock
from shared.runtime import Transports, create_base
from shared.telling import RunTeller
from shared.wire.queryd import SqlRequest, SqlResult, TableInfo, TableList

_CALLER = "A name by which a program gets its own fair share of the workers."
_STATISTICS = "Whether to make statistics; unasked they are made of small tables."
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The rows, in the format that Accept asks for.",
        "model": SqlResult,
        "content": {form.value: {} for form in Format if form is not Format.JSON},
    }
}


def read_caller(
    request: Request,
    x_caller: Annotated[str | None, Header(description=_CALLER)] = None,
) -> str:
    """Whose a request is, for a fair share of the workers."""
    address = request.client.host if request.client else None
    return name_caller(x_caller, request.headers.get("x-forwarded-for"), address)


def create_app(
    config: Config,
    *,
    transports: Transports | None = None,
    catalogue: Catalogue | None = None,
) -> FastAPI:
    """The daemon's app.

    Args:
        config: section `queryd` is its own; storaged's data folder, or the bucket of
            `storage`, is where files lie.
        transports: in-process transports by service name, in place of the network.
        catalogue: who answers for catalogd, where it is not the daemon itself.
    """
    section = config.queryd
    folder = config.data_dir("queryd")
    readable = tuple(
        str(path)
        for path in (
            config.data_dir("storaged"),
            *((config.base_dir / path).resolve() for path in section.read_paths),
        )
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        with DirectoryLock(folder):
            pool.start()
            try:
                yield
            finally:
                await pool.close()
                await teller.aclose()
                await asked.aclose()

    async def check_ready() -> dict[str, str]:
        return {"catalogd": await asked.check(), "workers": pool.check()}

    app = create_base("queryd", config, lifespan=lifespan, ready=check_ready)
    figures = Figures(app.state.metrics.registry)
    bucket = find_bucket(config)
    pool = WorkerPool(section, folder / "tmp", readable, figures, bucket)
    asked: Catalogue = catalogue or CatalogdClient(config, transports)
    teller = RunTeller("queryd", config, app.state.metrics.registry, transports)
    runner = Runner(section, pool, asked, figures, teller=teller, bucket=bucket)
    describer = Describer(runner, asked)

    @app.post("/sql", tags=["sql"], response_class=Response, responses=_ANSWERS)
    async def run_sql(
        request: SqlRequest,
        caller: Annotated[str, Depends(read_caller)],
        accept: Annotated[str | None, Header()] = None,
    ) -> Response:
        """Runs one SELECT (or DESCRIBE, SUMMARIZE, EXPLAIN) over the catalogue's datasets.

        The answer is JSON unless Accept asks for an Arrow IPC stream, NDJSON, CSV or Parquet.
        """
        form = choose_format(accept)
        refuse_engine(request.engine)
        query = SqlQuery(
            sql=request.sql,
            params=request.params,
            form=form,
            timeout_s=choose_timeout(
                request.timeout_s, context.remaining_s(), section.query_timeout_s
            ),
            max_rows=choose_max_rows(request.max_rows, form, section.json_rows, section.max_rows),
            as_of=request.as_of,
            caller=caller,
            may_cut=request.max_rows is not None and request.max_rows <= section.max_rows,
        )
        return AnswerResponse(await runner.open(query))

    @app.get("/sql/tables", tags=["sql"])
    async def get_tables() -> TableList:
        """Names of all tables that a query may read."""
        return TableList(tables=await list_tables(asked))

    @app.get("/sql/tables/{name}", tags=["sql"])
    async def get_table(
        name: str,
        caller: Annotated[str, Depends(read_caller)],
        statistics: Annotated[bool | None, Query(description=_STATISTICS)] = None,
    ) -> TableInfo:
        """One table: its columns, how many rows it has, the first few of them, statistics."""
        return await describer.describe(name, statistics, caller)

    return app
