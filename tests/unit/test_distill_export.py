"""Exports: only what was accepted and clean, all of it accounted for, the same bytes each time."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest

from services.observerd.core.distill.baselines import (
    Baseline,
    check_chain,
    extend_chain,
    find_baseline,
    load_baseline,
    measure_audit,
)
from services.observerd.core.distill.export import Run, check_export, export_runs, hash_held_out
from services.observerd.core.distill.firewall import Pair
from services.observerd.core.distill.replies import score_failure
from services.observerd.core.distill.scores import Response, Score
from shared.errors import Conflict, Invalid, PreconditionFailed

HELD = [Pair("h1", "Which roller feeds the duplex tray?", "The grey roller above the fuser.")]


def make_score(run: str, verdict: Any = "accepted") -> Score:
    number = {"accepted": 0.9, "partially_accepted": 0.6, "rejected": 0.1}.get(verdict, 0.5)
    response = Response(run, verdict, number, ("because",), ("d1",), frozenset({"d1"}))
    return Score(run, "judge/1", "ok", response)


def make_run(name: str, verdict: str | None = "accepted", **more: Any) -> Run:
    score = None if verdict is None else make_score(name, verdict)
    fields: dict[str, Any] = {
        "prompt": f"Where does item {name} stand?",
        "answer": f"Item {name} stands on shelf {name} beside the {name} lantern.",
        "parents": ("d1",),
        **more,
    }
    return Run(id=name, score=score, **fields)


RUNS = [
    make_run("a"),
    make_run("b", system="Be brief.", model="tier/local_fast"),
    make_run("c", "partially_accepted"),
    make_run("d", "rejected"),
    make_run("e", "needs_human_review"),
    make_run("f", prompt=HELD[0].prompt, answer="The grey roller above the fuser!"),
    make_run("g", parents=("h1",)),
    make_run("h", parents=None),
    make_run("i", "rejected", prompt="Where does item a stand", answer="In the cellar."),
    make_run("j", prompt="Where does item a stand?", answer=make_run("a").answer),
    *(make_run(f"k{at}") for at in range(12)),
]


def test_rows_in_are_rows_out_and_exclusions() -> None:
    runs = [
        *RUNS,
        replace(make_run("x"), score=score_failure(TimeoutError(), run_id="x", scorer="judge/1")),
        make_run("y", None),
    ]
    found = export_runs(runs, HELD)
    assert found.manifest["excluded"] == {
        "duplicate": 1,
        "quarantined: lineage": 1,
        "stopped: exact": 1,
        "stopped: lineage": 1,
        "unobserved": 1,
        "unscored: timeout": 1,
        "verdict: needs_human_review": 1,
        "verdict: partially_accepted": 1,
        "verdict: rejected": 2,
    }
    out = found.manifest["rows"]["chat.jsonl"]["rows"]
    assert out == 14
    assert out + sum(found.manifest["excluded"].values()) == len(runs)
    assert found.manifest["coverage"]["unobserved"] == 1
    assert len(found.clearances) == len(runs)


def test_the_formats() -> None:
    files = export_runs(RUNS, HELD).files
    chat = [json.loads(line) for line in files["chat.jsonl"].splitlines()]
    assert chat[0] == {
        "messages": [
            {"role": "user", "content": RUNS[0].prompt},
            {"role": "assistant", "content": RUNS[0].answer},
        ]
    }
    assert chat[1]["messages"][0] == {"role": "system", "content": "Be brief."}
    plain = [json.loads(line) for line in files["prompt_completion.jsonl"].splitlines()]
    assert plain[0] == {"prompt": RUNS[0].prompt, "completion": RUNS[0].answer}
    pairs = [json.loads(line) for line in files["preferences.jsonl"].splitlines()]
    assert pairs == [
        {"prompt": RUNS[0].prompt, "chosen": RUNS[0].answer, "rejected": "In the cellar."}
    ]
    sidecar = [json.loads(line) for line in files["provenance.jsonl"].splitlines()]
    assert (sidecar[1]["row"], sidecar[1]["run"], sidecar[1]["parents"]) == (1, "b", ["d1"])
    assert sidecar[1]["score"]["verdict"] == "accepted"
    assert sidecar[-1]["rejected_run"] == "i"
    assert json.loads(files["manifest.json"])["run_hash"] == export_runs(RUNS, HELD).run_hash


def test_again_is_the_same_bytes_whatever_the_order() -> None:
    shuffled = list(RUNS)
    random.Random(1).shuffle(shuffled)
    first, second = export_runs(RUNS, HELD), export_runs(shuffled, HELD)
    assert first.files == second.files


@pytest.mark.parametrize("change", ["answer", "held_out", "config", "policy", "score"])
def test_whatever_changes_changes_the_run_hash(change: str) -> None:
    runs, held, more = list(RUNS), list(HELD), dict[str, Any]()
    if change == "answer":
        runs[0] = replace(runs[0], answer="Item a went missing.")
    elif change == "held_out":
        held.append(Pair("h9", "Other question entirely?", "Other answer."))
    elif change == "config":
        more["config"] = {"floor": 0.8}
    elif change == "policy":
        more["policy"] = "accepted_and_partial"
    else:
        runs[3] = replace(runs[3], score=make_score("d", "needs_human_review"))
    assert export_runs(runs, held, **more).run_hash != export_runs(RUNS, HELD).run_hash


def test_partial_answers_leave_only_by_the_named_policy() -> None:
    found = export_runs(RUNS, HELD, policy="accepted_and_partial")
    assert found.manifest["policy"] == "accepted_and_partial"
    assert "verdict: partially_accepted" not in found.manifest["excluded"]
    answers = found.files["prompt_completion.jsonl"].decode()
    assert RUNS[2].answer in answers
    unknown: Any = "everything"
    with pytest.raises(Invalid, match="Unknown policy"):
        export_runs(RUNS, HELD, policy=unknown)


def test_lineage_through_other_artefacts_is_followed() -> None:
    runs = [make_run("a", parents=("episode",)), make_run("b")]
    found = export_runs(runs, HELD, parents={"episode": ["h1"]})
    assert found.manifest["excluded"] == {"stopped: lineage": 1}


def test_too_little_coverage_blocks_the_export() -> None:
    with pytest.raises(PreconditionFailed, match="1 of 2"):
        export_runs([make_run("a"), make_run("b", None)], HELD)
    with pytest.raises(PreconditionFailed):
        export_runs([], HELD)


def test_mixed_up_runs_are_refused() -> None:
    with pytest.raises(Invalid, match="one id"):
        export_runs([make_run("a"), make_run("a")], HELD)
    with pytest.raises(Invalid, match="carries the score"):
        export_runs([replace(make_run("a"), score=make_score("b"))], HELD)


def test_a_changed_export_is_noticed() -> None:
    found = export_runs(RUNS, HELD)
    assert check_export(found.files, found.manifest) == []
    files = {**found.files, "chat.jsonl": found.files["chat.jsonl"] + b"{}\n"}
    assert check_export(files, found.manifest) == ["chat.jsonl was changed"]
    del files["chat.jsonl"]
    assert check_export(files, found.manifest) == ["chat.jsonl is missing"]
    forged = {**found.manifest, "excluded": {}}
    assert check_export(found.files, forged) == ["the manifest does not match its run_hash"]


def make_chain(count: int) -> list[Baseline]:
    chain: list[Baseline] = []
    for at in range(count):
        chain.append(
            extend_chain(
                chain,
                held_out=hash_held_out(HELD),
                scorer=f"judge/{at}",
                judge="tier/frontier_review",
                metrics={"kappa": at / 10},
            )
        )
    return chain


def test_a_chain_survives_json_and_shows_what_was_done_to_it() -> None:
    chain = [load_baseline(json.loads(json.dumps(entry.dump()))) for entry in make_chain(4)]
    assert chain == make_chain(4)
    assert check_chain(chain) == []
    better = [*chain[:1], replace(chain[1], metrics={"kappa": 0.9}), *chain[2:]]
    assert check_chain(better) == ["entry 2 was changed"]
    assert "entry 2 does not follow the one before" in check_chain([chain[0], *chain[2:]])
    with pytest.raises(Conflict, match="broken"):
        extend_chain(better, held_out="h", scorer="s", judge="j", metrics={})
    with pytest.raises(Invalid):
        load_baseline({"seq": 1})


def test_the_same_audit_again_adds_nothing() -> None:
    chain = make_chain(2)
    last = chain[-1]
    again = extend_chain(
        chain,
        held_out=last.held_out,
        scorer=last.scorer,
        judge=last.judge,
        metrics=dict(last.metrics),
    )
    assert again is last
    assert find_baseline(chain, last.held_out, "judge/0") == chain[0]
    assert find_baseline(chain, "other", "judge/0") is None


def test_an_audit_counts_what_could_not_be_judged() -> None:
    verdicts: list[tuple[str, str | None]] = [("accepted", "accepted")] * 30
    verdicts += [("accepted", "rejected")] * 4 + [("rejected", "rejected")] * 16
    verdicts += [("accepted", None)] * 10
    found = measure_audit(verdicts, runs=60)
    assert (found["judged"], found["upheld"]) == (50, 46)
    assert found["coverage"] == pytest.approx(50 / 60)
    kappa = found["agreement"]["kappa"]
    assert 0.5 < kappa["low"] < kappa["value"] < kappa["high"] < 1
    assert measure_audit(verdicts, runs=60) == found
    assert measure_audit([], runs=5)["agreement"]["kappa"]["value"] is None
