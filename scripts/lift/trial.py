"""One seed's trial through the gateway: every arm recorded, measured and taken back."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from scripts.lift.edge import Edge, Found, Ref
from scripts.lift.judge import (
    BribedJudge,
    CorpusMixer,
    ErringJudge,
    Judge,
    ListMixer,
    judge_honestly,
)
from scripts.lift.judged import JudgedSet, Query
from scripts.lift.measures import Pair, Scores, score_list
from scripts.lift.planning import Plan

# Candidates that the cold arms are ranked from.
DEEP = 100
COLD_ARMS = ("calibrated", "dense", "lexical", "fused")
FUSION = 60
# Judged runs in which changed relevance has to be learnt again.
DRIFT_RUNS = 3
# Runs of the same queries, each judged on what it showed.
REPEATED_RUNS = 3
BRIBED_TOPICS = 10
Say = Callable[[str], None]


@dataclass
class Outcome:
    """What one seed's trial gave; lists grow by arm.

    Attributes:
        pairs: per arm the queries' nDCG@10 before (own cold) and after.
        scores: per arm and figure the values after.
        cold: per cold arm the figures of each query.
        counts: what is counted rather than scored.
        episodes: recorded queries with what was rated, for the baselines; by size.
    """

    pairs: dict[str, list[Pair]] = field(default_factory=dict)
    scores: dict[str, list[Scores]] = field(default_factory=dict)
    cold: dict[str, dict[str, Scores]] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    added_ms: list[float] = field(default_factory=list)


class Trial:
    """Runs the arms of one seed.

    Args:
        restart: restarts the daemon that holds the playbook; None where that is not ours.
        full: all arms; else those that the quick check has time for.
    """

    def __init__(
        self,
        edge: Edge,
        judged: JudgedSet,
        plan: Plan,
        far: Sequence[str],
        say: Say,
        *,
        restart: Callable[[], None] | None,
        full: bool,
    ) -> None:
        self.edge = edge
        self.judged = judged
        self.plan = plan
        self.far = far
        self.say = say
        self.restart = restart
        self.full = full
        self.outcome = Outcome()
        self.shown: dict[str, Found] = {}
        self.held = list(plan.held.values())
        self.repeated = [queries[0] for queries in plan.recorded.values()]
        self._refs: dict[str, Ref] = {}
        self._names = dict(zip(judged.corpora, edge.corpora, strict=True))

    def run(self) -> Outcome:
        """All arms; nothing of them is left in the playbook."""
        self.measure_cold()
        self.grow_playbook()
        if self.full:
            self.try_repeating()
            self.try_drift()
        self.try_placebos()
        self.try_poison()
        self.try_retiring()
        return self.outcome

    # --- cold

    def measure_cold(self) -> None:
        """Searches every query cold, and ranks the candidates in each of the cold ways."""
        self.say("cold")
        recorded = [query for queries in self.plan.recorded.values() for query in queries]
        tested = {q.id for q in [*self.held, *self.plan.unseen, *self.repeated]}
        deep = [q for q in [*recorded, *self.held, *self.plan.unseen] if q.id in tested]
        plain = [q for q in recorded if q.id not in tested]
        for query, found in zip(deep, self._ask(deep, k=DEEP, explain=True), strict=True):
            self.shown[query.id] = found
            for arm, ids in rank_cold_arms(found).items():
                scores = score_list(ids, self.judged.relevant[query.id])
                self.outcome.cold.setdefault(arm, {})[query.id] = scores
        for query, found in zip(plain, self._ask(plain), strict=True):
            self.shown[query.id] = found

    # --- the playbook growing

    def grow_playbook(self) -> None:
        """Records once, twice, … and measures after each size."""
        done = 0
        for size in self.plan.sizes:
            self.say(f"{size} recorded")
            for turn in range(done, size):
                self._record_turn(turn, judge_honestly, "judge", f"{self.plan.seed} clean")
            done = size
            self._measure(f"paraphrase {size}", self.held)
            self._measure(f"unseen {size}", self.plan.unseen, timed=size == self.plan.sizes[-1])
            if size == 1:
                self._measure("exact", self.repeated)
        self.say("far-off")
        cold = self.edge.search_all(self.far, playbook=False)
        after = self.edge.search_all(self.far, playbook=True)
        changed = sum(a.refs != b.refs for a, b in zip(cold, after, strict=True))
        self.outcome.counts["far"] = len(self.far)
        self.outcome.counts["far changed"] = changed
        if self.restart is not None:
            self.say("restart")
            before = self.edge.search_all([q.text for q in self.held], playbook=True)
            self.restart()
            again = self.edge.search_all([q.text for q in self.held], playbook=True)
            differ = sum(a.raw != b.raw for a, b in zip(before, again, strict=True))
            self.outcome.counts["restart differ"] = differ
        self._try_recovery()
        self.edge.retire_runs()

    def _try_recovery(self) -> None:
        self.say("recovery")
        queries = [q.text for q in [*self.held, *self.plan.unseen]]
        before = self.edge.search_all(queries, playbook=True)
        judge = ErringJudge(0.9, random.Random(f"recovery {self.plan.seed}"))
        # The same source, so that its trust falls, and comes back with what is retired.
        self._record_turn(0, judge, "judge", f"{self.plan.seed} poison")
        poisoned = self.edge.search_all(queries, playbook=True)
        self.edge.retire_run(f"{self.plan.seed} poison")
        after = self.edge.search_all(queries, playbook=True)
        self.outcome.counts["recovery moved"] = sum(
            a.raw != b.raw for a, b in zip(before, poisoned, strict=True)
        )
        self.outcome.counts["recovery differ"] = sum(
            a.raw != b.raw for a, b in zip(before, after, strict=True)
        )

    # --- what must not help, or not harm

    def try_placebos(self) -> None:
        """Ratings whose documents were mixed up, all over the corpus and within each list."""
        turns = min(2, self.plan.sizes[-1])
        dice = random.Random(f"placebo {self.plan.seed}")
        everything = [(self._names[d.corpus], d.id) for d in self.judged.documents]
        judges: dict[str, Judge] = {
            "corpus": CorpusMixer(everything, dice),
            "list": ListMixer(dice),
        }
        for name, judge in judges.items():
            self.say(f"placebo, mixed in the {name}")
            for turn in range(turns):
                self._record_turn(turn, judge, "judge", f"{self.plan.seed} placebo {name}")
            self._measure(f"placebo {name}", self.held or self.plan.unseen)
            self.edge.retire_runs()

    def try_poison(self) -> None:
        """Judges that err, and one that is bribed."""
        largest = self.plan.sizes[-1]
        two = min(2, largest)
        trials = [(0.2, two), (0.4, two)]
        if self.full:
            trials = [(0.1, two), *trials]
            if largest > two:
                trials.append((0.2, largest))
        for rate, turns in trials:
            self.say(f"poison {rate} at {turns}")
            judge = ErringJudge(rate, random.Random(f"poison {rate} {turns} {self.plan.seed}"))
            for turn in range(turns):
                self._record_turn(turn, judge, "judge", f"{self.plan.seed} poison {rate} {turns}")
            self._measure(f"poison {rate} at {turns}", self.held)
            if turns == two:
                self._measure(f"poison {rate} unseen", self.plan.unseen)
            self.edge.retire_runs()
        self._try_bribe(two)

    def _try_bribe(self, turns: int) -> None:
        self.say("poison, targeted")
        dice = random.Random(f"bribe {self.plan.seed}")
        topics = sorted(self.plan.recorded)
        wanted = self.shown[self.plan.recorded[topics[0]][0].id].refs[-1]
        bribed = set(dice.sample(topics, min(BRIBED_TOPICS, len(topics))))
        for turn in range(turns):
            self._record_turn(turn, judge_honestly, "judge", f"{self.plan.seed} honest")
            for topic in bribed:
                query = self.plan.recorded[topic][turn]
                ratings = BribedJudge(wanted)(self.shown[query.id].refs, {})
                self.edge.record(
                    query.text, ratings, source="bribed", run=f"{self.plan.seed} bribed {turn}"
                )
        unrelated = self.plan.unseen + [
            query for topic, query in self.plan.held.items() if topic not in bribed
        ]
        found = self._ask(unrelated, playbook=True)
        self.outcome.counts["bribe asked"] = len(unrelated)
        self.outcome.counts["bribe seen"] = sum(
            wanted in answer.refs[:10] and wanted not in self.shown[query.id].refs[:10]
            for query, answer in zip(unrelated, found, strict=True)
        )
        self.edge.retire_runs()

    # --- run after run

    def try_repeating(self) -> None:
        """The same queries again and again, as people ask: judged on what each run showed."""
        self.say("run after run")
        for run in range(1, REPEATED_RUNS + 1):
            self._record_shown(self.repeated, self.judged.relevant, f"{self.plan.seed} run {run}")
            self._measure(f"exact, run {run}", self.repeated)
        self._measure("unseen, repeated", self.plan.unseen)
        self.edge.retire_runs()

    # --- change

    def try_drift(self) -> None:
        """What answers a need becomes another document; the playbook has to learn it anew."""
        self.say("drift")
        turns = min(2, self.plan.sizes[-1])
        changed = self._change_relevance()
        asked = [query for topic in changed for query in self.plan.recorded[topic][:1]]
        relevant = {query.id: changed[query.topic] for query in asked}
        for turn in range(turns):
            self._record_turn(turn, judge_honestly, "judge", f"{self.plan.seed} before", changed)
        self._measure("drift before", asked)
        self._measure("drift at once", asked, relevant)
        for run in range(1, DRIFT_RUNS + 1):
            self._record_shown(asked, relevant, f"{self.plan.seed} drift {run}")
            self._measure(f"drift after {run}", asked, relevant)
        self.edge.retire_runs()

    def _change_relevance(self) -> dict[str, dict[str, float]]:
        dice = random.Random(f"drift {self.plan.seed}")
        changed: dict[str, dict[str, float]] = {}
        for topic in sorted(self.plan.recorded):
            query = self.plan.recorded[topic][0]
            shown = self.shown[query.id].ids[:10]
            free = [d for d in shown[1:] if d not in self.judged.relevant[query.id]]
            if free:
                changed[topic] = {dice.choice(free): 1.0}
        return changed

    def _record_shown(
        self, queries: Sequence[Query], relevant: Mapping[str, Mapping[str, float]], run: str
    ) -> None:
        found = self._ask(queries, playbook=True)
        for query, answer in zip(queries, found, strict=True):
            ratings = judge_honestly(answer.refs, relevant[query.id])
            self.edge.record(query.text, ratings, source="judge", run=run)

    # --- nothing is left

    def try_retiring(self) -> None:
        """With everything retired, each answer has the bytes of a search without playbook."""
        self.say("retired")
        queries = [q.text for q in [*self.held, *self.repeated, *self.plan.unseen]]
        cold = self.edge.search_all(queries, playbook=False)
        after = self.edge.search_all(queries, playbook=True)
        differ = sum(a.raw != b.raw for a, b in zip(cold, after, strict=True))
        self.outcome.counts["retired differ"] = differ

    # --- steps

    def _record_turn(
        self, turn: int, judge: Judge, source: str, run: str, topics: Sequence[str] | None = None
    ) -> None:
        for topic in sorted(self.plan.recorded if topics is None else topics):
            query = self.plan.recorded[topic][turn]
            ratings = judge(self.shown[query.id].refs[:10], self.judged.relevant[query.id])
            if ratings:
                self.edge.record(query.text, ratings, source=source, run=run)

    def _measure(
        self,
        arm: str,
        queries: Sequence[Query],
        relevant: Mapping[str, Mapping[str, float]] | None = None,
        *,
        timed: bool = False,
    ) -> None:
        wanted = self.judged.relevant if relevant is None else relevant
        for query, found in zip(queries, self._ask(queries, playbook=True), strict=True):
            before = score_list(self.shown[query.id].ids, wanted[query.id])
            after = score_list(found.ids, wanted[query.id])
            pair = Pair(query.topic, before.ndcg, after.ndcg)
            self.outcome.pairs.setdefault(arm, []).append(pair)
            self.outcome.scores.setdefault(arm, []).append(after)
        if timed:
            self._time(queries[:40])

    def _time(self, queries: Sequence[Query]) -> None:
        for query in queries:
            cold = self.edge.search(query.text, playbook=False)
            warm = self.edge.search(query.text, playbook=True)
            self.outcome.added_ms.append(warm.elapsed_ms - cold.elapsed_ms)

    def _ask(
        self,
        queries: Sequence[Query],
        *,
        playbook: bool = False,
        k: int = 10,
        explain: bool = False,
    ) -> list[Found]:
        return self.edge.search_all(
            [query.text for query in queries], playbook=playbook, k=k, explain=explain
        )


def rank_cold_arms(found: Found) -> dict[str, list[str]]:
    """A calibrated search's candidates in the order of each cold arm."""
    places = range(len(found.refs))
    cosine = [each["cosine"] for each in found.explained]
    bm25 = [each["bm25"] for each in found.explained]
    dense = sorted(places, key=lambda at: (-cosine[at], found.refs[at]))
    lexical = sorted(
        (at for at in places if bm25[at] > 0), key=lambda at: (-bm25[at], found.refs[at])
    )
    fused = dict.fromkeys(places, 0.0)
    for order in (dense, lexical):
        for rank, at in enumerate(order, start=1):
            fused[at] += 1 / (FUSION + rank)
    orders = {
        "calibrated": list(places),
        "dense": dense,
        "lexical": lexical,
        "fused": sorted(places, key=lambda at: (-fused[at], found.refs[at])),
    }
    return {arm: [found.refs[at][1] for at in order[:10]] for arm, order in orders.items()}
