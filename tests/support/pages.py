"""The commands that documentation pages show, to be run as a reader would run them.

Every block fenced as `sh` is run, in order, by bash in one folder for each page. Addresses are
those of a fleet of one's own; a curl that is answered with an error fails its block.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from scripts.private_fleet import ROOT
from shared.config import load
from shared.daemons import BUILT

_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PRELUDE = """set -euo pipefail
curl() { command curl -sS --fail-with-body --max-time 60 "$@"; }
"""


def read_blocks(page: Path) -> list[str]:
    """The page's `sh` blocks as they stand."""
    return _BLOCK.findall(page.read_text())


def redirect(block: str, urls: Mapping[str, str]) -> str:
    """The block with the fleet's own addresses in place of the shipped ones."""
    config = load(ROOT / "config" / "lakehouse.toml")
    for name in BUILT:
        shipped = getattr(config, name).port
        found = urls[name].rpartition(":")[2]
        block = re.sub(rf"(127\.0\.0\.1|localhost):{shipped}\b", f"127.0.0.1:{found}", block)
    return block


def run_block(block: str, folder: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs a block in `folder`; what it says on both streams is in `stdout`."""
    return subprocess.run(
        ["bash", "-c", _PRELUDE + block],
        cwd=folder,
        env=dict(env),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        timeout=180,
    )
