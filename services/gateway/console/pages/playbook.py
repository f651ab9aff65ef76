"""The playbook: what was recorded as working or failing, by whom, and withdrawing it."""

from __future__ import annotations

from starlette.responses import Response

from services.gateway.console.desk import Visit
from services.gateway.console.routes import Page
from shared.wire.matrixd_playbook import RetireRequest

PATH = "/console/playbook"
PAGE_SIZE = 50


async def list_episodes(visit: Visit) -> Response:
    """Episodes, newest first, and what is believed of their sources."""
    retired = visit.query("retired") == "on"
    found = await visit.fleet.matrix.list_episodes(
        PAGE_SIZE, visit.query("cursor") or None, retired=retired
    )
    return visit.page("playbook.html", found=found, retired=retired)


async def show_episode(visit: Visit) -> Response:
    """One episode."""
    episode = await visit.fleet.matrix.get_episode(visit.request.path_params["episode"])
    return visit.page("episode.html", episode=episode)


async def retire_episode(visit: Visit) -> Response:
    """Withdraws an episode: searches are then as if it had never been recorded."""
    episode = visit.request.path_params["episode"]
    reason = (await visit.field("reason")).strip()
    await visit.fleet.matrix.retire(RetireRequest(episode_ids=[episode], reason=reason))
    return visit.go(visit.request.url.path.removesuffix("/retire"))


PAGES = (
    Page("GET", PATH, list_episodes),
    Page("GET", PATH + "/{episode}", show_episode),
    Page("POST", PATH + "/{episode}/retire", retire_episode),
)
