"""Which type a column gets: the narrowest that gives every value back.

A `Profile` says how many values of a column have each written form; `choose_type` goes
down the ladder BOOLEAN, BIGINT, DECIMAL, DOUBLE, DATE, TIMESTAMP, VARCHAR. The profile of
a sample gives a guess, which is checked on every row while the file is converted; where a
row does not hold to it, the profile of all rows decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from services.ingestd.core import shapes

BIGINT_MIN, BIGINT_MAX = -(2**63), 2**63 - 1

_INTEGER = re.compile(shapes.INTEGER)
_DECIMAL = re.compile(shapes.DECIMAL)
_FLOAT = re.compile(shapes.FLOAT)
_ANY_FLOAT = re.compile(shapes.ANY_FLOAT)
_DATE = re.compile(shapes.DATE)
_TIMESTAMP = re.compile(shapes.TIMESTAMP)
_TIMESTAMPTZ = re.compile(shapes.TIMESTAMPTZ)
_LEADING_ZERO = re.compile(r"-?0[0-9]+(?:\.[0-9]*)?")
_SLASHED = re.compile(r"([0-9]{1,2})[/.\-]([0-9]{1,2})[/.\-]([0-9]{4}|[0-9]{2})(?:[ T].*)?")
_COMMA_NUMBER = re.compile(r"-?[0-9]{1,3}(?:[.' ]?[0-9]{3})*,[0-9]+|-?[0-9]+,[0-9]+")


@dataclass(frozen=True, slots=True)
class Profile:
    """How many values of a column have each form.

    `values` counts what is neither NULL nor an empty text. `booleans` counts each spelling
    of `shapes.BOOLEANS`. `whole_digits` and `fraction_digits` are the largest among the
    values of decimal form. `doubles` counts values that a DOUBLE gives back.
    """

    booleans: tuple[int, ...] = (0, 0, 0)
    values: int = 0
    bigints: int = 0
    decimals: int = 0
    whole_digits: int = 0
    fraction_digits: int = 0
    doubles: int = 0
    dates: int = 0
    timestamps: int = 0
    timestamptzs: int = 0

    @property
    def is_numeric(self) -> bool:
        """Whether any value is a number."""
        return bool(self.decimals or self.doubles)

    @property
    def is_temporal(self) -> bool:
        """Whether any value is a date or a time stamp."""
        return bool(self.dates or self.timestamps or self.timestamptzs)


def choose_type(profile: Profile) -> str:
    """The narrowest type that every value of the profile keeps its meaning in."""
    count = profile.values
    if not count:
        return "VARCHAR"
    if count in profile.booleans:
        return "BOOLEAN"
    if profile.bigints == count:
        return "BIGINT"
    if profile.decimals == count:
        digits, scale = profile.whole_digits + profile.fraction_digits, profile.fraction_digits
        if digits <= shapes.SHORT_PRECISION:
            return f"DECIMAL({shapes.SHORT_PRECISION},{scale})"
        # Long fractions come from binary floats, and a DECIMAL that wide overflows in
        # products; a DOUBLE is right when it gives every value back.
        if scale and profile.doubles == count:
            return "DOUBLE"
        if digits <= shapes.MAX_PRECISION:
            return f"DECIMAL({shapes.MAX_PRECISION},{scale})"
    for matching, name in (
        (profile.doubles, "DOUBLE"),
        (profile.dates, "DATE"),
        (profile.timestamps, "TIMESTAMP"),
        (profile.timestamptzs, "TIMESTAMPTZ"),
    ):
        if matching == count:
            return name
    return "VARCHAR"


def spelling_of(profile: Profile) -> tuple[str, str] | None:
    """The pair of words that a BOOLEAN column is written with."""
    if not profile.values or profile.values not in profile.booleans:
        return None
    return shapes.BOOLEANS[profile.booleans.index(profile.values)]


def profile_values(values: Iterable[str | None], *, literal: bool = False) -> Profile:
    """The profile of a sample's values of one column; `literal` as in `checks.Target`."""
    float_form = _ANY_FLOAT if literal else _FLOAT
    count = bigints = decimals = whole = fraction = doubles = 0
    dates = timestamps = timestamptzs = 0
    spelled = [0] * len(shapes.BOOLEANS)
    for value in values:
        if not value:
            continue
        count += 1
        first = value[0]
        if len(value) > shapes.MAX_TYPED:
            continue
        if first in "tTfF":
            for index, pair in enumerate(shapes.BOOLEANS):
                spelled[index] += value in pair
        if first not in "-.0123456789":
            continue
        if _DECIMAL.fullmatch(value):
            decimals += 1
            head, _, tail = value.lstrip("-").partition(".")
            whole = max(whole, len(head.lstrip("0")))
            fraction = max(fraction, len(tail))
            bigints += bool(_INTEGER.fullmatch(value)) and is_bigint(value)
            doubles += is_double(value)
        elif _DATE.fullmatch(value):
            dates += is_date(value)
        elif _TIMESTAMP.fullmatch(value):
            timestamps += is_timestamp(value)
        elif _TIMESTAMPTZ.fullmatch(value):
            timestamptzs += is_timestamp(value) and "0001-01-02" <= value <= "9999-12-31"
        elif float_form.fullmatch(value):
            doubles += is_double(value)
    return Profile(
        booleans=tuple(spelled),
        values=count,
        bigints=bigints,
        decimals=decimals,
        whole_digits=whole,
        fraction_digits=fraction,
        doubles=doubles,
        dates=dates,
        timestamps=timestamps,
        timestamptzs=timestamptzs,
    )


def is_bigint(value: str) -> bool:
    """Whether an integer's text is one that 64 bits give back (`-0` is not)."""
    return len(value) <= 20 and value != "-0" and BIGINT_MIN <= int(value) <= BIGINT_MAX


def is_double(value: str) -> bool:
    """Whether the shortest text of the nearest DOUBLE is the same number."""
    if len(value) <= 15 and "e" not in value and "E" not in value:
        return True  # 15 significant digits always come back
    number = float(value)
    return number - number == 0 and Decimal(repr(number)) == Decimal(value)


def is_date(value: str) -> bool:
    """Whether text of the form YYYY-MM-DD names a day."""
    try:
        date.fromisoformat(value)
    except ValueError:
        return False
    return True


def is_timestamp(value: str) -> bool:
    """Whether text of a time stamp's form names a moment."""
    try:
        datetime.fromisoformat(value[:16])
    except ValueError:
        return False
    return True


def describe_text(name: str, values: Sequence[str | None]) -> str | None:
    """Why a column of values that look typed stays text; None if nothing needs saying.

    Args:
        name: the column's.
        values: a sample of it.
    """
    present = [value for value in values if value]
    if not present:
        return None
    slashed = [match for value in present if (match := _SLASHED.fullmatch(value))]
    if len(slashed) == len(present):
        return _describe_slashed(name, slashed)
    if all(_COMMA_NUMBER.fullmatch(value) for value in present):
        return (
            f"Column {name!r} stays text: {present[0]!r} may be a number with a decimal comma "
            "or with a thousands separator."
        )
    zeros = [value for value in present if _LEADING_ZERO.fullmatch(value)]
    if zeros and all(_LEADING_ZERO.fullmatch(one) or _DECIMAL.fullmatch(one) for one in present):
        return f"Column {name!r} stays text: leading zeros, as in {zeros[0]!r}, would be lost."
    return None


def describe_mixed(name: str, profile: Profile) -> str | None:
    """Which type a text column would have had but for a few values."""
    for count, kind in (
        (profile.bigints, "BIGINT"),
        (profile.decimals, "DECIMAL"),
        (profile.doubles, "DOUBLE"),
        (profile.dates, "DATE"),
        (profile.timestamps, "TIMESTAMP"),
        (profile.timestamptzs, "TIMESTAMPTZ"),
        (max(profile.booleans), "BOOLEAN"),
    ):
        if profile.values and 0.9 * profile.values <= count < profile.values:
            odd = profile.values - count
            return f"Column {name!r} stays text: {odd} of {profile.values} values are no {kind}."
    return None


def describe_offsets(name: str, values: Sequence[str | None]) -> str | None:
    """That a column's offsets from UTC are folded into the moment they stand for."""
    for value in values:
        if value and not value.endswith(("Z", "+00:00", "+0000", "+00")):
            return (
                f"Column {name!r} holds moments in UTC now; offsets as in {value!r} are not kept."
            )
    return None


def _describe_slashed(name: str, slashed: Sequence[re.Match[str]]) -> str | None:
    pairs = [(int(match[1]), int(match[2])) for match in slashed]
    day_first = all(1 <= a <= 31 and 1 <= b <= 12 for a, b in pairs)
    month_first = all(1 <= b <= 31 and 1 <= a <= 12 for a, b in pairs)
    if not day_first and not month_first:
        return None
    reading = "day first or month first alike"
    if day_first != month_first:
        reading = "day first only" if day_first else "month first only"
    return (
        f"Column {name!r} stays text: dates like {slashed[0][0]!r} are ambiguous (the sampled "
        f"values can be read {reading}). Write YYYY-MM-DD to have them typed."
    )
