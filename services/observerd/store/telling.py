"""observerd's own runs as events, like those of any daemon: told, never waited for."""

from __future__ import annotations

from typing import Any

from services.observerd.core.workflow.keys import hash_json
from services.observerd.core.workflow.plan import Plan
from services.observerd.core.workflow.states import Problem
from services.observerd.store.steps import RunRow
from shared.reporter import Reporter

_STATUS = {"completed": "ok", "skipped": "skipped", "cancelled": "cancelled", "started": "started"}


def tell_run(
    reporter: Reporter, run: RunRow, plan: Plan, status: str, seconds: float | None
) -> None:
    """Reports that a run began or ended."""
    attempt = run.epoch + 1
    reporter.tell(
        {
            **_common(run, plan),
            "id": f"{run.run_id}::{attempt}:{'began' if status == 'started' else 'ended'}",
            "attempt": attempt,
            "mode": "workflow",
            "status": _STATUS.get(status, "error"),
            **_timing(seconds),
            **_error(run.error if status != "started" else None),
        }
    )


def tell_node(
    reporter: Reporter, run: RunRow, plan: Plan, name: str, seconds: float | None
) -> None:
    """Reports how a node ended."""
    row, spec = run.nodes[name], plan.nodes[name].spec
    status = _STATUS.get(row.state, "error")
    if row.error is not None and row.error.type == "timeout":
        status = "timeout"
    given: dict[str, Any] = row.output if isinstance(row.output, dict) else {}
    model = given.get("model") or spec.inputs.get("model")
    event: dict[str, Any] = {
        **_common(run, plan),
        "id": f"{run.run_id}:{name}:{run.epoch}:{row.executions}:{row.state}",
        "node_id": name,
        "parent": spec.depends_on[0] if spec.depends_on else None,
        "attempt": max(1, row.attempts),
        "mode": spec.mode,
        "model": model if isinstance(model, str) else None,
        "inputs_hash": row.cache_key,
        "outputs_hash": hash_json(row.output) if row.state == "completed" else None,
        "status": status,
        **_timing(seconds),
        **_error(row.error),
    }
    usage = given.get("usage")
    if spec.mode == "chat" and isinstance(usage, dict):
        counts: dict[str, Any] = usage
        event["tokens"] = {
            "prompt": counts.get("prompt_tokens", 0),
            "completion": counts.get("completion_tokens", 0),
        }
    if row.skip_cause is not None:
        event["attributes"] = {"skip_cause": row.skip_cause}
    reporter.tell({key: value for key, value in event.items() if value is not None})


def _common(run: RunRow, plan: Plan) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "service": "observerd",
        "task_signature": plan.spec.task_signature or f"workflow:{plan.spec.name}"[:200],
    }


def _timing(seconds: float | None) -> dict[str, Any]:
    return {} if seconds is None else {"latency_ms": round(seconds * 1000, 3)}


def _error(problem: Problem | None) -> dict[str, Any]:
    if problem is None:
        return {}
    return {"error": {"type": problem.type[:200], "message": problem.message[:4000]}}
