"""Runs the fleet: one parent that forks each daemon and brings crashed ones back.

The parent imports the libraries that all daemons share, freezes the garbage collector and
forks, so that thirteen processes hold one copy of that code and none of them pays for the
imports again. It never starts a thread or an event loop and opens no client; its only work
is to wait for signals.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from shared.config import Config
from shared.lockfile import DirectoryLock
from shared.preload import preload

# A daemon that ran this long was healthy: its next crash starts the backoff afresh. Seconds.
STABLE_S = 30.0
# Beyond the drain, before a daemon that does not stop is killed. Seconds.
KILL_AFTER_DRAIN_S = 2.0
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15

logger = logging.getLogger("lakehouse.fleet")


@dataclass
class Child:
    """One daemon's process as the supervisor knows it. Times are from `time.time`."""

    name: str
    port: int
    pid: int = 0
    started: float = 0.0
    restarts: int = 0
    last_exit: str = ""
    failures: int = 0
    restart_at: float = 0.0


def compute_backoff(failures: int, first_s: float, longest_s: float) -> float:
    """Seconds to wait before a restart: doubles with each failure in a row, up to a limit."""
    return min(longest_s, first_s * 2.0 ** min(max(failures - 1, 0), 30))


def describe_exit(status: int) -> str:
    """A wait status in words: `exit 3`, `signal SIGKILL`."""
    if os.WIFSIGNALED(status):
        return f"signal {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exit {os.WEXITSTATUS(status)}"


def run_dir(config: Config) -> Path:
    """Where the supervisor keeps its lock and its state file."""
    return config.data_dir("run")


def log_dir(config: Config) -> Path:
    """Where each daemon's log lies when the fleet runs in the background."""
    return config.data_dir("logs")


class Supervisor:
    """Forks the named daemons and keeps them running until it is told to stop.

    Args:
        config: the whole configuration.
        names: daemons to run, all of them built.
        to_files: daemons log to files of their own instead of this process's stderr.
    """

    def __init__(self, config: Config, names: Sequence[str], *, to_files: bool) -> None:
        self.config = config
        self.to_files = to_files
        self.children = {name: Child(name, config.daemon(name).port) for name in names}
        self.lock = DirectoryLock(run_dir(config))
        self._state_path = run_dir(config) / "fleet.json"
        self._signals = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}

    def run(self) -> None:
        """Runs the fleet; returns when all daemons have ended after SIGTERM or SIGINT.

        Raises:
            Unavailable: another supervisor runs on the same data directory.
        """
        self.lock.acquire()
        preload(tuple(self.children))
        # Blocked, not handled: sigtimedwait takes them one by one, so nothing is missed
        # between looking and waiting, and no handler runs in the middle of a fork.
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        for child in self.children.values():
            self._start(child)
        self._write_state()
        try:
            while not self._handle(signal.sigtimedwait(self._signals, self._pause_s())):
                pass
        finally:
            self._stop_all()
            self._state_path.unlink(missing_ok=True)
            self.lock.release()

    def _pause_s(self) -> float:
        due = [c.restart_at for c in self.children.values() if not c.pid]
        return min([1.0, *(max(0.0, at - time.time()) for at in due)])

    def _handle(self, info: signal.struct_siginfo | None) -> bool:
        """Acts on a signal (or none); true when the fleet is to stop."""
        if info is not None and info.si_signo != signal.SIGCHLD:
            logger.info("stopping on %s", signal.Signals(info.si_signo).name)
            return True
        changed = self._reap()
        now = time.time()
        for child in self.children.values():
            if not child.pid and child.restart_at <= now:
                child.restarts += 1
                self._start(child)
                changed = True
        if changed:
            self._write_state()
        return False

    def _reap(self) -> bool:
        changed = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return changed
            if pid == 0:
                return changed
            for child in self.children.values():
                if child.pid == pid:
                    self._note_exit(child, status)
                    changed = True

    def _note_exit(self, child: Child, status: int) -> None:
        now = time.time()
        stable = now - child.started >= STABLE_S
        child.failures = 1 if stable else child.failures + 1
        fleet = self.config.fleet
        wait = compute_backoff(child.failures, fleet.restart_backoff_s, fleet.restart_backoff_max_s)
        child.pid = 0
        child.last_exit = describe_exit(status)
        child.restart_at = now + wait
        logger.warning("%s ended (%s); restart in %.1f s", child.name, child.last_exit, wait)

    def _start(self, child: Child) -> None:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            run_child(lambda: self._become(child.name, parent))
        child.pid = pid
        child.started = time.time()

    def _become(self, name: str, parent: int) -> None:
        """In the child: takes leave of the parent and runs the daemon."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._signals)
        # Only this copy of the descriptor: the parent's keeps the lock.
        self.lock.release()
        libc = ctypes.CDLL(None, use_errno=True)
        # When the supervisor is killed the daemons stop too, instead of holding their ports.
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:
            raise SystemExit(1)
        libc.prctl(_PR_SET_NAME, f"lh-{name}".encode()[:15])
        if self.to_files:
            redirect_output(log_dir(self.config) / f"{name}.log")
        runtime = importlib.import_module("shared.runtime")
        app = importlib.import_module(f"services.{name}.app")
        runtime.run(name, app.create_app, self.config)

    def _stop_all(self) -> None:
        for child in self.children.values():
            if child.pid:
                os.kill(child.pid, signal.SIGTERM)
        deadline = time.time() + self.config.fleet.drain_s + KILL_AFTER_DRAIN_S
        while True:
            self._reap()
            running = [c for c in self.children.values() if c.pid]
            if not running:
                return
            if time.time() >= deadline:
                for child in running:
                    logger.error("%s did not stop in time and is killed", child.name)
                    os.kill(child.pid, signal.SIGKILL)
                deadline = time.time() + KILL_AFTER_DRAIN_S
            signal.sigtimedwait({signal.SIGCHLD}, 0.1)

    def _write_state(self) -> None:
        state = {
            "pid": os.getpid(),
            "daemons": {name: asdict(child) for name, child in self.children.items()},
        }
        staged = self._state_path.with_suffix(".tmp")
        staged.write_text(json.dumps(state), "utf-8")
        staged.replace(self._state_path)


def run_child(body: Callable[[], None]) -> None:
    """Runs `body` as the whole life of a forked process and never returns.

    Leaves by `os._exit`, so that the parent's exit handlers and buffers stay the parent's.
    """
    code = 1
    try:
        body()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        logging.getLogger("lakehouse.fleet").exception("the process failed")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def redirect_output(path: Path) -> None:
    """Points standard output and error of this process at a log file, standard input at nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.close(null)


def read_state(config: Config) -> dict[str, Child] | None:
    """The running fleet as its supervisor last wrote it; None when none runs."""
    if supervisor_pid(config) is None:
        return None
    try:
        state = json.loads((run_dir(config) / "fleet.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}  # it is just starting
    return {name: Child(**values) for name, values in state["daemons"].items()}


def supervisor_pid(config: Config) -> int | None:
    """Process id of the running supervisor, judged by its lock and not by a stale file."""
    return DirectoryLock(run_dir(config)).holder()
