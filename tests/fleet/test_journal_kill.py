"""A process that appends is killed at random instants: what it was told is there, once."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

from shared.journal import Journal, Report
from shared.journal.segments import list_segments

ROUNDS = 40
ROOT = Path(__file__).parents[2]

# Tasks append one by one and in batches, and each acknowledgement goes out by one write(2),
# which is in the pipe when it returns: the kill cannot take it back.
WRITER = """
import asyncio, os, sys
from pathlib import Path
from shared.journal import Journal

async def main():
    journal = Journal(Path(sys.argv[1]), segment_bytes=64_000)
    journal.open()
    os.write(1, b"open\\n")

    async def append(task):
        count = 0
        while True:
            count += 1
            name = f"{sys.argv[2]}/{task}/{count}"
            if task % 3:
                first, names = await journal.append({"id": name}), [name]
            else:
                names = [f"{name}/{k}" for k in range(5)]
                first = (await journal.append_many({"id": n} for n in names)).start
            told = "".join(f"{first + k} {n}\\n" for k, n in enumerate(names))
            os.write(1, told.encode())

    await asyncio.gather(*(append(task) for task in range(12)))

asyncio.run(main())
"""


def run_and_kill(directory: Path, label: str, after: int) -> dict[int, str]:
    """Runs a writer, kills it after so many acknowledgements were seen; gives all it told."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory), label],
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"open\n"
        lines = [child.stdout.readline() for _ in range(after)]
        child.kill()
        lines += child.stdout.readlines()
    assert child.returncode == -9
    told = (line.decode().split() for line in lines)
    return {int(seq): name for seq, name in told}


def test_forty_kills_lose_nothing_acknowledged_and_double_nothing(tmp_path: Path) -> None:
    chance = random.Random(40)
    acknowledged: dict[int, str] = {}
    for number in range(ROUNDS):
        told = run_and_kill(tmp_path, f"round {number}".replace(" ", "-"), chance.randrange(400))
        assert not told.keys() & acknowledged.keys()
        acknowledged |= told
        report = Report()
        with Journal(tmp_path, segment_bytes=64_000) as journal:
            records = {r.seq: r.payload["id"] for r in journal.replay(report=report)}
            assert report.clean
            assert report.records == len(records) == journal.last_seq
        assert len(set(records.values())) == len(records)
        assert {seq: records.get(seq) for seq in acknowledged} == acknowledged
    assert len(acknowledged) > ROUNDS * 100
    assert len(list_segments(tmp_path)) > 3
