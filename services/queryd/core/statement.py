"""What the text of a statement is, before its meaning is looked at.

`json_serialize_sql` takes SELECT alone, so a leading EXPLAIN is cut off here, the rest is
gated as the SELECT it must be, and the engine gets `prefix + rest`: what was gated is what
runs. Positions are told as line and column of the caller's text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from shared.errors import Forbidden, Invalid

# White space and comments before the first word. A comment that a lexer would read
# differently leaves text that is gated as it stands, so a wrong guess costs a refusal only.
_LEAD = re.compile(r"(?:\s|--[^\n]*(?:\n|\Z)|/\*(?:[^*]|\*(?!/))*\*/)*")
_EXPLAIN = re.compile(r"explain(?:\s+(analyze))?(?=[\s(/-])", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z_]+")

# Statements that people try, each with what to do instead.
_INSTEAD: Mapping[str, str] = {
    **dict.fromkeys(
        ("INSERT", "UPDATE", "DELETE", "MERGE", "COPY", "EXPORT", "IMPORT"),
        "Data comes in through POST /ingest.",
    ),
    **dict.fromkeys(
        ("CREATE", "DROP", "ALTER", "TRUNCATE", "COMMENT"),
        "Datasets are made by POST /ingest and removed by DELETE /catalog/datasets/{name}.",
    ),
    **dict.fromkeys(
        ("SET", "RESET", "PRAGMA", "USE", "CALL", "CHECKPOINT", "VACUUM", "ANALYZE"),
        "The engine's settings are the operator's, in the [queryd] section.",
    ),
    **dict.fromkeys(
        ("ATTACH", "DETACH", "INSTALL", "LOAD"),
        "Queries read the datasets that GET /sql/tables lists, and nothing else.",
    ),
    **dict.fromkeys(("BEGIN", "COMMIT", "ROLLBACK", "START"), "Each query stands alone."),
    **dict.fromkeys(
        ("PREPARE", "EXECUTE", "DEALLOCATE"), "Send the statement itself, with its params."
    ),
    "PIVOT": "A PIVOT must name its values: PIVOT t ON c IN ('a', 'b') USING sum(x).",
    "SHOW": "GET /sql/tables lists the tables, GET /sql/tables/{name} describes one.",
}


@dataclass(frozen=True, slots=True)
class Statement:
    """`text` is the SELECT to gate; `prefix` is what EXPLAIN puts before it, or empty."""

    text: str
    prefix: str
    offset: int

    @property
    def runnable(self) -> str:
        """The text the engine gets once `text` has passed the gate."""
        return f"{self.prefix}{self.text}"

    @property
    def profiles(self) -> bool:
        """Whether the answer is the profile of the query and not its rows."""
        return "ANALYZE" in self.prefix


def read_statement(sql: str) -> Statement:
    """Cuts a leading EXPLAIN or EXPLAIN ANALYZE off.

    Raises:
        Invalid: the text has a NUL or half a character in it, or nothing.
    """
    if "\0" in sql:
        raise Invalid("The SQL holds a NUL character. Remove it.")
    try:
        sql.encode()
    except UnicodeEncodeError:
        raise Invalid("The SQL holds half a surrogate pair. Send whole characters.") from None
    lead = _LEAD.match(sql)
    start = lead.end() if lead else 0
    if start == len(sql):
        raise Invalid("The SQL is empty. Send one SELECT statement.")
    found = _EXPLAIN.match(sql, start)
    if found is None:
        return Statement(sql, "", 0)
    prefix = "EXPLAIN ANALYZE " if found.group(1) else "EXPLAIN "
    # A blank in the place of the keyword keeps a comment that follows it a comment.
    return Statement(sql[found.end() :], prefix, len(sql[: found.end()].encode()))


def refuse_unserialized(reply: Mapping[str, Any], sql: str, statement: Statement) -> Exception:
    """The error for a text that `json_serialize_sql` did not take as SELECT statements."""
    message = str(reply.get("error_message") or "The statement cannot be read.")
    kind = str(reply.get("error_type"))
    if kind == "not implemented" and message.startswith("Only SELECT"):
        lead = _LEAD.match(statement.text)
        word = _WORD.match(statement.text, lead.end() if lead else 0)
        name = word.group().upper() if word else "this"
        instead = _INSTEAD.get(name)
        if instead is None and "PIVOT" in statement.text.upper():
            name, instead = "PIVOT", _INSTEAD["PIVOT"]
        return Forbidden(
            f"Only SELECT can be run here, not {name}. "
            f"{instead or 'Send a single SELECT, DESCRIBE, SUMMARIZE or EXPLAIN.'}",
            details={"statement": name},
        )
    position = reply.get("position")
    details = (
        locate(sql, statement.offset + int(position))
        if isinstance(position, str) and position.isdigit()
        else {}
    )
    where = f" (line {details['line']}, column {details['column']})" if details else ""
    return Invalid(f"The SQL cannot be read: {message}{where}.", details=details)


def only_statement(reply: Mapping[str, Any]) -> Mapping[str, Any]:
    """The one statement in a reply of `json_serialize_sql`.

    Raises:
        Invalid: there is none.
        Forbidden: there are several.
    """
    statements = cast("list[Mapping[str, Any]]", reply.get("statements", []))
    if not statements:
        raise Invalid("The SQL is empty. Send one SELECT statement.")
    if len(statements) > 1:
        raise Forbidden(
            f"The SQL holds {len(statements)} statements. Send one statement per request.",
            details={"statements": len(statements)},
        )
    return statements[0]


def locate(sql: str, offset: int) -> dict[str, int]:
    """Line and column (from 1, in characters) of a byte offset in the caller's text."""
    before = sql.encode()[:offset].decode("utf-8", "ignore")
    last = before.rfind("\n")
    return {"line": before.count("\n") + 1, "column": len(before) - last}


def parameter_names(statement: Mapping[str, Any]) -> tuple[str, ...]:
    """The parameters that a statement names: `1`, `2` … for positions, else names, sorted."""
    entries = cast("list[Mapping[str, Any]]", statement.get("named_param_map", []))
    names = [str(entry["key"]) for entry in entries]
    return tuple(sorted(names, key=lambda n: (not n.isdigit(), int(n) if n.isdigit() else 0, n)))


def check_parameters(names: tuple[str, ...], given: list[Any] | dict[str, Any]) -> None:
    """Holds what was given against what the statement names.

    Raises:
        Invalid: too few, too many, or named where positions are wanted and the reverse.
    """
    positional = all(name.isdigit() for name in names)
    if isinstance(given, dict):
        if names and positional:
            raise Invalid(
                "The statement has positional parameters; send params as a list.",
                details={"expected": list(names)},
            )
        missing = [n for n in names if n not in given]
        extra = [n for n in given if n not in names]
        if missing or extra:
            told = [f"missing: {', '.join(missing)}"] if missing else []
            told += [f"not in the statement: {', '.join(extra)}"] if extra else []
            raise Invalid(
                f"The named params do not fit the statement ({'; '.join(told)}).",
                details={"missing": missing, "extra": extra},
            )
        return
    if names and not positional:
        if given or names:
            raise Invalid(
                f"The statement names its parameters ({', '.join(names)}); "
                "send params as an object with these keys.",
                details={"expected": list(names)},
            )
        return
    expected = max((int(name) for name in names), default=0)
    if len(given) != expected:
        raise Invalid(
            f"The statement has {expected} parameter{'' if expected == 1 else 's'}; "
            f"{len(given)} {'was' if len(given) == 1 else 'were'} given.",
            details={"expected": expected, "given": len(given)},
        )
