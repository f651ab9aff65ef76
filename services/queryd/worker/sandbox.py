"""What a worker gives up before it sees any SQL.

Limits on address space, processes, files and file size; no core dumps; death with the
daemon; no new privileges; and Landlock where the kernel has it (5.13 and later): from then
on the process can open files beneath the data folders for reading and beneath its own
temporary folder for writing, can execute nothing, and can open no TCP connection but
to the port of the S3 server, where the fleet has one. All of
this needs no privileges, and none of it can be undone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from shared.daemons import ROOT

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
# Linux gave these calls the same numbers on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_RULE_PATH_BENEATH, _RULE_NET_PORT = 1, 2

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_FILE, _MAKE_DIR, _MAKE_REG, _REMOVE_DIR = 1 << 5, 1 << 7, 1 << 8, 1 << 4
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_FIRST_ABI_RIGHTS = (1 << 13) - 1
_READ = _READ_FILE | _READ_DIR
_SCRATCH = _READ | _WRITE_FILE | _REMOVE_FILE | _REMOVE_DIR | _MAKE_DIR | _MAKE_REG | _TRUNCATE
_NET, _CONNECT = 0b11, 0b10  # bind and connect
_SCOPES = 0b11  # abstract sockets and signals to processes outside

# What tells a server's address by its name, and whose certificates count.
_RESOLVING = (
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/ssl",
    "/etc/pki",
    "/usr/share/ca-certificates",
)

# Threads and processes of this user, a bound against forking without end.
_MAX_TASKS = 4096


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("access", ctypes.c_uint64), ("parent", ctypes.c_int32))


class _NetPort(ctypes.Structure):
    _fields_ = (("access", ctypes.c_uint64), ("port", ctypes.c_uint64))


def bind_to_parent(parent: int) -> None:
    """Dies with the daemon, leaves no core, gains no privileges, is killed first for memory."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)  # it died before the line above
    # Before this process becomes one whose files in /proc are root's.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def limit_resources(files: int, file_bytes: int) -> None:
    """Caps everything but memory, which is counted from where the libraries are loaded."""
    # A write past the limit is to fail with an error, not to kill.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, files)
    _lower(resource.RLIMIT_FSIZE, file_bytes)
    _lower(resource.RLIMIT_NPROC, _MAX_TASKS)


class MemoryGauge:
    """The process's own size, read from a file opened before the file system is shut."""

    def __init__(self) -> None:
        self._fd = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> tuple[int, int]:
        """Bytes of address space, and bytes of it in memory."""
        size, resident, *_ = os.pread(self._fd, 256, 0).split()
        page = resource.getpagesize()
        return int(size) * page, int(resident) * page


def limit_memory(gauge: MemoryGauge, extra_bytes: int) -> None:
    """Lets the address space grow by `extra_bytes` from what it is now."""
    _lower(resource.RLIMIT_AS, gauge.read()[0] + extra_bytes)


def close_file_system(readable: Iterable[str], scratch: str, ports: Sequence[int] = ()) -> bool:
    """Shuts the file system but for these folders, and TCP but for connecting to these ports.

    False where the kernel has no Landlock.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    abi = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)
    if abi < 1:
        return False
    rights = _FIRST_ABI_RIGHTS
    rights |= _REFER if abi >= 2 else 0
    rights |= _TRUNCATE if abi >= 3 else 0
    rights |= _IOCTL_DEV if abi >= 5 else 0
    rules = _Ruleset(rights, _NET if abi >= 4 else 0, _SCOPES if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = libc.syscall(_CREATE_RULESET, ctypes.byref(rules), ctypes.c_size_t(size), 0)
    if ruleset < 0:
        return False
    # What Python may still import; not the project's root, whose configuration may hold the
    # token, and not /proc, where the environments of other processes lie.
    code = (f"{ROOT}/services", f"{ROOT}/shared", sys.prefix, sys.base_prefix)
    for folder in {*readable, *code, "/lib", "/sys"}:
        _allow(libc, ruleset, folder, _READ & rights)
    for path in _RESOLVING if ports else ():
        _allow(libc, ruleset, path, (_READ if os.path.isdir(path) else _READ_FILE) & rights)
    # DuckDB aborts when it cannot read its own cgroup. The descriptor stays open for good:
    # the kernel would otherwise make a new inode, which the rule does not know.
    _allow(libc, ruleset, "/proc/self/cgroup", _READ_FILE, keep=True)
    _allow(libc, ruleset, scratch, _SCRATCH & rights)
    for port in ports if abi >= 4 else ():
        rule = _NetPort(_CONNECT, port)
        libc.syscall(_ADD_RULE, ruleset, _RULE_NET_PORT, ctypes.byref(rule), 0)
    done = libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0
    os.close(ruleset)
    return done


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, access: int, *, keep: bool = False) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not there, so nothing to open
    rule = _PathBeneath(access, fd)
    libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), 0)
    if not keep:
        os.close(fd)


def _lower(limit: int, value: int) -> None:
    _, hard = resource.getrlimit(limit)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(limit, (value, value))
