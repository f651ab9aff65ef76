"""The routes of queryd and what they stand on."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import orjson
from fastapi import FastAPI, Header, Response

from services.queryd.core.accept import Format, choose_format
from services.queryd.core.limits import choose_max_rows, choose_timeout, refuse_engine
from services.queryd.core.views import quote_name
from services.queryd.store.catalogue import Catalogue, describe_table, list_tables
from services.queryd.store.figures import Figures
from services.queryd.store.pool import WorkerPool
from services.queryd.store.response import AnswerResponse
from services.queryd.store.runner import Query, Runner
from shared import context
from shared.clients.catalogd import CatalogdClient
from shared.config import Config
from shared.lockfile import DirectoryLock
from shared.runtime import Transports, create_base
from shared.telling import RunTeller
from shared.wire.queryd import SqlRequest, SqlResult, TableInfo, TableList

# Rows of a table that its description shows, and the seconds they may take.
_SAMPLE_ROWS = 5
_SAMPLE_S = 10.0

_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The rows, in the format that Accept asks for.",
        "model": SqlResult,
        "content": {form.value: {} for form in Format if form is not Format.JSON},
    }
}


def create_app(
    config: Config,
    *,
    transports: Transports | None = None,
    catalogue: Catalogue | None = None,
) -> FastAPI:
    """The daemon's app.

    Args:
        config: section `queryd` is its own; storaged's data folder is where files lie.
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
    pool = WorkerPool(section, folder / "tmp", readable, figures)
    asked: Catalogue = catalogue or CatalogdClient(config, transports)
    teller = RunTeller("queryd", config, app.state.metrics.registry, transports)
    runner = Runner(section, pool, asked, figures, teller)

    @app.post("/sql", tags=["sql"], response_class=Response, responses=_ANSWERS)
    async def run_sql(
        request: SqlRequest, accept: Annotated[str | None, Header()] = None
    ) -> Response:
        """Runs one SELECT (or DESCRIBE, SUMMARIZE, EXPLAIN) over the catalogue's datasets.

        The answer is JSON unless Accept asks for an Arrow IPC stream or NDJSON.
        """
        form = choose_format(accept)
        refuse_engine(request.engine)
        query = Query(
            sql=request.sql,
            params=request.params,
            form=form,
            timeout_s=choose_timeout(
                request.timeout_s, context.remaining_s(), section.query_timeout_s
            ),
            max_rows=choose_max_rows(request.max_rows, form, section.json_rows, section.max_rows),
            as_of=request.as_of,
        )
        return AnswerResponse(await runner.open(query))

    @app.get("/sql/tables", tags=["sql"])
    async def get_tables() -> TableList:
        """Names of all tables that a query may read."""
        return TableList(tables=await list_tables(asked))

    @app.get("/sql/tables/{name}", tags=["sql"])
    async def get_table(name: str) -> TableInfo:
        """One table: its columns, how many rows it has, and the first few of them."""
        dataset = await describe_table(asked, name)
        query = Query(
            sql=f"SELECT * FROM {quote_name(dataset.name)}",
            params=[],
            form=Format.JSON,
            timeout_s=choose_timeout(_SAMPLE_S, context.remaining_s(), section.query_timeout_s),
            max_rows=_SAMPLE_ROWS,
            as_of=dataset.snapshot_id or None,
        )
        sample = orjson.loads(await runner.read_all(query))
        return TableInfo(
            name=dataset.name,
            columns=dataset.columns,
            rows=dataset.rows,
            sample=sample["rows"],
            snapshot_id=dataset.snapshot_id,
            bytes=dataset.bytes,
            files=dataset.files,
            updated_at=dataset.updated_at,
        )

    return app
