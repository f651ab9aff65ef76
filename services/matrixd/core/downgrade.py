"""Which mode a model is asked in.

Composed context, many snippets around a question, helps a weak model and measurably hurts a
strong one, which answers better from the question alone. So a strong model in the composed
mode is asked in the isolated one, unless its caller insists.
"""

from __future__ import annotations

from collections.abc import Collection

from shared.errors import Invalid
from shared.wire.matrixd_context import Downgraded

COMPOSED, ISOLATED = "composed", "isolated"
MODES = (COMPOSED, ISOLATED)
# Names of the tier of models that composed context helps.
TIER = "tier/"


def decide_mode(
    mode: str,
    model: str,
    *,
    force: bool,
    weak_models: Collection[str],
    tiers: dict[str, str],
) -> Downgraded:
    """The mode to use, and why.

    Args:
        mode: composed or isolated.
        model: its name, or `tier/<name>` of [models].
        force: keep the mode, whatever the model.
        weak_models: [models] weak_models.
        tiers: the models of [models] by tier.

    Raises:
        Invalid: another mode, no model, or an unknown tier.
    """
    if mode not in MODES:
        raise Invalid(
            f"There is no mode {mode[:60]!r}. Ask for {' or '.join(MODES)}.",
            details={"modes": list(MODES)},
        )
    name = resolve_model(model, tiers)
    if mode == ISOLATED:
        return _keep(mode, "The isolated mode suits every model.")
    if force:
        return _keep(mode, "The composed mode was forced.")
    if is_weak(name, weak_models):
        return _keep(mode, f"{name} is one of [models] weak_models, which composed context helps.")
    return Downgraded(
        mode=ISOLATED,
        downgraded=True,
        reason=f"{name} is not one of [models] weak_models: composed context hurts strong models. "
        "Send force: true to keep it, or add the model to weak_models.",
    )


def resolve_model(model: str, tiers: dict[str, str]) -> str:
    """The model that a name stands for.

    Raises:
        Invalid: it is blank, or names a tier that there is not.
    """
    name = model.strip()
    if not name:
        raise Invalid("model: name a model, or a tier as tier/local_fast.")
    if not name.startswith(TIER):
        return name
    tier = name.removeprefix(TIER)
    if tier not in tiers:
        raise Invalid(
            f"There is no tier {tier[:60]!r}. [models] has: {', '.join(tiers)}.",
            details={"tiers": list(tiers)},
        )
    return tiers[tier]


def is_weak(model: str, weak_models: Collection[str]) -> bool:
    """Whether a model is on the list; the local provider's prefix and `:latest` may be left out."""
    return _plain(model) in {_plain(name) for name in weak_models}


def _plain(model: str) -> str:
    return model.strip().lower().removeprefix("ollama/").removesuffix(":latest")


def _keep(mode: str, reason: str) -> Downgraded:
    return Downgraded(mode=mode, downgraded=False, reason=reason)
