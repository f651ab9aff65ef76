"""How playbook_lift tries corpora of different content, and what it asks of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.lift.convert import merge_sets
from scripts.lift.judged import Document, JudgedSet, JudgedSetError, Query, load_set
from scripts.lift.merging import average_seeds, check_merging, plan_merging


def make_set(name: str, topics: int, asked: int = 5) -> JudgedSet:
    queries = [
        Query(f"{t}-{n}", f"{name} {t} {n}", f"t{t}") for t in range(topics) for n in range(asked)
    ]
    return JudgedSet(
        name,
        tuple(Document(f"d{t}", f"{name} text {t}", "documents") for t in range(topics)),
        tuple(queries),
        {query.id: {f"d{query.topic[1:]}": 1.0} for query in queries},
    )


def test_merged_sets_keep_their_own_corpora_and_demand_a_gap(tmp_path: Path) -> None:
    assert merge_sets([make_set("one", 6), make_set("two", 8)], tmp_path / "both") == 70
    found = load_set(tmp_path / "both")
    assert found.corpora == ["one", "two"]
    assert found.demands == {"oracle_gap": 0.01}
    assert found.relevant["two 3-1"] == {"two d3": 1.0}
    (tmp_path / "both" / "set.json").write_text('{"oracle_gap": "near"}')
    with pytest.raises(JudgedSetError, match="oracle_gap"):
        load_set(tmp_path / "both")


def test_each_corpus_is_recorded_held_out_and_controlled_apart(tmp_path: Path) -> None:
    merge_sets([make_set("one", 6), make_set("two", 120)], tmp_path)
    judged = load_set(tmp_path)
    plan = plan_merging(judged, 3)
    assert plan == plan_merging(judged, 3)
    assert plan != plan_merging(judged, 4)
    assert {corpus: len(queries) for corpus, queries in plan.held.items()} == {"one": 3, "two": 24}
    assert [sorted(turn) for turn in plan.turns] == [["one", "two"]] * 3
    for corpus in ("one", "two"):
        recorded = [query for turn in plan.turns for query in turn[corpus]]
        assert {q.topic for q in recorded} == {q.topic for q in plan.held[corpus]}
        assert not {q.id for q in recorded} & {q.id for q in plan.held[corpus]}
        assert not {q.topic for q in recorded} & {q.topic for q in plan.others[corpus]}
    assert len(plan.others["two"]) == 80


def test_sets_without_paraphrases_to_record_are_refused(tmp_path: Path) -> None:
    merge_sets([make_set("one", 6, asked=1), make_set("two", 8, asked=3)], tmp_path)
    with pytest.raises(JudgedSetError, match=r"oracle_gap.* 4 paraphrases"):
        plan_merging(load_set(tmp_path), 3)


def test_cold_and_learned_figures_are_checked_apart() -> None:
    arms = {"other needs: only one": 0.3, "other needs: only two": 0.2}
    for group in ("other needs", "paraphrases"):
        arms |= {
            f"{group}: cold": 0.6,
            f"{group}: oracle": 0.7,
            f"{group}: learned 3": 0.695,
            f"{group}: learned of flips 0.2": 0.6,
            f"{group}: learned of flips 0.4": 0.59,
        }
    found = [{arm: {"one": value, "mean": value} for arm, value in arms.items()}]
    found[0]["far-off"] = {"asked": 10.0, "changed": 2.0}
    means = average_seeds([*found, {"other needs: cold": {"one": 0.8, "mean": 0.8}}])
    assert means["other needs: cold"]["mean"] == pytest.approx(0.7)
    assert means["far-off"] == {"asked": 10.0, "changed": 2.0}
    checks = {check.name: check for check in check_merging(found[0], 0.01)}
    assert {name for name, check in checks.items() if not check.passed} == {
        "merged, cold, other needs: behind oracle routing",
        "merged, cold, paraphrases: behind oracle routing",
        "merged, flips 0.4, other needs: no loss",
        "merged, flips 0.4, paraphrases: no loss",
        "merged, far-off: top tens that changed",
    }
    found[0]["far-off"]["changed"] = 0.0
    assert next(c for c in check_merging(found[0], 0.01) if "far-off" in c.name).passed
    assert checks["merged, cold: above every single corpus"].value == "0.3000"
