"""The gate: each threshold, what was measured, and by how much it is missed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from scripts.lift.judged import JudgedSet
from scripts.lift.measures import Comparison, Pair, compare, correct_by_holm
from scripts.lift.trial import COLD_ARMS, Outcome

# Sets with fewer answers a query than this, on average, are single-answer sets.
SINGLE = 1.5
EXACT_SINGLE, EXACT_MANY = 0.60, 0.30
SIMILAR_CORPORA = 0.05
SIGNIFICANT = 0.05
# From so many recorded topics on, a lift has to be significant.
ENOUGH_TOPICS = 50
LOSSES_PER_WIN = 0.10
SLACK = 0.005
UNSEEN_LOW = -0.010
EXPLAINED = 0.010
FAR_SHARE = 0.001
PLACEBO = 0.005
KEPT_AT_TWO, KEPT_AT_EIGHT = 0.40, 0.60
BRIBE_SHARE = 0.01
RELEARNT = 0.90
LATENCY_MS = 5.0
# How far calibrated search, against which lifts are measured, may be behind another cold arm.
COLD_SLACK = 0.015
# nDCG@10 from which on nothing is missing but rounding.
COMPLETE = 1 - 1e-9


@dataclass(frozen=True, slots=True)
class Check:
    """One threshold. `value` and `wanted` as read; `missed_by` says how much is lacking."""

    name: str
    wanted: str
    value: str
    passed: bool
    missed_by: str = ""
    note: str = ""


def pool(outcomes: Sequence[Outcome]) -> dict[str, list[Pair]]:
    """The pairs of several seeds, by arm."""
    pairs: dict[str, list[Pair]] = {}
    for outcome in outcomes:
        for arm, found in outcome.pairs.items():
            pairs.setdefault(arm, []).extend(found)
    return pairs


def total(outcomes: Sequence[Outcome], name: str) -> float | None:
    """A count over several seeds; None where it was not made."""
    found = [outcome.counts[name] for outcome in outcomes if name in outcome.counts]
    return sum(found) if found else None


def compare_arms(outcomes: Sequence[Outcome]) -> dict[str, Comparison]:
    """Every arm's comparison."""
    return {arm: compare(pairs) for arm, pairs in pool(outcomes).items()}


def check_all(
    judged: JudgedSet,
    outcomes: Sequence[Outcome],
    arms: Mapping[str, Comparison],
    latency_ms: float | None,
) -> list[Check]:
    """All checks that the set allows."""
    checks = _check_exact(judged, arms)
    sizes = sorted(int(arm.split()[1]) for arm in arms if arm.startswith("paraphrase "))
    sizes = [size for size in sizes if arms[f"paraphrase {size}"].queries]
    if sizes:
        checks += _check_paraphrases(judged, arms, sizes)
    for arm in sorted(
        (a for a in arms if a.startswith("unseen ")), key=lambda a: int(a.split()[1])
    ):
        note = "a gain: see the report" if arms[arm].delta > EXPLAINED else ""
        checks.append(_check_unharmed(arm, arms[arm], note))
    checks += _check_harm(arms)
    checks += _check_counts(outcomes)
    checks += _check_drift(arms)
    if latency_ms is not None:
        checks.append(at_most("latency added at 10,000 notes, p95 ms", latency_ms, LATENCY_MS))
    checks.append(_check_cold(outcomes))
    return checks


def _check_cold(outcomes: Sequence[Outcome]) -> Check:
    means: dict[str, float] = {}
    for arm in COLD_ARMS:
        found = [s.ndcg for outcome in outcomes for s in outcome.cold.get(arm, {}).values()]
        means[arm] = sum(found) / len(found) if found else 0.0
    best = max(means, key=lambda arm: means[arm])
    note = ", ".join(f"{arm} {mean:.3f}" for arm, mean in means.items())
    behind = means[best] - means[COLD_ARMS[0]]
    return at_most("cold: behind the strongest cold arm", behind, COLD_SLACK, note)


def _check_exact(judged: JudgedSet, arms: Mapping[str, Comparison]) -> list[Check]:
    wanted = EXACT_SINGLE if judged.answers < SINGLE else EXACT_MANY
    kind = "single" if judged.answers < SINGLE else "many"
    name = f"headroom captured ({kind}-answer set)"
    checks = [_check_headroom(f"exact repeat: {name}", arms["exact"], wanted)]
    if (repeated := arms.get("exact, run 3")) is not None:
        name = f"exact repeat after three judged runs: {name}"
        checks.append(_check_headroom(name, repeated, wanted))
        checks.append(_check_unharmed("unseen, repeated", arms["unseen, repeated"], ""))
    return checks


def _check_paraphrases(
    judged: JudgedSet, arms: Mapping[str, Comparison], sizes: Sequence[int]
) -> list[Check]:
    checks: list[Check] = []
    after = 2 if 2 in sizes else sizes[-1]
    found = arms[f"paraphrase {after}"]
    wanted = judged.demands.get("paraphrase_headroom", 0.0)
    if not wanted and len(judged.corpora) > 1:
        wanted = SIMILAR_CORPORA
    name = f"paraphrases after {after}"
    checks.append(_check_headroom(f"{name}: headroom captured", found, wanted))
    adjusted = correct_by_holm({str(size): arms[f"paraphrase {size}"].p for size in sizes})
    if found.topics >= ENOUGH_TOPICS:
        checks.append(at_most(f"{name}: p (Holm)", adjusted[str(after)], SIGNIFICANT))
    ratio = found.losses / found.wins if found.wins else float(found.losses)
    note = f"{found.wins} wins, {found.losses} losses"
    checks.append(at_most(f"{name}: losses/wins", ratio, LOSSES_PER_WIN, note))
    for one, other in pairwise(sizes):
        checks.append(_check_learning(one, other, arms))
    return checks


def _check_learning(one: int, other: int, arms: Mapping[str, Comparison]) -> Check:
    fewer, more = arms[f"paraphrase {one}"], arms[f"paraphrase {other}"]
    change = more.after - fewer.after
    note = ""
    if more.topics < ENOUGH_TOPICS and change < -SLACK:
        # One topic among so few moves the mean by more: by how much did it fall for sure?
        note = f"{change:+.4f}; for certain, with {more.topics} topics"
        change = min(0.0, more.high - fewer.low)
    return at_least(f"learning from {one} to {other}", change, -SLACK, note)


def _check_harm(arms: Mapping[str, Comparison]) -> list[Check]:
    checks: list[Check] = []
    for arm in ("placebo corpus", "placebo list"):
        found = arms[arm]
        change = abs(found.delta)
        note = f"{found.delta:+.4f}"
        if found.topics < ENOUGH_TOPICS:
            # So few topics move by more than that through chance alone: by how much for sure?
            change = max(0.0, found.low, -found.high)
            note += f"; for certain, with {found.topics} topics"
        checks.append(at_most(f"{arm}: change", change, PLACEBO, note))
    for arm, found in sorted(arms.items()):
        if not arm.startswith("poison ") or not found.queries:
            continue
        rate, rest = arm.split()[1], arm.split(maxsplit=2)[2]
        if rest == "unseen":
            checks.append(_check_unharmed(arm, found, ""))
            continue
        turns = int(rest.split()[1])
        checks.append(at_least(f"{arm}: no loss", found.delta, -SLACK))
        clean = arms.get(f"paraphrase {turns}")
        is_lift = clean is not None and clean.delta > 0 and clean.p <= SIGNIFICANT
        if rate == "0.2" and clean is not None and is_lift and turns >= 2:
            kept = KEPT_AT_EIGHT if turns >= 8 else KEPT_AT_TWO
            checks.append(
                at_least(f"{arm}: part of the clean lift", found.delta / clean.delta, kept)
            )
    return checks


def _check_headroom(name: str, found: Comparison, wanted: float) -> Check:
    if found.before < COMPLETE:
        return at_least(name, found.headroom, wanted)
    # Where cold search misses nothing, there is nothing to capture.
    return at_least(name, found.delta, 0.0, "the change: cold search leaves no headroom")


def _check_unharmed(arm: str, found: Comparison, note: str) -> Check:
    if found.topics >= ENOUGH_TOPICS:
        return at_least(f"{arm}: lower bound", found.low, UNSEEN_LOW, note)
    told = f"the mean: {found.topics} topics are too few for its bound ({found.low:+.4f})"
    return at_least(f"{arm}: change", found.delta, UNSEEN_LOW, note or told)


def _check_counts(outcomes: Sequence[Outcome]) -> list[Check]:
    checks: list[Check] = []
    changed, asked = total(outcomes, "far changed"), total(outcomes, "far")
    if changed is not None and asked:
        note = f"{changed:.0f} of {asked:.0f}"
        checks.append(at_most("far-off: top tens that changed", changed / asked, FAR_SHARE, note))
    seen, among = total(outcomes, "bribe seen"), total(outcomes, "bribe asked")
    if seen is not None and among:
        note = f"{seen:.0f} of {among:.0f}"
        share = seen / among
        checks.append(at_most("poison, targeted: unrelated top tens", share, BRIBE_SHARE, note))
    for name, told in (
        ("retired differ", "retire-all: answers that differ from cold"),
        ("recovery differ", "recovery: answers that differ from never poisoned"),
        ("restart differ", "restart: answers that differ"),
    ):
        found = total(outcomes, name)
        if found is not None:
            checks.append(at_most(told, found, 0))
    return checks


def _check_drift(arms: Mapping[str, Comparison]) -> list[Check]:
    last, before = arms.get("drift after 3"), arms.get("drift before")
    if last is None or before is None or before.after <= 0:
        return []
    note = f"nDCG@10 {last.after:.3f} of {before.after:.3f}"
    share = last.after / before.after
    return [at_least("drift: back after three judged runs", share, RELEARNT, note)]


def at_least(name: str, value: float, wanted: float, note: str = "") -> Check:
    """A check that passes when the value reaches what is wanted."""
    passed = value >= wanted
    missed = "" if passed else f"{wanted - value:.4f}"
    return Check(name, f"≥ {wanted:.3f}", f"{value:.4f}", passed, missed, note)


def at_most(name: str, value: float, wanted: float, note: str = "") -> Check:
    """A check that passes when the value stays within what is wanted."""
    passed = value <= wanted
    missed = "" if passed else f"{value - wanted:.4f}"
    return Check(name, f"≤ {wanted:.3f}", f"{value:.4f}", passed, missed, note)
