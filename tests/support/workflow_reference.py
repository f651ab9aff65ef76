"""A second, slow reading of the trigger rules, which shares nothing with the daemon's.

It works from the definitions alone: a table of what each rule says in words, evaluated from
the leaves upwards by recursion, without an order of execution.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass
class Step:
    """A node: what it waits for, its rule, its condition (None, true or false), its fate."""

    waits: list[str]
    rule: str
    when: bool | None
    succeeds: bool


def make_graph(dice: random.Random) -> dict[str, Step]:
    """A random graph of 1 to 14 nodes, dense or sparse."""
    size = dice.randint(1, 14)
    density = dice.choice([0.15, 0.3, 0.6])
    fails = dice.choice([0.0, 0.15, 0.4])
    steps: dict[str, Step] = {}
    for number in range(size):
        waits = [name for name in steps if dice.random() < density]
        rule = dice.choice(
            ["all_success", "one_success", "none_failed_min_one_success", "all_done"]
        )
        when = dice.choice([None, None, None, True, False])
        steps[f"n{number}"] = Step(waits, rule, when, dice.random() >= fails)
    return steps


def judge_graph(steps: dict[str, Step]) -> dict[str, str]:
    """What must become of every node: completed, failed, or why it is skipped."""
    verdicts: dict[str, str] = {}

    def judge(name: str) -> str:
        if name not in verdicts:
            verdicts[name] = _judge(steps[name], [judge(one) for one in steps[name].waits], name)
        return verdicts[name]

    def any_failure_above(name: str) -> bool:
        return any(judge(one) == "failed" or any_failure_above(one) for one in steps[name].waits)

    def _judge(step: Step, parents: list[str], name: str) -> str:
        good = parents.count("completed")
        hurt = parents.count("failed") + parents.count("upstream_failed")
        runs = {
            "all_done": True,
            "all_success": good == len(parents),
            "one_success": good > 0,
            "none_failed_min_one_success": good > 0 and not any_failure_above(name),
        }[step.rule]
        if not parents or runs:
            if step.when is False:
                return "condition"
            return "completed" if step.succeeds else "failed"
        if step.rule == "none_failed_min_one_success" and any_failure_above(name):
            return "upstream_failed"
        if hurt:
            return "upstream_failed"
        return "propagated" if step.rule == "all_success" else "trigger_rule"

    for name in steps:
        judge(name)
    return verdicts
