"""Which answer format a request gets, from its Accept header (RFC 9110 §12.5.1)."""

from __future__ import annotations

from enum import Enum

from shared.errors import NotAcceptable


class Format(Enum):
    """An answer format; the value is its media type."""

    JSON = "application/json"
    ARROW = "application/vnd.apache.arrow.stream"
    NDJSON = "application/x-ndjson"
    CSV = "text/csv"
    PARQUET = "application/vnd.apache.parquet"

    @property
    def tells_cuts_in_band(self) -> bool:
        """Whether the body itself says, at its end, that rows were left out."""
        return self is not Format.CSV


def choose_format(accept: str | None) -> Format:
    """The format with the highest weight; JSON where nothing is asked or all is equal.

    Raises:
        NotAcceptable: the header leaves none of the formats.
    """
    if not accept or not accept.strip():
        return Format.JSON
    weights: dict[str, float] = {}
    for item in accept.split(","):
        media, *parameters = (part.strip().lower() for part in item.split(";"))
        weights[media] = max(weights.get(media, 0.0), _weight(parameters))
    best = max(Format, key=lambda f: _weight_of(f, weights))
    if _weight_of(best, weights) > 0:
        return best
    known = [form.value for form in Format]
    raise NotAcceptable(
        f"None of the asked formats can be given. Accept one of {', '.join(known)}.",
        details={"formats": known},
    )


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0


def _weight_of(choice: Format, weights: dict[str, float]) -> float:
    """The most specific range that matches decides."""
    media = choice.value
    for pattern in (media, f"{media.split('/')[0]}/*", "*/*"):
        if pattern in weights:
            return weights[pattern]
    return 0.0
