#!/usr/bin/env python3
"""The checks behind `scripts/doctor`: each gives what it found and what to do."""

from __future__ import annotations

import argparse
import http.client
import importlib.metadata
import json
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.doctor_findings import Finding
from scripts.doctor_storage import check_storage
from scripts.fleet import is_port_taken, probe
from shared.config import Config, ConfigError, load
from shared.daemons import BUILT
from shared.errors import Unavailable
from shared.keyfile import read_key
from shared.supervisor import read_state, supervisor_pid

GIB = 1024**3


def main() -> int:
    """Runs every check; the exit status is 0 when all are well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=ROOT / "config" / "lakehouse.toml")
    parser.add_argument("--json", action="store_true", dest="as_json")
    arguments = parser.parse_args()
    findings = [check_python(), check_compiler(), check_packages()]
    try:
        config = load(arguments.config, os.environ)
    except ConfigError as error:
        findings.append(Finding("config", False, str(error), "Mend the keys named here."))
    else:
        findings.append(Finding("config", True, f"{arguments.config.name} is valid"))
        checks: tuple[Callable[[Config], list[Finding]], ...] = (
            check_disk,
            check_storage,
            check_token,
            check_fleet,
            check_keys,
            check_tiers,
        )
        for check in checks:
            findings += check(config)
    if arguments.as_json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            mark = "✓" if finding.ok else "✗"
            print(f"{mark} {finding.what}: {finding.found}")
            if finding.advice:
                print(f"    {finding.advice}")
    return 0 if all(finding.ok for finding in findings) else 1


def check_python() -> Finding:
    """Python 3.11 or later."""
    version = ".".join(map(str, sys.version_info[:3]))
    ok = sys.version_info >= (3, 11)
    return Finding("python", ok, version, "" if ok else "Install Python 3.11 or later.")


def check_compiler() -> Finding:
    """A C++ compiler and Python's headers, which the vector library is built with."""
    missing = [] if any(map(shutil.which, ("c++", "g++", "clang++"))) else ["g++"]
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        missing.append("python3-dev")
    advice = f"On Debian: apt-get install {' '.join(missing)}" if missing else ""
    return Finding("compiler", not missing, "missing" if missing else "found", advice)


def check_packages() -> Finding:
    """Whether what is installed is what the lock file says."""
    text = (ROOT / "requirements.lock").read_text()
    locked: dict[str, set[str]] = {}
    optional: set[str] = set()
    for name, version, marker in re.findall(r"^([\w.-]+)==([^\s;\\]+)([^\\\n]*)", text, re.M):
        # The lock serves several Pythons and platforms: a package may stand in it twice, and
        # one with a marker may not be meant for this machine.
        locked.setdefault(name, set()).add(version)
        if marker.strip():
            optional.add(name)
    wrong: list[str] = []
    for name, versions in locked.items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if name not in optional:
                wrong.append(f"{name} is missing")
            continue
        if found not in versions:
            wrong.append(f"{name} {found} instead of {' or '.join(sorted(versions))}")
    found_text = "; ".join(wrong[:5]) if wrong else f"{len(locked)} as locked"
    return Finding("packages", not wrong, found_text, "Run: scripts/setup" if wrong else "")


def check_disk(config: Config) -> list[Finding]:
    """Room in the data directory, and whether it can be written."""
    folder = config.data_dir()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    ok = free > 2 * GIB
    findings = [
        Finding(
            "disk",
            ok,
            f"{free / GIB:.1f} GiB free for the data directory",
            "" if ok else "Free some space, or point fleet.data_dir elsewhere.",
        )
    ]
    if not os.access(folder, os.W_OK):
        findings.append(
            Finding("data", False, "the data directory cannot be written", "Check its owner.")
        )
    return findings


def check_token(config: Config) -> list[Finding]:
    """Whether auth is on, and the token's file is for its owner alone."""
    if not config.token:
        return [Finding("auth", True, "off: loopback only, no token set")]
    if config.auth.token_file is not None:
        mode = (config.base_dir / config.auth.token_file).stat().st_mode & 0o777
        if mode & 0o077:
            return [
                Finding("auth", False, f"token file has mode {mode:o}", "Run: chmod 600 on it.")
            ]
    ok = len(config.token) >= 16
    advice = "" if ok else "Use a longer token: openssl rand -hex 32"
    return [Finding("auth", ok, "on" if ok else "the token is short", advice)]


def check_fleet(config: Config) -> list[Finding]:
    """Daemons that run and answer, or ports that are free for them."""
    if supervisor_pid(config) is None:
        busy = [f"{config.daemon(n).port} ({n})" for n in BUILT if is_port_taken(config, n)]
        advice = "Another program has these ports; stop it or set others in the config."
        return [
            Finding("fleet", True, "not running; start it with scripts/fleet.py up"),
            Finding(
                "ports",
                not busy,
                f"taken: {', '.join(busy)}" if busy else "all free",
                advice if busy else "",
            ),
        ]
    running = read_state(config) or {}
    findings: list[Finding] = []
    for name in running:
        state = probe(config, name, "/ready")
        ok = state == "ok"
        advice = "" if ok else f"See: scripts/fleet.py logs {name}"
        findings.append(Finding(name, ok, "ready" if ok else state, advice))
    return findings


def check_keys(config: Config) -> list[Finding]:
    """Key files of chat providers. One that is not there is no fault: its models are 404."""
    findings: list[Finding] = []
    for name, section in config.chatd.providers.items():
        if not section.key:
            continue
        file = config.base_dir / config.chatd.keys_dir / f"{name}.env"
        try:
            read_key(file, section.key)
        except Unavailable as error:
            missing = not file.exists()
            advice = "" if missing else f"{error.message} The file: {file}"
            found = f"no {file.name}; its models are 404" if missing else "cannot be used"
            findings.append(Finding(f"key {name}", missing, found, advice))
        else:
            findings.append(Finding(f"key {name}", True, "found"))
    return findings


def check_tiers(config: Config) -> list[Finding]:
    """Whether the models behind the tiers are still there, as a running chatd finds them."""
    section = config.chatd
    headers = {"Host": "127.0.0.1"}
    if config.token:
        headers["Authorization"] = f"Bearer {config.token}"
    connection = http.client.HTTPConnection(section.host, section.port, timeout=30)
    try:
        connection.request("GET", "/chat/providers?probe=1", headers=headers)
        tiers = json.loads(connection.getresponse().read())["tiers"]
    except (OSError, ValueError, KeyError, http.client.HTTPException):
        return [Finding("tiers", True, "not probed: chatd is not running")]
    finally:
        connection.close()
    return [
        Finding(
            f"tier {tier}",
            # A model that is gone is a fault of the configuration; a provider that is away or
            # has no key may be meant so.
            state["status"] != "gone",
            f"{state['model']}: {state['status']}",
            state["advice"] if state["status"] == "gone" else "",
        )
        for tier, state in tiers.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
