"""Where workers come from: a template, started when one is wanted and again when it has ended."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from pathlib import Path

from services.queryd.store.bucket import Bucket
from services.queryd.store.process import WorkerProcess
from services.queryd.store.template import Template
from shared.sections.data import QuerydSection

logger = logging.getLogger("lakehouse.queryd")


class Nursery:
    """Starts workers, each in a folder of its own.

    Args:
        section: limits of the workers.
        folder: where those folders are made, and the template's.
        readable: folders that hold data files.
        bucket: where data files lie too, if there is one.
    """

    def __init__(
        self, section: QuerydSection, folder: Path, readable: tuple[str, ...], bucket: Bucket | None
    ) -> None:
        # The last line of the template that ended last.
        self.complaint = ""
        self._section = section
        self._folder = folder
        self._readable = readable
        self._bucket = bucket
        self._numbers = itertools.count(1)
        self._template: Template | None = None

    def start(self, on_exit: Callable[[WorkerProcess], None]) -> WorkerProcess:
        """A worker that starts now.

        Args:
            on_exit: called once, when its process has ended.

        Raises:
            OSError: it cannot be started.
        """
        if self._template is None:
            self._template = Template(
                self._section,
                self._folder / "template",
                self._readable,
                self._bucket,
                self._note_end,
            )
        return WorkerProcess(self._template, self._folder / str(next(self._numbers)), on_exit)

    def close(self) -> None:
        """Ends the template, and all workers with it."""
        if self._template:
            self._template.close()
            self._template = None

    def _note_end(self) -> None:
        # Its workers end with it, and the first that is started anew starts it anew.
        if self._template:
            self.complaint = self._template.read_complaint()
            logger.warning("The query workers' template ended: %s", self.complaint)
        self._template = None
