"""Search: documents of many corpora with the reasons for their places, and what they were worth."""

from __future__ import annotations

import hashlib
from typing import Any, Literal, cast

from starlette.responses import Response

from services.gateway.console.desk import Visit
from services.gateway.console.routes import Page
from shared.errors import Invalid
from shared.wire.matrixd import CorpusInfo, CorpusSpec, MatrixAnswer, MatrixSearch, Source
from shared.wire.matrixd_playbook import RatedDocument, RecordRequest, RetireRequest

PATH = "/console/search"
CORPORA = "/console/corpora"
# Who a rating given here is by; its accuracy is estimated like any other source's.
JUDGE = "console"
MOST = 50
RATINGS = {"1": 1, "-1": -1}


async def show_search(visit: Visit) -> Response:
    """The query and its hits; both stand in the address, so that a search can be kept."""
    corpora = (await visit.fleet.matrix.list_corpora()).corpora
    query = visit.query("q").strip()
    chosen = [name for name in visit.request.query_params.getlist("corpus") if name]
    # A form leaves a box out that is not ticked, so the first visit has it ticked by itself.
    playbook = visit.query("playbook") == "on" if query else True
    values: dict[str, Any] = {
        "query": query,
        "chosen": chosen,
        "k": min(MOST, max(1, _to_number(visit.query("k"), 10))),
        "playbook": playbook,
        "answer": None,
        "dataset": visit.query("dataset"),
    }
    if query:
        values["answer"] = await _search(visit, query, chosen, values["k"], playbook)
    if visit.partial:
        return visit.page("part_hits.html", **values)
    return visit.page("search.html", corpora=corpora, busy=_is_busy(corpora), **values)


async def rate(visit: Visit) -> Response:
    """Records what a document was worth for a query. Pressed twice it is recorded once."""
    query, corpus = await visit.field("query"), await visit.field("corpus")
    document, given = await visit.field("id"), await visit.field("rating")
    if given not in RATINGS:
        raise Invalid("A rating is a thumb up or down.")
    rating = cast("Literal[1, -1]", RATINGS[given])
    shown = await visit.field("shown")
    request = RecordRequest(
        query=query,
        ratings=[RatedDocument(corpus=corpus, id=document, rating=rating)],
        source=JUDGE,
        corpora=[name for name in (await visit.form()).get("searched", []) if name] or None,
    )
    told = "\0".join((visit.session.name, shown, query, corpus, document, given))
    recorded = await visit.fleet.matrix.record(
        request, key=hashlib.sha256(told.encode()).hexdigest()
    )
    return visit.page("part_rated.html", recorded=recorded, rating=rating, query=query)


async def undo_rating(visit: Visit) -> Response:
    """Withdraws a rating just given."""
    episode = await visit.field("episode")
    await visit.fleet.matrix.retire(
        RetireRequest(episode_ids=[episode], reason="Taken back in the console")
    )
    return visit.page("part_unrated.html")


async def list_corpora(visit: Visit) -> Response:
    """The corpora and how far their jobs are."""
    corpora = (await visit.fleet.matrix.list_corpora()).corpora
    return visit.page("part_corpora.html", corpora=corpora, busy=_is_busy(corpora))


async def build_corpus(visit: Visit) -> Response:
    """Begins a corpus out of a dataset."""
    columns = (await visit.field("metadata")).replace(",", " ").split()
    spec = CorpusSpec(
        name=(await visit.field("name")).strip(),
        source=Source(dataset=(await visit.field("dataset")).strip() or None),
        id=(await visit.field("id")).strip(),
        text=await visit.field("text"),
        metadata=columns,
    )
    await visit.fleet.matrix.create_corpus(spec)
    if not visit.partial:
        return visit.go(PATH)
    response = await list_corpora(visit)
    # What is wrong with a form stands below it; what came of it, in the list.
    response.headers["hx-retarget"] = "#corpora-list"
    response.headers["hx-reswap"] = "innerHTML"
    return response


async def refresh_corpus(visit: Visit) -> Response:
    """Brings a corpus up to date with its source."""
    await visit.fleet.matrix.refresh_corpus(visit.request.path_params["name"])
    return await list_corpora(visit) if visit.partial else visit.go(PATH)


async def _search(
    visit: Visit, query: str, chosen: list[str], k: object, playbook: bool
) -> MatrixAnswer:
    return await visit.fleet.matrix.search(
        MatrixSearch.model_validate(
            {
                "query": query,
                "k": k,
                "use_playbook": playbook,
                "explain": True,
                **({"corpora": chosen} if chosen else {}),
            }
        )
    )


def _is_busy(corpora: list[CorpusInfo]) -> bool:
    return any(one.job.status in ("running", "waiting") for one in corpora)


def _to_number(text: str, otherwise: int) -> int:
    return int(text) if text.isdecimal() and len(text) < 6 else otherwise


PAGES = (
    Page("GET", PATH, show_search),
    Page("POST", PATH + "/rate", rate),
    Page("POST", PATH + "/undo", undo_rating),
    Page("GET", CORPORA, list_corpora),
    Page("POST", CORPORA, build_corpus),
    Page("POST", CORPORA + "/{name}/refresh", refresh_corpus),
)
