"""Which answer format a request gets, from its Accept header (RFC 9110 §12.5.1), and what a
format cannot carry."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from services.queryd.core.jsontext import SqlType
from shared.errors import NotAcceptable, Unprocessable


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


def refuse_lossy(form: Format, columns: Sequence[tuple[str, SqlType]]) -> None:
    """Lets columns pass whose values the format can carry whole.

    Raises:
        Unprocessable: names the column that would come out as something else. Arrow has no
            unsigned integer of 128 bits, so that DuckDB gives large ones as negative numbers,
            and no time of day with an offset, so that it leaves the offset out.
    """
    if form not in (Format.ARROW, Format.PARQUET):
        return
    for name, kind in columns:
        if told := _find_lossy(kind):
            raise Unprocessable(
                f"The column '{name}' holds {told}, which {form.name.title()} has no type for. "
                f'Cast it ("{name}"::VARCHAR) or ask for another format.',
                details={"column": name},
            )


def _find_lossy(kind: SqlType) -> str:
    if kind.id in ("uhugeint", "time with time zone"):
        return kind.name
    return next((found for _, inner in kind.members if (found := _find_lossy(inner))), "")


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
