"""Clean tables, each spoilt in one way, and how much of them a reader brings back.

The idea is Pollock's (Vitagliano and others, VLDB 2023): take a good CSV file, pollute it in
one respect at a time as real files are polluted, and see what a reader without any hint makes
of it. Tables, pollutions and scores here are our own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Protocol

Row = tuple[str, ...]

_NUMBER = re.compile(r"-?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Polluted:
    """A file, and what a careful reader would find in it.

    Attributes:
        name: of the pollution and the table.
        group: what was polluted.
        data: the file.
        header: the columns' names; None where the file has none and any will do.
        rows: the rows.
        others: other rows that are as good: a row cut short may be left out or filled up.
    """

    name: str
    group: str
    data: bytes
    header: Row | None
    rows: tuple[Row, ...]
    others: tuple[Row, ...] | None = None


@dataclass(frozen=True, slots=True)
class Style:
    """How a file is written."""

    delimiter: str = ","
    quote: str = '"'
    escape: str | None = None
    newline: str = "\n"
    quote_all: bool = False
    quoted_columns: frozenset[int] = field(default_factory=frozenset[int])

    def write_row(self, row: Sequence[str]) -> str:
        """One record without its line end."""
        return self.delimiter.join(self._write(cell, place) for place, cell in enumerate(row))

    def write(self, rows: Iterable[Sequence[str]]) -> str:
        """All records."""
        return "".join(self.write_row(row) + self.newline for row in rows)

    def _write(self, cell: str, place: int) -> str:
        special = (self.delimiter, self.quote or "\n", "\n", "\r")
        needed = any(mark in cell for mark in special)
        if not self.quote or not (needed or self.quote_all or place in self.quoted_columns):
            return cell
        if self.escape == "\\":
            inner = cell.replace("\\", "\\\\").replace(self.quote, "\\" + self.quote)
        else:
            inner = cell.replace(self.quote, self.quote * 2)
        return self.quote + inner + self.quote


@dataclass(frozen=True, slots=True)
class Table:
    """A clean table."""

    name: str
    header: Row
    rows: tuple[Row, ...]

    @property
    def all(self) -> tuple[Row, ...]:
        """Header and rows."""
        return (self.header, *self.rows)


def make_tables() -> list[Table]:
    """Tables of different kinds; every value is of a kind that no type changes."""
    streets = ("Main St", "Oak Ave", "Kirkegata", "Rue du Lac")
    names = ("Ann Lee", "Bob Ray", "Kari Moe", "Ola Berg", "Jean Roy", "Maria Sol")
    staff = tuple(
        (
            str(number),
            names[number % 6],
            f"{number * 7 % 90 + 1} {streets[number % 4]}, {'Oslo' if number % 2 else 'Bergen'}",
            f"{20 + number % 9}.{number % 9 + 1}",
            f"2024-{number % 12 + 1:02d}-{number % 27 + 1:02d}",
            'said "yes" twice' if number % 5 == 2 else f"note {number}",
        )
        for number in range(1, 41)
    )
    words = "amber birch cedar delta ember fjord grove haven islet juniper".split()
    texts = tuple(
        (words[n % 10], f"{words[(n * 3) % 10]} {words[(n * 7) % 10]}", words[(n * 9 + 1) % 10])
        for n in range(30)
    )
    figures = tuple(
        (f"S{n % 6:03d}", *(str((n * k * 37 + k) % 1000) for k in range(1, 6))) for n in range(35)
    )
    events = tuple(
        (
            f"2024-03-{n % 28 + 1:02d} {n % 24:02d}:{n * 7 % 60:02d}:00",
            ("info", "warn", "error")[n % 3],
            f"GET /item/{n * 13 % 97}?page={n % 5};sort=asc, from {n % 4}",
            str(n * 11 % 500),
        )
        for n in range(32)
    )
    return [
        Table("staff", ("id", "name", "address", "rate", "since", "remark"), staff),
        Table("texts", ("first", "second", "third"), texts),
        Table("figures", ("station", "jan", "feb", "mar", "apr", "may"), figures),
        Table("events", ("at", "level", "message", "millis"), events),
    ]


def pollute_all() -> list[Polluted]:
    """Every pollution of every table, always the same."""
    return [one for table in make_tables() for one in pollute(table)]


def pollute(table: Table) -> Iterator[Polluted]:
    """All pollutions of one table."""
    clean = Style()

    def made(
        group: str,
        name: str,
        data: str | bytes,
        *,
        header: Row | None = table.header,
        rows: Sequence[Row] = table.rows,
        others: Sequence[Row] | None = None,
    ) -> Polluted:
        raw = data.encode() if isinstance(data, str) else data
        also = None if others is None else tuple(others)
        return Polluted(f"{name}, {table.name}", group, raw, header, tuple(rows), also)

    yield made("none", "clean", clean.write(table.all))
    for name, delimiter in (
        ("semicolon", ";"), ("tab", "\t"), ("pipe", "|"), ("colon", ":"), ("caret", "^"),
        ("tilde", "~"), ("space", " "), ("comma and space", ", "), ("two pipes", "||"),
        ("unit separator", "\x1f"),
    ):  # fmt: skip
        # A reader can only tell a colon or a space from text where such cells are quoted.
        style = replace(clean, delimiter=delimiter)
        yield made("delimiter", name, style.write(table.all))
    for delimiter in (",", ";", "\t"):
        style = replace(clean, delimiter=delimiter, quote_all=True)
        yield made("quote", f"all quoted {delimiter!r}", style.write(table.all))
        style = replace(clean, delimiter=delimiter, quote="'")
        yield made("quote", f"single quotes {delimiter!r}", style.write(table.all))
        style = replace(clean, delimiter=delimiter, quote="'", quote_all=True)
        yield made("quote", f"all in single quotes {delimiter!r}", style.write(table.all))
        style = replace(clean, delimiter=delimiter, escape="\\")
        yield made("escape", f"backslash {delimiter!r}", style.write(table.all))
        style = replace(clean, delimiter=delimiter, escape="\\", quote_all=True)
        yield made("escape", f"backslash, all quoted {delimiter!r}", style.write(table.all))
    style = replace(clean, quoted_columns=frozenset({1}))
    yield made("quote", "one column quoted", style.write(table.all))
    bare = [tuple(cell.replace(",", "").replace('"', "") for cell in row) for row in table.rows]
    yield made(
        "quote", "no quotes", replace(clean, quote="").write((table.header, *bare)), rows=bare
    )
    yield from _pollute_lines(table, made)
    yield from _pollute_header(table, made)
    yield from _pollute_rows(table, made)
    yield from _pollute_text(table, made)


def _pollute_lines(table: Table, made: _Made) -> Iterator[Polluted]:
    clean = Style()
    for name, newline in (("crlf", "\r\n"), ("cr", "\r")):
        for delimiter in (",", ";", "\t"):
            style = replace(clean, newline=newline, delimiter=delimiter)
            yield made("line ends", f"{name} {delimiter!r}", style.write(table.all))
    lines = [clean.write_row(row) for row in table.all]
    mixed = "".join(one + ("\r\n" if number % 3 else "\n") for number, one in enumerate(lines))
    yield made("line ends", "crlf and lf", mixed)
    yield made("line ends", "the last crlf of lf", "\n".join(lines) + "\r\n")
    yield made("line ends", "none at the end", "\n".join(lines))
    for count in (1, 2, 10):
        yield made("blank lines", f"{count} at the end", "\n".join(lines) + "\n" * (count + 1))
        yield made("blank lines", f"{count} at the beginning", "\n" * count + "\n".join(lines))
        between = "\n" * count
        text = "\n".join((*lines[:9], between.join(("", *lines[9:12], "")), *lines[12:]))
        yield made("blank lines", f"{count} between rows", text)
    yield made("blank lines", "after each", "\n\n".join(lines) + "\n")
    yield made(
        "blank lines", "of delimiters at the end", "\n".join(lines) + "\n" + _empty(table, 3)
    )
    yield made("blank lines", "end-of-file mark", "\n".join(lines) + "\n\x1a")


def _pollute_header(table: Table, made: _Made) -> Iterator[Polluted]:
    clean = Style()
    body = clean.write(table.rows)
    head = clean.write((table.header,))
    for delimiter in (",", ";", "\t"):
        style = replace(clean, delimiter=delimiter)
        yield made("no header", f"{delimiter!r}", style.write(table.rows), header=None)
    upper = tuple(name.upper() for name in table.header)
    spaced = tuple(f"{name} of it" for name in table.header)
    for name, header in (("upper case", upper), ("with blanks", spaced)):
        yield made("header", name, clean.write((header,)) + body, header=header)
    years = (table.header[0], *(str(2019 + n) for n in range(1, len(table.header))))
    if table.name == "figures":
        yield made("header", "years", clean.write((years,)) + body, header=years)
    blank = ("", *table.header[1:])
    named = ("column_1", *table.header[1:])
    yield made("header", "first name empty", clean.write((blank,)) + body, header=named)
    for count in (1, 2, 4):
        titles = "".join(f"Report part {n}\n" for n in range(count))
        yield made("preamble", f"{count} lines", titles + head + body)
        yield made("preamble", f"{count} lines and a blank", titles + "\n" + head + body)
        padded = "".join(f"Report part {n}" + _commas(table) + "\n" for n in range(count))
        yield made("preamble", f"{count} padded lines", padded + head + body)
    yield made("preamble", "comments", "# made by a machine\n# on a day\n" + head + body)
    yield made("preamble", "prose", "A report, for you\nSource: office\n\n" + head + body)
    for count in (1, 2, 4):
        notes = "".join(f"Note {n}\n" for n in range(count))
        also = [*table.rows, *(_padded(table, f"Note {n}") for n in range(count))]
        yield made("footnotes", f"{count} lines", head + body + notes, others=also)
        apart = head + body + "\n" + notes
        yield made("footnotes", f"{count} lines after a blank", apart, others=also)
        padded = "".join(f"Note {n}" + _commas(table) + "\n" for n in range(count))
        yield made(
            "footnotes",
            f"{count} padded lines",
            head + body + padded,
            # They cannot be told from rows that are short of values.
            rows=[*table.rows, *(_padded(table, f"Note {n}") for n in range(count))],
        )


def _pollute_rows(table: Table, made: _Made) -> Iterator[Polluted]:
    clean = Style()
    lines = [clean.write_row(row) for row in table.all]

    def spoilt(number: int, line: str) -> str:
        return "\n".join((*lines[:number], line, *lines[number + 1 :])) + "\n"

    for number in (1, 2, 15, len(lines) - 1):
        rest = [*table.rows[: number - 1], *table.rows[number:]]
        short = clean.write_row(table.rows[number - 1][:-1])
        cut = (*table.rows[number - 1][:-1], "")
        filled = [*table.rows[: number - 1], cut, *table.rows[number:]]
        yield made("ragged", f"row {number} short", spoilt(number, short), rows=rest, others=filled)
        yield made("ragged", f"row {number} long", spoilt(number, lines[number] + ",x"), rows=rest)
        yield made(
            "ragged", f"row {number} with an empty field more", spoilt(number, lines[number] + ",")
        )
        one = spoilt(number, "-")
        filled = [*table.rows[: number - 1], _padded(table, "-"), *table.rows[number:]]
        yield made("ragged", f"row {number} of one dash", one, rows=rest, others=filled)
    trailing = "".join(f"{line},\n" for line in lines)
    yield made("ragged", "a delimiter after each row", trailing)
    trailing = "\n".join((lines[0], *(f"{line}," for line in lines[1:]))) + "\n"
    yield made("ragged", "a delimiter after all but the header", trailing)
    for number in (2, 20):
        other = replace(clean, delimiter=";").write_row(table.rows[number - 1])
        rest = [*table.rows[: number - 1], *table.rows[number:]]
        filled = [*table.rows[: number - 1], _padded(table, other), *table.rows[number:]]
        text = spoilt(number, other)
        yield made("ragged", f"row {number} with semicolons", text, rows=rest, others=filled)
        row = table.rows[number - 1]
        opened = clean.write_row((row[0], "\0", *row[2:])).replace("\0", '"x')
        yield made("quotes within", f"row {number} never closed", spoilt(number, opened), rows=rest)
        inch = clean.write_row((row[0], "\0", *row[2:])).replace("\0", '5" pipe')
        kept = [*table.rows[: number - 1], (row[0], '5" pipe', *row[2:]), *table.rows[number:]]
        yield made("quotes within", f"row {number} inch", spoilt(number, inch), rows=kept)
        said = clean.write_row((row[0], "\0", *row[2:])).replace("\0", '"say "hi" x"')
        kept = [*table.rows[: number - 1], (row[0], 'say "hi" x', *row[2:]), *table.rows[number:]]
        yield made("quotes within", f"row {number} not doubled", spoilt(number, said), rows=kept)
    lines_in = [
        (row[0], f"{row[1]}\nand {row[1]}" if number % 4 == 0 else row[1], *row[2:])
        for number, row in enumerate(table.rows)
    ]
    for name, newline in (("lf", "\n"), ("crlf", "\r\n")):
        style = replace(clean, newline=newline)
        yield made("quotes within", f"line ends, {name}", style.write((table.header, *lines_in)),
                   rows=lines_in)  # fmt: skip
    for count in (0, 1, 2):
        few = table.rows[:count]
        if count:
            yield made("few rows", str(count), clean.write((table.header, *few)), rows=few)
    single = [(row[0],) for row in table.rows]
    yield made("one column", "plain", clean.write(((table.header[0],), *single)),
               header=(table.header[0],), rows=single)  # fmt: skip
    wide = [row * 40 for row in table.rows]
    names = tuple(f"{name}_{n}" for n in range(40) for name in table.header)
    yield made("many columns", "40 times", clean.write((names, *wide)), header=names, rows=wide)
    late = [*table.rows * 60]
    broken = (
        clean.write((table.header, *late)) + clean.write_row((*table.rows[0][:-1], "a, b")) + "\n"
    )
    yield made("many rows", "a quoted delimiter at the end", broken,
               rows=[*late, (*table.rows[0][:-1], "a, b")])  # fmt: skip


def _pollute_text(table: Table, made: _Made) -> Iterator[Polluted]:
    clean = Style()
    rows = [
        (row[0], row[1] + (" blåbær café" if number % 3 == 0 else ""), *row[2:])
        for number, row in enumerate(table.rows)
    ]
    text = clean.write((table.header, *rows))
    for name, encoding in (
        ("utf-8 with a mark", "utf-8-sig"), ("utf-16", "utf-16"), ("cp1252", "cp1252"),
        ("utf-16 without a mark", "utf-16-le"), ("big-endian with a mark", "utf-16-be"),
        ("latin-1", "latin-1"),
    ):  # fmt: skip
        mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
        yield made("encoding", name, mark + text.encode(encoding), rows=rows)
    semicolons = replace(clean, delimiter=";").write((table.header, *rows))
    yield made("encoding", "cp1252 and semicolons", semicolons.encode("cp1252"), rows=rows)
    euros = [(*row[:-1], f"{row[-1]} € “x”") for row in table.rows]
    curly = clean.write((table.header, *euros)).encode("cp1252")
    yield made("encoding", "cp1252 with its own marks", curly, rows=euros)
    spaced = clean.write(table.all).replace(",", ", ")
    if table.name in ("texts", "figures"):
        yield made("blanks", "after delimiters", spaced)
        wide = "".join(" , ".join(row) + "\n" for row in table.all)
        yield made("blanks", "around delimiters", wide)
    style = replace(clean, delimiter=", ", quote_all=True)
    yield made("blanks", "before quotes", style.write(table.all))
    missing = [
        (row[0], "", *row[2:]) if number % 2 else row for number, row in enumerate(table.rows)
    ]
    yield made("missing", "empty fields", clean.write((table.header, *missing)), rows=missing)
    marked = [
        (row[0], "NA", *row[2:]) if number % 2 else row for number, row in enumerate(table.rows)
    ]
    yield made("missing", "NA", clean.write((table.header, *marked)), rows=marked)
    euro = [(row[0], f"{number},5", *row[2:]) for number, row in enumerate(table.rows)]
    style = replace(clean, delimiter=";")
    yield made("numbers", "decimal commas", style.write((table.header, *euro)), rows=euro)
    tens = [(row[0], f"{number},000", *row[2:]) for number, row in enumerate(table.rows)]
    yield made("numbers", "thousands, quoted", clean.write((table.header, *tens)), rows=tens)
    urls = [
        (row[0], f"https://x.org/a;b|c?d={number}", *row[2:])
        for number, row in enumerate(table.rows)
    ]
    yield made("numbers", "addresses", clean.write((table.header, *urls)), rows=urls)
    long = [(row[0], row[1] + "x" * 20_000, *row[2:]) for row in table.rows]
    yield made("long", "fields", clean.write((table.header, *long)), rows=long)


class _Made(Protocol):
    """Makes a polluted file."""

    def __call__(
        self,
        group: str,
        name: str,
        data: str | bytes,
        *,
        header: Row | None = (),
        rows: Sequence[Row] = (),
        others: Sequence[Row] | None = None,
    ) -> Polluted: ...


def _commas(table: Table) -> str:
    return "," * (len(table.header) - 1)


def _empty(table: Table, count: int) -> str:
    return (_commas(table) + "\n") * count


def _padded(table: Table, text: str) -> Row:
    return (text, *("" for _ in table.header[1:]))


def score(file: Polluted, header: Sequence[str], rows: Sequence[Sequence[str | None]]) -> float:
    """How much of header, rows and cells came back, from 0 to 1; what was made up counts against.

    The mean of three F1 measures: of names in their places, of whole rows, and of cells in
    their columns. Numbers are compared as numbers, and nothing is the same as an empty text.
    """
    if file.others is not None:
        least = replace(file, others=None)
        other = replace(least, rows=file.others)
        return max(score(least, header, rows), score(other, header, rows))
    wanted = [tuple(map(normal, row)) for row in file.rows]
    found = [tuple(map(normal, row)) for row in rows]
    parts = [
        measure(Counter(wanted), Counter(found)),
        measure(_cells_of(wanted), _cells_of(found)),
    ]
    if file.header is not None:
        parts.append(
            measure(
                Counter(enumerate(name.strip() for name in file.header)),
                Counter(enumerate(name.strip() for name in header)),
            )
        )
    return sum(parts) / len(parts)


def measure(wanted: Counter[object], found: Counter[object]) -> float:
    """F1: the harmonic mean of how much came back and how much of it is right."""
    if not wanted and not found:
        return 1.0
    return 2 * (wanted & found).total() / (wanted.total() + found.total())


def normal(value: str | None) -> str:
    """A cell as it is compared."""
    text = (value or "").replace("\r\n", "\n").strip()
    if _NUMBER.fullmatch(text):
        number = Decimal(text)
        return str(number.normalize() + 0)
    return text.removesuffix(".0").replace("T", " ") if text[:2] == "20" else text


def _cells_of(rows: Sequence[tuple[str, ...]]) -> Counter[object]:
    return Counter((place, cell) for row in rows for place, cell in enumerate(row))
