"""The process that merges files: started for one merge, killed when nobody waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from asyncio.subprocess import PIPE

from services.catalogd.core.job import MergedPart, MergeJob
from shared.daemons import ROOT
from shared.errors import Internal

# Longest a merge may take: its size is bounded. Seconds.
LONGEST_S = 600.0
# Longest answer, bytes: parts of one merge.
_LINE = 4 * 1024 * 1024
# Nothing of the daemon's environment is its business.
_ENVIRONMENT = {
    "TZ": "UTC",
    "LC_ALL": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    # Arrow's own allocator sets a GiB aside at its first use, which the limit counts.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}


class MergeFailed(Exception):
    """The files were not merged, and why."""


async def merge_files(job: MergeJob) -> list[MergedPart]:
    """Has files merged; they are in the job's folder afterwards.

    Raises:
        MergeFailed: one is damaged, or took the process down.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.catalogd.worker",
        stdin=PIPE,
        stdout=PIPE,
        cwd=ROOT,
        env=_ENVIRONMENT,
        limit=_LINE,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(LONGEST_S):
            with contextlib.suppress(OSError):
                process.stdin.write(json.dumps(job.to_json()).encode() + b"\n")
                await process.stdin.drain()
            line = await process.stdout.readline()
    except TimeoutError:
        raise MergeFailed(f"the merge took longer than {LONGEST_S:.0f} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        status = await asyncio.shield(process.wait())
        process.stdin.close()
    if not line.endswith(b"\n"):
        raise MergeFailed(f"the process that merged them ended with status {status}")
    answer = json.loads(line)
    if "failed" in answer:
        raise MergeFailed(answer["failed"])
    if not isinstance(answer.get("parts"), list):
        raise Internal("The process that merges files gave no answer.")
    return [MergedPart(**part) for part in answer["parts"]]
