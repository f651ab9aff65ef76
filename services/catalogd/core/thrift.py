"""Reading Thrift's compact protocol, as far as Parquet footers use it.

Pure Python on purpose: a footer is an untrusted object's, and a native reader that meets a
crafted one can end the whole process (pyarrow's does; tried by changing single bytes).
Here the worst is `Corrupt`. Fields nobody asked for are skipped without being built.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

# Wanted fields by number, each with what it must be: int, bytes or bool; a Spec for a struct;
# a list of one of these for a list.
Want: TypeAlias = "type[int] | type[bytes] | Spec | list[Want]"
Spec: TypeAlias = "Mapping[int, Want]"

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT, UUID = range(1, 14)

# Structs inside structs. Parquet's own nest seven deep.
MAX_DEPTH = 24


class Corrupt(Exception):
    """The bytes are not what they should be."""


class CompactReader:
    """Reads values from the start of `data` on."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def read_struct(self, spec: Spec, depth: int = 0) -> dict[int, Any]:
        """The wanted fields of a struct, by number; those absent are absent.

        Raises:
            Corrupt: the data ends too soon, or makes no sense.
        """
        try:
            return self._read_struct(spec, depth)
        except IndexError:
            raise Corrupt("the data ends in the middle of a value") from None

    def _read_struct(self, spec: Spec, depth: int) -> dict[int, Any]:
        if depth > MAX_DEPTH:
            raise Corrupt("structs nest too deep")
        found: dict[int, Any] = {}
        number = 0
        data = self._data
        while True:
            header = data[self._at]
            self._at += 1
            if header == 0:
                return found
            kind = header & 0x0F
            number = number + (header >> 4) if header >> 4 else self._read_zigzag()
            if number in spec:
                found[number] = self._read_value(kind, spec[number], depth)
            else:
                self._skip(kind, depth)

    def _read_value(self, kind: int, want: Want, depth: int) -> Any:
        if isinstance(want, list):
            if kind not in (LIST, SET):
                raise Corrupt("a list is something else")
            size, element = self._read_list_header()
            return [self._read_element(element, want[0], depth + 1) for _ in range(size)]
        if isinstance(want, Mapping):
            if kind != STRUCT:
                raise Corrupt("a struct is something else")
            return self._read_struct(want, depth + 1)
        if want is bytes and kind == BINARY:
            return self._read_bytes(self._read_varint())
        if want is int and kind in (I16, I32, I64):
            return self._read_zigzag()
        if want is int and kind == BYTE:
            return self._read_bytes(1)[0]
        if want is bool and kind in (TRUE, FALSE):
            return kind == TRUE
        raise Corrupt("a value is of another type")

    def _read_element(self, kind: int, want: Want, depth: int) -> Any:
        # A boolean in a list takes a byte of its own.
        if want is bool and kind in (TRUE, FALSE):
            return self._read_bytes(1)[0] == TRUE
        return self._read_value(kind, want, depth)

    def _skip(self, kind: int, depth: int) -> None:
        if kind in (TRUE, FALSE):
            return
        if kind in (I16, I32, I64):
            self._read_varint()
        elif kind == BINARY:
            self._read_bytes(self._read_varint())
        elif kind == STRUCT:
            self._read_struct({}, depth + 1)
        elif kind in (LIST, SET):
            size, element = self._read_list_header()
            for _ in range(size):
                self._skip_element(element, depth + 1)
        elif kind == MAP:
            self._skip_map(depth + 1)
        elif kind in (BYTE, DOUBLE, UUID):
            self._read_bytes({BYTE: 1, DOUBLE: 8, UUID: 16}[kind])
        else:
            raise Corrupt(f"there is no type {kind}")

    def _skip_element(self, kind: int, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise Corrupt("values nest too deep")
        if kind in (TRUE, FALSE):
            self._read_bytes(1)
        else:
            self._skip(kind, depth)

    def _skip_map(self, depth: int) -> None:
        size = self._read_varint()
        if size:
            kinds = self._read_bytes(1)[0]
            self._check_size(size)
            for _ in range(size):
                self._skip_element(kinds >> 4, depth)
                self._skip_element(kinds & 0x0F, depth)

    def _read_list_header(self) -> tuple[int, int]:
        header = self._data[self._at]
        self._at += 1
        size = header >> 4
        if size == 15:
            size = self._read_varint()
        self._check_size(size)
        return size, header & 0x0F

    def _check_size(self, size: int) -> None:
        # Every element takes a byte at least, so a larger size can only be a lie.
        if size > len(self._data) - self._at:
            raise Corrupt("a list is longer than the data")

    def _read_bytes(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise Corrupt("the data ends in the middle of a value")
        found = self._data[self._at : end]
        self._at = end
        return found

    def _read_varint(self) -> int:
        data, at = self._data, self._at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                self._at = at
                return value
            shift += 7
            if shift > 63:
                raise Corrupt("a number is longer than 64 bits")

    def _read_zigzag(self) -> int:
        value = self._read_varint()
        return (value >> 1) ^ -(value & 1)
