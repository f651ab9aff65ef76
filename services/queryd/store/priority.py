"""How much of the processors a worker gets beside the others."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from pathlib import Path

from services.queryd.core.yielding import Move


def move(pid: int, step: Move) -> bool:
    """Does what `core.yielding` decided; nothing where the process is gone.

    False where this system does not let us.
    """
    try:
        if step is Move.BEHIND:
            # What nobody else wants, whatever the others' priorities: a process with a usual
            # one that wakes up gets its processor at once, where a lesser priority would let
            # this one finish its slice of some milliseconds.
            _set_policy(pid, os.SCHED_IDLE)
        elif step is Move.LEVEL:
            _set_policy(pid, os.sched_getscheduler(0))
        else:
            os.kill(pid, signal.SIGSTOP if step is Move.STOP else signal.SIGCONT)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return True


def can_restore() -> bool:
    """Whether LEVEL is allowed: to root, or by a limit (systemd's LimitNICE=+0)."""
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    return os.geteuid() == 0 or resource.getrlimit(resource.RLIMIT_NICE)[0] >= 20 - nice


def _set_policy(pid: int, policy: int) -> None:
    # A policy belongs to a thread. Those that it starts from now on have the main one's.
    os.sched_setscheduler(pid, policy, os.sched_param(0))
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setscheduler(int(thread.name), policy, os.sched_param(0))
