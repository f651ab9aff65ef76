"""How long a query may run and how many rows it may give: asked for, capped by the server."""

from __future__ import annotations

from services.queryd.core.accept import Format
from shared.errors import Timeout, Unprocessable


def choose_timeout(asked_s: float | None, left_s: float | None, server_s: float) -> float:
    """Seconds the query has: the least of what was asked, what is left and what is allowed.

    Raises:
        Timeout: nothing is left of the caller's deadline.
    """
    limit = min(x for x in (asked_s, left_s, server_s) if x is not None)
    if limit <= 0:
        raise Timeout("The request's time was over before the query could start.")
    return limit


def choose_max_rows(asked: int | None, form: Format, json_rows: int, most: int) -> int:
    """Rows to give at most: as asked, else `json_rows` in one JSON body, else `most`."""
    if asked is None:
        return min(json_rows, most) if form is Format.JSON else most
    return min(asked, most)


def over_time(limit_s: float) -> Timeout:
    """The error for a query stopped at its deadline."""
    return Timeout(
        f"The query was stopped after its {limit_s:g} s. Narrow it, or allow more with timeout_s "
        "(up to the server's query_timeout_s).",
        details={"timeout_s": limit_s},
    )


def over_memory(memory_mb: int) -> Unprocessable:
    """The error for a query that ran out of its worker's memory."""
    return Unprocessable(
        f"The query needs more memory than the {memory_mb} MB it has. Narrow it: fewer columns, "
        "a filter, a smaller join or group.",
        details={"memory_mb": memory_mb},
    )


def over_temp(temp_mb: int) -> Unprocessable:
    """The error for a query that ran out of its temporary disk space."""
    return Unprocessable(
        f"The query needs more temporary disk space than the {temp_mb} MB it has. "
        "Narrow it: a filter, fewer columns, a smaller sort or join.",
        details={"temp_mb": temp_mb},
    )


def over_edge(memory_mb: int) -> Unprocessable:
    """The error for a query whose worker died while it ran."""
    return Unprocessable(
        "The query ended the process that ran it, most likely for want of memory "
        f"(it has {memory_mb} MB). Other queries were not touched. Narrow it and try again.",
        details={"memory_mb": memory_mb},
    )


def over_rows(max_rows: int) -> Unprocessable:
    """The error for an answer cut by the server in a format that cannot say so."""
    return Unprocessable(
        f"The answer has more than the {max_rows} rows that the server gives. Ask for fewer with "
        "max_rows, or for Arrow, NDJSON or Parquet, which say that rows were left out.",
        details={"max_rows": max_rows},
    )


def refuse_engine(engine: str) -> None:
    """Lets the embedded engine pass.

    Raises:
        Unprocessable: another engine is asked for, and none is configured.
    """
    if engine != "duckdb":
        raise Unprocessable(
            f"The engine '{engine}' is not configured on this server. Leave engine out to run "
            "the query on the embedded one.",
            details={"engine": engine, "available": ["duckdb"]},
        )
