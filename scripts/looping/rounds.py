"""The rounds: tasks are searched, composed, answered, judged, fed back, refined, distilled.

Half of the topics are worked on; of each one query is held out for good, and the other topics
are held out whole, by lineage. What is held out is asked too, in every round, and its judged
runs are offered to the playbook like all others: the firewall has to stop each of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scripts.lift.edge import Found
from scripts.lift.judged import JudgedSet, Query
from scripts.lift.measures import Pair, Scores, score_list
from scripts.lift.planning import Plan
from scripts.looping.answering import STAND_IN, Answerer, leave_out
from scripts.looping.edge import Context, LoopEdge
from scripts.looping.library import START, Library
from scripts.looping.tally import Judged, Round, count_tasks

KNOBS = {"lexical": [0.3, 0.6, 1.2, 2.4], "candidates": [50, 100]}
ANCHORS = 40
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Anchor:
    """A frozen case for the scorer: an answer, what it is judged beside, and its verdicts."""

    name: str
    query: Query
    document: str
    shown: tuple[str, ...]
    neighbours: tuple[Mapping[str, str], ...]
    expected: str
    baseline: str = ""


class Loop:
    """Runs rounds.

    Args:
        edge: with the set's corpora built.
        plan: which topics are worked on, and what is held out.
        answer: who answers, from the composed messages alone.
        references: whether the scorer is shown known good answers beside the one to judge.
        drafts: answers to one task at most, each from sources that none before was made from.
    """

    def __init__(
        self,
        edge: LoopEdge,
        judged: JudgedSet,
        plan: Plan,
        answer: Answerer,
        say: Say,
        *,
        references: bool,
        drafts: int,
    ) -> None:
        self.edge = edge
        self.judged = judged
        self.plan = plan
        self.answer = answer
        self.say = say
        self.drafts = drafts
        self.held = list(plan.held.values())
        self.name = f"{edge.prefix}.s{plan.seed}"
        self.refiner = f"{edge.prefix}-s{plan.seed}"
        self.library = Library(edge, judged, references=references)
        self.runs: list[Judged] = []
        # The last export, file by file.
        self.files: dict[str, str] = {}
        # Tasks of which something is in the playbook.
        self.recorded: set[str] = set()
        self._first: dict[str, Found] = {}
        self._right: dict[str, bool] = {}
        self._live: list[dict[str, str]] = []
        self._probes: list[Judged] = []
        self._anchors: list[Anchor] = []
        self._held_out = hold_out(plan)

    # --- the loop

    def start(self) -> Round:
        """Declares the refiner, freezes the anchors, and measures what there is."""
        spec = {
            "corpora": self.edge.corpora,
            "knobs": KNOBS,
            "start": START,
            "policy": {"latency_ms": 5000.0},
        }
        self.edge.declare_refiner(self.refiner, spec)
        self.say("round 0: measuring")
        self._freeze_anchors()
        return self._measure(0)

    def run_round(self, number: int) -> Round:
        """One round from the tasks to the report."""
        self.say(f"round {number}: tasks")
        topics = sorted(self.plan.recorded)
        tasks = [(at, self._pick(topic, number)) for at, topic in enumerate(topics)]
        done = self.edge.map(lambda task: self._work(number, *task), tasks)
        made = [one for drafts in done for one in drafts]
        self.say(f"round {number}: feeding {len(made)} runs")
        fed = self._feed(made)
        self.runs += made
        refined = self.edge.refine(self.refiner)
        drift = self._check_drift([drafts[0] for drafts in done if drafts])
        self.say(f"round {number}: measuring")
        found = self._measure(number)
        found.tasks = count_tasks(done)
        found.feed, found.refine, found.drift = fed, refined, drift
        found.distil = self._distil()
        return found

    def _pick(self, topic: str, number: int) -> Query:
        queries = self.plan.recorded[topic]
        return queries[(number - 1) % len(queries)]

    def _work(self, number: int, at: int, query: Query) -> list[Judged]:
        """A task: drafts of an answer, each without the sources of those before it."""
        task = f"{self.name}.{number}.{at}"
        self.edge.search(query.text, playbook=True, run=task)
        context = self.edge.compose(query.text, playbook=True, run=task)
        made: list[Judged] = []
        spent: list[str] = []
        for draft in range(1, self.drafts + 1):
            one = self._answer(f"{task}.{draft}", query, context, spent)
            if one is None:
                break
            made.append(one)
            if not one.made_from:
                break
            spent += one.made_from
        return made

    def _answer(
        self, run: str, query: Query, context: Context, spent: Sequence[str] = ()
    ) -> Judged | None:
        """An answer out of a context, and the scorer's word on it; None without a source."""
        names = {number: "/".join(ref) for number, ref in context.refs.items()}
        gone = [number for number, name in names.items() if name in spent]
        if len(gone) == len(names):
            return None
        answer = self.answer(leave_out(context.messages, gone))
        cited = tuple(names[number] for number in answer.cited if number in names)
        shown = [(names[n], self.library.texts[ref[1]]) for n, ref in context.refs.items()]
        if answer.model == STAND_IN:
            # It copies: what is copied cannot be evidence for the copy.
            shown = [(name, text) for name, text in shown if name not in cited]
        evidence = tuple({"id": name, "text": text} for name, text in shown)
        known = self.library.find_references(query, cited)
        copied = cited if answer.model == STAND_IN else ()
        near = self.library.find_neighbours(answer.text, copied)
        score = self.edge.score(run, query.text, answer.text, evidence, known, near)
        ids = {ref[1] for n, ref in context.refs.items() if n in answer.cited}
        right = bool(ids & self.judged.relevant[query.id].keys())
        return Judged(run, query, answer, cited, score, evidence, right)

    # --- what comes of the runs

    def _feed(self, made: Sequence[Judged]) -> dict[str, Any]:
        """Offers the round's runs, and what was asked of held-out queries, to the playbook."""
        probes = [one for one in self._probes if one.accepted]
        body = {
            "runs": [self._describe(one) for one in [*made, *probes]],
            "held_out": self._held_out,
            "parents": self._lineage(),
        }
        found = self.edge.feed(body)
        recorded = {one["run"] for one in found["recorded"]}
        sources = sorted({one["source"] for one in found["recorded"]})
        self.recorded |= {name.rpartition(".")[0] for name in recorded}
        return {
            "offered": found["runs"],
            "scored": found["scored"],
            "recorded": len(recorded),
            "withheld": found["reasons"],
            "trust": {source: [self.edge.find_trust(source)] for source in sources},
            "held_out_offered": len(probes),
            "held_out_recorded": sum(one.run in recorded for one in probes),
        }

    def _describe(self, one: Judged) -> dict[str, Any]:
        return {
            "id": one.run,
            "task": one.run.rpartition(".")[0],
            "question": one.query.text,
            "answer": one.answer.text,
            "score": one.score,
            "model": one.answer.model,
            "parents": [f"query:{one.query.id}", *one.made_from],
            "evidence": [e for e in one.evidence if e["id"] in one.score["evidence"]],
        }

    def _lineage(self) -> dict[str, list[str]]:
        """Each query comes from its topic, so that what is held out of a topic is its queries."""
        asked = [
            *(one for queries in self.plan.recorded.values() for one in queries),
            *self.held,
            *self.plan.unseen,
        ]
        return {f"query:{query.id}": [f"topic:{query.topic}"] for query in asked}

    def _distil(self) -> dict[str, Any]:
        """Exports everything so far, twice in another order: the same bytes are asked for."""
        runs = [
            {
                "id": one.run,
                "prompt": one.query.text,
                "answer": one.answer.text,
                "score": one.score,
                "model": one.answer.model,
                "parents": [f"query:{one.query.id}", *one.made_from],
            }
            for one in self.runs
        ]
        body = {
            "runs": runs,
            "held_out": self._held_out,
            "parents": self._lineage(),
        }
        first = self.edge.export(body)
        self.files = first["files"]
        again = self.edge.export({**body, "runs": runs[::-1]})
        manifest = first["manifest"]
        return {
            "run_hash": first["run_hash"],
            # Rows in another order must give the same bytes.
            "changed_again": int(again["files"] != first["files"]),
            "rows": {name: one["rows"] for name, one in manifest["rows"].items()},
            "excluded": manifest["excluded"],
            "scored": manifest["coverage"]["scored"],
        }

    def _check_drift(self, first: Sequence[Judged]) -> dict[str, Any]:
        """The anchors judged again, the round's verdicts beside those of the one before."""
        live = [{"session": one.run, "verdict": one.score["verdict"]} for one in first]
        current = self.edge.map(self._judge_anchor, self._anchors)
        body = {
            "anchors": [
                {
                    "id": one.name,
                    "expected": one.expected,
                    "baseline": one.baseline,
                    "current": now,
                }
                for one, now in zip(self._anchors, current, strict=True)
            ],
            "live_before": self._live,
            "live_now": live if self._live else [],
            "deterministic": True,
        }
        self._live = live
        found = self.edge.guard(self.refiner, body)
        drift = found["drift"]
        return {
            "verdicts": {drift["verdict"]: 1},
            "actions": {found["action"]: 1},
            "reasons": drift["reasons"],
            "anchors": drift["anchors"],
            "changed": drift["changed"],
            "accuracy": drift["accuracy"],
        }

    def _freeze_anchors(self) -> None:
        """Right and wrong answers to queries that nothing is learnt from, and their verdicts."""
        dice = random.Random(f"anchors {self.plan.seed}")
        chosen = self.plan.unseen[: ANCHORS // 2]
        found = self.edge.search_all([q.text for q in chosen], playbook=False, tuning=START)
        for query, answer in zip(chosen, found, strict=True):
            relevant = self.judged.relevant[query.id]
            wrong = [one for one in answer.ids if one not in relevant]
            cases = [("right", min(relevant), "accepted")]
            if wrong:
                cases.append(("wrong", dice.choice(wrong), "rejected"))
            for kind, document, expected in cases:
                name = f"{self.name}.anchor.{kind}.{len(self._anchors)}"
                shown = tuple(one for one in answer.ids if one != document)
                near = self.library.find_neighbours(
                    self.library.copy(document), [self.library.name(document)]
                )
                self._anchors.append(Anchor(name, query, document, shown, tuple(near), expected))
        verdicts = self.edge.map(self._judge_anchor, self._anchors)
        self._anchors = [
            replace(one, baseline=verdict or "needs_human_review")
            for one, verdict in zip(self._anchors, verdicts, strict=True)
        ]

    def _judge_anchor(self, anchor: Anchor) -> str | None:
        """The scorer's verdict on what never changes; no search takes part."""
        known = self.library.find_references(anchor.query, [self.library.name(anchor.document)])
        evidence = [
            {"id": self.library.name(one), "text": self.library.texts[one]} for one in anchor.shown
        ]
        answer = self.library.copy(anchor.document)
        score = self.edge.score(
            anchor.name, anchor.query.text, answer, evidence, known, anchor.neighbours
        )
        return str(score["verdict"]) if score["scorer_status"] == "ok" else None

    # --- measuring

    def _measure(self, number: int) -> Round:
        """Held-out queries by what was learnt and by the control, in the same round."""
        queries = [*self.held, *self.plan.unseen]
        texts = [query.text for query in queries]
        control = self.edge.search_all(texts, playbook=False, tuning=START)
        learnt = self.edge.search_all(texts, playbook=True)
        if not self._first:
            self._first = {q.id: found for q, found in zip(queries, control, strict=True)}
        pairs: dict[str, list[Pair]] = {"held": [], "unseen": [], "control": []}
        moved = 0
        held = {query.id for query in self.held}
        for query, off, on in zip(queries, control, learnt, strict=True):
            arm = "held" if query.id in held else "unseen"
            off_scores, on_scores = self._rate(query, off), self._rate(query, on)
            pairs[arm].append(Pair(query.topic, off_scores.ndcg, on_scores.ndcg))
            first = self._first[query.id]
            pairs["control"].append(
                Pair(query.topic, self._rate(query, first).ndcg, off_scores.ndcg)
            )
            moved += off.raw != first.raw
        self._probes = self._ask_held(number)
        right = {one.query.id: one.right for one in self._probes}
        if not self._right:
            self._right = right
        pairs["right"] = [
            Pair(query.topic, float(self._right[query.id]), float(right[query.id]))
            for query in self.held
            if query.id in right and query.id in self._right
        ]
        scores = [one.score["score"] for one in self._probes if one.score["score"] is not None]
        return Round(
            number,
            pairs,
            moved,
            {
                "asked": len(self.held),
                "answered": len(self._probes),
                "accepted": sum(one.accepted for one in self._probes),
                "right": sum(right.values()),
                "with_a_score": len(scores),
                "score": sum(scores),
            },
        )

    def _ask_held(self, number: int) -> list[Judged]:
        """One answer to each held-out query, as anybody might ask it, judged like the others."""

        def ask(task: tuple[int, Query]) -> Judged | None:
            at, query = task
            run = f"{self.name}.held.{number}.{at}"
            self.edge.search(query.text, playbook=True, run=run)
            context = self.edge.compose(query.text, playbook=True, run=run)
            return self._answer(run, query, context)

        found = self.edge.map(ask, list(enumerate(self.held)))
        return [one for one in found if one is not None]

    def _rate(self, query: Query, found: Found) -> Scores:
        return score_list(found.ids, self.judged.relevant[query.id])


def hold_out(plan: Plan) -> list[dict[str, str]]:
    """What nothing may be learnt from: the held-out queries, and the other topics as a whole.

    Their answers are documents that everybody may read, so that only the asking is held out.
    """
    queries = [*plan.held.values(), *plan.unseen]
    topics = sorted({query.topic for query in plan.unseen})
    return [
        *({"id": f"query:{query.id}", "prompt": query.text, "answer": ""} for query in queries),
        *({"id": f"topic:{topic}", "prompt": "", "answer": ""} for topic in topics),
    ]
