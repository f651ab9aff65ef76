"""Samples of audits: which runs were judged again, so that none is counted twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from services.observerd.core.distill.baselines import Baseline
from services.observerd.core.distill.canonical import hash_json
from shared.errors import Conflict, Invalid
from shared.wire.observerd_distill import AuditRequest

# Runs that one message names.
_TOLD = 5


def describe_sample(request: AuditRequest) -> dict[str, Any]:
    """The sample as the chain keeps it. Runs that were not judged are counted, not named:
    they may be audited again.

    Raises:
        Invalid: a verdict does not name its run, or two name the same.
    """
    if request.sample is None:
        raise Invalid("This audit has no sample.")
    named = [one.run for one in request.verdicts if one.run is not None]
    if len(named) < len(request.verdicts):
        raise Invalid("With a sample every verdict names its run, so that none counts twice.")
    if len(set(named)) < len(named):
        raise Invalid("A run is named twice; judge each once.")
    judged = sorted(str(one.run) for one in request.verdicts if one.judge is not None)
    return {
        "seed": request.sample.seed,
        "population": request.sample.population,
        "drawn": len(named),
        "unread": len(named) - len(judged),
        "runs": judged,
    }


def find_audit(
    chain: Sequence[Baseline], request: AuditRequest, metrics: Mapping[str, Any]
) -> Baseline | None:
    """The entry that this audit made already, wherever in the chain it stands.

    Raises:
        Conflict: an earlier audit of this scorer by this judge counted some of these runs.
    """
    wanted = frozenset(metrics["sample"]["runs"])
    counted: set[str] = set()
    for entry in chain:
        if (entry.scorer, entry.judge) != (request.scorer, request.judge):
            continue
        if hash_json(dict(entry.metrics)) == hash_json(dict(metrics)):
            return entry
        sample = entry.metrics.get("sample") or {}
        counted |= wanted.intersection(sample.get("runs", ()))
    if counted:
        told = ", ".join(sorted(counted)[:_TOLD])
        raise Conflict(
            f"{len(counted)} of these runs were audited before by {request.judge}, such as {told}. "
            "Leave them out: each counts once.",
            details={"runs": sorted(counted)},
        )
    return None
