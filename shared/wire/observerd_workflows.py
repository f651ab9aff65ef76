"""observerd: workflows, their runs, and the modes that nodes may have."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from shared.wire.base import Request, Response
from shared.wire.observerd import RUN_ID

NODE_ID = r"^[A-Za-z_][A-Za-z0-9_\-]{0,99}$"

TriggerRule = Literal["all_success", "one_success", "none_failed_min_one_success", "all_done"]
NodeState = Literal["pending", "running", "completed", "failed", "skipped", "cancelled"]
RunStatus = Literal["queued", "running", "completed", "failed", "cancelled"]
SkipCause = Literal["condition", "trigger_rule", "upstream_failed", "prior_success", "propagated"]


class Retry(Request):
    """How often a node is tried, and the first wait between tries, which doubles (to 60 s)."""

    attempts: int = Field(default=1, ge=1, le=5)
    delay_s: float = Field(default=1.0, ge=1, le=60)


class NodeSpec(Request):
    """One step of a workflow.

    `with` are the mode's inputs. In it `$a.output.path` is what node `a` gave, alone with its
    type, inside a longer text as text; `$inputs.x` is the run's input, `$$` a dollar sign, and
    `{from: "$a.output.x", if_skipped: 1}` a reference with a value for when `a` was skipped.
    `when` compares such references and literals: `$a.output.n >= 3 && $a.state == 'completed'`.
    `timeout` is in seconds and bounds each attempt. `idempotent` declares that repeating the
    node does no harm, so that a mode with side effects may be retried. `always_run` makes a
    resume run it again though it had succeeded.
    """

    model_config = ConfigDict(populate_by_name=True)

    id: str = Field(pattern=NODE_ID)
    mode: str = Field(min_length=1, max_length=100)
    depends_on: list[str] = Field(default=[], max_length=1000)
    when: str | None = Field(default=None, min_length=1, max_length=2000)
    trigger_rule: TriggerRule = "all_success"
    inputs: dict[str, Any] = Field(default={}, alias="with")
    output_schema: dict[str, Any] | None = None
    retry: Retry = Retry()
    timeout: float | None = Field(default=None, gt=0, le=86_400)
    idempotent: bool = False
    always_run: bool = False


class WorkflowSpec(Request):
    """A directed graph of nodes, and what to run it with.

    `run_id` names the run: sent again with the same content it is the same run. `outcome` is a
    reference whose value becomes the run's authored outcome, apart from the engine's status.
    """

    name: str = Field(min_length=1, max_length=200)
    nodes: list[NodeSpec] = Field(min_length=1, max_length=1000)
    inputs: dict[str, Any] = {}
    outcome: str | None = Field(default=None, min_length=1, max_length=500)
    timeout: float | None = Field(default=None, gt=0, le=604_800)
    max_parallel: int | None = Field(default=None, ge=1, le=256)
    run_id: str | None = Field(default=None, pattern=RUN_ID)
    task_signature: str | None = Field(default=None, max_length=200)


class ResumeRequest(Request):
    """`rerun` names nodes to run again though they had succeeded."""

    rerun: list[str] = Field(default=[], max_length=1000)


class RunStarted(Response):
    """The run is durable. `duplicate` when it was started before under this id."""

    run_id: str
    status: RunStatus
    duplicate: bool = False


class NodeError(Response):
    """Why a node failed; `type` is the error's code."""

    type: str
    message: str
    details: dict[str, Any] = {}


class NodeView(Response):
    """A node of a run.

    `executions` counts starts over the whole life of the run, `attempts` those since the last
    resume. `rerun_because` says why a resume ran it again though it had succeeded.
    """

    state: NodeState
    mode: str
    depends_on: list[str] = []
    attempts: int = 0
    executions: int = 0
    skip_cause: SkipCause | None = None
    output: Any = None
    error: NodeError | None = None
    rerun_because: str | None = None
    started_at: str | None = None
    finished_at: str | None = None


class RunView(Response):
    """A run. `status` is the engine's; `outcome` is the author's, and null means none.

    `result_hash` is over all nodes' states, skip causes and outputs, and the outcome: the same
    work gives the same hash however it was interrupted. `resumes` counts resumptions.
    """

    run_id: str
    name: str
    status: RunStatus
    outcome: Any = None
    error: NodeError | None = None
    nodes: dict[str, NodeView]
    resumes: int = 0
    result_hash: str | None = None
    created_at: str
    started_at: str | None = None
    finished_at: str | None = None


class RunSummary(Response):
    """A run in a list."""

    run_id: str
    name: str
    status: RunStatus
    created_at: str
    finished_at: str | None = None


class RunList(Response):
    """Runs, newest first."""

    runs: list[RunSummary]
    next_cursor: str | None = None


class ModeInfo(Response):
    """A mode: what it does, its inputs as a JSON schema, whether it changes something."""

    name: str
    version: int
    description: str
    side_effects: bool
    inputs: dict[str, Any]


class ModeList(Response):
    """All modes that a node may have."""

    modes: list[ModeInfo]
