"""One writer per data directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared.errors import Unavailable
from shared.lockfile import DirectoryLock

HOLD = """
import sys
from pathlib import Path
from shared.lockfile import DirectoryLock
DirectoryLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_holder_is_refused_with_the_first_ones_pid(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path / "data") as first:
        with pytest.raises(Unavailable) as refused:
            DirectoryLock(tmp_path / "data").acquire()
        assert refused.value.details == {"holder_pid": str(os.getpid())}
        assert first.holder() == os.getpid()
    assert DirectoryLock(tmp_path / "data").holder() is None
    with DirectoryLock(tmp_path / "data"):
        pass


def test_a_killed_holder_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"held\n"
    assert DirectoryLock(tmp_path).holder() == process.pid
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()
    with DirectoryLock(tmp_path):
        pass


def test_no_directory_means_no_holder(tmp_path: Path) -> None:
    assert DirectoryLock(tmp_path / "absent").holder() is None
