"""Observed runs as lessons for a refiner: a search that matrixd reported, and how its run did.

A lesson needs both: what was asked (the search's own event carries the request) and which of
the documents shown proved right (a verdict in favour that names its evidence, from a scorer
that worked). What is right is known among the shown documents alone, so lessons favour the
configuration that showed them: a challenger has to be better in spite of that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from services.observerd.core.feeding.searches import Ref, find_search, match_refs


@dataclass(frozen=True, slots=True)
class Lesson:
    """A run that a refiner can replay: its query, and the documents that were right."""

    run_id: str
    query: str
    relevant: tuple[Ref, ...]


@dataclass(frozen=True, slots=True)
class NoLesson:
    """Why a rated run teaches nothing. `early`: its search may still be on its way."""

    run_id: str
    reason: str
    early: bool = False


def is_rated(event: Mapping[str, Any]) -> bool:
    """Whether an event carries a verdict."""
    return event.get("verdict") is not None


def read_lesson(
    rating: Mapping[str, Any],
    events: Sequence[Mapping[str, Any]],
    *,
    mode: str,
    task_signature: str | None,
    corpora: Sequence[str],
) -> Lesson | NoLesson:
    """What a rated run teaches.

    Args:
        rating: the event with the verdict.
        events: all of the run's that are known, oldest first.
        mode, task_signature: of the searches that count.
        corpora: what the refiner refines; a search over others is none of its business.
    """
    run_id = str(rating["run_id"])
    raw: Any = rating.get("attributes")
    attributes = cast("dict[str, Any]", raw) if isinstance(raw, dict) else {}
    if attributes.get("held_out"):
        return NoLesson(run_id, "held out")
    if rating.get("scorer_status") != "ok":
        return NoLesson(run_id, "unscored")
    if rating["verdict"] != "accepted":
        return NoLesson(run_id, f"verdict: {rating['verdict']}")
    if attributes.get("decision", "recorded") != "recorded":
        return NoLesson(run_id, "withheld from the playbook")
    search = find_search(
        [
            one
            for one in events
            if task_signature is None or one.get("task_signature") == task_signature
        ],
        (mode,),
    )
    if search is None:
        return NoLesson(run_id, f"no {mode} of it was observed", early=True)
    if search.filtered:
        return NoLesson(run_id, "its search had filters")
    if search.corpora is None or set(search.corpora) != set(corpora):
        return NoLesson(run_id, "its search was over other corpora")
    right = match_refs([str(name) for name in rating.get("evidence") or ()], search.shown)
    if not right:
        return NoLesson(run_id, "its evidence is none of what the search showed")
    return Lesson(run_id, search.query, right)
