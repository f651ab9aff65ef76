"""A run's course: which nodes are ready, and what is to be done with each. Pure.

The executor asks `ready`, `decide`s on each, does what was decided and tells `settle` how it
ended. Nodes run as soon as what they wait for has ended, never in layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

from services.observerd.core.workflow.keys import make_cache_key
from services.observerd.core.workflow.plan import Node, Plan
from services.observerd.core.workflow.references import Scope, resolve, resolve_value
from services.observerd.core.workflow.rules import find_skip
from services.observerd.core.workflow.states import BROKEN, ENDED, Problem, Result, Unresolved
from shared.wire.observerd_workflows import RunStatus


@dataclass(frozen=True, slots=True)
class Prior:
    """What a node gave before this resume, under which cache key."""

    output: Any
    cache_key: str


@dataclass(frozen=True, slots=True)
class Execute:
    """Run the node with these inputs. `because` says why a resume does it again."""

    inputs: dict[str, Any]
    cache_key: str
    because: str | None = None


@dataclass(frozen=True, slots=True)
class Settle:
    """The node ends without being run."""

    result: Result


class Progress:
    """How far a run is.

    Args:
        plan: the workflow.
        ended: nodes that ended since the last resume.
        priors: nodes that had succeeded before it.
        rerun: nodes to be run again though they had.
    """

    def __init__(
        self,
        plan: Plan,
        ended: Mapping[str, Result] | None = None,
        priors: Mapping[str, Prior] | None = None,
        rerun: frozenset[str] = frozenset(),
    ) -> None:
        self.plan = plan
        self.results: dict[str, Result] = {}
        self._priors = dict(priors or {})
        self._rerun = rerun
        self._sorter = TopologicalSorter(
            {name: node.spec.depends_on for name, node in plan.nodes.items()}
        )
        self._sorter.prepare()
        self._ready: list[str] = list(self._sorter.get_ready())
        for name in plan.nodes:
            if ended is not None and name in ended:
                self.settle(name, ended[name])

    def take_ready(self) -> list[str]:
        """Nodes whose dependencies have all ended; each is given once."""
        ready, self._ready = self._ready, []
        return ready

    @property
    def done(self) -> bool:
        """Whether every node has ended."""
        return not self._sorter.is_active()

    def decide(self, name: str) -> Execute | Settle:
        """What becomes of a ready node."""
        node = self.plan.nodes[name]
        cause = find_skip(node, self.results)
        if cause is not None:
            return Settle(Result("skipped", skip_cause=cause))
        scope = Scope(self.plan.inputs, self.results)
        try:
            if node.condition is not None and not node.condition.holds(scope):
                return Settle(Result("skipped", skip_cause="condition"))
            inputs = resolve_value(node.spec.inputs, scope, self.plan.names)
        except Unresolved as error:
            return Settle(Result("failed", error=Problem("unresolved", str(error))))
        key = make_cache_key(node, inputs)
        prior = self._priors.get(name)
        if prior is None:
            return Execute(inputs, key)
        because = self._find_reason(node, key, prior)
        if because is not None:
            return Execute(inputs, key, because)
        return Settle(Result("completed", output=prior.output, skip_cause="prior_success"))

    def _find_reason(self, node: Node, key: str, prior: Prior) -> str | None:
        """Why a node that had succeeded must run again, if it must."""
        if node.spec.id in self._rerun:
            return "asked for"
        if node.spec.always_run:
            return "always_run"
        # Whatever ran anew may have done or given something else, also where nothing of it
        # is read.
        anew = sorted(name for name in node.ancestors if _ran(self.results[name]))
        if anew:
            return f"ran again upstream: {', '.join(anew)}"
        return None if key == prior.cache_key else "its inputs or its mode changed"

    def settle(self, name: str, result: Result) -> None:
        """Takes the end of a node; what waited for it may be ready now."""
        if result.state not in ENDED:
            raise ValueError(f"{name} has not ended: {result.state}")
        if name in self._ready:
            self._ready.remove(name)
        self.results[name] = result
        self._sorter.done(name)
        self._ready += self._sorter.get_ready()

    def cancel_rest(self) -> list[str]:
        """Ends every node that has not ended as cancelled; gives their names."""
        rest = [name for name in self.plan.nodes if name not in self.results]
        for name in rest:
            self.results[name] = Result("cancelled")
        return rest

    def status(self) -> RunStatus:
        """The engine's word on a run that is done: one failed node makes a failed run."""
        states = {result.state for result in self.results.values()}
        if "failed" in states:
            return "failed"
        return "cancelled" if states & BROKEN else "completed"

    def outcome(self) -> Any:
        """The author's word: None when none was asked for, or its node gave nothing."""
        if self.plan.outcome is None:
            return None
        try:
            return resolve(self.plan.outcome, Scope(self.plan.inputs, self.results))
        except Unresolved:
            return None


def _ran(result: Result) -> bool:
    return result.state == "failed" or (
        result.state == "completed" and result.skip_cause != "prior_success"
    )
