"""Training data out of accepted runs: rows, provenance, and a manifest that proves them.

Only what was accepted leaves; partial answers leave under a policy that is named in the
manifest. Every row passed the firewall. What is left out is counted by reason, so that rows in
= rows out + exclusions. No clock and no randomness: the same runs give the same bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from services.observerd.core.distill.canonical import hash_bytes, hash_json, write_json, write_lines
from services.observerd.core.distill.firewall import FIREWALL, Clearance, Firewall, Pair
from services.observerd.core.distill.lineage import find_taints
from services.observerd.core.distill.scores import (
    COVERAGE_FLOOR,
    Coverage,
    Score,
    Verdict,
    count_coverage,
    require_coverage,
)
from services.observerd.core.distill.words import normalise_words
from shared.errors import Invalid

FORMAT = "sft/1"
Policy = Literal["accepted_only", "accepted_and_partial"]
# What each policy lets out.
POLICIES: Mapping[str, frozenset[Verdict]] = {
    "accepted_only": frozenset({"accepted"}),
    "accepted_and_partial": frozenset({"accepted", "partially_accepted"}),
}
CHAT, PROMPTS, PREFERENCES = "chat.jsonl", "prompt_completion.jsonl", "preferences.jsonl"
PROVENANCE, MANIFEST = "provenance.jsonl", "manifest.json"


@dataclass(frozen=True, slots=True)
class Run:
    """A logged run that may become a row.

    Attributes:
        score: None when none is on record: the run is unobserved and stays here.
        parents: ids it was made from (documents, episodes, runs); None when nobody recorded
            them, which the firewall treats as suspicious.
    """

    id: str
    prompt: str
    answer: str
    score: Score | None
    system: str = ""
    model: str = ""
    parents: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Export:
    """Files by name (bytes to be written as they are), and the manifest among them, parsed."""

    files: Mapping[str, bytes]
    manifest: Mapping[str, Any]
    clearances: tuple[Clearance, ...]

    @property
    def run_hash(self) -> str:
        """Names this export: equal when inputs, versions and settings are."""
        return self.manifest["run_hash"]


def export_runs(
    runs: Sequence[Run],
    held_out: Sequence[Pair],
    *,
    policy: Policy = "accepted_only",
    parents: Mapping[str, Sequence[str]] | None = None,
    similar: Mapping[str, Sequence[tuple[str, float]]] | None = None,
    config: Mapping[str, Any] | None = None,
    coverage_floor: float = COVERAGE_FLOOR,
) -> Export:
    """Rows of the runs that may leave.

    Args:
        held_out: pairs, by id, that neither they nor anything made from them may leave with.
        parents: lineage of artefacts beside the runs themselves.
        similar: for each run held-out ids with their cosine, where embeddings were measured.
        config: settings to be named in the manifest.

    Raises:
        Invalid: unknown policy, or two runs with one id.
        PreconditionFailed: too few of the runs were scored.
    """
    if policy not in POLICIES:
        raise Invalid(f"Unknown policy {policy}; there are {', '.join(POLICIES)}.")
    by_id = {run.id: run for run in runs}
    if len(by_id) < len(runs):
        raise Invalid("Two runs have one id; the log's last record of a run counts.")
    ordered = [by_id[name] for name in sorted(by_id)]
    scores = [run.score for run in ordered if run.score is not None]
    for run in ordered:
        if run.score is not None and run.score.run_id != run.id:
            raise Invalid(f"Run {run.id} carries the score of run {run.score.run_id}.")
    coverage = count_coverage((run.id for run in ordered), scores)
    require_coverage(coverage, coverage_floor)
    clearances = clear_runs(ordered, held_out, parents or {}, similar or {})
    kept, rejected, excluded = _choose(ordered, clearances, POLICIES[policy])
    pairs = _pair(kept, rejected)
    rows = {
        CHAT: write_lines({"messages": _messages(run)} for run in kept),
        PROMPTS: write_lines({"prompt": run.prompt, "completion": run.answer} for run in kept),
        PREFERENCES: write_lines(
            {"prompt": good.prompt, "chosen": good.answer, "rejected": bad.answer}
            for good, bad in pairs
        ),
        PROVENANCE: write_lines(
            [_provenance(at, run) for at, run in enumerate(kept)]
            + [
                {"file": PREFERENCES, "row": at, "chosen_run": good.id, "rejected_run": bad.id}
                for at, (good, bad) in enumerate(pairs)
            ]
        ),
    }
    manifest = {
        "format": FORMAT,
        "policy": policy,
        "versions": {
            "firewall": FIREWALL,
            "scorers": sorted({score.scorer for score in scores}),
            "config_hash": hash_json(dict(config or {})),
        },
        "inputs": {
            "runs": len(ordered),
            "sha256": hash_bytes(write_lines(_describe(run) for run in ordered)),
            "held_out": len(held_out),
            "held_out_sha256": hash_held_out(held_out),
        },
        "coverage": _dump_coverage(coverage),
        "rows": {
            name: {"rows": data.count(b"\n"), "sha256": hash_bytes(data)}
            for name, data in rows.items()
        },
        "excluded": dict(sorted(excluded.items())),
    }
    whole = {**manifest, "run_hash": hash_json(manifest)}
    return Export({**rows, MANIFEST: write_json(whole) + b"\n"}, whole, tuple(clearances.values()))


def hash_held_out(held_out: Sequence[Pair]) -> str:
    """Names a held-out set by its content, whatever the order."""
    rows = sorted((pair.id, pair.prompt, pair.answer) for pair in held_out)
    return hash_json(rows)


def check_export(files: Mapping[str, bytes], manifest: Mapping[str, Any]) -> list[str]:
    """What is wrong with an export as it lies on disk; nothing when it is whole."""
    problems: list[str] = []
    without = {name: value for name, value in manifest.items() if name != "run_hash"}
    if hash_json(without) != manifest.get("run_hash"):
        problems.append("the manifest does not match its run_hash")
    for name, stated in manifest.get("rows", {}).items():
        if name not in files:
            problems.append(f"{name} is missing")
        elif hash_bytes(files[name]) != stated["sha256"]:
            problems.append(f"{name} was changed")
    return problems


def clear_runs(
    runs: Sequence[Run],
    held_out: Sequence[Pair],
    parents: Mapping[str, Sequence[str]],
    similar: Mapping[str, Sequence[tuple[str, float]]],
) -> dict[str, Clearance]:
    """What the firewall says of each run by its id: lineage first, then texts."""
    known = {**parents, **{run.id: run.parents for run in runs if run.parents is not None}}
    # What a run was made from is an original unless its own lineage is on record.
    origins = {parent for made_from in known.values() for parent in made_from}
    lineage = {**dict.fromkeys(origins, ()), **known}
    taints = find_taints([run.id for run in runs], lineage, {pair.id for pair in held_out})
    wall = Firewall(held_out, (Pair(run.id, run.prompt, run.answer) for run in runs))
    return {
        run.id: wall.check_row(
            Pair(run.id, run.prompt, run.answer),
            taint=taints.get(run.id),
            similar=similar.get(run.id, ()),
        )
        for run in runs
    }


def _choose(
    runs: Sequence[Run], clearances: Mapping[str, Clearance], allowed: frozenset[Verdict]
) -> tuple[list[Run], list[Run], Counter[str]]:
    kept: list[Run] = []
    rejected: list[Run] = []
    excluded: Counter[str] = Counter()
    seen: set[tuple[str, str, str]] = set()
    for run in runs:
        clearance = clearances[run.id]
        if run.score is None:
            excluded["unobserved"] += 1
        elif run.score.scorer_status != "ok":
            excluded[f"unscored: {run.score.scorer_status}"] += 1
        elif clearance.decision != "clear":
            excluded[clearance.reason] += 1
        elif run.score.verdict not in allowed:
            excluded[f"verdict: {run.score.verdict}"] += 1
            if run.score.verdict == "rejected":
                rejected.append(run)
        elif (key := (run.system, run.prompt, run.answer)) in seen:
            excluded["duplicate"] += 1
        else:
            seen.add(key)
            kept.append(run)
    return kept, rejected, excluded


def _pair(kept: Sequence[Run], rejected: Sequence[Run]) -> list[tuple[Run, Run]]:
    """Each accepted answer with each rejected one to the same prompt, texts being different."""
    bad: dict[tuple[str, ...], list[Run]] = {}
    for run in rejected:
        bad.setdefault(normalise_words(run.prompt), []).append(run)
    return [
        (good, other)
        for good in kept
        if good.score is not None and good.score.verdict == "accepted"
        for other in bad.get(normalise_words(good.prompt), [])
        if normalise_words(good.answer) != normalise_words(other.answer)
    ]


def _messages(run: Run) -> list[dict[str, str]]:
    head = [{"role": "system", "content": run.system}] if run.system else []
    return [
        *head,
        {"role": "user", "content": run.prompt},
        {"role": "assistant", "content": run.answer},
    ]


def _provenance(at: int, run: Run) -> dict[str, Any]:
    score = run.score.dump() if run.score is not None else None
    return {
        "file": CHAT,
        "also": PROMPTS,
        "row": at,
        "run": run.id,
        "model": run.model,
        "parents": sorted(run.parents or ()),
        "score": score,
    }


def _describe(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "prompt": run.prompt,
        "answer": run.answer,
        "system": run.system,
        "model": run.model,
        "parents": None if run.parents is None else sorted(run.parents),
        "score": run.score.dump() if run.score is not None else None,
    }


def _dump_coverage(coverage: Coverage) -> dict[str, Any]:
    return {
        "runs": coverage.runs,
        "scored": coverage.scored,
        "unobserved": coverage.unobserved,
        "coverage": round(coverage.coverage, 6),
        "by_verdict": coverage.by_verdict,
        "by_status": coverage.by_status,
    }
