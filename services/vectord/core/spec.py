"""What an index is, and when two descriptions mean the same one."""

from __future__ import annotations

from typing import Any

from shared.errors import Conflict, Invalid
from shared.wire.vectord import IndexSpec

STATED = ("dim", "metric", "m", "ef_construction", "model", "language")


def check_same(existing: IndexSpec, asked: IndexSpec) -> None:
    """Passes when creating `asked` again is the same as keeping `existing`.

    Raises:
        Conflict: they differ; details name each difference.
    """
    differences: dict[str, Any] = {
        field: {"existing": getattr(existing, field), "asked": getattr(asked, field)}
        for field in STATED
        if getattr(existing, field) != getattr(asked, field)
    }
    if differences:
        raise Conflict(
            f"Index {existing.name!r} exists with another {', '.join(differences)}. "
            "Use it as it is, choose another name, or delete it first.",
            details={"differences": differences},
        )


def check_model(spec: IndexSpec, model: str | None) -> None:
    """Passes when a request that names a model means the index's own.

    Raises:
        Conflict: vectors of different models must not mix.
    """
    if model is not None and model != spec.model:
        raise Conflict(
            f"Index {spec.name!r} holds vectors of model {spec.model!r}, not {model!r}. "
            "Embed with the index's model, or make an index for the other one.",
            details={"index_model": spec.model, "model": model},
        )


def check_dim(spec: IndexSpec, found: int, where: str) -> None:
    """Passes when a vector has the index's dimension.

    Raises:
        Invalid: it has another; message and details name both.
    """
    if found != spec.dim:
        raise Invalid(
            f"{where}: the vector has dimension {found}, index {spec.name!r} has {spec.dim}.",
            details={"expected": spec.dim, "found": found},
        )


def check_k(k: int, limit: int) -> None:
    """Passes when so many hits may be asked for.

    Raises:
        Invalid: fewer than one, or more than the limit.
    """
    if not 1 <= k <= limit:
        raise Invalid(f"k must lie between 1 and {limit}; {k} was asked for.", details={"k": k})
