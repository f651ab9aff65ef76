"""How a page is reached: its path, its methods, and what holds before it is made."""

from __future__ import annotations

from dataclasses import dataclass

from services.gateway.console.desk import Handler


@dataclass(frozen=True, slots=True)
class Page:
    """One route of the console.

    Attributes:
        method: GET, or POST for what changes something or runs a query.
        path: as Starlette writes it.
        handler: makes the answer.
        open: also for browsers that have not given the token.
        long: it may take longer than a page: uploads, models' answers.
        raw: its body is no form, so the form token must come in a header.
        polled: asked for again and again; what goes wrong leaves the page as it is.
    """

    method: str
    path: str
    handler: Handler
    open: bool = False
    long: bool = False
    raw: bool = False
    polled: bool = False
