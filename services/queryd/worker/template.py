"""The process that all workers are copies of: it has loaded and tried everything, and forks.

Libraries take a third of a second to load and a copy of them takes a hundredth, so a worker
that ended is replaced at once, and a spare one is there when it is needed. The template runs
no SQL but its own, and nothing in it but the interpreter's one thread is left when it forks:
a lock that another thread holds would stay held in the copy for ever.

It is asked over a socket that keeps messages apart. `{"number", "scratch"}` with two
descriptors, a worker's socket and its standard error, starts one; the answers are `{"started",
"pid"}` with a descriptor of the process, and `{"ended", "status"}` once it has ended.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import selectors
import socket
from dataclasses import replace
from typing import Any

import duckdb

from services.queryd.worker import sandbox
from services.queryd.worker.session import run_worker, try_out
from services.queryd.worker.settings import WorkerSettings
from shared.heap import unmap_idle_code

_MOST_BYTES = 65_536
_PR_SET_NAME = 15


class Template:
    """Forks workers when it is asked to, and tells how they end.

    Args:
        control: the socket to the daemon.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)

    def serve(self) -> tuple[str, int]:
        """Forks until the daemon hangs up; ends this process then.

        Returns:
            In every copy, and only there: the worker's scratch folder and its socket.
        """
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is not self._control:
                    self._bury(key.fd, key.data)
                elif (asked := self._take()) is not None:
                    return asked

    def _take(self) -> tuple[str, int] | None:
        data, given, _, _ = socket.recv_fds(self._control, _MOST_BYTES, 2)
        if not data:
            os._exit(0)  # and the copies with it: they asked the kernel for that
        asked = json.loads(data)
        theirs, errors = given
        try:
            pid = os.fork()
        except OSError as error:
            os.write(errors, f"fork: {error.strerror}\n".encode())
            self._tell({"ended": asked["number"], "status": 1})
        else:
            if pid == 0:
                self._leave(errors)
                return asked["scratch"], theirs
            watched = os.pidfd_open(pid)
            self._selector.register(watched, selectors.EVENT_READ, (asked["number"], pid))
            self._tell({"started": asked["number"], "pid": pid}, watched)
        os.close(theirs)
        os.close(errors)
        return None

    def _bury(self, watched: int, worker: tuple[int, int]) -> None:
        number, pid = worker
        _, ended = os.waitpid(pid, 0)
        self._selector.unregister(watched)
        os.close(watched)
        self._tell({"ended": number, "status": os.waitstatus_to_exitcode(ended)})

    def _tell(self, message: dict[str, Any], *descriptors: int) -> None:
        try:
            socket.send_fds(self._control, [json.dumps(message).encode()], descriptors)
        except OSError:
            os._exit(0)

    def _leave(self, errors: int) -> None:
        """Lets go, in a copy, of what is the template's."""
        os.dup2(errors, 2)
        os.close(errors)
        for key in list(self._selector.get_map().values()):
            os.close(key.fd)
        self._selector.close()
        self._control.detach()
        # Out of the way of the terminal's signals, but in the daemon's session: where the
        # kernel shares processors out by session first (autogroup), a policy counts only
        # beside processes of the same one.
        os.setpgid(0, 0)


def main(argument: str) -> None:
    """Loads and tries everything, then forks workers.

    Args:
        argument: `WorkerSettings` as JSON.

    Raises:
        RuntimeError: a library has left a thread running, so that forking is not safe.
    """
    settings = WorkerSettings.from_json(argument)
    sandbox.bind_to_parent(settings.parent)
    _set_name("query-template")
    os.chdir(settings.scratch)
    duckdb.close()  # the module opens a database of its own, with threads
    try_out(settings)
    if threads := len(os.listdir("/proc/self/task")) - 1:
        raise RuntimeError(f"{threads} threads are left after loading; a fork would lose them")
    gc.collect()
    gc.freeze()
    unmap_idle_code()
    own = os.getpid()
    scratch, fd = Template(socket.socket(fileno=settings.fd)).serve()
    _set_name("query-worker")
    run_worker(replace(settings, fd=fd, parent=own, scratch=scratch))


def _set_name(name: str) -> None:
    """What tools such as ps and top call this process."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)
