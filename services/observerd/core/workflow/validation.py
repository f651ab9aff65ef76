"""Loading a workflow: everything that can be known to be wrong is told before it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter
from typing import Any, cast

from services.observerd.core.workflow.conditions import (
    BadCondition,
    Condition,
    parse_condition,
)
from services.observerd.core.workflow.plan import ModeFacts, Node, Plan
from services.observerd.core.workflow.references import (
    INPUTS,
    Reference,
    find_references,
    is_defaulted,
    parse_reference,
)
from services.observerd.core.workflow.schemas import check_schema
from shared.errors import Invalid
from shared.wire.observerd_workflows import NodeSpec, WorkflowSpec

_SHOWN = 50


def load_workflow(spec: WorkflowSpec, modes: Mapping[str, ModeFacts]) -> Plan:
    """The plan of a workflow.

    Raises:
        Invalid: with every problem, each naming its node.
    """
    checker = _Checker(spec, modes)
    plan = checker.check()
    if plan is None:
        first = checker.problems[0]
        count = len(checker.problems)
        more = f" ({count - 1} more in details)" if count > 1 else ""
        raise Invalid(
            f"The workflow cannot be run: {_say(first)}{more}.",
            details={"problems": checker.problems[:_SHOWN]},
        )
    return plan


class _Checker:
    def __init__(self, spec: WorkflowSpec, modes: Mapping[str, ModeFacts]) -> None:
        self._spec = spec
        self._modes = modes
        self._names = frozenset(node.id for node in spec.nodes)
        self.problems: list[dict[str, str]] = []

    def check(self) -> Plan | None:
        """The plan, or None when there are problems."""
        seen: set[str] = set()
        for node in self._spec.nodes:
            if node.id in seen:
                self._tell(node.id, "id", "two nodes have this id")
            if node.id == INPUTS:
                self._tell(node.id, "id", "inputs is the name of the run's inputs; choose another")
            seen.add(node.id)
            self._check_dependencies(node)
        if self.problems:
            return None  # who is upstream of whom is not known
        order = self._order()
        if order is None:
            return None
        by_id = {node.id: node for node in self._spec.nodes}
        ancestors: dict[str, frozenset[str]] = {}
        for name in order:
            above = by_id[name].depends_on
            ancestors[name] = frozenset(above).union(*(ancestors[parent] for parent in above))
        nodes: dict[str, Node] = {}
        for name in order:
            node = by_id[name]
            facts = self._check_mode(node)
            condition = self._check_condition(node, ancestors[name])
            self._check_inputs(node, facts, ancestors[name])
            if node.output_schema is not None:
                for problem in check_schema(node.output_schema):
                    self._tell(name, "output_schema", problem)
            if facts is not None:
                nodes[name] = Node(
                    node, condition, ancestors[name], facts.side_effects, facts.version
                )
        outcome = self._check_outcome()
        return None if self.problems else Plan(self._spec, nodes, outcome)

    def _check_dependencies(self, node: NodeSpec) -> None:
        for name in node.depends_on:
            if name not in self._names:
                hint = suggest(name, self._names)
                self._tell(node.id, "depends_on", f"there is no node {name!r}{hint}")
        if len(set(node.depends_on)) < len(node.depends_on):
            self._tell(node.id, "depends_on", "names a node twice")

    def _order(self) -> list[str] | None:
        graph = {node.id: node.depends_on for node in self._spec.nodes}
        try:
            return list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            # graphlib tells it from dependency to dependent, first and last the same.
            path = cast("list[str]", error.args[1])
            shown = " -> ".join(path)
            self._tell(path[0], "depends_on", f"the nodes wait for one another: {shown}")
            return None

    def _check_mode(self, node: NodeSpec) -> ModeFacts | None:
        facts = self._modes.get(node.mode)
        if facts is None:
            hint = suggest(node.mode, self._modes) or f"; known are {', '.join(self._modes)}"
            self._tell(node.id, "mode", f"there is no mode {node.mode!r}{hint}")
        return facts

    def _check_condition(self, node: NodeSpec, above: frozenset[str]) -> Condition | None:
        if node.when is None:
            return None
        try:
            condition = parse_condition(node.when)
        except BadCondition as error:
            self._tell(node.id, "when", str(error))
            return None
        self._check_references(node.id, "when", condition.references(), above)
        return condition

    def _check_inputs(self, node: NodeSpec, facts: ModeFacts | None, above: frozenset[str]) -> None:
        self._check_defaults(node.id, node.inputs)
        found = find_references(node.inputs, self._names)
        self._check_references(node.id, "with", found, above)
        if facts is None:
            return
        if facts.allowed is not None:
            for key in sorted(node.inputs.keys() - facts.allowed):
                hint = suggest(key, facts.allowed)
                known = "" if hint else f"; it takes {', '.join(sorted(facts.allowed))}"
                self._tell(node.id, "with", f"{node.mode} has no input {key!r}{hint}{known}")
        for key in sorted(facts.required - node.inputs.keys()):
            self._tell(node.id, "with", f"{node.mode} needs the input {key!r}")

    def _check_defaults(self, name: str, value: Any) -> None:
        if is_defaulted(value):
            given = cast("dict[str, Any]", value)["from"]
            reference = parse_reference(given) if isinstance(given, str) else None
            if reference is None or reference.node == INPUTS:
                self._tell(name, "with", "from must be one reference to a node, $a.output.x")
            return
        inner = cast("dict[str, Any]", value).values() if isinstance(value, dict) else ()
        if isinstance(value, list):
            inner = cast("list[Any]", value)
        for one in inner:
            self._check_defaults(name, one)

    def _check_references(
        self, name: str, field: str, references: Iterable[Reference], above: frozenset[str]
    ) -> None:
        for reference in references:
            problem = reference.check()
            if problem is None and reference.node == INPUTS:
                key = str(reference.path[0])
                if key not in self._spec.inputs:
                    hint = suggest(key, self._spec.inputs)
                    problem = f"{reference.text}: the run has no input {key!r}{hint}"
            elif problem is None and reference.node not in above:
                problem = self._explain_foreign(name, reference, above)
            if problem is not None:
                self._tell(name, field, problem)

    def _explain_foreign(self, name: str, reference: Reference, above: frozenset[str]) -> str:
        node = reference.node
        if node == name:
            return f"{reference.text}: a node cannot read itself"
        if node in self._names:
            return f"{reference.text}: {node} is not upstream; add it to depends_on"
        return f"{reference.text}: there is no node {node!r}{suggest(node, above or self._names)}"

    def _check_outcome(self) -> Reference | None:
        if self._spec.outcome is None:
            return None
        reference = parse_reference(self._spec.outcome)
        if reference is None:
            self._tell("", "outcome", "must be one reference, $node.output.x")
            return None
        self._check_references("", "outcome", [reference], self._names)
        return reference

    def _tell(self, node: str, field: str, problem: str) -> None:
        self.problems.append({"node": node, "field": field, "problem": problem})


def suggest(name: str, known: Iterable[str]) -> str:
    """`; did you mean x?` where something known is near, else nothing."""
    near = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def _say(problem: dict[str, str]) -> str:
    where = f"node {problem['node']!r}, " if problem["node"] else ""
    return f"{where}{problem['field']}: {problem['problem']}"
