"""Which runs are audited: read from what observerd recorded, drawn the same way every time."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MODE = "distillation.feed"
ACCEPTED = frozenset({"accepted"})
DECIDED = frozenset({"accepted", "partially_accepted", "rejected"})


@dataclass(frozen=True, slots=True)
class Case:
    """A judged run: what was asked, answered, and what the verdict rested on."""

    run: str
    question: str
    answer: str
    evidence: tuple[tuple[str, str], ...]
    scorer: str
    verdict: str


def read_cases(events: Iterable[Mapping[str, Any]], verdicts: Collection[str]) -> list[Case]:
    """The runs that may be audited, by id; of several events of a run the last counts.

    What is held out has no text on record and is never among them.
    """
    found: dict[str, Case | None] = {}
    for event in events:
        if event.get("mode") != MODE:
            continue
        attributes = event.get("attributes") or {}
        run = str(attributes.get("run") or event["run_id"])
        found[run] = _read_case(run, event, attributes, verdicts)
    return [case for _, case in sorted(found.items()) if case is not None]


def _read_case(
    run: str,
    event: Mapping[str, Any],
    attributes: Mapping[str, Any],
    verdicts: Collection[str],
) -> Case | None:
    inputs, outputs = event.get("inputs"), event.get("outputs")
    usable = event.get("scorer_status") == "ok" and event.get("verdict") in verdicts
    if attributes.get("held_out") or not usable or not inputs or not outputs:
        return None
    evidence = tuple((one["id"], one["text"]) for one in outputs.get("evidence") or ())
    if not evidence:
        # A judge who sees nothing to judge by can accept nothing.
        return None
    return Case(
        run,
        inputs["question"],
        outputs["answer"],
        evidence,
        str(attributes.get("scorer") or "unknown"),
        event["verdict"],
    )


def draw_sample(cases: Sequence[Case], size: int, seed: int) -> list[Case]:
    """`size` of the cases, the same ones for a seed; a larger size only adds to a smaller."""

    def place(case: Case) -> str:
        return hashlib.sha256(f"{seed}\n{case.run}".encode()).hexdigest()

    return sorted(cases, key=place)[:size]


def find_audited(baselines: Iterable[Mapping[str, Any]], tier: str) -> set[str]:
    """Runs that an audit by a model of this tier has counted."""
    return {
        run
        for entry in baselines
        if str(entry["judge"]).startswith(f"{tier}:")
        for run in (entry["metrics"].get("sample") or {}).get("runs", ())
    }
