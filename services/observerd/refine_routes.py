"""The routes of config refinement."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Path, Response

from services.observerd.store.drawing import Drawing
from services.observerd.store.refining import Refiners
from shared.wire.observerd_feed import Drawn, DrawRequest, GuardAnswer
from shared.wire.observerd_judging import ScorerDriftRequest
from shared.wire.observerd_refine import (
    REFINER,
    Learnt,
    LoggedRun,
    Pin,
    Reason,
    RefinerList,
    RefinerSpec,
    RefinerView,
)

REFINERS = "/observer/refiners"
Name = Annotated[str, Path(pattern=REFINER, description="Name of the refiner")]


def add_refine_routes(app: FastAPI, refiners: Refiners, drawing: Drawing) -> None:
    """Configurations that are refined from logged runs."""

    @app.put(
        REFINERS + "/{name}",
        tags=["refinement"],
        responses={201: {"model": RefinerView}},
    )
    async def declare_refiner(name: Name, spec: RefinerSpec, response: Response) -> RefinerView:
        """Declares what may be tried: 201, or 200 when it is there; another spec is 409."""
        view, made = await refiners.declare(name, spec)
        response.status_code = 201 if made else 200
        return view

    @app.get(REFINERS, tags=["refinement"])
    async def list_refiners() -> RefinerList:
        """All refiners: the configuration in use, its challengers, every decision and why."""
        return refiners.list()

    @app.get(REFINERS + "/{name}", tags=["refinement"])
    async def get_refiner(name: Name) -> RefinerView:
        """One refiner."""
        return refiners.show(name)

    @app.post(REFINERS + "/{name}/runs", tags=["refinement"])
    async def learn_from_run(name: Name, run: LoggedRun) -> Learnt:
        """Replays a logged run with the incumbent and its challengers; each run counts once."""
        return await refiners.learn(name, run)

    @app.post(REFINERS + "/{name}/draw", tags=["refinement"])
    async def draw_runs(name: Name, request: DrawRequest | None = None) -> Drawn:
        """Learns from rated runs that were observed since the last draw."""
        return await drawing.draw(name, request or DrawRequest())

    @app.post(REFINERS + "/{name}/drift", tags=["refinement"])
    async def guard_refiner(name: Name, request: ScorerDriftRequest) -> GuardAnswer:
        """Tests the scorer for drift: judge or system freezes the refiner, none thaws it."""
        return await drawing.guard(name, request)

    @app.post(REFINERS + "/{name}/pin", tags=["refinement"])
    async def pin_configuration(name: Name, pin: Pin) -> RefinerView:
        """Makes a configuration the incumbent by hand: undoes a promotion, or begins anew."""
        return await refiners.pin(name, pin)

    @app.post(REFINERS + "/{name}/freeze", tags=["refinement"])
    async def freeze_refiner(name: Name, reason: Reason) -> RefinerView:
        """Stops learning: the scores cannot be relied on."""
        return await refiners.freeze(name, reason.reason)

    @app.post(REFINERS + "/{name}/thaw", tags=["refinement"])
    async def thaw_refiner(name: Name, reason: Reason) -> RefinerView:
        """Learns again, from nothing."""
        return await refiners.thaw(name, reason.reason)
