#!/usr/bin/env python3
"""Measures the drift tests themselves: how often they ring without cause, and with one.

    scripts/drift_curves.py                        every kind at every size (about an hour)
    scripts/drift_curves.py --kind numeric --sizes 30,100 --reps 500
    scripts/drift_curves.py --table                the tables of what was measured so far

Samples are simulated: alike for false alarms, changed by a known amount for power. A false-alarm
rate is right when it lies in the interval where 95 % (over all cells of a kind together: 99.9 %)
of binomial counts with the nominal rate lie. Figures go to reports/drift/KIND.json, a cell for
each size; cells that are not measured again are kept. The exit status is 1 when a cell's count
lies outside the wide interval, or a stream rings more often than its bound allows.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_PYTHON = ROOT / ".venv" / "bin" / "python"
if _PYTHON.exists() and Path(sys.prefix) != ROOT / ".venv":
    os.execv(_PYTHON, [str(_PYTHON), *sys.argv])
sys.path.insert(0, str(ROOT))

import argparse
import json
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from services.observerd.core.drift import streams
from services.observerd.core.drift.anchors import AnchorScore, judge_scorer
from services.observerd.core.drift.distributions import Row, compare_samples
from services.observerd.core.drift.permutation import gather_units, run_permutations
from services.observerd.core.drift.vectors import (
    Encoded,
    encode_categories,
    encode_embeddings,
    encode_numbers,
    encode_rankings,
)

ALPHA = 0.05
DRAWS = 199
SIZES = (30, 100, 300, 1000, 5000)
OUT = ROOT / "reports" / "drift"
Dice = np.random.Generator
# Draws the sessions of one side: rows of values, and the session of each row.
Draw = Callable[[Dice, int, float], tuple[Any, Any]]
RUN_LENGTH = 10_000


def draw_numbers(dice: Dice, size: int, change: float) -> tuple[Any, Any]:
    """Latencies: log-normal, one a session; a change multiplies them."""
    return np.exp(dice.normal(size=size)) * math.exp(change), np.arange(size)


def draw_sessions(dice: Dice, size: int, change: float) -> tuple[Any, Any]:
    """Numbers in sessions of 1 to 6 rows that share half of their variance."""
    session = np.repeat(np.arange(size), dice.integers(1, 7, size=size))
    own = dice.normal(size=size)[session] + dice.normal(size=len(session))
    return own / math.sqrt(2) + change, session


def draw_flags(dice: Dice, size: int, change: float) -> tuple[Any, Any]:
    """A rare flag: true in a tenth of the rows, one a session."""
    return (dice.random(size) < 0.1 + change).astype(np.str_), np.arange(size)


def draw_categories(dice: Dice, size: int, change: float) -> tuple[Any, Any]:
    """Six skewed categories; a change moves weight from the first to the last."""
    shares = np.array([0.5, 0.2, 0.15, 0.09, 0.05, 0.01])
    shares += np.array([-change, 0, 0, 0, 0, change])
    return dice.choice(list("abcdef"), size=size, p=shares), np.arange(size)


def draw_embeddings(dice: Dice, size: int, change: float) -> tuple[Any, Any]:
    """Unit vectors round four topics; a change moves weight from the first to the last."""
    centres = np.random.default_rng(5).normal(size=(4, 32))
    topics = dice.choice(4, size=size, p=[0.4 - change, 0.3, 0.2, 0.1 + change])
    found = centres[topics] + 1.5 * dice.normal(size=(size, 32))
    return found / np.linalg.norm(found, axis=1, keepdims=True), np.arange(size)


def draw_rankings(dice: Dice, size: int, change: float) -> tuple[Any, Any]:
    """Top tens of 400 documents, some liked more; a change lifts one of the middle."""
    merit = -np.log(np.arange(1, 401))
    merit[20] += change
    noisy = merit + dice.gumbel(size=(size, 400))
    return [[f"d{at}" for at in row] for row in np.argsort(-noisy, axis=1)[:, :10]], np.arange(size)


SAMPLERS: dict[str, tuple[Draw, float]] = {
    "numeric": (draw_numbers, 0.2),
    "numeric-sessions": (draw_sessions, 0.2),
    "binary": (draw_flags, 0.05),
    "categorical": (draw_categories, 0.05),
    "embedding": (draw_embeddings, 0.1),
    "ranking": (draw_rankings, 1.0),
}
# Fewer repetitions where one takes a tenth of a second or more.
SLOW = {"embedding", "ranking", "family"}


def encode(kind: str, values: Any, dice: Dice) -> Encoded:
    """Rows of a kind as the tests see them."""
    if kind.startswith("numeric"):
        return encode_numbers(values)
    if kind == "embedding":
        return encode_embeddings(values, dice)
    return encode_rankings(values) if kind == "ranking" else encode_categories(values)


def ring_sample(kind: str, dice: Dice, size: int, change: float) -> bool:
    """Whether one pair of samples is called different."""
    draw = SAMPLERS[kind][0]
    before, first = draw(dice, size, 0.0)
    after, second = draw(dice, size, change)
    values = [*before, *after] if kind == "ranking" else np.concatenate([before, after])
    unit = np.concatenate([first, second + size])
    encoded = encode(kind, values, dice)
    units = gather_units(encoded.rows, unit, np.arange(2 * size) >= size, encoded.weights)
    found = run_permutations(units, encoded.effect, dice, draws=DRAWS, resamples=0)
    return found.p <= ALPHA


def ring_anchors(dice: Dice, size: int, change: float) -> bool:
    """Whether a judge that errs in a seventh of its verdicts is called another one.

    A change is the share of wrong answers that it now lets pass beside that.
    """
    words = ("accepted", "partially_accepted", "rejected")
    anchors: list[AnchorScore] = []
    for at in range(size):
        right = int(dice.integers(3))
        seen = [int(dice.integers(3)) if dice.random() < 0.2 else right for _ in range(2)]
        if right == 2 and dice.random() < change:
            seen[1] = 0
        anchors.append(AnchorScore(str(at), words[right], words[seen[0]], words[seen[1]]))
    return judge_scorer(anchors, dice, draws=DRAWS, min_anchors=size).verdict == "judge"


def ring_family(dice: Dice, size: int, change: float) -> bool:
    """Whether any of eight features is called different, Holm-corrected; one of them changes."""
    sides: list[list[Row]] = []
    for side, shift in (("r", 0.0), ("c", change)):
        numbers = dice.normal(size=(size, 7))
        numbers[:, 0] += shift
        words, _ = draw_categories(dice, size, 0.0)
        sides.append(
            [
                Row(f"{side}{at}", {**{f"x{n}": v for n, v in enumerate(row)}, "mode": str(word)})
                for at, (row, word) in enumerate(zip(numbers.tolist(), words, strict=True))
            ]
        )
    kinds: Any = {**{f"x{n}": "numeric" for n in range(7)}, "mode": "categorical"}
    return compare_samples(*sides, kinds, dice, draws=399).status == "drifted"


def binomial_interval(reps: int, rate: float, level: float) -> tuple[int, int]:
    """The central interval of counts that a binomial with this rate lies in."""
    logs = [
        math.lgamma(reps + 1)
        - math.lgamma(k + 1)
        - math.lgamma(reps - k + 1)
        + k * math.log(rate)
        + (reps - k) * math.log(1 - rate)
        for k in range(reps + 1)
    ]
    reached = np.cumsum(np.exp(logs))
    tail = (1 - level) / 2
    return int(np.searchsorted(reached, tail)), int(np.searchsorted(reached, 1 - tail))


def measure_cell(kind: str, size: int, reps: int, seed: int) -> dict[str, Any]:
    """False alarms and power of one kind at one size."""
    change = {"anchors": 0.3, "family": 0.4}.get(kind) or SAMPLERS[kind][1]

    def ring(dice: Dice, shift: float) -> bool:
        if kind == "anchors":
            return ring_anchors(dice, size, shift)
        if kind == "family":
            return ring_family(dice, size, shift)
        return ring_sample(kind, dice, size, shift)

    begun = time.monotonic()
    dice = np.random.default_rng([seed, size, sum(kind.encode())])
    false = sum(ring(dice, 0.0) for _ in range(reps))
    hits = max(60, reps // 5)
    true = sum(ring(dice, change) for _ in range(hits))
    narrow, wide = (binomial_interval(reps, ALPHA, level) for level in (0.95, 0.999))
    return {
        "size": size,
        "reps": reps,
        "false_alarms": false,
        "rate": false / reps,
        "interval_95": [bound / reps for bound in narrow],
        "interval_999": [bound / reps for bound in wide],
        "inside_95": narrow[0] <= false <= narrow[1],
        "inside_999": wide[0] <= false <= wide[1],
        "change": change,
        "power": true / hits,
        "power_reps": hits,
        "seed": seed,
        "seconds": round(time.monotonic() - begun, 1),
    }


def measure_stream(mean: float, later: float, seed: int, streams_run: int) -> dict[str, Any]:
    """Delay to the alarm of a Bernoulli stream that changes, and false alarms of one that not."""
    dice = np.random.default_rng([seed, int(mean * 1000), int(later * 1000)])
    cell: dict[str, Any] = {"mean": mean, "later": later, "run_length": RUN_LENGTH, "seed": seed}
    if later == mean:
        length = 2 * RUN_LENGTH
        alarms = 0
        for _ in range(streams_run):
            values = (dice.random(length) < mean).astype(float).tolist()
            start = streams.start_detector(mean, run_length=RUN_LENGTH)
            alarms += streams.run_detector(start, values)[0].alarms
        per = alarms / (streams_run * length / RUN_LENGTH)
        return {**cell, "streams": streams_run, "alarms": alarms, "alarms_per_10k": per}
    delays: list[int] = []
    for _ in range(streams_run):
        start = streams.start_detector(mean, run_length=RUN_LENGTH)
        quiet = (dice.random(500) < mean).astype(float).tolist()
        state, _ = streams.run_detector(start, quiet)
        for at, value in enumerate((dice.random(4000) < later).astype(float).tolist(), start=1):
            state, alarm = streams.update_detector(state, value)
            if alarm is not None:
                delays.append(at)
                break
    return {
        **cell,
        "streams": streams_run,
        "missed": streams_run - len(delays),
        "median_delay": float(np.median(delays)) if delays else None,
    }


STREAMS = ((0.2, 0.2), (0.05, 0.05), (0.9, 0.9), (0.2, 0.25), (0.2, 0.3), (0.2, 0.5), (0.9, 0.8))


def print_tables() -> None:
    """What stands in reports/drift, as Markdown."""
    print("| Kind | " + " | ".join(f"n = {size:,}" for size in SIZES) + " |")
    print("|---" * (len(SIZES) + 1) + "|")
    for kind in (*SAMPLERS, "anchors", "family"):
        path = OUT / f"{kind}.json"
        if not path.exists():
            continue
        cells = {cell["size"]: cell for cell in json.loads(path.read_text())}
        shown = [
            f"{c['rate']:.3f}{'' if c['inside_95'] else ' *'} / {c['power']:.2f}" if c else "-"
            for c in (cells.get(size) for size in SIZES)
        ]
        print(f"| {kind} | " + " | ".join(shown) + " |")
    if (OUT / "streams.json").exists():
        print(
            "\n| Mean, then | Alarms per 10,000 | Median delay | Missed in 4,000 |\n"
            "|---|---|---|---|"
        )
        for cell in json.loads((OUT / "streams.json").read_text()):
            first = cell.get("alarms_per_10k", "")
            missed = f"{cell['missed']} of {cell['streams']}" if "missed" in cell else ""
            delay = cell.get("median_delay", "")
            print(f"| {cell['mean']}, {cell['later']} | {first} | {delay} | {missed} |")


def main() -> int:
    """Measures what is asked for; gives the exit status."""
    kinds = (*SAMPLERS, "anchors", "family", "streams")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kind", choices=kinds, action="append")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--reps", type=int, default=1000, help="null repetitions of a cell")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="print the tables, measure nothing")
    arguments = parser.parse_args()
    if arguments.table:
        print_tables()
        return 0
    OUT.mkdir(parents=True, exist_ok=True)
    good = True
    for kind in arguments.kind or kinds:
        path = OUT / f"{kind}.json"
        if kind == "streams":
            cells = [measure_stream(*pair, arguments.seed, 40) for pair in STREAMS]
            # The bound is on the mean; forty streams scatter round it.
            good &= all(cell.get("alarms_per_10k", 0) <= 1.2 for cell in cells)
        else:
            held = json.loads(path.read_text()) if path.exists() else []
            by_size = {cell["size"]: cell for cell in held}
            for size in map(int, arguments.sizes.split(",")):
                slow = 2 if kind in SLOW and size >= 1000 else 1
                cell = measure_cell(kind, size, max(1, arguments.reps // slow), arguments.seed)
                by_size[size] = cell
                good &= cell["inside_999"]
                print(kind, json.dumps(cell), flush=True)
            cells = [by_size[size] for size in sorted(by_size)]
        path.write_text(json.dumps(cells, indent=1) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
