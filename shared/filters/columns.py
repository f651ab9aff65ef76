"""Fields of rows by column, made when a filter first names one; and the rows a filter keeps.

What a row stands for never changes, so a column only grows, and a comparison is worked out
once for each distinct value: equality by looking it up, order of numbers in one sweep.
"""

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orjson

from shared.filters.language import All, Compare, Field, Filter, Not, holds, kind_of
from shared.filters.language import Any as AnyOf

Mask = np.ndarray[Any, np.dtype[np.bool_]]
# A row's values of some fields, None where it has none.
ReadRow = Callable[[int, Sequence[Field]], Sequence[object]]
# Masks of recent filters that are kept.
_MASKS = 32
# Columns that are kept beside those of the filter at hand: whoever asks for fields by ever
# new names must not fill the memory with them.
_COLUMNS = 32
# Integers beyond this are not exact as floats.
_EXACT = 2**53
_SWEPT = ("ne", "gt", "gte", "lt", "lte")


class Column:
    """One field of all rows: for each row the number of its distinct value; 0 is missing."""

    def __init__(self) -> None:
        self.codes = array("i")
        self.values: list[object] = [None]
        self._known: dict[object, int] = {}
        # Those that are no strings, numbers or booleans.
        self._lists: list[int] = []
        self._numbers = array("d", [float("nan")])
        self._large: list[int] = []

    def take(self, value: Any) -> None:
        """Takes the next row's value."""
        if value is None:
            self.codes.append(0)
            return
        kind = kind_of(value)
        key = (kind, value) if kind in ("bool", "number", "string") else orjson.dumps(value)
        code = self._known.get(key)
        if code is None:
            code = self._known[key] = len(self.values)
            self.values.append(value)
            self._numbers.append(self._to_float(code, kind, value))
        self.codes.append(code)

    def _to_float(self, code: int, kind: str, value: Any) -> float:
        if kind in ("list", "other"):
            self._lists.append(code)
        elif kind == "number":
            if abs(value) <= _EXACT:
                return float(value)
            self._large.append(code)
        return float("nan")

    def match(self, compare: Compare) -> Mask:
        """Which distinct values satisfy a comparison, by their number."""
        operator, operand = compare.operator, compare.operand
        found = np.zeros(len(self.values), np.bool_)
        if operator in ("eq", "in", "nin"):
            for option in operand if isinstance(operand, tuple) else (operand,):
                code = self._known.get((kind_of(option), option))
                if code is not None:
                    found[code] = True
            if operator == "nin":
                found = ~found
                found[0] = False
            self._test(found, self._lists, compare)
        elif operator in _SWEPT and kind_of(operand) == "number" and abs(operand) <= _EXACT:  # pyright: ignore
            numbers = np.array(self._numbers, np.float64)
            with np.errstate(invalid="ignore"):
                found = _compare(numbers, operator, float(operand))  # pyright: ignore
            self._test(found, self._large, compare)
        else:
            self._test(found, range(1, len(found)), compare)
        return found

    def _test(self, found: Mask, codes: Sequence[int], compare: Compare) -> None:
        values = self.values
        for code in codes:
            found[code] = holds(values[code], compare)


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
    """The columns of rows, and the masks of recent filters. Safe to use from threads."""

    def __init__(self, read: ReadRow) -> None:
        self._read = read
        # Those that were asked for last come last.
        self._columns: OrderedDict[Field, Column] = OrderedDict()
        self._masks: OrderedDict[str, Mask] = OrderedDict()
        self._lock = threading.Lock()

    def mask(self, given: Filter, rows: int) -> Mask:
        """Which of the first `rows` rows the filter keeps, dead ones included."""
        # As text, because 1 and True are equal and mean different things here.
        key = repr(given)
        fields = list_fields(given)
        with self._lock:
            found = self._masks.get(key)
            if found is None or len(found) < rows:
                self._grow(fields, rows)
                found = self._masks[key] = self._evaluate(given, rows)
                found.setflags(write=False)
                if len(self._masks) > _MASKS:
                    self._masks.popitem(last=False)
            self._masks.move_to_end(key)
            self._let_go(fields)
            return found[:rows]

    def _evaluate(self, given: Filter, rows: int) -> Mask:
        if isinstance(given, Compare):
            column = self._columns[given.field]
            missing = given.operator == "exists" and given.operand is False
            # Copied: an array that is looked into cannot grow.
            codes = np.frombuffer(column.codes, np.int32)[:rows].copy()
            return codes == 0 if missing else column.match(given)[codes]
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

    def warm(self, fields: Sequence[Field], rows: int) -> None:
        """Makes columns of the first `rows` rows before a filter asks for them."""
        with self._lock:
            self._grow(fields, rows)

    @property
    def fields(self) -> list[Field]:
        """The fields that filters have named."""
        return list(self._columns)

    def _grow(self, fields: Sequence[Field], rows: int) -> None:
        """Brings columns up to `rows`; each row is read once for all that stand where they do."""
        behind: dict[int, list[Field]] = {}
        for field in fields:
            column = self._columns.setdefault(field, Column())
            if len(column.codes) < rows:
                behind.setdefault(len(column.codes), []).append(field)
        for start, some in behind.items():
            columns = [self._columns[field] for field in some]
            for row in range(start, rows):
                for column, value in zip(columns, self._read(row, some), strict=True):
                    column.take(value)

    def _let_go(self, used: Sequence[Field]) -> None:
        """Drops what was asked for longest ago; what is used now stays."""
        for field in used:
            if field in self._columns:
                self._columns.move_to_end(field)
        while len(self._columns) > max(_COLUMNS, len(used)):
            self._columns.popitem(last=False)

    @property
    def memory_bytes(self) -> int:
        """What the columns take in memory, nearly."""
        columns = list(self._columns.values())
        return sum(4 * len(c.codes) + 120 * len(c.values) for c in columns)


def list_fields(given: Filter) -> list[Field]:
    """The fields that a filter names, each once."""
    if isinstance(given, Compare):
        return [given.field]
    parts = (given.part,) if isinstance(given, Not) else given.parts
    return list(dict.fromkeys(field for part in parts for field in list_fields(part)))
