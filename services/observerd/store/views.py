"""Runs as they are shown."""

from __future__ import annotations

from services.observerd.core.workflow.states import Problem
from services.observerd.store.steps import NodeRow, RunRow
from shared.wire.observerd_workflows import (
    NodeError,
    NodeSpec,
    NodeView,
    RunSummary,
    RunView,
    WorkflowSpec,
)


def view_run(run: RunRow) -> RunView:
    """A run with its nodes, in the order in which the workflow names them."""
    spec = WorkflowSpec.model_validate_json(run.definition)
    return RunView(
        run_id=run.run_id,
        name=run.name,
        status=run.status,
        outcome=run.outcome,
        error=_view_problem(run.error),
        nodes={node.id: view_node(run.nodes.get(node.id, NodeRow()), node) for node in spec.nodes},
        resumes=run.epoch,
        result_hash=run.result_hash,
        created_at=run.created_at,
        started_at=run.started_at,
        finished_at=run.finished_at,
    )


def view_node(node: NodeRow, spec: NodeSpec) -> NodeView:
    """One node; only one that completed has an output."""
    return NodeView(
        state=node.state,
        mode=spec.mode,
        depends_on=spec.depends_on,
        attempts=node.attempts,
        executions=node.executions,
        skip_cause=node.skip_cause,
        output=node.output if node.state == "completed" else None,
        error=_view_problem(node.error),
        rerun_because=node.because,
        started_at=node.started_at,
        finished_at=node.finished_at,
    )


def view_summary(run: RunRow) -> RunSummary:
    """A run in a list."""
    return RunSummary(
        run_id=run.run_id,
        name=run.name,
        status=run.status,
        created_at=run.created_at,
        finished_at=run.finished_at,
    )


def _view_problem(problem: Problem | None) -> NodeError | None:
    if problem is None:
        return None
    return NodeError(type=problem.type, message=problem.message, details=problem.details)
