"""What an engine's error means for the caller: class, message, place in the text.

Engine errors carry a kind ("Conversion", "Out of Memory") in a JSON object, as the worker
asks for it, or before the word "Error". On their way through Arrow streams they lose their
Python class and are wrapped in one another, so the kind decides, the innermost one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, cast

import orjson

from services.queryd.core.limits import over_edge, over_memory, over_temp
from services.queryd.core.statement import Statement, locate
from shared.errors import Forbidden, Invalid, LakehouseError, Unavailable, Unprocessable

_MAX_MESSAGE = 1000
_ADDRESS = re.compile(r"\b(?:s3|https?)://[^\s'\"<>]+|\b[\w.-]+:\d{2,5}\b")
_BLANKS = re.compile(r"\s+")
_KIND = re.compile(r"([A-Za-z][A-Za-z ]{1,30}?) Error: ")
_NO_MEMORY = ("std::bad_alloc", "Cannot allocate memory", "malloc of size", "realloc of size")
_NO_SPACE = ("max_temp_directory_size", "No space left", "File too large")


class Cause(Enum):
    """Whose fault an error is."""

    STATEMENT = auto()
    REFUSED = auto()
    MEMORY = auto()
    TEMP = auto()
    FILES = auto()
    ENGINE = auto()
    UNKNOWN = auto()


_KINDS = {
    "out of memory": Cause.MEMORY,
    "permission": Cause.REFUSED,
    # No query names an address: these are about the datasets' own files in a bucket.
    "http": Cause.FILES,
    "io": Cause.FILES,
    "internal": Cause.ENGINE,
    "fatal": Cause.ENGINE,
    "serialization": Cause.ENGINE,
    **dict.fromkeys(
        (
            "binder",
            "catalog",
            "constraint",
            "conversion",
            "decimal",
            "dependency",
            "divide by zero",
            "executor",
            "expression",
            "interrupt",
            "invalid",
            "invalid input",
            "invalid type",
            "mismatch type",
            "not implemented",
            "object size",
            "out of range",
            "parameter not allowed",
            "parameter not resolved",
            "parser",
            "planner",
            "sequence",
            "syntax",
            "transactioncontext",
            "unknown type",
        ),
        Cause.STATEMENT,
    ),
}
_CLASSES = {
    "MemoryError": Cause.MEMORY,
    "ArrowMemoryError": Cause.MEMORY,
    "ArrowCapacityError": Cause.MEMORY,
    # Params that the engine's Python side cannot take.
    "UnicodeEncodeError": Cause.STATEMENT,
    "RecursionError": Cause.STATEMENT,
    "OverflowError": Cause.STATEMENT,
    "TypeError": Cause.STATEMENT,
    "ValueError": Cause.STATEMENT,
}


@dataclass(frozen=True, slots=True)
class Problem:
    """An engine's error, understood. `position` is a byte offset in the text that ran."""

    cause: Cause
    message: str
    position: int | None = None

    @property
    def harmless(self) -> bool:
        """Whether a worker can go on after it: it was about the statement alone."""
        return self.cause in (Cause.STATEMENT, Cause.REFUSED)


def read_problem(class_name: str, text: str) -> Problem:
    """Understands an exception by its class name and text."""
    facts, kind, message = _read_facts(text), "", text
    if facts:
        kind = str(facts.get("exception_type", ""))
        message = str(facts.get("exception_message", ""))
    elif found := _KIND.match(text):
        kind, message = found.group(1), text[found.end() :]
    cause = _KINDS.get(kind.lower(), _CLASSES.get(class_name, Cause.UNKNOWN))
    if cause is not Cause.STATEMENT:
        if any(mark in text for mark in _NO_SPACE):
            cause = Cause.TEMP
        elif any(mark in text for mark in _NO_MEMORY):
            cause = Cause.MEMORY
    position = str(facts.get("position", ""))
    return Problem(cause, clean_message(message), int(position) if position.isdigit() else None)


def explain_problem(
    problem: Problem, sql: str, statement: Statement | None, memory_mb: int, temp_mb: int
) -> LakehouseError:
    """The error for the caller.

    Args:
        problem: what went wrong.
        sql: the caller's text; `statement` is what was made of it, None before that.
        memory_mb, temp_mb: the limits in force.
    """
    match problem.cause:
        case Cause.STATEMENT:
            return _blame_statement(problem, sql, statement)
        case Cause.REFUSED:
            return Forbidden(
                "Queries read the datasets that GET /sql/tables lists, and nothing else."
            )
        case Cause.MEMORY:
            return over_memory(memory_mb)
        case Cause.TEMP:
            return over_temp(temp_mb)
        case Cause.FILES:
            return Unavailable(
                f"A data file of the query could not be read ({hide_addresses(problem.message)}). "
                "Try again; if it stays, the dataset's files were moved or damaged.",
            )
        case Cause.ENGINE:
            return Unprocessable(f"The engine cannot run this statement: {problem.message}.")
        case Cause.UNKNOWN:
            return over_edge(memory_mb)


def clean_message(text: str) -> str:
    """The first paragraph on one line: what follows it is advice on settings nobody can set."""
    first = text.split("\n\n", 1)[0].split("\nUse ", 1)[0]
    return _BLANKS.sub(" ", first).strip().rstrip(".")[:_MAX_MESSAGE]


def hide_addresses(text: str) -> str:
    """The text without where a bucket is and what lies in it."""
    return _ADDRESS.sub("its address", text)


def _blame_statement(problem: Problem, sql: str, statement: Statement | None) -> Invalid:
    if problem.message.startswith("Unsupported Arrow type"):
        kind = problem.message.rpartition(" ")[2]
        return Invalid(f"A column of type {kind} cannot be answered. Cast it, say to VARCHAR.")
    if problem.position is None or statement is None:
        return Invalid(f"{problem.message}.")
    # The engine ran prefix + text; the caller wrote his own words before it.
    offset = problem.position - len(statement.prefix) + statement.offset
    where = locate(sql, max(offset, 0))
    return Invalid(
        f"{problem.message} (line {where['line']}, column {where['column']}).", details=where
    )


def _read_facts(text: str) -> dict[str, Any]:
    """The innermost JSON object of an error's text; empty where there is none."""
    facts: dict[str, Any] = {}
    while True:
        _, brace, rest = text.partition('{"exception_type"')
        if not brace:
            return facts
        try:
            found: object = orjson.loads(brace + rest)
        except orjson.JSONDecodeError:
            return facts
        if not isinstance(found, dict):
            return facts
        facts = cast("dict[str, Any]", found)
        text = str(facts.get("exception_message", ""))
