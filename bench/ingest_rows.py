"""Staffing rows for `bench/ingest.py`: as CSV, as JSON lines, and made while they are sent."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from scripts.staffing_data import write_workers

LARGE_BYTES = 2_200_000_000


def write_csv(path: Path, rows: int) -> int:
    """Staffing rows; gives the file's size."""
    with path.open("wb") as file:
        for piece in write_workers(rows):
            file.write(piece)
    return path.stat().st_size


def write_large(path: Path, source: Path) -> int:
    """The source's rows again and again, to more than 2 GB; gives the number of rows."""
    with source.open("rb") as file:
        header = file.readline()
        body = file.read()
    repeats = LARGE_BYTES // len(body) + 1
    with path.open("wb") as file:
        file.write(header)
        for _ in range(repeats):
            file.write(body)
    return repeats * body.count(b"\n")


def write_lines(path: Path, source: Path) -> None:
    """The rows of a CSV file as JSON lines: numbers and truth as such, nothing as null."""
    with source.open(newline="") as file, path.open("w") as target:
        for row in csv.DictReader(file):
            target.write(_write_line(row))


def _write_line(row: dict[str, str]) -> str:
    bare = ("years_experience", "hourly_rate", "rating", "active")
    members = (
        f"{json.dumps(name)}: " + ((value if name in bare else json.dumps(value)) or "null")
        if value
        else f"{json.dumps(name)}: null"
        for name, value in row.items()
    )
    return "{" + ", ".join(members) + "}\n"


def make_body(size: int, form: str) -> Iterator[bytes]:
    """About `size` bytes of rows, made as they are read; every block has other ids."""
    pieces = b"".join(write_workers(20_000))
    header, _, rows = pieces.partition(b"\n")
    if form == "jsonl":
        reader = csv.DictReader(pieces.decode().splitlines())
        rows = "".join(map(_write_line, reader)).encode()
    else:
        yield header + b"\n"
    for number in range(size // len(rows) + 1):
        yield rows.replace(b"W-", b"W%06d-" % number)
