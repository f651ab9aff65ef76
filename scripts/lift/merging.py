"""Corpora of different content merged: does a search of all find what a search of the right one
would?

Of each corpus as many needs are recorded, judged run after judged run as a user would see them,
and as many others are the control. Each corpus counts alike in the means, however many queries
it has. Oracle routing searches only the corpus that answers; it cannot be had without labels.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from scripts.lift.checks import FAR_SHARE, Check, at_least, at_most
from scripts.lift.edge import Edge
from scripts.lift.judge import ErringJudge, Judge, judge_honestly
from scripts.lift.judged import JudgedSet, JudgedSetError, Query
from scripts.lift.measures import score_list

# Needs of each corpus that are recorded, and others; judged runs; queries of each other need.
RECORDED, OTHERS, RUNS, ASKED = 24, 40, 3, 2
ERRING = (0.2, 0.4)
# What flipped ratings may cost against cold search, in nDCG@10.
SLACK = 0.005
Means = dict[str, float]


@dataclass(frozen=True, slots=True)
class MergingPlan:
    """Per corpus: queries recorded in turn, paraphrases held out, queries of other needs."""

    turns: list[dict[str, list[Query]]]
    held: dict[str, list[Query]]
    others: dict[str, list[Query]]


def plan_merging(judged: JudgedSet, seed: int) -> MergingPlan:
    """The plan of one seed. Needs with answers in several corpora are left out.

    Raises:
        JudgedSetError: no need can be recorded, or none is left that never was.
    """
    home = {document.id: document.corpus for document in judged.documents}
    groups: dict[str, dict[str, list[Query]]] = {name: {} for name in judged.corpora}
    for topic, queries in judged.group_topics().items():
        found = {home[d] for query in queries for d in judged.relevant[query.id]}
        if len(found) == 1:
            groups[found.pop()][topic] = queries
    dice = random.Random(f"merging {seed}")
    turns: list[dict[str, list[Query]]] = [{} for _ in range(RUNS)]
    held: dict[str, list[Query]] = {}
    others: dict[str, list[Query]] = {}
    for corpus, topics in groups.items():
        names = sorted(topics)
        dice.shuffle(names)
        rich = [name for name in names if len(topics[name]) > RUNS]
        seen = rich[: min(RECORDED, len(names) // 2)]
        held[corpus] = []
        for name in seen:
            chosen = dice.sample(topics[name], RUNS + 1)
            held[corpus].append(chosen.pop())
            for turn, query in zip(turns, chosen, strict=True):
                turn.setdefault(corpus, []).append(query)
        left = [name for name in names if name not in set(seen)][:OTHERS]
        others[corpus] = [
            query
            for name in left
            for query in dice.sample(topics[name], min(ASKED, len(topics[name])))
        ]
    if not any(held.values()) or not any(others.values()):
        raise JudgedSetError(
            f"{judged.name} has an oracle_gap, so merged corpora are tried. That takes needs that "
            f"one corpus answers, with {RUNS + 1} paraphrases (queries of one topic) to record "
            "them, and others beside those. Add some, or take oracle_gap out of set.json."
        )
    return MergingPlan(turns, held, others)


class Merging:
    """Runs one seed's arms; nothing of them is left in the playbook."""

    def __init__(self, edge: Edge, judged: JudgedSet, plan: MergingPlan, seed: int) -> None:
        self.edge = edge
        self.judged = judged
        self.plan = plan
        self.seed = seed
        self._names = dict(zip(judged.corpora, edge.corpora, strict=True))

    def run(self, far: Sequence[str]) -> dict[str, Means]:
        """nDCG@10 by arm, a corpus each and their mean; and what changed of far-off queries."""
        found: dict[str, Means] = {}
        asked = {"paraphrases": self.plan.held, "other needs": self.plan.others}
        for group, queries in asked.items():
            found[f"{group}: cold"] = self._ask(queries, playbook=False)
            found[f"{group}: oracle"] = self._ask(queries, playbook=False, routed=True)
        for corpus in self.judged.corpora:
            found[f"other needs: only {corpus}"] = self._ask(
                self.plan.others, playbook=False, only=corpus
            )
        for run in range(1, RUNS + 1):
            self._record(run - 1, judge_honestly, "judge")
            for group, queries in asked.items():
                found[f"{group}: learned {run}"] = self._ask(queries, playbook=True)
        found["paraphrases: oracle and learned"] = self._ask(
            self.plan.held, playbook=True, routed=True
        )
        if far:
            cold = self.edge.search_all(far, playbook=False)
            after = self.edge.search_all(far, playbook=True)
            changed = sum(a.refs != b.refs for a, b in zip(cold, after, strict=True))
            found["far-off"] = {"asked": float(len(far)), "changed": float(changed)}
        self.edge.retire_runs()
        for rate in ERRING:
            judge = ErringJudge(rate, random.Random(f"merging {rate} {self.seed}"))
            for turn in range(RUNS):
                self._record(turn, judge, f"erring {rate}")
            for group, queries in asked.items():
                found[f"{group}: learned of flips {rate}"] = self._ask(queries, playbook=True)
            self.edge.retire_runs()
        return found

    def _record(self, turn: int, judge: Judge, run: str) -> None:
        for _, queries in sorted(self.plan.turns[turn].items()):
            shown = self.edge.search_all([query.text for query in queries], playbook=True)
            for query, answer in zip(queries, shown, strict=True):
                ratings = judge(answer.refs[:10], self.judged.relevant[query.id])
                self.edge.record(
                    query.text, ratings, source="judge", run=f"{self.seed} merging {run} {turn}"
                )

    def _ask(
        self,
        asked: Mapping[str, Sequence[Query]],
        *,
        playbook: bool,
        routed: bool = False,
        only: str = "",
    ) -> Means:
        means: Means = {}
        for corpus, queries in asked.items():
            name = only or (corpus if routed else "")
            answers = self.edge.search_all(
                [query.text for query in queries],
                playbook=playbook,
                corpora=[self._names[name]] if name else None,
            )
            if queries:
                means[corpus] = fmean(
                    score_list(answer.ids, self.judged.relevant[query.id]).ndcg
                    for query, answer in zip(queries, answers, strict=True)
                )
        return {**means, "mean": fmean(means.values())}


def average_seeds(found: Sequence[Mapping[str, Means]]) -> dict[str, Means]:
    """The mean over seeds of each arm; of what is counted the sum."""
    arms = dict.fromkeys(arm for one in found for arm in one)
    return {
        arm: {
            name: (sum if arm == "far-off" else fmean)(
                one[arm][name] for one in found if arm in one
            )
            for name in next(one[arm] for one in found if arm in one)
        }
        for arm in arms
    }


def check_merging(found: Mapping[str, Means], gap: float) -> list[Check]:
    """The checks of merged corpora, cold and learned apart."""
    means = {arm: values["mean"] for arm, values in found.items() if "mean" in values}
    single = max(value for arm, value in means.items() if ": only " in arm)
    checks: list[Check] = []
    cold = means["other needs: cold"]
    note = f"{cold:.3f}, the best single corpus {single:.3f}"
    checks.append(at_least("merged, cold: above every single corpus", cold - single, 0.0, note))
    for group in ("other needs", "paraphrases"):
        oracle = means[f"{group}: oracle"]
        for arm in ("cold", f"learned {RUNS}"):
            value = means[f"{group}: {arm}"]
            name = f"merged, {arm}, {group}: behind oracle routing"
            note = f"{value:.3f} of {oracle:.3f}"
            checks.append(at_most(name, oracle - value, gap, note))
    for rate in ERRING:
        for group in ("other needs", "paraphrases"):
            value = means[f"{group}: learned of flips {rate}"] - means[f"{group}: cold"]
            checks.append(at_least(f"merged, flips {rate}, {group}: no loss", value, -SLACK))
    if far := found.get("far-off"):
        share = far["changed"] / far["asked"]
        note = f"{far['changed']:.0f} of {far['asked']:.0f}"
        checks.append(at_most("merged, far-off: top tens that changed", share, FAR_SHARE, note))
    return checks
