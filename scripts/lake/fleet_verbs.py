"""Verbs about the fleet itself: up, down, status, doctor, and the gate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from scripts.lake.target import AWAY, REFUSED, Target, write_json
from shared.daemons import ROOT
from shared.errors import Unavailable

FLEET = ROOT / "scripts" / "fleet.py"
_STYLES = {"ready": "green", "not built": "dim", "down": "red"}


async def up(
    target: Target,
    only: Annotated[str, typer.Option(help="Comma-separated daemons; all otherwise.")] = "",
    wait: Annotated[float, typer.Option(help="Seconds to wait until all are ready.", min=0)] = 30.0,
) -> int:
    """Start the fleet of this machine and wait until it is ready."""
    target.require_local("up")
    return _run_fleet(target, "up", "--only", only, "--wait", str(wait))


async def down(target: Target) -> int:
    """Stop the fleet of this machine, letting requests under way end."""
    target.require_local("down")
    return _run_fleet(target, "down")


def _run_fleet(target: Target, *arguments: str) -> int:
    # A process of its own: what forks the daemons must not hold this command's libraries.
    done = subprocess.run(
        [sys.executable, str(FLEET), "--config", str(target.config_path), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    said = done.stdout.strip()
    if target.as_json:
        write_json({"ok": done.returncode == 0, "message": said, "gateway": target.url})
    elif done.returncode == 0:
        target.out.print(said, markup=False)
    else:
        target.log.print(said, markup=False, soft_wrap=True)
    return REFUSED if done.returncode == 1 else done.returncode


async def status(target: Target) -> int:
    """Show each daemon's state; of this machine's fleet also memory, age and restarts."""
    from scripts.fleet import collect_status, supervisor_pid

    if target.local and supervisor_pid(target.config) is not None:
        rows = collect_status(target.config)
    else:
        rows = await _ask_readiness(target)
    ready = all(row["state"] in ("ready", "not built") for row in rows)
    target.show({"gateway": target.url, "ready": ready, "daemons": rows}, lambda: _draw(rows))
    return 0 if ready else AWAY


async def _ask_readiness(target: Target) -> list[dict[str, Any]]:
    """Each daemon as the gateway sees it."""
    async with target.gateway() as gateway:
        try:
            answer = await gateway.edge.request("GET", "/ready", timeout_s=15)
            checks: dict[str, str] = answer.json()["checks"]
        except Unavailable as error:
            checks = error.details.get("checks", {})
            if not checks:
                raise
    states = {"gateway": "ok", **checks}
    return [
        {"daemon": name, "state": "ready" if told == "ok" else told}
        for name, told in states.items()
    ]


def _draw(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("daemon")
    for title in ("port", "PSS", "up", "restarts"):
        table.add_column(title, justify="right")
    table.add_column("state")
    for row in rows:
        pss, age = row.get("pss_mib"), row.get("uptime_s")
        style = _STYLES.get(row["state"], "yellow")
        table.add_row(
            row["daemon"],
            str(row.get("port", "")),
            f"{pss:.0f} MiB" if pss else "",
            _tell_age(age) if age is not None else "",
            str(row.get("restarts", "")),
            f"[{style}]{row['state']}[/]",
        )
    return table


def _tell_age(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


async def doctor(target: Target) -> int:
    """Probe what the fleet stands on, and say what to do about anything that is wrong."""
    target.require_local("doctor")
    return _run_doctor(target)


def _run_doctor(target: Target) -> int:
    command = [str(ROOT / "scripts" / "doctor"), "--config", str(target.config_path)]
    if not target.as_json:
        return subprocess.run(command, check=False).returncode
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    write_json({"ok": done.returncode == 0, "findings": json.loads(done.stdout)})
    return done.returncode


async def mcp(
    target: Target,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Offer no tool that writes.")
    ] = False,
) -> int:
    """Serve agents over standard input and output, for MCP clients that start their server."""
    command = [sys.executable, "-m", "services.mcpd", "--stdio", "--config", target.config_path]
    more = ["--read-only"] if read_only else []
    told = {"LAKEHOUSE_GATEWAY": target.url, "LAKEHOUSE_TOKEN": target.config.token}
    sys.stdout.flush()
    # Wherever it was started, the project is run from its own folder.
    os.chdir(ROOT)
    os.execve(sys.executable, [*map(str, command), *more], {**os.environ, **told})


def lift(
    context: typer.Context,
    as_json: Annotated[
        bool, typer.Option("--json", help="The whole report as JSON on standard output.")
    ] = False,
) -> None:
    """Measure whether the playbook helps and harms nothing: the gate.

    Options go on to scripts/playbook_lift: --fast, --dataset DIR, --seeds 1,2, --out FILE,
    --gateway URL. Without --gateway it runs in a fleet of its own.
    """
    command = [str(ROOT / "scripts" / "playbook_lift"), *context.args]
    if not as_json:
        raise typer.Exit(subprocess.run(command, check=False).returncode)
    given = next((after for before, after in _pairs(context.args) if before == "--out"), None)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(given) if given else Path(folder) / "lift.json"
        more = [] if given else ["--out", str(report)]
        # What it says on its way is for people.
        done = subprocess.run([*command, *more], stdout=sys.stderr, check=False)
        if report.is_file() and done.returncode in (0, 1):
            write_json(json.loads(report.read_text("utf-8")))
        else:
            told = {"code": "failed", "message": "The run was not possible.", "details": {}}
            write_json({"error": told})
    raise typer.Exit(done.returncode)


def _pairs(arguments: list[str]) -> list[tuple[str, str]]:
    split = [part for each in arguments for part in each.split("=", 1)]
    return list(pairwise(split))
