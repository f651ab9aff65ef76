"""A checked workflow, and who stands above whom in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.observerd.core.workflow.conditions import Condition
from services.observerd.core.workflow.references import Reference
from shared.wire.observerd_workflows import NodeSpec, WorkflowSpec


@dataclass(frozen=True, slots=True)
class Node:
    """A node with what its text meant. `ancestors` are all nodes above it, near and far."""

    spec: NodeSpec
    condition: Condition | None
    ancestors: frozenset[str]
    side_effects: bool
    mode_version: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A workflow that can be run. `nodes` are in an order in which each follows its own."""

    spec: WorkflowSpec
    nodes: Mapping[str, Node]
    outcome: Reference | None

    @property
    def names(self) -> frozenset[str]:
        """The ids of all nodes."""
        return frozenset(self.nodes)

    @property
    def inputs(self) -> Mapping[str, Any]:
        """The run's inputs."""
        return self.spec.inputs


@dataclass(frozen=True, slots=True)
class ModeFacts:
    """What validation must know of a mode.

    `allowed` are the names of its inputs, None where it takes any; `required` must be given.
    """

    version: int
    side_effects: bool
    allowed: frozenset[str] | None
    required: frozenset[str]
