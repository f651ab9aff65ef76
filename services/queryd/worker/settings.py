"""What the daemon tells the workers' template at its start, as one JSON argument."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Limits and folders of the workers.

    Attributes:
        fd: the descriptor of the template's socket; of its own in a worker.
        parent: the process that it is to die with.
        memory_mb: what a query may use.
        temp_mb: what it may spill to disk.
        threads: of the engine.
        files: descriptors it may open.
        scratch: folder for spilling; each worker has its own.
        readable: folders that hold data files.
        extension: path of DuckDB's httpfs where data files lie in a bucket, else empty.
        ports: that it may connect to.
    """

    fd: int
    parent: int
    memory_mb: int
    temp_mb: int
    threads: int
    files: int
    scratch: str
    readable: tuple[str, ...]
    extension: str = ""
    ports: tuple[int, ...] = ()

    def to_json(self) -> str:
        """The argument's text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> WorkerSettings:
        """The settings in an argument."""
        values = json.loads(text)
        lists = {name: tuple(values[name]) for name in ("readable", "ports")}
        return cls(**{**values, **lists})
