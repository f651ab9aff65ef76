"""What of a judged run may be recorded as evidence, and what not, with the reason.

A run is recorded when its scorer accepted it, the firewall cleared it and its search is known.
Runs that are attempts at one task are one episode. The documents that its accepted answers were
made from are rated 1; a document that a rejected attempt was made from, and nothing else, is
rated -1, because that is all the scorer said of it. What was merely shown is not rated. Nothing
is decided by a failure (ADR-005): a score that is none cannot be constructed, and a run without
one is withheld.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from services.observerd.core.distill.export import POLICIES, Run, clear_runs
from services.observerd.core.distill.firewall import Clearance, Hit, Pair
from services.observerd.core.feeding.searches import Ref, Search, match_refs, name_ref
from shared.errors import Invalid

# Begins the source of everything that is recorded here; one source for each scorer, so that
# the playbook estimates how far that scorer can be trusted.
SOURCE = "distilled"
_GRAVITY = {"clear": 0, "quarantined": 1, "stopped": 2}


@dataclass(frozen=True, slots=True)
class Offered:
    """A run that may be recorded: itself, what it was an attempt at, and its search if known."""

    run: Run
    task: str
    search: Search | None


@dataclass(frozen=True, slots=True)
class Episode:
    """What is recorded of a task's accepted runs. `key` makes it safe to record again."""

    runs: tuple[str, ...]
    task: str
    source: str
    key: str
    query: str
    corpora: tuple[str, ...] | None
    helped: tuple[Ref, ...]
    harmed: tuple[Ref, ...]


@dataclass(frozen=True, slots=True)
class Withheld:
    """A run that is not recorded; `tainted` when the firewall says so."""

    run: str
    reason: str
    hits: tuple[Hit, ...] = ()
    tainted: bool = False


def decide_feed(
    offered: Sequence[Offered],
    held_out: Sequence[Pair],
    *,
    policy: str = "accepted_only",
    label: str = "",
    parents: Mapping[str, Sequence[str]] | None = None,
    similar: Mapping[str, Sequence[tuple[str, float]]] | None = None,
) -> tuple[list[Episode], list[Withheld]]:
    """The episodes to record, and the runs that are in none; each in the order of the runs.

    Args:
        held_out: pairs, by id, that nothing may be learnt from.
        parents: lineage of artefacts beside the runs.
        similar: for a run held-out ids with their cosine.

    Raises:
        Invalid: unknown policy, two runs with one id, or a score of another run.
    """
    if policy not in POLICIES:
        raise Invalid(f"Unknown policy {policy}; there are {', '.join(POLICIES)}.")
    if len({one.run.id for one in offered}) < len(offered):
        raise Invalid("Two runs have one id; send the last record of a run only.")
    for one in offered:
        if one.run.score is not None and one.run.score.run_id != one.run.id:
            raise Invalid(f"Run {one.run.id} carries the score of run {one.run.score.run_id}.")
    cleared = _clear(offered, held_out, parents or {}, similar or {})
    withheld: list[Withheld] = []
    accepted: dict[tuple[str, str], list[Offered]] = {}
    for one in offered:
        reason = _find_reason(one, cleared[one.run.id], policy)
        if reason is not None:
            withheld.append(reason)
        elif one.run.score is not None:
            source = name_source(one.run.score.scorer, label)
            accepted.setdefault((source, one.task), []).append(one)
    blamed = _find_blamed(offered, cleared)
    episodes = [
        _make_episode(source, task, runs, blamed.get(task, ()))
        for (source, task), runs in accepted.items()
    ]
    return episodes, withheld


def _clear(
    offered: Sequence[Offered],
    held_out: Sequence[Pair],
    parents: Mapping[str, Sequence[str]],
    similar: Mapping[str, Sequence[tuple[str, float]]],
) -> dict[str, Clearance]:
    """The graver word on question and answer, and on the query, which is what is recorded."""
    cleared = clear_runs([one.run for one in offered], held_out, parents, similar)
    searched = [
        replace(one.run, prompt=one.search.query, answer="")
        for one in offered
        if one.search is not None and one.search.query != one.run.prompt
    ]
    for name, found in clear_runs(searched, held_out, parents, {}).items():
        if _GRAVITY[found.decision] > _GRAVITY[cleared[name].decision]:
            cleared[name] = found
    return cleared


def name_source(scorer: str, label: str = "") -> str:
    """The playbook's source of what a scorer accepted."""
    return f"{SOURCE}:{scorer}" + (f"/{label}" if label else "")


def _find_reason(one: Offered, clearance: Clearance, policy: str) -> Withheld | None:
    """Why a run is not recorded; None when it is."""
    run, score = one.run, one.run.score
    if clearance.decision != "clear":
        # Told first: what is held out stays so whatever the scorer said.
        return Withheld(run.id, clearance.reason, clearance.hits, tainted=True)
    if score is None:
        return Withheld(run.id, "unobserved")
    if score.scorer_status != "ok":
        return Withheld(run.id, f"unscored: {score.scorer_status}")
    if score.verdict not in POLICIES[policy]:
        return Withheld(run.id, f"verdict: {score.verdict}")
    if one.search is None:
        return Withheld(run.id, "search unknown")
    if not _find_helped(one):
        return Withheld(run.id, "made from nothing that the search showed")
    return None


def _make_episode(
    source: str, task: str, runs: Sequence[Offered], blamed: Sequence[Ref]
) -> Episode:
    search = next(one.search for one in runs if one.search is not None)
    helped = {ref for one in runs for ref in _find_helped(one)}
    harmed = {ref for ref in blamed if ref not in helped}
    return Episode(
        tuple(one.run.id for one in runs),
        task,
        source,
        "feed-" + hashlib.sha256(f"{source}\n{task}".encode()).hexdigest()[:40],
        search.query,
        search.corpora,
        tuple(sorted(helped)),
        tuple(sorted(harmed)),
    )


def _find_helped(one: Offered) -> tuple[Ref, ...]:
    """What the answer was made from, without what the scorer saw and did not rest on."""
    score, search = one.run.score, one.search
    if score is None or score.response is None or search is None:
        return ()
    made_from = match_refs(one.run.parents or (), search.shown)
    offered = set(match_refs(score.response.offered, search.shown))
    rests_on = set(match_refs(score.evidence, search.shown))
    return tuple(ref for ref in made_from if ref in rests_on or ref not in offered)


def _find_blamed(
    offered: Sequence[Offered], cleared: Mapping[str, Clearance]
) -> dict[str, tuple[Ref, ...]]:
    """For each task the documents that a rejected attempt was made from alone."""
    found: dict[str, list[Ref]] = {}
    for one in offered:
        score = one.run.score
        if score is None or score.verdict != "rejected" or one.search is None:
            continue
        if cleared[one.run.id].decision != "clear":
            continue
        made_from = match_refs(one.run.parents or (), one.search.shown)
        if len(made_from) == 1:
            found.setdefault(one.task, []).append(made_from[0])
    return {task: tuple(sorted(set(refs))) for task, refs in found.items()}


def describe_refs(refs: Sequence[Ref]) -> list[str]:
    """Documents by name."""
    return [name_ref(ref) for ref in refs]
