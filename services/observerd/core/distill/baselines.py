"""Audits of the scorer, chained: which held-out set, which scorer, how far it agreed.

Each entry carries the hash of the one before, so a figure cannot be changed or dropped later
without a trace. The chain is data; the journal keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from services.observerd.core.distill.canonical import hash_json
from shared.errors import Conflict, Invalid

GENESIS = "0" * 64


@dataclass(frozen=True, slots=True)
class Baseline:
    """One audit in the chain.

    Attributes:
        held_out: hash of the set it was measured on (`export.hash_held_out`).
        metrics: figures by name; JSON.
        prev: `hash` of the entry before, GENESIS for the first.
    """

    seq: int
    held_out: str
    scorer: str
    judge: str
    metrics: Mapping[str, Any]
    prev: str
    hash: str

    def dump(self) -> dict[str, Any]:
        """The entry as JSON."""
        return {name: getattr(self, name) for name in Baseline.__slots__}


def extend_chain(
    chain: Sequence[Baseline],
    *,
    held_out: str,
    scorer: str,
    judge: str,
    metrics: Mapping[str, Any],
) -> Baseline:
    """The entry that comes next; the very same audit again gives the last entry back.

    Raises:
        Conflict: the chain is broken, so nothing may be built on it.
    """
    problems = check_chain(chain)
    if problems:
        raise Conflict(
            f"The chain of audits is broken: {problems[0]}. Restore it from a backup.",
            details={"problems": problems},
        )
    if chain:
        last = chain[-1]
        same = (last.held_out, last.scorer, last.judge) == (held_out, scorer, judge)
        if same and hash_json(dict(last.metrics)) == hash_json(dict(metrics)):
            return last
    prev = chain[-1].hash if chain else GENESIS
    return _link(len(chain) + 1, held_out, scorer, judge, metrics, prev)


def check_chain(chain: Sequence[Baseline]) -> list[str]:
    """What is wrong with a chain, by entry; nothing when it is whole."""
    problems: list[str] = []
    prev = GENESIS
    for at, entry in enumerate(chain, start=1):
        if entry.seq != at:
            problems.append(f"entry {at} says it is number {entry.seq}")
        if entry.prev != prev:
            problems.append(f"entry {at} does not follow the one before")
        again = _link(
            entry.seq, entry.held_out, entry.scorer, entry.judge, entry.metrics, entry.prev
        )
        if again.hash != entry.hash:
            problems.append(f"entry {at} was changed")
        prev = entry.hash
    return problems


def load_baseline(fields: Mapping[str, Any]) -> Baseline:
    """An entry from its JSON.

    Raises:
        Invalid: fields are missing or unknown.
    """
    try:
        return Baseline(**fields)
    except TypeError:
        raise Invalid("This is no entry of the audits' chain.") from None


def find_baseline(chain: Sequence[Baseline], held_out: str, scorer: str) -> Baseline | None:
    """The newest audit of a scorer on a held-out set."""
    for entry in reversed(chain):
        if (entry.held_out, entry.scorer) == (held_out, scorer):
            return entry
    return None


def measure_audit(
    verdicts: Sequence[tuple[str, str | None]], runs: int, seed: int = 0
) -> dict[str, Any]:
    """Metrics of an audit: agreement of (scorer's, judge's) verdicts, with intervals.

    A judge's None is a review that failed: it leaves the denominator and lowers the coverage.
    numpy is loaded here, not with the module.

    Args:
        runs: how many runs were to be audited.
    """
    import numpy as np

    from services.observerd.core.drift.agreement import measure_agreement

    usable = [(one, other) for one, other in verdicts if other is not None]
    found = measure_agreement(
        [one for one, _ in usable], [other for _, other in usable], np.random.default_rng(seed)
    )
    upheld = sum(one == other for one, other in usable)
    return {
        "runs": runs,
        "judged": len(usable),
        "coverage": len(usable) / runs if runs else 0.0,
        "upheld": upheld,
        "agreement": asdict(found),
    }


def _link(
    seq: int, held_out: str, scorer: str, judge: str, metrics: Mapping[str, Any], prev: str
) -> Baseline:
    content = {
        "seq": seq,
        "held_out": held_out,
        "scorer": scorer,
        "judge": judge,
        "metrics": dict(metrics),
        "prev": prev,
    }
    return Baseline(seq, held_out, scorer, judge, dict(metrics), prev, hash_json(content))
