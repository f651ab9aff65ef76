"""What readers make of polluted files, scored."""

from __future__ import annotations

import tempfile
from pathlib import Path

import duckdb

from shared.errors import LakehouseError
from tests.support.ingestd import convert_bytes, reader
from tests.support.pollution import Polluted, score


def read_by_us(folder: Path, file: Polluted) -> float:
    """The score of ingestd's conversion; 0 for a file that it refuses."""
    try:
        found = convert_bytes(folder, file.data)
    except LakehouseError:
        return 0.0
    return score(file, found.names, found.rows)


def read_by_duckdb(folder: Path, file: Polluted) -> float:
    """The score of `read_csv(FILE)`; 0 where it fails."""
    return _read(folder, file, "")


def read_by_duckdb_as_text(folder: Path, file: Polluted) -> float:
    """The same with every column as text."""
    return _read(folder, file, ", all_varchar=true")


def _read(folder: Path, file: Polluted, options: str) -> float:
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".csv") as source:
        source.write(file.data)
        source.flush()
        try:
            result = reader().execute(
                f"SELECT COLUMNS(*)::VARCHAR FROM read_csv('{source.name}'{options})"
            )
            names = [one[0] for one in result.description or ()]
            return score(file, names, result.fetchall())
        except duckdb.Error:
            return 0.0
