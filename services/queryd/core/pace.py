"""How many rows are made at a time, and how many ahead of their reader.

DuckDB counts a text of any length as the 16 bytes of its reference, so rows of long texts have
to be held back by their number. How long they are is guessed from the files.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.queryd.core.jsontext import SqlType
from services.queryd.core.views import Table

# Bytes of one batch to aim for: large enough that the cost per batch does not show, small
# enough that it is still in the processor's cache when it is sent on.
_BATCH_BYTES = 1 << 20
# DuckDB's vectors have 2,048 rows; batches are whole vectors, unless rows are very long.
_VECTOR = 2048
_LEAST_ROWS = 64
_MOST_ROWS = 32 * _VECTOR
# Values without a fixed width may be longer than the files let expect.
_MOST_ROWS_VARYING = 4 * _VECTOR
_WIDTHS = {
    **dict.fromkeys(("boolean", "tinyint", "utinyint"), 1),
    **dict.fromkeys(("smallint", "usmallint"), 2),
    **dict.fromkeys(("integer", "uinteger", "float", "date"), 4),
    **dict.fromkeys(("bigint", "ubigint", "double", "timestamp", "time"), 8),
    "timestamp with time zone": 8,
    **dict.fromkeys(("hugeint", "uhugeint", "decimal", "interval"), 16),
}
_VARYING_WIDTH = 24
# How much larger rows are in memory than compressed in a file, roughly.
_EXPANSION = 4
# Made ahead, by DuckDB's count: a quarter of what it does by itself, which costs no time that
# shows, and less where rows are wider than this.
_AHEAD_BYTES, LEAST_AHEAD_BYTES = 256_000, 64_000
_USUAL_ROW_BYTES = 1024


def guess_row_bytes(tables: Sequence[Table]) -> float:
    """What a row over all tables of a query may take in memory."""
    return sum(table.row_bytes for table in tables) * _EXPANSION


def choose_batch_rows(columns: Sequence[tuple[str, SqlType]], row_bytes: float) -> int:
    """Rows of one batch, in whole vectors where that is not too much.

    Args:
        columns: of the answer.
        row_bytes: the guess for the tables, which counts where values vary in width.
    """
    widths = [_WIDTHS.get(kind.id) for _, kind in columns]
    width = float(sum(w or _VARYING_WIDTH for w in widths))
    most = _MOST_ROWS
    if None in widths:
        most, width = _MOST_ROWS_VARYING, max(width, row_bytes)
    rows = int(_BATCH_BYTES / max(width, 1))
    if rows < _VECTOR:
        return max(rows, _LEAST_ROWS)
    return min(rows // _VECTOR * _VECTOR, most)


def choose_ahead_bytes(row_bytes: float) -> int:
    """Bytes, by DuckDB's count, of rows made ahead of their reader."""
    share = _USUAL_ROW_BYTES / max(row_bytes, _USUAL_ROW_BYTES)
    return max(int(_AHEAD_BYTES * share), LEAST_AHEAD_BYTES)
