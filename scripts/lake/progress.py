"""Progress of long work on standard error: how far, how fast, how long still."""

from __future__ import annotations

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


def show_waiting(progress: Progress, task: TaskID, what: str) -> None:
    """From here on nobody knows how far it is: a bar that moves, and the time gone by."""
    progress.columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
    )
    progress.remove_task(task)
    progress.add_task(what, total=None)


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
