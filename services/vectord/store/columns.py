"""Metadata by column, made when a filter first names a field, and the rows a filter keeps.

A row's metadata never changes, so a column only ever grows, and a comparison is worked out
once for each distinct value: numbers in one sweep, other values one by one.
"""

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict
from typing import Any

import numpy as np
import orjson

from services.vectord.core.filters import (
    All,
    Compare,
    Filter,
    Not,
    Scalar,
    holds,
    kind_of,
    look_up,
)
from services.vectord.core.filters import Any as AnyOf
from services.vectord.store.table import Table

Mask = np.ndarray[Any, np.dtype[np.bool_]]
# Masks of recent filters that are kept.
_MASKS = 32
# Integers beyond this are not exact as floats; they are compared one by one.
_EXACT = 2**53
_MISSING = 0


class Column:
    """One field of all rows: for each row the number of its distinct value; 0 is missing."""

    def __init__(self, field: str) -> None:
        self.field = field
        self.codes = array("i")
        self.values: list[object] = [None]
        self.numbers = array("d", [float("nan")])
        self.large: list[int] = []
        self._known: dict[object, int] = {}

    def take(self, metadata: dict[str, object]) -> None:
        """Takes the next row's metadata."""
        present, value = look_up(metadata, self.field)
        if not present or value is None:
            self.codes.append(_MISSING)
            return
        kind = kind_of(value)
        key = (kind, value) if kind in ("bool", "number", "string") else orjson.dumps(value)
        code = self._known.get(key)
        if code is None:
            code = self._known[key] = len(self.values)
            self.values.append(value)
            number = float("nan")
            if kind == "number":
                assert isinstance(value, int | float)
                if abs(value) > _EXACT:
                    self.large.append(code)
                else:
                    number = float(value)
            self.numbers.append(number)
        self.codes.append(code)

    def match(self, compare: Compare) -> Mask:
        """Which distinct values satisfy a comparison, by their number."""
        found = np.zeros(len(self.values), np.bool_)
        operand = compare.operand
        if compare.operator in ("eq", "in"):
            options = operand if isinstance(operand, tuple) else (operand,)
            for option in options:
                code = self._known.get(_key(option))
                if code is not None:
                    found[code] = True
            return found
        if kind_of(operand) == "number" and compare.operator != "contains":
            assert isinstance(operand, int | float)
            if abs(operand) <= _EXACT:
                numbers = np.frombuffer(self.numbers, np.float64)[: len(self.values)].copy()
                with np.errstate(invalid="ignore"):
                    found = _compare(numbers, compare.operator, float(operand))
                for code in self.large:
                    found[code] = holds(self.values[code], compare)
                return found
        for code in range(1, len(self.values)):
            found[code] = holds(self.values[code], compare)
        return found


def _key(value: Scalar) -> object:
    return (kind_of(value), value)


def _compare(numbers: np.ndarray[Any, Any], operator: str, operand: float) -> Mask:
    if operator == "gt":
        return numbers > operand
    if operator == "gte":
        return numbers >= operand
    if operator == "lt":
        return numbers < operand
    if operator == "lte":
        return numbers <= operand
    return (numbers != operand) & ~np.isnan(numbers)


class Columns:
    """The columns of one table, and the masks of recent filters."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._columns: dict[str, Column] = {}
        self._masks: OrderedDict[Filter, Mask] = OrderedDict()
        self._lock = threading.Lock()

    def mask(self, given: Filter, rows: int) -> Mask:
        """Which of the first `rows` rows the filter keeps, dead ones included."""
        with self._lock:
            known = self._masks.get(given)
            if known is not None and len(known) >= rows:
                self._masks.move_to_end(given)
                return known[:rows]
            found = self._evaluate(given, rows)
            found.setflags(write=False)
            self._masks[given] = found
            self._masks.move_to_end(given)
            if len(self._masks) > _MASKS:
                self._masks.popitem(last=False)
            return found

    def _evaluate(self, given: Filter, rows: int) -> Mask:
        if isinstance(given, Compare):
            column = self._column(given.name, rows)
            # Copied: an array that is looked into cannot grow.
            codes = np.frombuffer(column.codes, np.int32)[:rows].copy()
            return column.match(given)[codes]
        if isinstance(given, Not):
            return ~self._evaluate(given.part, rows)
        if isinstance(given, All):
            found = np.ones(rows, np.bool_)
            for part in given.parts:
                found &= self._evaluate(part, rows)
            return found
        assert isinstance(given, AnyOf)
        found = np.zeros(rows, np.bool_)
        for part in given.parts:
            found |= self._evaluate(part, rows)
        return found

    def _column(self, field: str, rows: int) -> Column:
        column = self._columns.get(field)
        if column is None:
            column = self._columns[field] = Column(field)
        metadata = self._table.metadata
        for row in range(len(column.codes), rows):
            column.take(orjson.loads(metadata[row]))
        return column
