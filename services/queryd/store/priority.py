"""How much of the processors a worker gets beside the others."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

# A tenth of what a process of usual priority gets beside it, and all that nobody else wants.
_BEHIND = 10
_LEAST = 19


def slow_down(pid: int) -> None:
    """Lets a process go behind others; nothing where it is gone."""
    with contextlib.suppress(OSError):
        _set_nice(pid, min(read_own() + _BEHIND, _LEAST))


def speed_up(pid: int) -> bool:
    """Undoes `slow_down`; False where this system does not let us."""
    try:
        _set_nice(pid, read_own())
    except OSError:
        return False
    return True


def can_speed_up() -> bool:
    """Whether `speed_up` is allowed: to root, or by a limit (systemd's LimitNICE=+0)."""
    return os.geteuid() == 0 or resource.getrlimit(resource.RLIMIT_NICE)[0] >= 20 - read_own()


def read_own() -> int:
    """The daemon's own priority, which its workers begin with; 0 is the usual one."""
    return os.getpriority(os.PRIO_PROCESS, 0)


def _set_nice(pid: int, nice: int) -> None:
    # A priority belongs to a thread.
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, int(thread), nice)
    # Where the kernel groups processes by session, a worker has a group of its own, and it is
    # the group's priority that counts beside others.
    group = Path(f"/proc/{pid}/autogroup")
    if group.exists():
        group.write_text(str(nice))
