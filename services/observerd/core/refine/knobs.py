"""The knobs there are: how a configuration becomes a search, and what of it is a corpus's own."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from services.observerd.core.refine.lattice import Configuration, Lattice, Value
from shared.errors import Invalid
from shared.wire.matrixd import MatrixSearch, Tuning

KNOBS = ("lexical", "candidates", "use_playbook")
_DEPTH = 10


def declare(knobs: Mapping[str, Sequence[Value]]) -> Lattice:
    """The lattice of these knobs.

    Raises:
        Invalid: a knob that there is not, or values that it cannot take.
    """
    for name, values in knobs.items():
        if name not in KNOBS:
            near = difflib.get_close_matches(name, KNOBS, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise Invalid(f"{name}: no such knob; there are {', '.join(KNOBS)}.{hint}")
        for value in values:
            _check(name, value)
    return Lattice.declare(knobs)


def _check(name: str, value: Value) -> None:
    if name == "use_playbook":
        if not isinstance(value, bool):
            raise Invalid("use_playbook: values are true and false.")
        return
    try:
        Tuning.model_validate({name: value}, strict=name == "candidates")
    except ValueError:
        limits = "0 to 10" if name == "lexical" else "whole numbers from 10 to 1000"
        raise Invalid(f"{name}: {value!r} is none of its values, which are {limits}.") from None


def tuning_of(configuration: Configuration) -> Tuning:
    """What of a configuration is how a corpus is searched."""
    values = configuration.values
    return Tuning.model_validate({n: values[n] for n in ("lexical", "candidates") if n in values})


def search_of(configuration: Configuration, query: str, corpora: Sequence[str]) -> MatrixSearch:
    """The search that replays a query with a configuration."""
    return MatrixSearch(
        query=query,
        corpora=list(corpora),
        k=_DEPTH,
        use_playbook=bool(configuration.values.get("use_playbook", False)),
        tuning=tuning_of(configuration),
    )
