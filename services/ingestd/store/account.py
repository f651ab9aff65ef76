"""What is counted and told of an ingest, however it ends."""

from __future__ import annotations

import time
from typing import Any

from services.ingestd.store.figures import Figures
from shared.errors import LakehouseError
from shared.telling import RunTeller, judge_failure, since
from shared.wire.ingestd import IngestResult


class Account:
    """Around one ingest: an exception ends it as a failure, `done` as a success.

    Args:
        dataset: its name.
        figures: where ingests are counted.
        teller: told how it went.
    """

    def __init__(self, dataset: str, figures: Figures, teller: RunTeller | None) -> None:
        self._dataset = dataset
        self._figures = figures
        self._teller = teller
        self._begun = time.perf_counter()
        self._result: IngestResult | None = None
        self._dismissed = False

    def done(self, result: IngestResult) -> IngestResult:
        """It came to this."""
        self._result = result
        return result

    def dismiss(self) -> None:
        """It goes on elsewhere, where it is counted."""
        self._dismissed = True

    def received(self, size: int) -> None:
        """Counts the bytes of its file."""
        self._figures.received(size)

    def __enter__(self) -> Account:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Counts and tells."""
        if self._dismissed and error is None:
            return
        result = self._result if error is None else None
        status, outcome = "cancelled", "gone"
        if result is not None:
            status, outcome = "ok", "duplicate" if result.duplicate else "done"
        elif isinstance(error, LakehouseError):
            status, outcome = judge_failure(error)
        self._figures.ended(outcome)
        if self._teller is not None:
            self._teller.tell(
                "ingest",
                since(self._begun),
                status=status,
                error=None if result is not None else outcome,
                task_signature=f"ingest:{self._dataset}"[:200],
                attributes=_describe(result),
            )


def _describe(result: IngestResult | None) -> dict[str, Any]:
    if result is None:
        return {}
    return {
        "rows_in": result.rows_in,
        "rows_out": result.rows_out,
        "rejects": result.rejects.count,
        "duplicate": result.duplicate,
    }
