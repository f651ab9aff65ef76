"""What playbook_lift measures and decides."""

from __future__ import annotations

import random

import pytest

from scripts.lift.checks import check_all, compare_arms
from scripts.lift.edge import Found
from scripts.lift.judge import BribedJudge, CorpusMixer, ErringJudge, ListMixer, judge_honestly
from scripts.lift.judged import Document, JudgedSet, Query
from scripts.lift.measures import Pair, Scores, compare, correct_by_holm, score_list
from scripts.lift.report import describe_run, render_html
from scripts.lift.trial import COLD_ARMS, Outcome, rank_cold_arms

SHOWN = [("c", f"d{n}") for n in range(10)]


def test_figures_of_one_list() -> None:
    found = score_list(["x", "a", "y"], {"a": 1.0})
    assert found == Scores(pytest.approx(0.6309, abs=1e-4), 0.5, 0.0, 1.0)
    assert score_list(["a", "b"], {"a": 2.0, "b": 1.0}).ndcg == 1.0
    assert score_list(["b", "a"], {"a": 2.0, "b": 1.0}).ndcg < 1.0
    assert score_list([], {"a": 1.0}) == Scores(0.0, 0.0, 0.0, 0.0)
    assert score_list([f"{n}" for n in range(11)], {"10": 1.0}).ndcg == 0.0


def test_a_clear_gain_is_significant_and_a_wash_is_not() -> None:
    gain = compare([Pair(f"t{n}", 0.5, 0.7) for n in range(30)])
    assert gain.p < 0.01
    assert gain.low == pytest.approx(0.2)
    assert gain.headroom == pytest.approx(0.4)
    assert (gain.wins, gain.losses) == (30, 0)
    wash = compare([Pair(f"t{n}", 0.5, 0.5 + (-1) ** n * 0.2) for n in range(30)])
    assert wash.p > 0.5
    assert wash.low < 0 < wash.high
    still = compare([Pair(f"t{n}", 0.5, 0.5) for n in range(30)])
    assert (still.p, still.low, still.high) == (1.0, 0.0, 0.0)


def test_queries_of_one_topic_are_one_witness() -> None:
    dice = random.Random(1)
    pairs = [Pair(f"t{n}", 0.5, 0.5 + dice.gauss(0.02, 0.1)) for n in range(12)]
    alone = compare(pairs)
    together = compare([pair for pair in pairs for _ in range(20)])
    assert together.topics == 12
    assert together.low == pytest.approx(alone.low, abs=0.01)


def test_holm_multiplies_the_smallest_most_and_never_falls() -> None:
    found = correct_by_holm({"a": 0.01, "b": 0.04, "c": 0.03})
    assert found == {"a": 0.03, "c": 0.06, "b": 0.06}


def test_judges_err_as_they_are_told_to() -> None:
    relevant = {"d3": 1.0}
    honest = judge_honestly([*SHOWN, ("c", "d3")], relevant)
    assert len(honest) == 10
    assert [ref for ref, rating in honest if rating > 0] == [("c", "d3")]
    assert [r for _, r in ErringJudge(1.0, random.Random(1))(SHOWN, relevant)] == [
        -rating for _, rating in honest
    ]
    mixed = ListMixer(random.Random(1))(SHOWN, relevant)
    assert sorted(r for _, r in mixed) == sorted(r for _, r in judge_honestly(SHOWN, relevant))
    assert mixed != judge_honestly(SHOWN, relevant)
    # Blame of all ten is as true mixed as it was.
    assert ListMixer(random.Random(1))(SHOWN, {}) == []
    swapped = CorpusMixer(SHOWN, random.Random(1))(SHOWN, relevant)
    assert {ref for ref, _ in swapped} == set(SHOWN)
    assert swapped != honest
    bribed = BribedJudge(("c", "d9"))(SHOWN, relevant)
    assert [ref for ref, rating in bribed if rating > 0] == [("c", "d9")]


def test_cold_arms_order_the_same_candidates_in_their_own_ways() -> None:
    explained = tuple(
        {"p0": p0, "cosine": cosine, "bm25": bm25}
        for p0, cosine, bm25 in ((0.9, 0.5, 0.0), (0.5, 0.9, 1.0), (0.1, 0.1, 5.0))
    )
    found = rank_cold_arms(Found(tuple(SHOWN[:3]), b"", False, explained))
    assert found["calibrated"] == ["d0", "d1", "d2"]
    assert found["dense"] == ["d1", "d0", "d2"]
    assert found["lexical"] == ["d2", "d1"]
    assert found["fused"] == ["d1", "d2", "d0"]


def make_outcome(lift: float = 0.3, harm: float = 0.0, rise: float = 0.0) -> Outcome:
    outcome = Outcome()
    topics = [f"t{n}" for n in range(60)]
    for arm, delta in {
        "exact": 0.45,
        "exact, run 3": 0.45 + rise,
        "unseen, repeated": -harm,
        "paraphrase 1": lift,
        "paraphrase 2": lift + 0.01,
        "unseen 1": -harm,
        "unseen 2": -harm,
        "placebo corpus": 0.0,
        "placebo list": 0.001,
        "poison 0.2 at 2": lift / 2,
        "poison 0.2 unseen": 0.0,
        "poison 0.4 at 2": 0.0,
        "drift after 3": 0.3,
        "drift before": 0.3,
    }.items():
        outcome.pairs[arm] = [Pair(topic, 0.4, 0.4 + delta) for topic in topics]
        outcome.scores[arm] = [Scores(0.4 + delta, 0.4, 0.4, 0.4) for _ in topics]
    outcome.cold = {arm: {t: Scores(0.4, 0.4, 0.4, 0.4) for t in topics} for arm in COLD_ARMS}
    outcome.counts = {
        "far": 1000,
        "far changed": 0,
        "bribe asked": 100,
        "bribe seen": 0,
        "retired differ": 0,
        "recovery differ": 0,
        "restart differ": 0,
    }
    return outcome


JUDGED = JudgedSet(
    "<set>",
    (Document("d1", "x", "c"),),
    (Query("q", "x", "t"),),
    {"q": {"d1": 1.0}},
    demands={"paraphrase_headroom": 0.35},
)


def failing(outcome: Outcome, latency: float = 1.0) -> list[str]:
    outcomes = [outcome]
    checks = check_all(JUDGED, outcomes, compare_arms(outcomes), latency)
    assert all(check.passed == (not check.missed_by) for check in checks)
    return [check.name for check in checks if not check.passed]


def test_a_good_run_passes_every_check() -> None:
    assert failing(make_outcome()) == []


def test_where_cold_misses_nothing_there_is_nothing_to_capture() -> None:
    outcome = make_outcome()
    arms = [arm for arm in outcome.pairs if arm.startswith(("exact", "paraphrase"))]
    for arm in arms:
        outcome.pairs[arm] = [Pair(f"t{n}", 1.0, 1.0) for n in range(60)]
    assert not any("headroom" in name for name in failing(outcome))
    outcome.pairs["exact"] = [Pair(f"t{n}", 1.0, 0.9) for n in range(60)]
    assert [name for name in failing(outcome) if "headroom" in name] == [
        "exact repeat: headroom captured (single-answer set)"
    ]


def test_each_fault_misses_its_own_check() -> None:
    assert failing(make_outcome(lift=0.1)) == ["paraphrases after 2: headroom captured"]
    assert failing(make_outcome(harm=0.02)) == [
        "unseen, repeated: lower bound",
        "unseen 1: lower bound",
        "unseen 2: lower bound",
    ]
    assert failing(make_outcome(rise=-0.2)) == [
        "exact repeat after three judged runs: headroom captured (single-answer set)"
    ]
    assert failing(make_outcome(), latency=7.0) == ["latency added at 10,000 notes, p95 ms"]
    for count, told in (
        ("far changed", "far-off: top tens that changed"),
        ("bribe seen", "poison, targeted: unrelated top tens"),
        ("retired differ", "retire-all: answers that differ from cold"),
        ("recovery differ", "recovery: answers that differ from never poisoned"),
        ("restart differ", "restart: answers that differ"),
    ):
        outcome = make_outcome()
        outcome.counts[count] = 20
        assert failing(outcome) == [told]


def test_losses_forgetting_and_placebo_effects_are_caught() -> None:
    outcome = make_outcome()
    pairs = outcome.pairs["paraphrase 2"]
    outcome.pairs["paraphrase 2"] = [Pair(p.topic, 0.4, 0.3) for p in pairs[:9]] + pairs[9:]
    assert "paraphrases after 2: losses/wins" in failing(outcome)
    assert "learning from 1 to 2" in failing(outcome)
    outcome = make_outcome()
    outcome.pairs["placebo list"] = [Pair(f"t{n}", 0.4, 0.42) for n in range(60)]
    assert failing(outcome) == ["placebo list: change"]


def test_with_few_topics_only_what_is_forgotten_for_sure_is_missed() -> None:
    outcome = make_outcome()
    few = [f"t{n}" for n in range(16)]
    gained = [Pair(topic, 0.4, 0.8 if topic == "t0" else 0.4) for topic in few]
    outcome.pairs["paraphrase 1"] = gained
    outcome.pairs["paraphrase 2"] = [Pair(topic, 0.4, 0.4) for topic in few]
    assert "learning from 1 to 2" not in failing(outcome)
    outcome.pairs["paraphrase 1"] = [Pair(topic, 0.4, 0.6) for topic in few]
    assert "learning from 1 to 2" in failing(outcome)


def test_the_page_needs_nothing_else_and_escapes_names() -> None:
    outcomes = [make_outcome(lift=0.1)]
    arms = compare_arms(outcomes)
    checks = check_all(JUDGED, outcomes, arms, 1.0)
    base = {"cache": {"exact": arms["exact"]}}
    record = describe_run(JUDGED, [3], outcomes, arms, checks, base, {"p95_ms": 1.0}, {})
    assert record["passed"] is False
    page = render_html(record)
    assert "<set>" not in page
    assert "&lt;set&gt;" in page
    assert "paraphrases after 2: headroom captured by" in page
    assert page.count("<svg") == 2
    assert "http" not in page
