"""Did what is logged change? Features of two samples of rows, each tested, the family corrected."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from services.observerd.core.drift.multiplicity import Correction, adjust
from services.observerd.core.drift.permutation import (
    Bools,
    Permuted,
    gather_units,
    run_permutations,
)
from services.observerd.core.drift.vectors import (
    KINDS,
    Encoded,
    Kind,
    encode_categories,
    encode_embeddings,
    encode_numbers,
    encode_rankings,
)
from shared.errors import Invalid

Status = Literal["insufficient", "stable", "drifted"]

ALPHA = 0.05
DRAWS = 999
# Sessions on each side below which nothing is said.
MIN_SESSIONS = 30
# Sessions on each side that are looked at; of more, a random part.
MAX_SESSIONS = 10_000
# What a missing value of any feature is tested as, beside the values that are there.
MISSING = ".missing"
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Row:
    """One logged thing: the session it came from, and its values by feature (None: missing)."""

    session: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one feature's test says.

    `effect` is in the unit named by `effect_name`, with its 95 % interval; `noise` is the
    effect that unchanged samples of this size show. `p` is this test's own, `p_adjusted` the
    family's; the status follows from the latter alone. None where nothing could be said.
    """

    feature: str
    kind: Kind
    status: Status
    reason: str
    sessions: tuple[int, int]
    rows: tuple[int, int]
    effect_name: str | None = None
    effect: float | None = None
    effect_low: float | None = None
    effect_high: float | None = None
    noise: float | None = None
    p: float | None = None
    p_upper: float | None = None
    p_adjusted: float | None = None
    details: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class DriftReport:
    """All features. `drifted` when any is; `insufficient` when none could be tested."""

    status: Status
    findings: tuple[Finding, ...]
    alpha: float
    correction: Correction
    draws: int
    straddling_sessions: int


def compare_samples(
    reference: Sequence[Row],
    current: Sequence[Row],
    kinds: Mapping[str, Kind],
    rng: np.random.Generator,
    *,
    alpha: float = ALPHA,
    draws: int = DRAWS,
    correction: Correction = "holm",
    min_sessions: int = MIN_SESSIONS,
) -> DriftReport:
    """Tests each feature of `kinds` for a difference between both samples.

    A session with rows on both sides is left out of both and counted: it would tie them.

    Raises:
        Invalid: a value is not of its feature's kind, or an argument is out of range.
    """
    _check(kinds, alpha, draws, min_sessions)
    both = {row.session for row in reference} & {row.session for row in current}
    before = [row for row in reference if row.session not in both]
    after = [row for row in current if row.session not in both]
    before, after = _thin(before, rng), _thin(after, rng)
    findings: list[Finding] = []
    for name, kind in kinds.items():
        gaps = [_is_missing(row.values.get(name)) for row in (*before, *after)]
        kept = [row for row in before if not _is_missing(row.values.get(name))]
        later = [row for row in after if not _is_missing(row.values.get(name))]
        findings.append(_test(name, kind, kept, later, rng, draws, min_sessions))
        if any(gaps):
            marked = [
                Row(row.session, {name: "missing" if gap else "present"})
                for row, gap in zip((*before, *after), gaps, strict=True)
            ]
            cut = len(before)
            found = _test(name, "categorical", marked[:cut], marked[cut:], rng, draws, min_sessions)
            findings.append(replace(found, feature=name + MISSING))
    decided = _decide(findings, alpha, correction)
    statuses = {one.status for one in decided}
    status: Status = (
        "drifted" if "drifted" in statuses else "stable" if "stable" in statuses else "insufficient"
    )
    return DriftReport(status, decided, alpha, correction, draws, len(both))


def _check(kinds: Mapping[str, Kind], alpha: float, draws: int, min_sessions: int) -> None:
    unknown = {name: kind for name, kind in kinds.items() if kind not in KINDS}
    if not kinds or unknown:
        raise Invalid(f"Name each feature with a kind, one of {', '.join(KINDS)}; got {unknown}.")
    if not 0 < alpha < 1:
        raise Invalid(f"alpha must lie between 0 and 1; it is {alpha}.")
    if draws + 1 < 2 * len(kinds) / alpha:
        raise Invalid(
            f"{draws} draws cannot reach a p-value that stands at alpha {alpha} among "
            f"{len(kinds)} features; ask for at least {math.ceil(2 * len(kinds) / alpha)}."
        )
    if min_sessions < 2:
        raise Invalid("min_sessions must be 2 or more.")


def _thin(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    sessions = sorted({row.session for row in rows})
    if len(sessions) <= MAX_SESSIONS:
        return rows
    kept = {sessions[int(at)] for at in rng.permutation(len(sessions))[:MAX_SESSIONS]}
    return [row for row in rows if row.session in kept]


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _test(
    name: str,
    kind: Kind,
    before: list[Row],
    after: list[Row],
    rng: np.random.Generator,
    draws: int,
    min_sessions: int,
) -> Finding:
    rows = (len(before), len(after))
    numbers: dict[tuple[bool, str], int] = {}
    unit: list[int] = []
    for is_current, side in ((False, before), (True, after)):
        for row in side:
            unit.append(numbers.setdefault((is_current, row.session), len(numbers)))
    labels: Bools = np.array([is_current for is_current, _ in numbers], dtype=np.bool_)
    sessions = (int((~labels).sum()), int(labels.sum()))
    values = [row.values[name] for row in (*before, *after)]
    encoded = _encode(name, kind, values, rng)
    if min(sessions) < min_sessions or encoded is None:
        reason = (
            f"{sessions[0]} and {sessions[1]} sessions have it; {min_sessions} are needed on "
            "each side."
        )
        return Finding(name, kind, "insufficient", reason, sessions, rows)
    places: NDArray[np.intp] = np.array(unit, dtype=np.intp)
    units = gather_units(encoded.rows, places, labels, encoded.weights)
    found = run_permutations(units, encoded.effect, rng, draws=draws)
    return _found(name, kind, sessions, rows, encoded, found, _describe(kind, values, rows[0]))


def _found(
    name: str,
    kind: Kind,
    sessions: tuple[int, int],
    rows: tuple[int, int],
    encoded: Encoded,
    found: Permuted,
    details: Mapping[str, Any],
) -> Finding:
    return Finding(
        feature=name,
        kind=kind,
        status="stable",
        reason="",
        sessions=sessions,
        rows=rows,
        effect_name=encoded.effect_name,
        effect=found.effect,
        effect_low=found.low,
        effect_high=found.high,
        noise=found.noise,
        p=found.p,
        p_upper=found.p_upper,
        details=details,
    )


def _encode(name: str, kind: Kind, values: list[Any], rng: np.random.Generator) -> Encoded | None:
    if not values:
        return None
    if kind == "categorical":
        if not all(isinstance(value, str | bool | int) for value in values):
            raise Invalid(f"{name}: a categorical value must be a string, a boolean or an integer.")
        return encode_categories([str(value) for value in values])
    if kind == "ranking":
        for value in values:
            good = isinstance(value, list | tuple) and all(
                isinstance(item, str) for item in cast("list[Any]", value)
            )
            if not good:
                raise Invalid(f"{name}: a ranking must be a list of ids (strings), best first.")
        return encode_rankings(values)
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.full((1,), np.nan)
    wanted = 1 if kind == "numeric" else 2
    if array.ndim != wanted or not np.isfinite(array).all():
        shape = "a finite number" if kind == "numeric" else "a list of finite numbers, all as long"
        raise Invalid(f"{name}: each value must be {shape}.")
    return encode_numbers(array) if kind == "numeric" else encode_embeddings(array, rng)


def _describe(kind: Kind, values: list[Any], cut: int) -> Mapping[str, Any]:
    before, after = values[:cut], values[cut:]
    if kind == "numeric":
        return {"medians": [float(np.median(before)), float(np.median(after))]}
    if kind == "categorical":
        old, new = {str(v) for v in before}, {str(v) for v in after}
        return {"appeared": sorted(new - old)[:_SHOWN], "vanished": sorted(old - new)[:_SHOWN]}
    if kind == "ranking":
        first = {v[0] for v in before if v}
        return {"new_at_the_top": sorted({v[0] for v in after if v} - first)[:_SHOWN]}
    middle = [np.mean(np.asarray(side, dtype=np.float64), axis=0) for side in (before, after)]
    lengths = float(np.linalg.norm(middle[0]) * np.linalg.norm(middle[1]))
    return {"centroid_cosine": float(middle[0] @ middle[1]) / lengths if lengths else None}


def _decide(
    findings: Sequence[Finding], alpha: float, correction: Correction
) -> tuple[Finding, ...]:
    tested = [at for at, one in enumerate(findings) if one.p is not None]
    adjusted = adjust([cast("float", findings[at].p) for at in tested], correction)
    decided = list(findings)
    for at, value in zip(tested, adjusted, strict=True):
        drifted = value <= alpha
        reason = f"adjusted p {value:.3g} {'<=' if drifted else '>'} {alpha:g}"
        decided[at] = replace(
            findings[at],
            status="drifted" if drifted else "stable",
            reason=reason,
            p_adjusted=value,
        )
    return tuple(decided)
