"""Workflows: runs, each drawn as its graph while it goes on, and starting one from YAML."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from services.gateway.console.core.dag import draw_graph
from services.gateway.console.desk import Visit
from services.gateway.console.routes import Page
from shared.errors import Invalid
from shared.wire.observerd_workflows import ResumeRequest, RunView

PATH = "/console/workflows"
RUN = PATH + "/{run}"
PAGE_SIZE = 50
UNDER_WAY = ("queued", "running")
EXAMPLE = """\
name: shout
inputs: {text: hello}
outcome: $upper.output.text
nodes:
  - {id: echo, mode: fixture.echo, with: {text: $inputs.text, delay_ms: 1500}}
  - {id: upper, mode: fixture.upper, depends_on: [echo], with: {text: $echo.output.text}}
  - {id: count, mode: sql, depends_on: [echo], with: {sql: "select 6 * 7 as answer"}}
  - {id: last, mode: fixture.echo, depends_on: [upper, count], with: {text: done}}
"""


async def list_runs(visit: Visit) -> Response:
    """Runs, newest first, and the form that starts one."""
    runs = await visit.fleet.observer.list_runs(PAGE_SIZE, visit.query("cursor") or None)
    modes = (await visit.fleet.observer.list_modes()).modes
    return visit.page("workflows.html", runs=runs, modes=modes, example=EXAMPLE)


async def start_run(visit: Visit) -> Response:
    """Starts a workflow from its text. JSON is YAML too."""
    text = (await visit.field("document")).strip()
    if not text:
        raise Invalid("Write a workflow first; the example is one.")
    started = await visit.fleet.observer.start_document(text.encode(), "application/yaml")
    return visit.go(f"{PATH}/{started.run_id}")


async def show_run(visit: Visit) -> Response:
    """One run."""
    return visit.page("run.html", **_draw(await _get(visit)))


async def show_live(visit: Visit) -> Response:
    """The part of a run's page that changes."""
    return visit.page("part_run.html", **_draw(await _get(visit)))


async def cancel_run(visit: Visit) -> Response:
    """Ends a run."""
    run = await visit.fleet.observer.cancel_run(visit.request.path_params["run"])
    return _after(visit, run)


async def resume_run(visit: Visit) -> Response:
    """Runs again what had not succeeded."""
    name = visit.request.path_params["run"]
    await visit.fleet.observer.resume_run(name, ResumeRequest())
    return _after(visit, await _get(visit))


async def _get(visit: Visit) -> RunView:
    return await visit.fleet.observer.get_run(visit.request.path_params["run"])


def _after(visit: Visit, run: RunView) -> Response:
    if visit.partial:
        return visit.page("part_run.html", **_draw(run))
    return visit.go(f"{PATH}/{run.run_id}")


def _draw(run: RunView) -> dict[str, Any]:
    graph = draw_graph({name: node.depends_on for name, node in run.nodes.items()})
    return {"run": run, "graph": graph, "live": run.status in UNDER_WAY}


PAGES = (
    Page("GET", PATH, list_runs),
    Page("POST", PATH, start_run),
    Page("GET", RUN, show_run),
    Page("GET", RUN + "/live", show_live, polled=True),
    Page("POST", RUN + "/cancel", cancel_run),
    Page("POST", RUN + "/resume", resume_run),
)
