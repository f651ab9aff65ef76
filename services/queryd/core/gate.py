"""The statement gate: walks the whole tree of a SELECT and lets only what is known pass.

The tree is what DuckDB's `json_serialize_sql` gives, from the parser that will also run the
text. Every node type, every function and every relation is held against an allow-list;
anything new or unforeseen is refused. The names of datasets come out, so that queryd can
make exactly those readable. Walked with a stack of its own: hostile depth ends in an error.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from services.queryd.core.functions import (
    ALLOWED_FUNCTIONS,
    ALLOWED_TABLE_FUNCTIONS,
    REFUSED_FUNCTIONS,
    REFUSED_TABLE_FUNCTIONS,
    is_allowed,
)
from shared.errors import Forbidden, Invalid, LakehouseError

EXPRESSIONS = frozenset(
    """
    BETWEEN CASE CAST COLLATE COLUMN_REF COMPARISON CONJUNCTION CONSTANT FUNCTION LAMBDA LAMBDA_REF
    OPERATOR PARAMETER POSITIONAL_REFERENCE STAR SUBQUERY WINDOW
    """.split()
)
# Query nodes, table references, modifiers, sort orders and type descriptions.
NODES = frozenset(
    """
    SELECT_NODE SET_OPERATION_NODE RECURSIVE_CTE_NODE
    BASE_TABLE EMPTY EXPRESSION_LIST JOIN PIVOT SHOW_REF SUBQUERY TABLE_FUNCTION
    DISTINCT_MODIFIER LIMIT_MODIFIER LIMIT_PERCENT_MODIFIER ORDER_MODIFIER
    ASCENDING DESCENDING ORDER_DEFAULT
    ARRAY_TYPE_INFO DECIMAL_TYPE_INFO ENUM_TYPE_INFO GENERIC_TYPE_INFO LIST_TYPE_INFO
    STRING_TYPE_INFO STRUCT_TYPE_INFO UNBOUND_TYPE_INFO
    """.split()
)

# The catalogue's rule for names, said again because workers load no pydantic; a test holds
# the two together.
DATASET = re.compile(r"^[a-z][a-z0-9_]{0,62}$")
# A CTE by such a name could be taken for a file where it is out of scope.
_UNSAFE_CTE = re.compile(r"[./\\:*?\[\]]")
_NOWHERE = 2**64 - 1

Node = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Scope:
    """The CTEs that can be named at a place: those of one WITH up to `limit`, then outward."""

    outer: Scope | None
    names: Mapping[str, int]
    limit: int

    def has(self, name: str) -> bool:
        """Whether `name` (lower case) is a CTE here."""
        scope: Scope | None = self
        while scope is not None:
            if scope.names.get(name, scope.limit) < scope.limit:
                return True
            scope = scope.outer
        return False


class Refusal(Exception):
    """What the gate found, with the byte offset of the place (None if unknown)."""

    def __init__(self, error: LakehouseError, offset: int | None) -> None:
        super().__init__(error.message)
        self.error = error
        self.offset = offset


def find_datasets(node: Node) -> tuple[str, ...]:
    """Walks a query node and gives the datasets it reads, in lower case, in order.

    Args:
        node: the `node` of a serialized statement.

    Raises:
        Refusal: the query does something that is not allowed.
    """
    datasets: dict[str, None] = {}
    stack: list[tuple[object, Scope | None]] = [(node, None)]
    while stack:
        item, scope = stack.pop()
        if isinstance(item, list):
            stack += [(child, scope) for child in reversed(cast("list[object]", item))]
        elif isinstance(item, dict):
            found = cast("Node", item)
            if "class" in found:
                children = _check_expression(found)
            elif isinstance(found.get("type"), str):
                children = _check_node(found, scope, datasets)
            else:
                children = list(found.values())
            if found.get("cte_map"):
                stack += _enter_ctes(found, scope)
            elif found.get("type") == "RECURSIVE_CTE_NODE":
                stack += _enter_recursion(found, scope)
            else:
                stack += [(child, scope) for child in reversed(children)]
    return tuple(datasets)


def _check_expression(node: Node) -> list[object]:
    """Checks one expression and gives what lies beneath it."""
    kind = node["class"]
    if kind not in EXPRESSIONS:
        raise _refuse(f"{kind} expressions cannot be used in queries.", node)
    if kind == "CONSTANT":
        return []
    if kind in ("FUNCTION", "WINDOW"):
        name = str(node["function_name"]).lower()
        if not is_allowed(name):
            raise _refuse_function(name, node, ALLOWED_FUNCTIONS)
    return list(node.values())


def _check_node(node: Node, scope: Scope | None, datasets: dict[str, None]) -> list[object]:
    """Checks one query node, table reference or type and gives what lies beneath it."""
    kind = node["type"]
    if kind not in NODES:
        raise _refuse(f"{kind} cannot be used in queries.", node)
    if kind == "BASE_TABLE":
        name = _read_relation(node, scope)
        if name is not None:
            datasets[name] = None
    elif kind == "TABLE_FUNCTION":
        return _check_table_function(node)
    elif kind == "SHOW_REF" and node.get("query") is None:
        raise _refuse(
            "SHOW is not available. GET /sql/tables lists the tables, "
            "GET /sql/tables/{name} describes one.",
            node,
        )
    return list(node.values())


def _check_table_function(node: Node) -> list[object]:
    function = cast("Node", node["function"])
    if function.get("class") != "FUNCTION":
        raise _refuse("Only table functions can be called in FROM.", node)
    name = str(function["function_name"]).lower()
    if name not in ALLOWED_TABLE_FUNCTIONS:
        raise _refuse_function(name, function, ALLOWED_TABLE_FUNCTIONS)
    rest = [value for key, value in node.items() if key != "function"]
    return [*rest, *function.values()]


def _read_relation(node: Node, scope: Scope | None) -> str | None:
    """The dataset that a table reference names, or None where it names a CTE."""
    name, schema = str(node["table_name"]), str(node["schema_name"]).lower()
    catalog = str(node["catalog_name"]).lower()
    lower = name.lower()
    if node.get("at_clause") is not None:
        raise _refuse("AT is not available in SQL. Send as_of with the request.", node)
    if scope is not None and scope.has(lower) and not catalog and schema in ("", "recurring"):
        return None
    if schema not in ("", "main") or catalog not in ("", "memory"):
        shown = ".".join(part for part in (catalog, schema, name) if part)
        raise _refuse(
            f"{shown} cannot be read. Name a dataset alone, as GET /sql/tables lists it.", node
        )
    if not DATASET.fullmatch(lower):
        raise _refuse(
            f"'{name}' is not a dataset. Queries read the datasets that GET /sql/tables lists, "
            "not files or addresses; POST /ingest makes a dataset of a file.",
            node,
        )
    return lower


def _enter_ctes(node: Node, scope: Scope | None) -> Iterator[tuple[object, Scope | None]]:
    """The CTEs of a WITH, each seeing those before it, and the query that sees them all."""
    entries = cast("list[Node]", node["cte_map"].get("map", []))
    names: dict[str, int] = {}
    for position, entry in enumerate(entries):
        name = str(entry["key"]).lower()
        if _UNSAFE_CTE.search(name):
            raise _refuse(f'The WITH name "{name}" is not allowed. Use a plain name.', node)
        names[name] = position
    body = Scope(scope, names, len(entries)) if entries else scope
    rest = {key: value for key, value in node.items() if key != "cte_map"}
    if rest.get("type") == "RECURSIVE_CTE_NODE":
        yield from _enter_recursion(rest, body)
    else:
        yield from ((value, body) for value in reversed(list(rest.values())))
    for position, entry in reversed(list(enumerate(entries))):
        yield entry["value"], Scope(scope, names, position)


def _enter_recursion(node: Node, scope: Scope | None) -> Iterator[tuple[object, Scope | None]]:
    """A recursive CTE: its own name can be read in the recursive arm alone."""
    inner = Scope(scope, {str(node["cte_name"]).lower(): 0}, 1)
    for key, value in reversed(list(node.items())):
        if key != "cte_map":
            yield value, inner if key == "right" else scope


def _refuse_function(name: str, node: Node, allowed: frozenset[str]) -> Refusal:
    why = REFUSED_FUNCTIONS.get(name) or REFUSED_TABLE_FUNCTIONS.get(name)
    if why is not None:
        return _refuse(f"{name}() cannot be used in queries: it {why}.", node)
    if name in ALLOWED_TABLE_FUNCTIONS:
        message = f"{name}() gives a table: call it in FROM."
    elif is_allowed(name):
        message = f"{name}() gives a value: it cannot stand in FROM."
    else:
        near = difflib.get_close_matches(name, allowed, 1)
        message = f"There is no function {name}()." + (
            f" Did you mean {near[0]}()?" if near else ""
        )
    return Refusal(Invalid(message), _offset(node))


def _refuse(message: str, node: Node) -> Refusal:
    return Refusal(Forbidden(message), _offset(node))


def _offset(node: Node) -> int | None:
    found = node.get("query_location")
    return found if isinstance(found, int) and found != _NOWHERE else None
