"""Hashes: of a node's work, so that a resume knows it again, and of a run's end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from services.observerd.core.workflow.plan import Node
from services.observerd.core.workflow.states import Result

# What changes how a node is run, but not what comes of it.
_MANNER = {"retry", "timeout", "always_run", "idempotent"}


def hash_json(value: Any) -> str:
    """SHA-256 of a value's canonical JSON: sorted keys, no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def make_cache_key(node: Node, inputs: Mapping[str, Any]) -> str:
    """What names a node's work: what it is, with which inputs, by which version of its mode."""
    spec = node.spec.model_dump(mode="json", by_alias=True, exclude=_MANNER)
    return hash_json([spec, inputs, node.mode_version])


def hash_result(results: Mapping[str, Result], outcome: Any) -> str:
    """What a run came to, however often it was interrupted on the way."""
    nodes = {
        name: [
            result.state,
            None if result.skip_cause == "prior_success" else result.skip_cause,
            result.output,
            result.error.type if result.error else None,
        ]
        for name, result in results.items()
    }
    return hash_json([nodes, outcome])
