"""Hits as the wire shows them, and how their scores came about."""

from __future__ import annotations

from services.pathwayd.core.traces import format_time
from services.pathwayd.store.answers import load_content
from services.pathwayd.store.search import Answer, Found
from shared.wire.pathwayd import Explanation, PathwayHit, TermScore


def show_hit(found: Found, rank: int, answer: Answer, weight: float, *, full: bool) -> PathwayHit:
    """A hit; with `full` also how its score came about."""
    trace = found.trace
    return PathwayHit(
        id=trace.id,
        score=found.score,
        rank=rank,
        semantic=_short(found.cosine),
        lexical=_short(found.lexical),
        version=trace.version,
        status=trace.status,
        content=load_content(trace.content),
        tags=list(trace.tags),
        created_at=format_time(trace.created),
        updated_at=format_time(trace.updated),
        supersedes=trace.supersedes,
        superseded_by=trace.superseded_by,
        explain=explain_hit(found, answer, weight) if full else None,
    )


def explain_hit(found: Found, answer: Answer, weight: float) -> Explanation:
    """The parts of a hit's score."""
    share = {"hybrid": weight, "semantic": 1.0}.get(answer.mode, 0.0)
    terms = []
    if answer.weighed and answer.postings is not None:
        terms = answer.postings.explain(answer.weighed, found.row)
    return Explanation(
        semantic_weight=share,
        lexical_weight=round(1 - share, 6),
        cosine=_short(found.cosine),
        semantic_rank=found.semantic_rank,
        bm25=round(found.bm25, 6),
        idf_sum=round(answer.idf_sum, 6),
        lexical=_short(found.lexical) or 0.0,
        lexical_rank=found.lexical_rank,
        terms=[
            TermScore(word=word, idf=round(idf, 6), count=count, adds=round(adds, 6))
            for word, idf, count, adds in terms
        ],
    )


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
