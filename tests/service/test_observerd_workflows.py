"""observerd over ASGI: workflow runs from start to end, and everything in between."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from services.observerd.store.steps import Steps
from shared.errors import InsufficientStorage, Invalid, Unavailable
from tests.support.observerd import (
    RUNS,
    Script,
    fail,
    finish,
    observer,
    run_nodes,
    start,
    states,
    step,
    until,
)

pytestmark = pytest.mark.anyio


async def test_the_pinned_example_runs(tmp_path: Path) -> None:
    nodes = [
        {"id": "a", "mode": "fixture.echo", "with": {"text": "grüß"}},
        {"id": "b", "mode": "fixture.upper", "depends_on": ["a"],
         "with": {"text": "$a.output.text"}},
    ]  # fmt: skip
    async with observer(tmp_path) as client:
        answer = await client.post(RUNS, json={"name": "n", "nodes": nodes})
        assert answer.status_code == 202
        assert answer.json()["status"] == "queued"
        run = await finish(client, answer.json()["run_id"])
        assert (run["status"], run["outcome"]) == ("completed", None)
        assert run["nodes"]["b"]["output"] == {"text": "GRÜSS"}
        assert run["nodes"]["b"]["attempts"] == 1


async def test_yaml_is_read_as_json_would_be(tmp_path: Path) -> None:
    text = """
name: yaml
inputs: {city: Oslo}
outcome: $b.output.text
nodes:
  - id: a
    mode: fixture.echo
    with: {text: "in $inputs.city for $$5", day: 2020-01-01, yes: true, no: no}
  - {id: b, mode: fixture.upper, depends_on: [a], with: {text: $a.output.text}}
"""
    async with observer(tmp_path) as client:
        headers = {"content-type": "application/yaml"}
        answer = await client.post(RUNS, content=text, headers=headers)
        assert answer.status_code == 202, answer.text
        run = await finish(client, answer.json()["run_id"])
        expected = {"text": "in Oslo for $5", "day": "2020-01-01", "yes": True, "no": "no"}
        assert run["nodes"]["a"]["output"] == expected
        assert run["outcome"] == "IN OSLO FOR $5"
        for bad in ("name: [", "a: &x 1\nb: *x", "name: a\nname: b", "x: !!python/name:os.system"):
            refused = await client.post(RUNS, content=bad, headers=headers)
            assert refused.status_code == 400, bad
        other = await client.post(RUNS, content="x", headers={"content-type": "text/csv"})
        assert other.status_code == 415


async def test_what_is_wrong_is_told_before_anything_runs(tmp_path: Path) -> None:
    async with observer(tmp_path) as client:
        nodes = [step("a", "b", mode="fixture.echo"), step("b", "a", mode="fixture.echo")]
        refused = await client.post(RUNS, json={"name": "n", "nodes": nodes})
        assert refused.status_code == 400
        assert "a -> b -> a" in refused.json()["error"]["message"]
        nodes = [step("a", mode="fixture.ehco"), step("b", mode="fixture.upper")]
        problems = (await client.post(RUNS, json={"name": "n", "nodes": nodes})).json()
        assert problems["error"]["details"]["problems"] == [
            {"node": "a", "field": "mode", "problem":
             "there is no mode 'fixture.ehco'; did you mean 'fixture.echo'?"},
            {"node": "b", "field": "with", "problem": "fixture.upper needs the input 'text'"},
        ]  # fmt: skip
        assert (await client.get(RUNS)).json()["runs"] == []


async def test_modes_are_listed_with_their_inputs(tmp_path: Path) -> None:
    async with observer(tmp_path) as client:
        modes = {
            m["name"]: m for m in (await client.get("/observer/workflows/modes")).json()["modes"]
        }
        assert {"matrix.search", "matrix.relevance", "matrix.downgrade", "sql", "pathway.search",
                "playbook.record", "fixture.echo", "fixture.upper"} <= set(modes)  # fmt: skip
        assert {name for name, mode in modes.items() if mode["side_effects"]} == {
            "playbook.record",
            "drift.stream",
        }
        assert "query" in modes["matrix.search"]["inputs"]["properties"]


async def test_a_run_id_names_one_run(tmp_path: Path) -> None:
    async with observer(tmp_path) as client:
        body = {"name": "n", "run_id": "mine", "nodes": [step("a", mode="fixture.echo")]}
        answers = await asyncio.gather(*(client.post(RUNS, json=body) for _ in range(4)))
        assert sorted(a.json()["duplicate"] for a in answers) == [False, True, True, True]
        run = await finish(client, "mine")
        assert run["nodes"]["a"]["executions"] == 1
        other = await client.post(RUNS, json={**body, "name": "other"})
        assert other.status_code == 409
        assert (await client.get(f"{RUNS}/nobody")).status_code == 404


async def test_runs_are_listed_newest_first(tmp_path: Path) -> None:
    async with observer(tmp_path) as client:
        for number in range(3):
            await run_nodes(client, step("a", mode="fixture.echo"), run_id=f"r{number}")
        page = (await client.get(RUNS, params={"limit": 2, "status": "completed"})).json()
        assert [run["run_id"] for run in page["runs"]] == ["r2", "r1"]
        rest = (await client.get(RUNS, params={"cursor": page["next_cursor"]})).json()
        assert [run["run_id"] for run in rest["runs"]] == ["r0"]
        assert rest["next_cursor"] is None
        assert (await client.get(RUNS, params={"status": "failed"})).json()["runs"] == []


async def test_a_failure_reaches_all_below_it_and_the_run(tmp_path: Path) -> None:
    script = Script()
    script.errors["a"] = fail(Invalid)
    async with observer(tmp_path, script) as client:
        run = await run_nodes(
            client,
            step("a"),
            step("b", "a"),
            step("ok"),
            step("c", "b", "ok", trigger_rule="none_failed_min_one_success"),
            step("clean", "a", trigger_rule="all_done", **{"with": {"state": "$a.state"}}),
            step("d", "clean", "ok"),
            step("e", "clean", trigger_rule="none_failed_min_one_success"),
            step("f", "a", "ok", trigger_rule="one_success"),
        )
        assert run["status"] == "failed"
        assert states(run) == {
            "a": "failed", "b": "upstream_failed", "ok": "completed", "c": "upstream_failed",
            "clean": "completed", "d": "completed", "e": "upstream_failed", "f": "completed",
        }  # fmt: skip
        assert run["nodes"]["clean"]["output"] == {"state": "failed"}
        assert run["nodes"]["a"]["error"]["type"] == "invalid"


async def test_what_a_failed_or_skipped_node_left_is_not_read(tmp_path: Path) -> None:
    script = Script()
    script.errors["bad"] = fail(Invalid)
    default = {"from": "$skipped.output.n", "if_skipped": 7}
    async with observer(tmp_path, script) as client:
        run = await run_nodes(
            client,
            step("bad"),
            step("skipped", when="1 == 2"),
            step("r1", "bad", trigger_rule="all_done", **{"with": {"x": "$bad.output.x"}}),
            step("r2", "skipped", trigger_rule="all_done", **{"with": {"x": "$skipped.output.x"}}),
            step("r3", "skipped", trigger_rule="all_done", **{"with": {"x": default}}),
            step("r4", "bad", trigger_rule="all_done",
                 **{"with": {"x": {"from": "$bad.output.n", "if_skipped": 7}}}),
            step("r5", "skipped", trigger_rule="all_done", when="$skipped.output.n > 1"),
        )  # fmt: skip
        assert states(run) == {
            "bad": "failed", "skipped": "condition", "r1": "failed", "r2": "failed",
            "r3": "completed", "r4": "failed", "r5": "failed",
        }  # fmt: skip
        assert run["nodes"]["r3"]["output"] == {"x": 7}
        assert "if_skipped" in run["nodes"]["r2"]["error"]["message"]
        assert {run["nodes"][n]["error"]["type"] for n in ("r1", "r2", "r4", "r5")} == {
            "unresolved"
        }


async def test_transient_errors_are_retried_and_fatal_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def note(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("services.observerd.store.attempts.pause", note)
    script = Script()
    both = Unavailable("down")
    both.__cause__ = Invalid("wrong")
    script.errors = {
        "a": fail(Unavailable, 2), "b": fail(Unavailable, 3), "c": fail(Invalid),
        "d": [both], "e": [ValueError("a defect")],
        "w": fail(Unavailable), "i": fail(Unavailable),
    }  # fmt: skip
    retry = {"attempts": 3, "delay_s": 1}
    async with observer(tmp_path, script) as client:
        run = await run_nodes(
            client,
            *(step(name, retry=retry) for name in "abcde"),
            step("w", mode="test.write", retry=retry),
            step("i", mode="test.write", retry=retry, idempotent=True),
        )
        attempts = {name: node["attempts"] for name, node in run["nodes"].items()}
        assert attempts == {"a": 3, "b": 3, "c": 1, "d": 1, "e": 1, "w": 1, "i": 2}
        assert states(run)["a"] == states(run)["i"] == "completed"
        assert states(run)["b"] == states(run)["w"] == "failed"
        assert run["nodes"]["e"]["error"]["type"] == "internal"
        assert "a defect" not in json.dumps(run)
        assert sorted(pauses) == [1, 1, 1, 2, 2]
        keys = [key for key, name in zip(script.keys, script.calls, strict=True) if name == "i"]
        assert len(set(keys)) == 1


async def test_deadlines_of_nodes_and_runs(tmp_path: Path) -> None:
    script = Script()
    script.gates = {"slow": asyncio.Event(), "held": asyncio.Event()}
    async with observer(tmp_path, script) as client:
        run = await run_nodes(client, step("slow", timeout=0.05), step("b", "slow"), step("c"))
        assert states(run) == {"slow": "failed", "b": "upstream_failed", "c": "completed"}
        assert run["nodes"]["slow"]["error"]["type"] == "timeout"
        run = await run_nodes(client, step("held"), step("b", "held"), timeout=0.05)
        assert (run["status"], run["error"]["type"]) == ("failed", "timeout")
        assert states(run) == {"held": "failed", "b": "cancelled"}


async def test_cancelling_lets_go_of_what_runs_and_keeps_what_ended(tmp_path: Path) -> None:
    script = Script()
    script.gates["b"] = asyncio.Event()
    async with observer(tmp_path, script) as client:
        run_id = await start(
            client, step("a"), step("b", "a"), step("c", "b", trigger_rule="all_done")
        )
        await until(lambda: "b" in script.calls)
        run = (await client.post(f"{RUNS}/{run_id}/cancel")).json()
        assert run["status"] == "cancelled"
        assert states(run) == {"a": "completed", "b": "cancelled", "c": "cancelled"}
        again = (await client.post(f"{RUNS}/{run_id}/cancel")).json()
        assert again == run
        assert script.running == 0
        script.gates["b"].set()
        assert (await client.post(f"{RUNS}/{run_id}/resume")).status_code == 202
        run = await finish(client, run_id)
        assert states(run) == {"a": "completed", "b": "completed", "c": "completed"}
        assert script.calls.count("a") == 1


async def test_a_resume_runs_what_failed_and_what_depends_on_it(tmp_path: Path) -> None:
    script = Script()
    script.errors["b"] = fail(Invalid, 2)
    nodes = [
        step("a"), step("b", "a"), step("c", "b"), step("side", "a"),
        step("last", "c", "side"), step("tidy", always_run=True), step("after", "tidy"),
    ]  # fmt: skip
    async with observer(tmp_path, script) as client:
        run_id = await start(client, *nodes)
        assert (await finish(client, run_id))["status"] == "failed"
        for _ in range(2):
            script.calls.clear()
            assert (await client.post(f"{RUNS}/{run_id}/resume")).status_code == 202
            run = await finish(client, run_id)
        assert run["status"] == "completed"
        assert run["resumes"] == 2
        # The second resume has not forgotten what the first one knew.
        assert sorted(script.calls) == ["after", "b", "c", "last", "tidy"]
        assert run["nodes"]["a"]["skip_cause"] == "prior_success"
        assert run["nodes"]["side"]["skip_cause"] == "prior_success"
        assert run["nodes"]["tidy"]["rerun_because"] == "always_run"
        assert run["nodes"]["after"]["rerun_because"] == "ran again upstream: tidy"
        assert run["nodes"]["b"]["executions"] == 3
        script.calls.clear()
        bad = await client.post(f"{RUNS}/{run_id}/resume", json={"rerun": ["sid"]})
        assert "did you mean 'side'" in bad.json()["error"]["message"]
        await client.post(f"{RUNS}/{run_id}/resume", json={"rerun": ["side"]})
        run = await finish(client, run_id)
        assert sorted(script.calls) == ["after", "last", "side", "tidy"]
        assert run["nodes"]["side"]["rerun_because"] == "asked for"
        assert run["nodes"]["last"]["rerun_because"] == "ran again upstream: side, tidy" or (
            run["nodes"]["last"]["rerun_because"] == "ran again upstream: side"
        )


async def test_a_completed_run_is_not_resumed_without_a_reason(tmp_path: Path) -> None:
    async with observer(tmp_path, Script()) as client:
        run = await run_nodes(client, step("a"))
        assert (await client.post(f"{RUNS}/{run['run_id']}/resume")).status_code == 409


async def test_parallel_nodes_run_together_up_to_the_limit(tmp_path: Path) -> None:
    script = Script()
    script.gates = {f"n{n}": asyncio.Event() for n in range(6)}
    async with observer(tmp_path, script) as client:
        run_id = await start(client, *(step(name) for name in script.gates), max_parallel=3)
        await until(lambda: script.running == 3)
        for gate in script.gates.values():
            gate.set()
        assert (await finish(client, run_id))["status"] == "completed"
        assert script.most == 3


async def test_nodes_start_when_theirs_are_done_not_when_a_layer_is(tmp_path: Path) -> None:
    script = Script()
    script.gates["slow"] = asyncio.Event()
    async with observer(tmp_path, script) as client:
        run_id = await start(client, step("slow"), step("quick"), step("next", "quick"))
        await until(lambda: "next" in script.calls)
        script.gates["slow"].set()
        assert (await finish(client, run_id))["status"] == "completed"


async def test_outputs_are_held_to_their_schema_and_size(tmp_path: Path) -> None:
    script = Script()
    script.outputs = {"a": {"n": "x"}, "b": {"n": 3}, "big": "x" * 5000}
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    async with observer(tmp_path, script, max_output_bytes=4096) as client:
        run = await run_nodes(
            client, step("a", output_schema=schema), step("b", output_schema=schema), step("big")
        )
        assert states(run) == {"a": "failed", "b": "completed", "big": "failed"}
        assert "output.n is not of type integer" in run["nodes"]["a"]["error"]["message"]
        assert run["nodes"]["big"]["error"]["type"] == "too_large"


async def test_progress_is_streamed(tmp_path: Path) -> None:
    script = Script()
    script.gates["a"] = asyncio.Event()
    async with observer(tmp_path, script) as client:
        run_id = await start(client, step("a"), step("b", "a"))
        await until(lambda: "a" in script.calls)
        asyncio.get_running_loop().call_later(0.05, script.gates["a"].set)
        answer = await client.get(f"{RUNS}/{run_id}/events")
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [parse_event(block) for block in answer.text.strip().split("\n\n")]
        assert events[0][0] == "snapshot"
        assert events[0][1]["nodes"]["a"]["state"] == "running"
        assert ("b", "completed") in [(d.get("node_id"), d.get("state")) for _, d in events]
        assert events[-1][0] == "end"
        assert events[-1][1]["status"] == "completed"
        later = await client.get(f"{RUNS}/{run_id}/events")
        assert parse_event(later.text.strip())[0] == "end"
        assert (await client.get(f"{RUNS}/none/events")).status_code == 404


def parse_event(block: str) -> tuple[str, dict[str, Any]]:
    fields = dict(line.split(": ", 1) for line in block.split("\n"))
    return fields["event"], json.loads(fields["data"])


async def test_a_stopped_daemon_goes_on_where_it_was(tmp_path: Path) -> None:
    script = Script()
    script.gates = {"b": asyncio.Event(), "w": asyncio.Event()}
    async with observer(tmp_path, script) as client:
        run_id = await start(
            client, step("a"), step("b", "a"), step("w", "a", mode="test.write"), step("c", "b")
        )
        await until(lambda: {"b", "w"} <= set(script.calls))
    script.gates.clear()
    async with observer(tmp_path, script) as client:
        run = await finish(client, run_id)
        assert states(run) == {"a": "completed", "b": "completed", "w": "failed", "c": "completed"}
        assert (script.calls.count("a"), script.calls.count("w")) == (1, 1)
        assert run["nodes"]["w"]["error"]["type"] == "interrupted"
        assert run["nodes"]["b"]["executions"] == 2
        await client.post(f"{RUNS}/{run_id}/resume")
        assert (await finish(client, run_id))["status"] == "completed"
        assert script.calls.count("w") == 2


async def test_runs_wait_for_their_turn_and_too_many_are_refused(tmp_path: Path) -> None:
    script = Script()
    script.gates["a"] = asyncio.Event()
    async with observer(tmp_path, script, active_runs=1, queued_runs=1) as client:
        await start(client, step("a"), run_id="first")
        await start(client, step("a"), run_id="second")
        refused = await client.post(RUNS, json={"name": "n", "nodes": [step("a")]})
        assert refused.status_code == 429
        assert (await client.get(f"{RUNS}/second")).json()["status"] == "queued"
        # One that waits can be cancelled at once.
        cancelled = (await client.post(f"{RUNS}/second/cancel")).json()
        assert cancelled["status"] == "cancelled"
        script.gates["a"].set()
        assert (await finish(client, "first"))["status"] == "completed"


async def test_a_full_disk_holds_a_run_up_and_costs_it_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.observerd.store.execution._RETRY_S", 0.01)
    script = Script()
    script.gates["a"] = asyncio.Event()
    refused = 0

    def refuse(*_: Any) -> Any:
        nonlocal refused
        refused += 1
        raise InsufficientStorage("full")

    async with observer(tmp_path, script) as client:
        run_id = await start(client, step("a"), step("b", "a"))
        await until(lambda: "a" in script.calls)
        with monkeypatch.context() as full:
            full.setattr(Steps, "_apply", refuse)
            script.gates["a"].set()
            await until(lambda: refused > 3)
            # What is not durable is not shown as completed, and nothing goes on from it.
            run = (await client.get(f"{RUNS}/{run_id}")).json()
            assert run["nodes"]["a"]["state"] == "running"
            assert script.calls == ["a"]
            answer = await client.post(RUNS, json={"name": "n", "nodes": [step("x")]})
            assert answer.status_code == 507
        run = await finish(client, run_id)
        assert run["status"] == "completed"
        assert script.calls == ["a", "b"]
