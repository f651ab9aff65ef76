"""Progress of long work on standard error: how far, how fast, how long still."""

from __future__ import annotations

from collections.abc import Callable

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from scripts.lake.target import Target
from shared.wire.ingestd import JobProgress

# What a job's stages are called, and those that go through a file.
_STAGES = {
    "queued": "waiting for its turn",
    "fetching": "fetching the file",
    "sampling": "finding out how it is written",
    "reading": "reading every row",
    "converting": "typing every row",
    "matching": "looking for the keys",
    "rewriting": "rewriting what holds them",
    "storing": "storing",
    "registering": "putting it into the table",
}
_MEASURED = frozenset({"fetching", "reading", "converting", "matching", "rewriting"})


class RateColumn(ProgressColumn):
    """Things done a second."""

    def render(self, task: Task) -> Text:
        """The rate, or a dash while it is not known."""
        speed = task.finished_speed or task.speed
        return Text("-" if speed is None else f"{speed:,.0f}/s", style="progress.data.speed")


class CountColumn(ProgressColumn):
    """How many are done, and of how many, as far as that is known."""

    def render(self, task: Task) -> Text:
        """Both numbers, or the first alone."""
        done = f"{task.completed:,.0f}"
        return Text(done if task.total is None else f"{done} of {task.total:,.0f}")


def show_bytes(target: Target) -> Progress:
    """For sending a file."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=target.log,
        transient=True,
        disable=not target.lively,
    )


def show_stages(progress: Progress, task: TaskID) -> Callable[[JobProgress], None]:
    """From here on a job's stages: how far each is in its file, as far as that is known."""
    progress.columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[rows]}"),
        TimeElapsedColumn(),
    )
    progress.remove_task(task)
    shown = progress.add_task("waiting for its turn", total=None, rows="")

    def tell(job: JobProgress) -> None:
        rows = f"{job.rows:,} rows" if job.rows else ""
        if job.files_total:
            rows = f"file {min(job.files_done + 1, job.files_total)} of {job.files_total}, {rows}"
        if job.rejects:
            rows += f", {job.rejects:,} rejects"
        total = job.bytes_total if job.stage in _MEASURED else None
        progress.update(
            shown,
            description=job.note or _STAGES.get(job.stage, job.stage),
            total=total,
            completed=job.bytes_read if total else 0,
            rows=rows,
        )

    return tell


def show_items(target: Target) -> Progress:
    """For work that is counted in rows."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        CountColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=target.log,
        transient=True,
        disable=not target.lively,
    )
