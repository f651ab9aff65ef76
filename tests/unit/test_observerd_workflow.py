"""observerd's core of workflows: loading, rules, resumes; against a second reading of them."""

from __future__ import annotations

import random
from typing import Any

import pytest

from services.observerd.core.workflow.keys import hash_result, make_cache_key
from services.observerd.core.workflow.plan import ModeFacts, Plan
from services.observerd.core.workflow.progress import Execute, Prior, Progress, Settle
from services.observerd.core.workflow.retries import is_transient, retry_after
from services.observerd.core.workflow.states import Problem, Result
from services.observerd.core.workflow.validation import load_workflow
from shared.errors import Conflict, Invalid, RateLimited, Timeout, Unavailable
from shared.wire.observerd_workflows import WorkflowSpec
from tests.support.workflow_reference import Step, judge_graph, make_graph

FREE = ModeFacts(1, False, None, frozenset())
MODES = {
    "free": FREE,
    "strict": ModeFacts(1, True, frozenset({"query", "k"}), frozenset({"query"})),
}


def load(*nodes: dict[str, Any], **more: Any) -> Plan:
    spec = {"name": "n", "nodes": [{"mode": "free", **node} for node in nodes], **more}
    return load_workflow(WorkflowSpec.model_validate(spec), MODES)


def problems_of(*nodes: dict[str, Any], **more: Any) -> list[tuple[str, str, str]]:
    with pytest.raises(Invalid) as caught:
        load(*nodes, **more)
    return [(p["node"], p["field"], p["problem"]) for p in caught.value.details["problems"]]


# --- loading


def test_all_that_is_wrong_is_told_at_once() -> None:
    found = problems_of(
        {"id": "fetch", "mode": "strct"},
        {"id": "a", "mode": "strict", "with": {"querry": 1}},
        {"id": "b", "depends_on": ["fetch"], "with": {"x": "$fetsh.output.y"}},
        {"id": "c", "depends_on": ["fetch"], "with": {"x": ["$a.output"]}},
        {"id": "d", "when": "1 = 1"},
        {"id": "e", "with": {"x": "$inputs.citi"}},
        {"id": "f", "with": {"x": "$f.output"}},
        {"id": "g", "output_schema": {"type": "text", "pattern": "x"}},
        {"id": "h", "depends_on": ["a"], "with": {"x": "$a.result"}},
        {"id": "i", "with": {"x": {"from": "plain", "if_skipped": 1}}},
        inputs={"city": 1},
        outcome="$nobody.output",
    )
    told = {(node, field): problem for node, field, problem in found}
    assert "did you mean 'strict'" in told["fetch", "mode"]
    assert [p for n, _, p in found if n == "a"] == [
        "strict has no input 'querry'; did you mean 'query'?",
        "strict needs the input 'query'",
    ]
    assert told["b", "with"] == "$fetsh.output.y: there is no node 'fetsh'; did you mean 'fetch'?"
    assert told["c", "with"] == "$a.output: a is not upstream; add it to depends_on"
    assert "'='" in told["d", "when"] or "no operator" in told["d", "when"]
    assert "did you mean 'city'" in told["e", "with"]
    assert "itself" in told["f", "with"]
    assert len([1 for n, _, _ in found if n == "g"]) == 2
    assert ".output or .state" in told["h", "with"]
    assert "from must be" in told["i", "with"]
    assert told["", "outcome"].startswith("$nobody.output: there is no node")


def test_unknown_dependencies_and_twins_are_told_before_anything_else() -> None:
    found = problems_of({"id": "a"}, {"id": "a"}, {"id": "bb", "depends_on": ["aa"]})
    assert [field for _, field, _ in found] == ["id", "depends_on"]
    assert problems_of({"id": "inputs"})[0][1] == "id"
    assert problems_of({"id": "a"}, {"id": "b", "depends_on": ["a", "a"]})[0][1] == "depends_on"


def test_a_cycle_is_told_by_the_names_of_its_nodes() -> None:
    found = problems_of(
        {"id": "start"},
        {"id": "a", "depends_on": ["start", "c"]},
        {"id": "b", "depends_on": ["a"]},
        {"id": "c", "depends_on": ["b"]},
    )
    assert len(found) == 1
    assert found[0][2].endswith(("a -> b -> c -> a", "b -> c -> a -> b", "c -> a -> b -> c"))
    assert "start" not in found[0][2]
    assert "a -> a" in problems_of({"id": "a", "depends_on": ["a"]})[0][2]


def test_a_text_about_dollars_is_no_reference() -> None:
    plan = load({"id": "a", "with": {"x": "it costs $5 or $USD, $$a.output"}})
    decided = Progress(plan).decide("a")
    assert isinstance(decided, Execute)
    assert decided.inputs == {"x": "it costs $5 or $USD, $a.output"}


# --- rules, against the second reading


def to_plan(steps: dict[str, Step]) -> Plan:
    return load(
        *(
            {
                "id": name,
                "depends_on": step.waits,
                "trigger_rule": step.rule,
                "when": {None: None, True: "1 < 2", False: "1 > 2"}[step.when],
            }
            for name, step in steps.items()
        )
    )


def run_plan(plan: Plan, steps: dict[str, Step], dice: random.Random) -> Progress:
    """Runs a plan with nodes that end in a random order."""
    progress = Progress(plan)
    waiting = progress.take_ready()
    running: list[str] = []
    while not progress.done:
        assert waiting or running, "nothing runs and nothing is ready"
        if waiting and (not running or dice.random() < 0.5):
            name = waiting.pop(dice.randrange(len(waiting)))
            assert all(above in progress.results for above in steps[name].waits)
            decided = progress.decide(name)
            if isinstance(decided, Execute):
                running.append(name)
                continue
            progress.settle(name, decided.result)
        else:
            name = running.pop(dice.randrange(len(running)))
            result = Result("completed", output=name)
            if not steps[name].succeeds:
                result = Result("failed", error=Problem("invalid", "x"))
            progress.settle(name, result)
        waiting += progress.take_ready()
    return progress


def check_graphs(seeds: range) -> int:
    failed_runs = 0
    for seed in seeds:
        dice = random.Random(seed)
        steps = make_graph(dice)
        plan = to_plan(steps)
        progress = run_plan(plan, steps, dice)
        found = {
            name: r.skip_cause if r.state == "skipped" else r.state
            for name, r in progress.results.items()
        }
        assert found == judge_graph(steps), (seed, steps)
        # No failure is laundered: not on the run, and not below a node that asked for none.
        failed = {name for name, state in found.items() if state == "failed"}
        assert progress.status() == ("failed" if failed else "completed"), seed
        failed_runs += bool(failed)
        for name, node in plan.nodes.items():
            if node.spec.trigger_rule == "none_failed_min_one_success" and node.spec.depends_on:
                assert not (node.ancestors & failed) or found[name] == "upstream_failed", seed
            if found[name] in ("condition", "propagated", "trigger_rule"):
                assert not failed & set(node.spec.depends_on) or node.condition is not None, seed
    return failed_runs


def test_random_graphs_end_as_the_second_reading_says() -> None:
    assert check_graphs(range(500)) > 50


@pytest.mark.deep
@pytest.mark.timeout(600)
def test_ten_thousand_random_graphs_end_as_the_second_reading_says() -> None:
    assert check_graphs(range(1000, 11_000)) > 1000


@pytest.mark.parametrize("seed", range(40))
def test_a_run_taken_up_anywhere_ends_the_same(seed: int) -> None:
    dice = random.Random(seed)
    steps = make_graph(dice)
    plan = to_plan(steps)
    whole = run_plan(plan, steps, random.Random(1))
    ended: dict[str, Result] = {}
    for name in plan.nodes:  # any set that is closed upwards may be what was written down
        if all(one in ended for one in steps[name].waits) and dice.random() < 0.6:
            ended[name] = whole.results[name]
    progress = Progress(plan, ended)
    waiting, ran = progress.take_ready(), set[str]()
    while waiting:
        name = waiting.pop()
        decided = progress.decide(name)
        ran |= {name} if isinstance(decided, Execute) else set()
        progress.settle(name, whole.results[name])
        waiting += progress.take_ready()
    assert progress.done
    assert not ran & set(ended)
    assert hash_result(progress.results, None) == hash_result(
        {name: whole.results[name] for name in progress.results}, None
    )


# --- resumes


def key_of(plan: Plan, name: str, inputs: dict[str, Any]) -> str:
    return make_cache_key(plan.nodes[name], inputs)


def test_a_prior_result_is_kept_only_while_nothing_of_it_changed() -> None:
    plan = load({"id": "a"}, {"id": "b", "depends_on": ["a"], "with": {"x": "$a.output.n"}})
    priors = {
        "a": Prior({"n": 1}, key_of(plan, "a", {})),
        "b": Prior("B", key_of(plan, "b", {"x": 1})),
    }
    progress = Progress(plan, priors=priors)
    first = progress.decide("a")
    assert first == Settle(Result("completed", output={"n": 1}, skip_cause="prior_success"))
    progress.settle("a", first.result)
    assert isinstance(progress.decide("b"), Settle)
    # The same again, with `a` run anew: `b` runs too, though its inputs are the same.
    progress = Progress(plan, priors=priors, rerun=frozenset({"a"}))
    again = progress.decide("a")
    assert isinstance(again, Execute)
    assert again.because == "asked for"
    progress.settle("a", Result("completed", output={"n": 1}))
    below = progress.decide("b")
    assert isinstance(below, Execute)
    assert below.because == "ran again upstream: a"
    # And with a mode of another version.
    newer = load_workflow(plan.spec, {"free": ModeFacts(2, False, None, frozenset())})
    changed = Progress(newer, priors=priors).decide("a")
    assert isinstance(changed, Execute)
    assert changed.because == "its inputs or its mode changed"


def test_a_failed_rerun_upstream_reaches_what_tidies_up() -> None:
    plan = load({"id": "a"}, {"id": "b", "depends_on": ["a"], "trigger_rule": "all_done"})
    progress = Progress(plan, priors={"b": Prior(1, key_of(plan, "b", {}))})
    progress.settle("a", Result("failed", error=Problem("invalid", "x")))
    decided = progress.decide("b")
    assert isinstance(decided, Execute)
    assert decided.because == "ran again upstream: a"


def test_the_hash_is_over_what_came_of_it() -> None:
    done = {"a": Result("completed", output={"x": 1, "y": 2})}
    same = {"a": Result("completed", output={"y": 2, "x": 1}, skip_cause="prior_success")}
    assert hash_result(done, None) == hash_result(same, None)
    for other in (
        ({"a": Result("completed", output={"x": 1, "y": 3})}, None),
        ({"a": Result("skipped", skip_cause="condition")}, None),
        (done, "outcome"),
    ):
        assert hash_result(*other) != hash_result(done, None)


# --- retries


def test_fatal_beats_transient_wherever_it_stands() -> None:
    assert is_transient(Unavailable("x"))
    assert is_transient(ExceptionGroup("g", [Timeout("x"), RateLimited("y")]))
    assert not is_transient(ExceptionGroup("g", [Timeout("x"), Conflict("y")]))
    chained = Timeout("x")
    chained.__cause__ = Invalid("y")
    assert not is_transient(chained)
    chained.__cause__ = ValueError("how the transport said it")
    assert is_transient(chained)
    assert not is_transient(ValueError("x"))


def test_waits_double_up_to_a_minute() -> None:
    retry = {"attempts": 5, "delay_s": 10}
    node = load({"id": "a", "retry": retry}).nodes["a"]
    waits = [retry_after(node, failures, Unavailable("x")) for failures in range(1, 6)]
    assert waits == [10, 20, 40, 60, None]
    writing = load({"id": "a", "mode": "strict", "with": {"query": 1}, "retry": retry}).nodes["a"]
    assert retry_after(writing, 1, Unavailable("x")) is None
