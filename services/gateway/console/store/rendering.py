"""Templates: everything put into a page is escaped, and a name that is missing is an error."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from services.gateway.console.core import plots, wording
from services.gateway.console.store.static import read_static

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"


@cache
def load_environment() -> Environment:
    """The templates with their filters; compiled once in a process."""
    static = read_static()
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "cell": wording.write_cell,
        "count": wording.write_count,
        "cut": wording.cut,
        "duration": wording.write_duration,
        "figure": wording.write_figure,
        "json": wording.write_json,
        "rate": wording.write_rate,
        "segment": lambda text: quote(str(text), safe=""),
        "signed": wording.write_signed,
        "size": wording.write_size,
        "spark": plots.spark,
        "time": wording.write_time,
    }
    environment.globals |= {
        "is_number": wording.is_number,
        "link": make_link,
        "static": lambda name: f"/console/static/{name}?v={static[name].version}",
    }
    return environment


def make_link(path: str, **params: Any) -> str:
    """A path with a query; what is None or empty is left out."""
    given = {key: value for key, value in params.items() if value not in (None, "")}
    return f"{path}?{urlencode(given, doseq=True)}" if given else path
