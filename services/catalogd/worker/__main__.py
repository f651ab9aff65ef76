"""One merge: a job as a line on standard input, its outcome as a line on standard output.

`{"parts": […]}` or `{"failed": "why"}`. The process ends when its input does, in the middle of
the merge too: whoever started it is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import threading
from typing import Any

from services.catalogd.core.job import MergeJob


def main() -> None:
    """Does the job and tells how it went."""
    answer = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever else is printed
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        return  # whoever started it is gone already
    job = MergeJob.from_json(json.loads(line))
    threading.Thread(target=end_with_input, daemon=True).start()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    outcome = run(job)
    with contextlib.suppress(BrokenPipeError):
        answer.write(json.dumps(outcome).encode() + b"\n")
    # Not by the interpreter's own end, which would wait for the thread that reads.
    os._exit(0)


def run(job: MergeJob) -> dict[str, Any]:
    """The outcome of a job."""
    import pyarrow as pa

    from services.catalogd.worker.merge import merge_files

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    # From here on, when the libraries are there: their size is not the job's.
    most = _read_data_size() + job.memory_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    try:
        return {"parts": [part.to_json() for part in merge_files(job)]}
    except MemoryError:
        return {"failed": "it takes more memory than compact_memory_mb allows"}
    except (pa.ArrowException, OSError, ValueError) as error:
        return {"failed": str(error)[:500] or type(error).__name__}


def end_with_input() -> None:
    """Ends the process when nobody waits for it any more; it may be deep in native code."""
    while sys.stdin.buffer.read(4096):
        pass
    os._exit(0)


def _read_data_size() -> int:
    with open("/proc/self/statm", "rb") as stream:
        return int(stream.read().split()[5]) * resource.getpagesize()


if __name__ == "__main__":
    main()
