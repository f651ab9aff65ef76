"""What every conversion has: a session, its time by stage, and an account that adds up."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

from services.ingestd.core.job import Job, Outcome, Part
from services.ingestd.worker.duck import Misfit, Rows, Session, Unreadable
from services.ingestd.worker.refusals import refuse_all
from services.ingestd.worker.sidecar import Entry, write_sidecar
from services.ingestd.worker.table import Table
from shared.errors import Internal

Report = Callable[[str], None]
# A file of thousands of columns could have something to say of each.
MAX_WARNINGS = 50


class Conversion:
    """One file on its way.

    Args:
        job: what to do.
        report: told the name of each stage as it begins.
    """

    def __init__(self, job: Job, report: Report) -> None:
        self.job = job
        self.folder = Path(job.folder)
        self.session = Session(self.folder, job.limits)
        self.warnings: list[str] = []
        self._report = report
        self._seconds: dict[str, float] = {}

    def close(self) -> None:
        """Gives memory back."""
        self.session.close()

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        """Times what is done within and tells of it."""
        self._report(name)
        begun = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - begun
            self._seconds[name] = self._seconds.get(name, 0.0) + spent

    def write(self, rows: Rows, table: Table) -> list[Part]:
        """The rows' parts; where values do not fit, all rows decide what becomes of them."""
        with self.stage("convert"):
            try:
                try:
                    return table.write(rows, self.job.ingest_id)
                except Misfit:
                    table.settle(rows)
                    return table.write(rows, self.job.ingest_id)
            except Unreadable as error:
                raise Internal(
                    "ingestd could not read what it had made regular. Nothing was stored; please "
                    "report the file's shape."
                ) from error

    def finish(
        self,
        table: Table,
        parts: list[Part],
        rows_in: int,
        rejects: int,
        warnings: list[str],
        left_out: Callable[[], Iterable[tuple[Entry, str]]] | None,
    ) -> Outcome:
        """The outcome, once rows and rejects are sure to add up.

        Args:
            warnings: of how the file was read, ahead of all others.
            left_out: what the sidecar is to list, with its text; None if that is nothing.
        """
        rows_out = sum(part.rows for part in parts)
        # What later files have again may be all of this one.
        if not rows_out and left_out is not None and not self.job.shared:
            raise refuse_all(rejects, (entry for entry, _ in left_out()))
        if rows_in != rows_out + rejects:
            raise Internal(
                f"{rows_in} rows came in, {rows_out} went out and {rejects} are rejects, which "
                "does not add up. Nothing was stored; please report the file's shape."
            )
        sidecar = None
        if left_out is not None and (rejects or table.discarded):
            with self.stage("rejects"):
                sidecar = write_sidecar(self.session, left_out(), self.job.ingest_id, self.job.name)
        warnings = [*warnings, *self.warnings, *table.warnings()]
        if len(warnings) > MAX_WARNINGS:
            more = len(warnings) - MAX_WARNINGS
            warnings = [*warnings[:MAX_WARNINGS], f"There are {more} more warnings like these."]
        return Outcome(
            parts=tuple(parts),
            sidecar=sidecar,
            rows_in=rows_in,
            rows_out=rows_out,
            rejects=rejects,
            discarded=table.discarded,
            columns=table.columns(),
            warnings=tuple(warnings),
            seconds={name: round(value, 4) for name, value in self._seconds.items()},
            open=table.open_columns(),
        )
