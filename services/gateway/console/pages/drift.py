"""Drift: how often its tests raise false alarms, and a comparison of two snapshots."""

from __future__ import annotations

import asyncio

from starlette.responses import Response

from services.gateway.console.core.lift import view_drift
from services.gateway.console.core.samples import make_request, plot_findings
from services.gateway.console.desk import Visit
from services.gateway.console.routes import Page
from services.gateway.console.store.reports import DRIFT, list_reports, read_report
from shared.errors import Invalid, LakehouseError
from shared.wire.queryd import SqlRequest, SqlResult

PATH = "/console/drift"
# Rows of each side that are compared: enough power, and a few hundred milliseconds.
SAMPLED = 2000


async def show_drift(visit: Visit) -> Response:
    """The published curves, and the form that compares."""
    desk = visit.desk
    names = await desk.pool.run(list_reports, desk.reports, DRIFT)
    name = visit.query("curve") or ("numeric" if "numeric" in names else "".join(names[:1]))
    report = await desk.pool.run(read_report, desk.reports, DRIFT, name) if name else None
    try:
        datasets = [one.name for one in await visit.fleet.catalog.list_datasets()]
    except LakehouseError:
        datasets = []
    chosen = visit.query("dataset")
    return visit.page(
        "drift.html",
        names=names,
        name=name,
        view=view_drift(name, report),
        datasets=datasets,
        chosen=chosen if chosen in datasets else "",
        snapshots=await _snapshots(visit, chosen) if chosen in datasets else [],
        columns=await _columns(visit, chosen) if chosen in datasets else [],
    )


async def compare(visit: Visit) -> Response:
    """Whether a dataset's columns changed from one snapshot to another by more than chance."""
    name = await visit.field("dataset")
    session = (await visit.field("session")) or None
    dataset = await visit.fleet.catalog.get_dataset(name)
    before, now = await asyncio.gather(
        _sample(visit, dataset.name, await visit.field("before")),
        _sample(visit, dataset.name, await visit.field("now")),
    )
    shared = [column for column in now.columns if column in before.columns]
    request = make_request(shared, _only(before, shared), _only(now, shared), session)
    if request is None:
        raise Invalid(
            "No column can be compared: it takes numbers, or texts of few different values, that "
            "both snapshots have."
        )
    answer = await visit.fleet.observer.compare_samples(request)
    return visit.page(
        "part_drift.html", answer=answer, plot=plot_findings(answer), dataset=dataset.name
    )


async def _sample(visit: Visit, name: str, snapshot: str) -> SqlResult:
    # The same rows for the same snapshot, so that the comparison can be repeated.
    sql = f'SELECT * FROM "{name}" USING SAMPLE reservoir({SAMPLED} ROWS) REPEATABLE (1)'
    return await visit.fleet.query.run_query(SqlRequest(sql=sql, as_of=snapshot or None))


async def _snapshots(visit: Visit, name: str) -> list[object]:
    return list((await visit.fleet.catalog.list_snapshots(name)).snapshots[::-1])


async def _columns(visit: Visit, name: str) -> list[str]:
    return [column.name for column in (await visit.fleet.catalog.get_dataset(name)).columns]


def _only(result: SqlResult, columns: list[object]) -> list[list[object]]:
    """The rows with these columns alone: a snapshot may have had others."""
    places = [at for at, column in enumerate(result.columns) if column in columns]
    return [[row[at] for at in places] for row in result.rows]


PAGES = (
    Page("GET", PATH, show_drift),
    Page("POST", PATH + "/compare", compare, long=True),
)
