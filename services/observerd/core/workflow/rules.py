"""Trigger rules: whether a node may run, now that all that it depends on has ended.

What a rule allows and why a node is skipped are one decision, so that a failure can never
turn into a harmless skip on its way down.
"""

from __future__ import annotations

from collections.abc import Mapping

from services.observerd.core.workflow.plan import Node
from services.observerd.core.workflow.states import BROKEN, Result
from shared.wire.observerd_workflows import SkipCause


def find_skip(node: Node, results: Mapping[str, Result]) -> SkipCause | None:
    """Why the rule of a node does not let it run; None when it does.

    `results` has the end of every ancestor. A node that depends on nothing always may run.
    - all_success: every dependency completed.
    - one_success: at least one did.
    - none_failed_min_one_success: at least one did, and no ancestor however far failed.
    - all_done: whatever became of them.
    """
    above = [results[name] for name in node.spec.depends_on]
    rule = node.spec.trigger_rule
    if not above or rule == "all_done":
        return None
    some = any(result.state == "completed" for result in above)
    if rule == "all_success":
        allowed = all(result.state == "completed" for result in above)
    elif rule == "one_success":
        allowed = some
    else:
        broken = any(results[name].state in BROKEN for name in node.ancestors)
        if broken:
            return "upstream_failed"
        allowed = some
    if allowed:
        return None
    if any(r.state in BROKEN or r.skip_cause == "upstream_failed" for r in above):
        return "upstream_failed"
    return "propagated" if rule == "all_success" else "trigger_rule"
