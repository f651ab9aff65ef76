"""Which of the two forms of an answer a caller accepts (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from typing import Literal

from shared.errors import NotAcceptable
from shared.wire.embedd import ARROW_STREAM

Form = Literal["json", "arrow"]

_TYPES: dict[str, Form] = {"application/json": "json", ARROW_STREAM: "arrow"}
# More general ranges mean JSON.
_WILD = ("*/*", "application/*")


def choose_form(accept: str) -> Form:
    """The form with the highest weight; JSON where the header is absent or says nothing.

    Raises:
        NotAcceptable: neither is acceptable.
    """
    best: tuple[float, Form] | None = None
    for item in accept.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        form = "json" if name in _WILD else _TYPES.get(name)
        weight = _read_weight(parameters)
        if form is not None and weight > 0 and (best is None or weight > best[0]):
            best = (weight, form)
    if best is not None:
        return best[1]
    if not accept.strip():
        return "json"
    raise NotAcceptable(f"The answer can be {' or '.join(_TYPES)}; Accept names neither.")


def _read_weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
