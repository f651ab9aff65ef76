"""Lines of JSON as rows of text, each line accounted for.

Blocks of lines that are written alike, as programs write them, are cut up where their colons
are (`alike`), or else taken apart by one pattern; all others one by one.
"""

from __future__ import annotations

import gc
import json
from array import array
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from services.ingestd.core.dialect import detect_newline
from services.ingestd.core.fields import is_text
from services.ingestd.core.jsonlines import (
    BadLine,
    Kind,
    LinePattern,
    decode_string,
    find_twice,
    learn_pattern,
    parse_line,
    take_value,
)
from services.ingestd.core.nested import Shape
from services.ingestd.core.records import RecordTooLong
from services.ingestd.worker.alike import Cut, Cutter
from services.ingestd.worker.lineblocks import cut_at_lines
from services.ingestd.worker.meter import METER
from services.ingestd.worker.normalise import CountedBlocks
from services.ingestd.worker.staged import StagedRows, Stager
from services.ingestd.worker.text import TextFile
from shared.errors import Internal, Unprocessable

# Values of a column that a first guess at its type is made from: of each block, and in all.
_SAMPLE_EACH = 100
_SAMPLE = 2000
# Forms of line that are remembered: names in their order, and the columns they are.
_FORMS = 1000
# A first character of a value's JSON, and what it says.
_FIRST = {b'"': Kind.STRING, b"n": Kind.NONE, b"t": Kind.BOOLEAN, b"f": Kind.BOOLEAN}


class ColumnFacts:
    """What was seen of a column.

    Attributes:
        kinds: of its values.
        empties: whether some value is an empty text.
        shape: of its nested values.
        sample: some of its values.
    """

    def __init__(self) -> None:
        self.kinds = Kind.NONE
        self.empties = False
        self.shape = Shape()
        self.sample: list[str | None] = []


@dataclass(frozen=True, slots=True)
class JsonRows:
    """A file of JSON lines, read.

    Attributes:
        rows: the rows, as text.
        names: of the columns as the objects have them, in order of appearance.
        facts: of each column.
        lines: physical lines that are not blank, counted by their line ends alone.
        blanks: empty lines.
        rejects_path: JSON lines of what is no row. `rejects`: how many lines those are.
        is_utf8: whether all lines are.
        newline: what ends a line.
        nuls: whether some text holds a NUL.
    """

    rows: StagedRows
    names: tuple[str, ...]
    facts: tuple[ColumnFacts, ...]
    lines: int
    blanks: int
    rejects_path: Path
    rejects: int
    is_utf8: bool
    newline: bytes
    nuls: bool


def read_json_lines(text: TextFile, folder: Path, record_bytes: int, most_columns: int) -> JsonRows:
    """Reads a whole file.

    Args:
        folder: for the rows.
        record_bytes: longest line.
        most_columns: how many columns there may be.

    Raises:
        RecordTooLong: a line is over the limit.
        Unprocessable: there are too many columns.
        Internal: lines are missing from the account, so the result cannot be trusted.
    """
    newline = detect_newline(text.head())
    counted = CountedBlocks(text.blocks(), newline)
    rejects_path = folder / "rejects.jsonl"
    stager = Stager(folder)
    with rejects_path.open("wb") as file:
        reader = _Reader(stager, file, newline, record_bytes, most_columns)
        METER.follow(
            text.size, lambda: counted.bytes, lambda: counted.lines, lambda: reader.rejects
        )
        # Rows come as tuples by the ten thousand, none of them in a circle; looking through
        # them for one takes as long as making them.
        gc.disable()
        try:
            for block in cut_at_lines(counted, newline, record_bytes):
                reader.read(block)
            rows = stager.close()
        finally:
            gc.enable()
            stager.abandon()
    if rows.rows + reader.rejects + reader.blanks != counted.lines:
        raise Internal(
            f"{counted.lines} lines are {rows.rows} rows, {reader.rejects} rejects and "
            f"{reader.blanks} blanks, which does not add up. Nothing was stored; please report the "
            "file's shape."
        )
    return JsonRows(
        rows=rows,
        names=tuple(reader.columns),
        facts=tuple(reader.facts),
        lines=counted.lines - reader.blanks,
        blanks=reader.blanks,
        rejects_path=rejects_path,
        rejects=reader.rejects,
        is_utf8=reader.is_utf8,
        newline=newline,
        nuls=reader.nuls,
    )


class _Reader:
    """Takes blocks of whole lines apart."""

    def __init__(
        self, stager: Stager, rejects: BufferedWriter, newline: bytes, limit: int, most: int
    ) -> None:
        self.columns: dict[str, int] = {}
        self.facts: list[ColumnFacts] = []
        self.blanks = self.rejects = 0
        self.is_utf8 = True
        self.nuls = False
        self._stager = stager
        self._rejects = rejects
        self._newline = newline
        self._limit = limit
        self._most = most
        self._line = 0
        self._pattern: LinePattern | None = None
        self._cutter: Cutter | None = None
        self._forms: dict[tuple[str, ...], tuple[int, ...]] = {}

    def read(self, block: bytes) -> None:
        """Reads the next block."""
        regular = self._newline == b"\n" and len(block) <= self._limit
        # What is not UTF-8, or ends without a line end, is looked at line by line.
        if not (regular and block[-1] == 10 and is_text(block) and self._take_block(block)):
            self._take_lines(block)

    def _take_block(self, block: bytes) -> bool:
        """Takes a block whose lines are all like the pattern; gives whether they were."""
        if self._pattern is None:
            self._learn(block[: block.index(b"\n")])
        if self._pattern is None:
            return False
        names = self._pattern.names
        cuts = self._cutter.cut(block) if self._cutter is not None else None
        if cuts is not None:
            self._take_cuts(names, cuts)
            return True
        found = self._pattern.split(block)
        return found is not None and self._take_alike(names, found, b"\\" in block)

    def _learn(self, line: bytes) -> None:
        """Takes a line for what those to come are like, if it is one of plain values."""
        learnt = learn_pattern(line.decode())
        if learnt is not None:
            self._pattern, self._cutter = learnt, Cutter(learnt)

    def _take_cuts(self, names: tuple[str, ...], cuts: list[Cut]) -> None:
        """Takes rows of the same names whose values are cut out of their block already."""
        columns: dict[int, pa.Array] = {}
        for index, one in zip(self._find_columns(names), cuts, strict=True):
            facts = self.facts[index]
            facts.kinds |= one.kinds
            facts.empties = facts.empties or one.empties
            self.nuls = self.nuls or one.nuls
            if len(facts.sample) < _SAMPLE:
                facts.sample += one.texts.slice(0, _SAMPLE_EACH).to_pylist()
            columns[index] = one.texts
        self._add(columns, len(cuts[0].texts))

    def _add(self, columns: dict[int, pa.Array], rows: int) -> None:
        """Hands on rows of as many lines."""
        lines = pa.array(np.arange(self._line + 1, self._line + 1 + rows))
        self._line += rows
        self._stager.add(lines, columns)

    def _take_alike(
        self, names: tuple[str, ...], rows: list[tuple[bytes, ...]], escapes: bool
    ) -> bool:
        """Takes rows of the same names, their values as they stand in the JSON.

        Gives whether it could; not where some text is none.
        """
        columns: dict[int, pa.Array] = {}
        for index, tokens in zip(self._find_columns(names), zip(*rows, strict=True), strict=True):
            texts = self._take_tokens(self.facts[index], pa.array(tokens, pa.binary()), escapes)
            if texts is None:
                return False
            columns[index] = texts
        self._add(columns, len(rows))
        return True

    def _take_tokens(self, facts: ColumnFacts, tokens: pa.Array, escapes: bool) -> pa.Array | None:
        """The texts of plain values; None if one has half a surrogate pair."""
        first: list[bytes] = pc.unique(pc.binary_slice(tokens, 0, 1)).to_pylist()
        kinds = Kind.NONE
        for character in first:
            kinds |= _FIRST.get(character, Kind.NUMBER)
        values = tokens
        if kinds & Kind.STRING:
            inner = pc.binary_slice(tokens, 1, -1)
            if kinds == Kind.STRING and b"n" not in first:
                values = inner
            else:
                values = pc.if_else(pc.starts_with(tokens, b'"'), inner, tokens)
            facts.empties = facts.empties or pc.any(pc.equal(tokens, b'""')).as_py()
            if escapes:
                escaped = pc.match_substring(tokens, b"\\")
                found = [decode_string(one) for one in pc.filter(tokens, escaped).to_pylist()]
                if None in found:
                    return None
                if found:
                    self.nuls = self.nuls or any("\0" in (text or "") for text in found)
                    plain = pa.array(found, pa.string()).view(pa.binary())
                    values = pc.replace_with_mask(values, escaped, plain)
        if b"n" in first:
            values = pc.if_else(pc.equal(tokens, b"null"), pa.scalar(None, pa.binary()), values)
        values = values.view(pa.string())
        facts.kinds |= kinds
        if len(facts.sample) < _SAMPLE:
            facts.sample += values.slice(0, _SAMPLE_EACH).to_pylist()
        return values

    def _take_lines(self, block: bytes) -> None:
        """Takes lines one by one."""
        lines = block.split(self._newline)
        if not lines[-1]:
            lines.pop()
        numbers = array("q")
        values: dict[int, list[str | None]] = {}
        last = b""
        for raw in lines:
            self._line += 1
            if len(raw) > self._limit:
                raise RecordTooLong(self._line, self._limit)
            if not raw.strip(b" \t\r") or raw == b"\x1a":
                self.blanks += 1
                continue
            try:
                if self._take_line(raw, values, len(numbers)):
                    last = raw
            except BadLine as error:
                self._reject(error.reason, str(error))
                continue
            numbers.append(self._line)
        if not numbers:
            return
        if last:
            # What the lines are like now: the last that was not like the ones before.
            self._learn(last)
        columns: dict[int, pa.Array] = {}
        for index, texts in values.items():
            texts += [None] * (len(numbers) - len(texts))
            facts = self.facts[index]
            if len(facts.sample) < _SAMPLE:
                facts.sample += texts[:_SAMPLE_EACH]
            columns[index] = pa.array(texts, pa.string())
        self._stager.add(pa.array(numbers, pa.int64()), columns)

    def _take_line(self, raw: bytes, values: dict[int, list[str | None]], row: int) -> bool:
        """Takes a line; gives whether it was unlike the pattern."""
        if not is_text(raw):
            self.is_utf8 = False
            raise BadLine("encoding", "is not valid UTF-8")
        tokens = None
        if self._pattern is not None and b"\\" not in raw:
            tokens = self._pattern.split_line(raw)
        if self._pattern is not None and tokens is not None:
            names = self._pattern.names
            taken = [_take_token(token) for token in tokens]
        else:
            members = parse_line(raw.decode())
            names = tuple([name for name, _ in members])
            taken = [self._take_value(value) for _, value in members]
        for index, (kind, text, value) in zip(self._find_columns(names), taken, strict=True):
            facts = self.facts[index]
            facts.kinds |= kind
            if kind is Kind.NESTED:
                facts.shape.add(value)
            elif text == "":
                facts.empties = True
            texts = values.get(index)
            if texts is None:
                texts = values[index] = []
            if len(texts) < row:
                texts += [None] * (row - len(texts))
            texts.append(text)
        return tokens is None

    def _take_value(self, value: Any) -> tuple[Kind, str | None, Any]:
        try:
            kind, text = take_value(value)
        except RecursionError:
            raise BadLine("too_deep", "nests too deep") from None
        if text is not None and "\0" in text:
            self.nuls = True
        return kind, text, value

    def _find_columns(self, names: tuple[str, ...]) -> tuple[int, ...]:
        """The columns of an object's members; new ones are added."""
        found = self._forms.get(names)
        if found is not None:
            return found
        twice = find_twice(names)
        if twice is not None:
            raise BadLine("duplicate_key", f"has the name {twice[:60]!r} twice")
        for name in names:
            if name not in self.columns:
                if len(self.columns) == self._most:
                    raise Unprocessable(
                        f"Line {self._line} has column {self._most + 1}; at most {self._most} are "
                        "taken. Are the names data? Put them into a nested object then.",
                        details={"limit": self._most},
                    )
                self.columns[name] = len(self.columns)
                self.facts.append(ColumnFacts())
        found = tuple(self.columns[name] for name in names)
        if len(self._forms) < _FORMS:
            self._forms[names] = found
        return found

    def _reject(self, reason: str, message: str) -> None:
        self.rejects += 1
        entry = [self._line, 1, None, reason, message]
        self._rejects.write(json.dumps(entry).encode() + b"\n")


def _take_token(token: bytes) -> tuple[Kind, str | None, None]:
    """The kind and text of a value as it stands in the JSON, without escapes."""
    first = token[0]
    if first == 34:
        return Kind.STRING, token[1:-1].decode(), None
    if first == 110:
        return Kind.NONE, None, None
    return Kind.BOOLEAN if first in b"tf" else Kind.NUMBER, token.decode(), None
