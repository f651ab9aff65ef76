"""The columns of a Parquet schema, as far as Iceberg has types for them.

Only what every reader reads alike is accepted; for each other type the refusal says what to
cast it to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.catalogd.core import footer as fmt
from services.catalogd.core.footer import Annotation, Element, Footer
from services.catalogd.core.thrift import Corrupt
from services.catalogd.core.types import (
    Columns,
    ColumnType,
    Decimal,
    Field,
    Fixed,
    List,
    Map,
    Scalar,
    Struct,
)

# Numbers of Parquet's LogicalType, and of the ConvertedType it succeeded.
_STRING, _MAP, _LIST, _ENUM, _DECIMAL, _DATE, _TIME, _TIMESTAMP = range(1, 9)
_INTEGER, _UNKNOWN, _JSON, _BSON, _UUID, _FLOAT16, _VARIANT, _GEOMETRY, _GEOGRAPHY = range(10, 19)
_OF_CONVERTED: Mapping[int, Annotation] = {
    0: (_STRING, {}),
    1: (_MAP, {}),
    2: (_MAP, {}),
    3: (_LIST, {}),
    4: (_ENUM, {}),
    6: (_DATE, {}),
    7: (_TIME, {1: True, 2: {1: {}}}),
    8: (_TIME, {1: True, 2: {2: {}}}),
    9: (_TIMESTAMP, {1: True, 2: {1: {}}}),
    10: (_TIMESTAMP, {1: True, 2: {2: {}}}),
    **{11 + n: (_INTEGER, {1: 8 << n, 2: False}) for n in range(4)},
    **{15 + n: (_INTEGER, {1: 8 << n, 2: True}) for n in range(4)},
    19: (_JSON, {}),
    20: (_BSON, {}),
}
_CONVERTED_DECIMAL = 5
_CONVERTED_INTERVAL = 21
_MICROS = 2
_MILLIS = 1
_MAX_DEPTH = 32

_REFUSED = {
    _UNKNOWN: "is of no type; give it one, for example VARCHAR",
    _FLOAT16: "is a half-precision float; cast it to FLOAT",
    _VARIANT: "is a variant; cast it to JSON text (VARCHAR)",
    _GEOMETRY: "is a geometry; cast it to BLOB (WKB) or VARCHAR (WKT)",
    _GEOGRAPHY: "is a geography; cast it to BLOB (WKB) or VARCHAR (WKT)",
}


class UnfitColumn(Exception):
    """A column type that a dataset cannot hold; the text says why and what to do."""


def read_columns(footer: Footer) -> tuple[Columns, dict[str, str]]:
    """Columns that a dataset can hold, and for each other its name and what is wrong.

    Raises:
        Corrupt: the schema is no tree.
    """
    walk = _Walk(footer.elements)
    columns: list[Field] = []
    problems: dict[str, str] = {}
    for _ in range(footer.root_children):
        start = walk.at
        name = walk.peek().name
        try:
            columns.append(walk.read_field())
        except UnfitColumn as error:
            problems[name] = str(error)
            walk.at = start
            walk.skip()
    if walk.at != len(footer.elements):
        raise Corrupt("its schema has elements outside of its columns")
    leaves = sum(element.children == 0 for element in footer.elements)
    if any(len(group) != leaves for group in footer.groups):
        raise Corrupt("its row groups lack columns")
    return tuple(columns), problems


def list_leaves(footer: Footer) -> list[Element]:
    """The elements that hold values, in the order of the chunks."""
    return [element for element in footer.elements if element.children == 0]


class _Walk:
    """Goes through the elements depth first."""

    def __init__(self, elements: list[Element]) -> None:
        self._elements = elements
        self.at = 0

    def peek(self) -> Element:
        if self.at >= len(self._elements):
            raise Corrupt("its schema ends too soon")
        return self._elements[self.at]

    def next(self) -> Element:
        element = self.peek()
        self.at += 1
        if element.children < 0:
            raise Corrupt("its schema makes no sense")
        return element

    def skip(self) -> None:
        """Passes an element with all it holds."""
        open_elements = 1
        while open_elements:
            open_elements += self.next().children - 1

    def read_field(self, depth: int = 0) -> Field:
        """An element with all it holds, as a field."""
        element = self.next()
        kind = self._read_type(element, depth)
        # Repeated without being in an annotated list: the oldest way to write one.
        return Field(element.name, List(kind) if element.repeated else kind)

    def _read_type(self, element: Element, depth: int) -> ColumnType:
        if depth > _MAX_DEPTH:
            raise UnfitColumn(f"nests more than {_MAX_DEPTH} deep")
        if element.field_id is not None and element.field_id >= 0:
            raise UnfitColumn(
                "carries an Iceberg field id of another table; write the file without field ids"
            )
        if element.children == 0:
            return read_leaf(element)
        annotation, _ = _annotation(element)
        if annotation == _LIST and element.children == 1:
            return self._read_list(element, depth + 1)
        if annotation == _MAP and element.children == 1:
            return self._read_map(depth + 1)
        if annotation in _REFUSED:
            raise UnfitColumn(_REFUSED[annotation])
        return Struct(tuple(self.read_field(depth + 1) for _ in range(element.children)))

    def _read_list(self, outer: Element, depth: int) -> ColumnType:
        middle = self.peek()
        # Three levels as the format has it now; two as older writers had it.
        legacy = middle.name in ("array", f"{outer.name}_tuple")
        if middle.repeated and middle.children == 1 and not legacy:
            self._read_outer_only()
            return List(self.read_field(depth).type)
        if not middle.repeated:
            raise Corrupt("it has a list without repetition")
        element = self.next()
        return List(self._read_type(element, depth))

    def _read_map(self, depth: int) -> ColumnType:
        middle = self._read_outer_only()
        if not middle.repeated or middle.children != 2:
            raise UnfitColumn("is a map without values; write it as a list")
        key, value = self.read_field(depth), self.read_field(depth)
        return Map(key.type, value.type)

    def _read_outer_only(self) -> Element:
        element = self.next()
        if element.field_id is not None and element.field_id >= 0:
            raise UnfitColumn(
                "carries an Iceberg field id of another table; write the file without field ids"
            )
        return element


def _annotation(element: Element) -> Annotation:
    if element.logical is not None:
        return element.logical
    if element.converted is None:
        return 0, {}
    return _OF_CONVERTED.get(element.converted, (0, {}))


def read_leaf(element: Element) -> ColumnType:
    """The type of an element that holds values.

    Raises:
        UnfitColumn: Iceberg has no equal for it.
    """
    annotation, parameters = _annotation(element)
    if annotation in _REFUSED:
        raise UnfitColumn(_REFUSED[annotation])
    if annotation == _DECIMAL or element.converted == _CONVERTED_DECIMAL:
        return _read_decimal(element, parameters)
    match element.physical:
        case fmt.BOOLEAN:
            return Scalar("boolean")
        case fmt.INT32 | fmt.INT64:
            return _read_integer(element.physical, annotation, parameters)
        case fmt.FLOAT:
            return Scalar("float")
        case fmt.DOUBLE:
            return Scalar("double")
        case fmt.BYTE_ARRAY:
            return Scalar("string" if annotation in (_STRING, _ENUM, _JSON) else "binary")
        case fmt.FIXED:
            return _read_fixed(element, annotation)
        case fmt.INT96:
            raise UnfitColumn("is a timestamp in nanoseconds (INT96); cast it to TIMESTAMP")
        case _:
            raise Corrupt("it has a column of no physical type")


def _read_integer(physical: int, annotation: int, parameters: Mapping[int, Any]) -> ColumnType:
    if annotation == _INTEGER:
        if parameters.get(2) is False and parameters.get(1) not in (8, 16):
            wide = parameters.get(1) == 64
            raise UnfitColumn(
                "is unsigned, which Iceberg has no equal for; cast it to "
                + ("DECIMAL(20,0)" if wide else "BIGINT")
            )
    elif annotation == _DATE:
        return Scalar("date")
    elif annotation in (_TIME, _TIMESTAMP):
        return _read_moment(annotation, parameters)
    return Scalar("int" if physical == fmt.INT32 else "long")


def _read_moment(annotation: int, parameters: Mapping[int, Any]) -> ColumnType:
    unit: Mapping[int, Any] = parameters.get(2, {})
    if annotation == _TIME:
        if _MICROS not in unit:
            raise UnfitColumn("is a time not in microseconds; cast it to TIME (microseconds)")
        return Scalar("time")
    if _MICROS not in unit and _MILLIS not in unit:
        raise UnfitColumn("is a timestamp in nanoseconds; cast it to TIMESTAMP (microseconds)")
    return Scalar("timestamptz" if parameters.get(1) else "timestamp")


def _read_fixed(element: Element, annotation: int) -> ColumnType:
    if element.converted == _CONVERTED_INTERVAL:
        raise UnfitColumn(
            "is an interval, which Iceberg has no equal for; cast it to VARCHAR or to a "
            "number of microseconds"
        )
    if annotation == _UUID and element.length == 16:
        return Scalar("uuid")
    if element.length <= 0:
        raise Corrupt("it has a fixed-size column without a size")
    return Fixed(element.length)


def _read_decimal(element: Element, parameters: Mapping[int, Any]) -> ColumnType:
    precision: int = parameters.get(2, element.precision)
    scale: int = parameters.get(1, element.scale)
    if element.physical not in (fmt.INT32, fmt.INT64, fmt.BYTE_ARRAY, fmt.FIXED):
        raise Corrupt("it has a decimal that is no number")
    if precision > 38:
        raise UnfitColumn(f"has {precision} digits; cast it to DECIMAL(38,s) or DOUBLE")
    if not 0 <= scale <= precision or precision < 1:
        raise Corrupt("it has a decimal whose scale makes no sense")
    return Decimal(precision, scale)


def is_in_milliseconds(element: Element) -> bool:
    """Whether a timestamp is stored in milliseconds, of which Iceberg's bounds know nothing."""
    annotation, parameters = _annotation(element)
    return annotation == _TIMESTAMP and _MILLIS in parameters.get(2, {})
