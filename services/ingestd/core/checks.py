"""SQL that converts text to a type and says whether the text comes back.

DuckDB's own casts are too willing: `'1.5'::BIGINT` rounds, `'1_000'` and `'1e3'` parse,
blanks are trimmed, a time zone is dropped without a word. Each check here is in two steps,
measured to cost little over a bare cast: a fast one that most values pass (the cast's text
is the value's text), then an exact one on the written form for those that do not.

Expressions work on one VARCHAR column; `text` is its quoted name. NULL and "" are NULL in
every type but VARCHAR.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from services.ingestd.core import shapes
from services.ingestd.core.casts import build_cast
from services.ingestd.core.nested import (
    Node,
    Unreadable,
    is_nested,
    read_type,
    structure_of,
    write_type,
)

_DECIMAL_TYPE = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")
_INTEGERS = frozenset({"BIGINT", "INTEGER", "SMALLINT", "TINYINT", "HUGEINT"})
# Names that DuckDB, Iceberg and people use for one type.
_ALIASES = {
    "INT": "INTEGER",
    "INT4": "INTEGER",
    "INT8": "BIGINT",
    "LONG": "BIGINT",
    "REAL": "FLOAT",
    "FLOAT4": "FLOAT",
    "FLOAT8": "DOUBLE",
    "BOOL": "BOOLEAN",
    "STRING": "VARCHAR",
    "TEXT": "VARCHAR",
    "DATETIME": "TIMESTAMP",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ",
}

# Whether two numbers' texts are the same number: digits without zeros at the ends, and the
# power of ten they stand for. Made once per session.
MACROS = (
    r"""CREATE OR REPLACE TEMP MACRO lk_parts(x) AS
    regexp_extract(x, '^-?([0-9]*)\.?([0-9]*)(?:[eE]([+-]?[0-9]+))?$', ['i', 'f', 'e'])""",
    """CREATE OR REPLACE TEMP MACRO lk_digits(p) AS rtrim(ltrim(p.i || p.f, '0'), '0')""",
    """CREATE OR REPLACE TEMP MACRO lk_power(p) AS
    coalesce(TRY_CAST(ltrim(p.e, '+') AS BIGINT), 0) - length(p.f)
    + length(p.i || p.f) - length(rtrim(p.i || p.f, '0'))""",
    """CREATE OR REPLACE TEMP MACRO lk_same_number(x, y) AS
    starts_with(x, '-') = starts_with(y, '-')
    AND lk_digits(lk_parts(x)) = lk_digits(lk_parts(y))
    AND (lk_digits(lk_parts(x)) = '' OR lk_power(lk_parts(x)) = lk_power(lk_parts(y)))""",
    # The same JSON but for the form of numbers: equal around them, and each pair the same.
    r"""CREATE OR REPLACE TEMP MACRO lk_numbers(x) AS
    regexp_extract_all(x, '-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?')""",
    r"""CREATE OR REPLACE TEMP MACRO lk_around(x) AS
    regexp_replace(x, '-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?', '0', 'g')""",
    """CREATE OR REPLACE TEMP MACRO lk_same_json(x, y) AS
    lk_around(x) = lk_around(y)
    AND coalesce(list_bool_and(list_transform(list_zip(lk_numbers(x), lk_numbers(y)),
        lambda p: lk_same_number(p[1], p[2]))), true)""",
)


@dataclass(frozen=True, slots=True)
class Target:
    """What a column is converted to.

    Attributes:
        type: in the spelling of `normalise_type`.
        exact: whether the written form decides, as it does while a file's own types are
            found: `1.10` then needs a scale of 2. For a table that exists the number
            decides: `1.10` fits a scale of 1, and `7.0` a BIGINT.
        booleans: the one spelling of BOOLEAN accepted, or None for any.
        source: the type that the values have as they are read.
        literal: whether the source says what a value is: an empty text is one and not NULL,
            and a number may have any exponent.
    """

    type: str
    exact: bool = False
    booleans: tuple[str, str] | None = None
    source: str = "VARCHAR"
    literal: bool = False

    @property
    def is_text(self) -> bool:
        """Whether values are taken as they are read, being text."""
        return self.type == "VARCHAR" and self.source == "VARCHAR"


@dataclass(frozen=True, slots=True)
class Check:
    """How one column is converted.

    Attributes:
        cast: the converted value; NULL or wrong where neither condition holds.
        fast: true only where the conversion is lossless; may miss some values.
        slow: true where the conversion is lossless, given that `fast` is not.
    """

    cast: str
    fast: str
    slow: str = "false"


def normalise_type(name: str) -> str:
    """The one spelling of a type that this package uses."""
    if is_nested(name):
        try:
            return _normalise_nested(name)
        except Unreadable:
            return name
    upper = " ".join(name.upper().split())
    found = _DECIMAL_TYPE.fullmatch(upper)
    if found:
        return f"DECIMAL({found[1]},{found[2]})"
    return _ALIASES.get(upper, upper)


def _normalise_nested(name: str) -> str:
    def normalised(node: Node) -> Node:
        if not node.members:
            return Node(normalise_type(node.name))
        return Node(node.name, tuple((name, normalised(kind)) for name, kind in node.members))

    return write_type(normalised(read_type(name)))


def decimal_of(type_name: str) -> tuple[int, int] | None:
    """Precision and scale of a DECIMAL type."""
    found = _DECIMAL_TYPE.fullmatch(type_name)
    return (int(found[1]), int(found[2])) if found else None


def build_check(target: Target, text: str) -> Check | None:
    """The check for a conversion; None for one that these values never go through.

    Args:
        target: what the column is converted to; not text as it is read.
        text: quoted name of the column.
    """
    name = target.type
    if target.source != "VARCHAR":
        found = build_cast(target.source, name, text)
        return None if found is None else Check(found.value, found.same)
    if is_nested(name):
        return _build_nested(name, text)
    cast = f"TRY_CAST({text} AS {name})"
    decimal = decimal_of(name)
    if decimal:
        fraction = rf"[0-9]{{0,{decimal[1]}}}" + ("" if target.exact else "0*")
        form = rf"-?(?:0|[1-9][0-9]*)(?:\.{fraction})?|-?\.{fraction}"
        # The cast's text always has all digits of the scale, so the value's is a beginning
        # of it unless it was rounded or written in another form.
        return Check(
            cast,
            f"(starts_with({cast}::VARCHAR, {text}) AND NOT ends_with({text}, '.'))",
            f"({_has_form(text, form)} AND ends_with({text}, '.') = false AND {cast} IS NOT NULL)",
        )
    if name in _INTEGERS:
        fast = f"({cast}::VARCHAR = {text})"
        if target.exact:
            return Check(cast, fast)
        form = rf"{shapes.INTEGER}(?:\.0+)?"
        return Check(cast, fast, f"({_has_form(text, form)} AND {cast} IS NOT NULL)")
    if name in ("DOUBLE", "FLOAT"):
        # So many significant digits always come back.
        sure = 15 if name == "DOUBLE" else 6
        form = shapes.ANY_FLOAT if target.literal else shapes.FLOAT
        return Check(
            cast,
            f"({cast}::VARCHAR = {text} AND isfinite({cast}))",
            f"(isfinite({cast}) AND {_has_form(text, form)}"
            f" AND (({_has_form(text, shapes.DECIMAL)} AND length({text}) <= {sure})"
            f" OR lk_same_number({text}, {cast}::VARCHAR)))",
        )
    if name == "BOOLEAN":
        pairs = [target.booleans] if target.booleans else shapes.BOOLEANS
        words = ", ".join(quote_text(word) for pair in pairs for word in pair)
        return Check(cast, f"({text} IN ({words}))")
    if name == "DATE":
        # The length keeps 'infinity', years past 9999 and BC apart.
        return Check(cast, f"({cast}::VARCHAR = {text} AND length({text}) = 10)")
    if name == "TIME":
        return Check(
            cast,
            f"({cast}::VARCHAR = {text} AND {text} < '24')",
            f"({_has_form(text, shapes.TIME)} AND {cast} IS NOT NULL)",
        )
    if name in ("TIMESTAMP", "TIMESTAMPTZ"):
        written = f"replace({text}, 'T', ' ')"
        form, first, last = shapes.TIMESTAMP, "0001-01-01", "9999-12-32"
        if name == "TIMESTAMPTZ":
            written = f"replace({written}, 'Z', '+00')"
            # In UTC the moment may lie a day off, and must still be within years 1 to 9999.
            form, first, last = shapes.TIMESTAMPTZ, "0001-01-02", "9999-12-31"
        within = f"{text} BETWEEN '{first}' AND '{last}'"
        return Check(
            cast,
            # The marks' places keep 'infinity', years past 9999 and BC apart.
            f"({cast}::VARCHAR = {written} AND {text}[5] = '-' AND {text}[14] = ':'"
            f" AND {text}[20] <> ' ' AND {within})",
            f"({_has_form(text, form)} AND {within} AND {cast} IS NOT NULL)",
        )
    return None


def _build_nested(name: str, text: str) -> Check | None:
    """JSON text to a nested type: it fits when the type's JSON is the text."""
    try:
        structure = structure_of(name)
    except Unreadable:
        return None
    cast = f"(CASE WHEN json_valid({text}) THEN from_json({text}, {quote_text(structure)}) END)"
    written = f"to_json({cast})::VARCHAR"
    return Check(cast, f"({written} = {text})", f"lk_same_json({text}, {written})")


def _is_nothing(target: Target, text: str) -> str:
    if target.literal or target.source != "VARCHAR":
        return f"{text} IS NULL"
    return f"{text} IS NULL OR {text} = ''"


def fits(target: Target, text: str) -> str:
    """A condition, never NULL: the value is NULL, "", or converts without a loss."""
    if target.is_text:
        return "true"
    check = build_check(target, text)
    if check is None:
        return f"({text} IS NULL)"
    return (
        f"(CASE WHEN {check.fast} THEN true WHEN {_is_nothing(target, text)} THEN true"
        f" ELSE coalesce({check.slow}, false) END)"
    )


def convert_or(target: Target, text: str, otherwise: str) -> str:
    """The value in its type, and `otherwise` (NULL, an `error(…)`) where it does not fit."""
    if target.is_text:
        return text
    check = build_check(target, text)
    if check is None:
        return f"CASE WHEN {text} IS NULL THEN CAST(NULL AS {target.type}) ELSE {otherwise} END"
    return (
        f"CASE WHEN {check.fast} THEN {check.cast}"
        f" WHEN {_is_nothing(target, text)} THEN NULL"
        f" WHEN {check.slow} THEN {check.cast} ELSE {otherwise} END"
    )


def expect_null(text: str, otherwise: str) -> str:
    """A VARCHAR that was never filled in the sample: `otherwise` once it is."""
    return f"CASE WHEN {text} IS NULL THEN CAST(NULL AS VARCHAR) ELSE {otherwise} END"


def profile_column(text: str, *, literal: bool = False) -> list[str]:
    """Aggregates for the fields of `ladder.Profile`, in their order.

    The three BOOLEAN spellings come first, as counts of their own. `literal` is as in `Target`.
    """
    filled = f"{text} <> ''"
    # Patterns are not run over megabytes that cannot match.
    text = f"(CASE WHEN strlen({text}) > {shapes.MAX_TYPED} THEN 'x' ELSE {text} END)"
    booleans = [
        f"count(*) FILTER ({text} IN ({', '.join(quote_text(word) for word in pair)}))"
        for pair in shapes.BOOLEANS
    ]
    decimal = _has_form(text, shapes.DECIMAL)
    absolute = f"ltrim({text}, '-')"
    whole = f"length(ltrim(split_part({absolute}, '.', 1), '0'))"
    fraction = f"length(split_part({absolute}, '.', 2))"

    def count_of(type_name: str) -> str:
        check = build_check(Target(type_name, exact=True, literal=literal), text)
        assert check is not None
        condition = f"CASE WHEN {check.fast} THEN true ELSE {check.slow} END"
        return f"count(*) FILTER ({filled} AND {condition})"

    return [
        *booleans,
        f"count(*) FILTER ({filled})",
        count_of("BIGINT"),
        f"count(*) FILTER ({decimal})",
        f"coalesce(max({whole}) FILTER ({decimal}), 0)",
        f"coalesce(max({fraction}) FILTER ({decimal}), 0)",
        count_of("DOUBLE"),
        count_of("DATE"),
        count_of("TIMESTAMP"),
        count_of("TIMESTAMPTZ"),
    ]


def quote_name(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(value: str) -> str:
    """A text as an SQL literal."""
    return "'" + value.replace("'", "''") + "'"


def _has_form(text: str, form: str) -> str:
    return f"regexp_full_match({text}, {quote_text(form)})"
