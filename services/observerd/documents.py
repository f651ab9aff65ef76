"""A workflow's text, YAML or JSON, as plain data."""

from __future__ import annotations

import math
from typing import Any, cast

import yaml
from yaml.events import AliasEvent
from yaml.nodes import MappingNode, Node, ScalarNode

from shared.errors import Invalid

_DEEPEST = 100


class _Loader(yaml.SafeLoader):
    """YAML as JSON means it: no dates, no aliases (a few lines of them can stand for terabytes),
    no key twice, and true and false written as such."""

    depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        if self.check_event(AliasEvent):
            raise _refuse(self.peek_event(), "aliases (*name) are not taken; write it out")
        self.depth += 1
        if self.depth > _DEEPEST:
            raise _refuse(self.peek_event(), f"more than {_DEEPEST} levels deep")
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                raise _refuse(key, "keys are plain texts")
            if key.value in keys:
                raise _refuse(key, f"the key {key.value!r} stands here twice")
            keys.add(key.value)
        made: dict[Any, Any] = super().construct_mapping(node, deep)
        return {str(key): value for key, value in made.items()}


def _refuse(place: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)


_TRUTHS = {"true", "false", "True", "False", "TRUE", "FALSE"}
# YAML 1.1 reads dates, `on`, `no` and 1:30 as other things than they look like.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if not tag.endswith((":timestamp", ":bool"))]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _construct_text(loader: _Loader, node: ScalarNode) -> Any:
    value: Any = loader.construct_yaml_str(node)
    plain = node.style is None and node.value in _TRUTHS
    return node.value.lower() == "true" if plain else value


_Loader.add_constructor("tag:yaml.org,2002:str", _construct_text)


def parse_yaml(content: bytes) -> Any:
    """The data of a YAML text.

    Raises:
        Invalid: it is none, or holds what JSON cannot.
    """
    try:
        data = yaml.load(content.decode("utf-8"), Loader=_Loader)
        _check_plain(data)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" in line {mark.line + 1}" if mark else ""
        raise Invalid(f"The YAML cannot be read{where}: {error.problem}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Invalid(f"The YAML cannot be read: {str(error)[:200]}") from None
    return data


def _check_plain(value: Any) -> None:
    """Passes what JSON can carry; raises ValueError on anything else."""
    if isinstance(value, dict):
        for key, inner in cast("dict[str, Any]", value).items():
            _check_plain(key)
            _check_plain(inner)
    elif isinstance(value, list):
        for inner in cast("list[Any]", value):
            _check_plain(inner)
    elif isinstance(value, str):
        value.encode("utf-8")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number must be finite")
    elif not isinstance(value, int | float | None):
        raise ValueError(f"a value of the type {type(value).__name__} cannot stand in a workflow")
