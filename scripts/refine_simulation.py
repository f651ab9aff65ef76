#!/usr/bin/env python3
"""Simulates config refinement: what it costs to find the best of twelve, and how often it errs.

    scripts/refine_simulation.py [--seeds 40] [--runs 3000] [--json FILE]

A world has twelve configurations (4 x 3) whose mean score falls with the distance from the
best; a run's difficulty is shared by all, and each adds noise of its own. Regret is the sum
over runs of the best mean less the incumbent's. Beside the refiner: the fixed baseline that
it starts from, and Thompson sampling, which learns only from the configuration it serves. A
world without differences shows how often something is promoted for nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_PYTHON = ROOT / ".venv" / "bin" / "python"
if _PYTHON.exists() and Path(sys.prefix) != ROOT / ".venv":
    os.execv(_PYTHON, [str(_PYTHON), *sys.argv])
sys.path.insert(0, str(ROOT))

from services.observerd.core.refine.contest import Replay
from services.observerd.core.refine.lattice import Configuration, Lattice
from services.observerd.core.refine.refiner import Policy, Refiner

LATTICE = Lattice.declare({"depth": [10, 20, 50, 100], "lexical": [0.0, 1.0, 2.0]})
START = LATTICE.configure({"depth": 10, "lexical": 0.0})
BEST = {"depth": 50, "lexical": 1.0}
# Mean score lost for each step away from the best.
STEP = 0.032
# Spread of the noise that each configuration adds to a run's shared difficulty.
NOISE = 0.1
DIFFICULTY = 0.2


def mean_of(one: Configuration, step: float) -> float:
    """The mean score of a configuration."""
    away = 0
    for name, values in LATTICE.knobs:
        away += abs(values.index(one.values[name]) - values.index(BEST[name]))
    return 0.6 - step * away


def score_of(one: Configuration, step: float, run: int, seed: int) -> float:
    """A run's score with a configuration: the same whenever it is replayed."""
    shared = random.Random(f"{seed}/{run}").gauss(0, DIFFICULTY)
    own = random.Random(f"{seed}/{run}/{one.hash}").gauss(0, NOISE)
    return min(1.0, max(0.0, mean_of(one, step) + shared + own))


def refine(seed: int, runs: int, step: float) -> tuple[float, int, int, Refiner]:
    """Total regret, promotions to something no better, replays, and the refiner at the end."""
    refiner = Refiner(LATTICE, START, Policy())
    regret, wrong, replayed = 0.0, 0, 0
    best = mean_of(LATTICE.configure(BEST), step)
    for run in range(runs):
        regret += best - mean_of(refiner.incumbent, step)
        wanted = refiner.wanted()
        replayed += len(wanted) - 1
        replays = {one: Replay(score_of(one, step, run, seed), 1.0) for one in wanted}
        for done in refiner.observe(f"{run}", f"query {run}", replays):
            if done.kind == "promoted" and done.replaced is not None:
                gain = mean_of(done.configuration, step) - mean_of(done.replaced, step)
                wrong += gain <= 0
    return regret, wrong, replayed, refiner


def thompson(seed: int, runs: int, step: float) -> float:
    """Regret of Thompson sampling over all twelve, which sees only what it serves."""
    chance = random.Random(seed)
    arms = [START]
    for one in arms:
        arms += [n for n in LATTICE.neighbours(one) if n not in arms]
    spread = (NOISE**2 + DIFFICULTY**2) ** 0.5
    count, total = dict.fromkeys(arms, 0), dict.fromkeys(arms, 0.0)
    best, regret = mean_of(LATTICE.configure(BEST), step), 0.0
    for run in range(runs):
        draws = {
            one: (total[one] + 0.5) / (count[one] + 1)
            + chance.gauss(0, spread) / (count[one] + 1) ** 0.5
            for one in arms
        }
        chosen = max(arms, key=lambda one: draws[one])
        regret += best - mean_of(chosen, step)
        count[chosen] += 1
        total[chosen] += score_of(chosen, step, run, seed)
    return regret


def main() -> int:
    """Simulates and prints; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--runs", type=int, default=3000)
    parser.add_argument("--null-seeds", type=int, default=200)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    best = mean_of(LATTICE.configure(BEST), STEP)
    fixed = args.runs * (best - mean_of(START, STEP))
    found = [refine(seed, args.runs, STEP) for seed in range(args.seeds)]
    regrets = [one[0] for one in found]
    reached = sum(one[3].incumbent.values == BEST for one in found)
    sampled = [thompson(seed, args.runs, STEP) for seed in range(args.seeds)]
    null = [refine(1000 + seed, args.runs, 0.0)[1] for seed in range(args.null_seeds)]
    figures: dict[str, Any] = {
        "runs": args.runs,
        "seeds": args.seeds,
        "regret_fixed": fixed,
        "regret_refiner": statistics.fmean(regrets),
        "regret_refiner_worst": max(regrets),
        "regret_thompson": statistics.fmean(sampled),
        "ratio": statistics.fmean(regrets) / fixed,
        "reached_best": reached,
        "promotions_to_no_better": sum(one[1] for one in found),
        "replays_a_run": statistics.fmean(one[2] for one in found) / args.runs,
        "null_seeds": args.null_seeds,
        "null_with_a_promotion": sum(one > 0 for one in null),
    }
    for name, value in figures.items():
        print(f"{name:28} {value:10.3f}" if isinstance(value, float) else f"{name:28} {value:10}")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(figures, indent=2) + "\n")
    rate = figures["null_with_a_promotion"] / args.null_seeds
    return 0 if figures["ratio"] <= 0.3 and rate <= 0.05 else 1


if __name__ == "__main__":
    sys.exit(main())
