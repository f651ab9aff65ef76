"""The systemd units, as systemd itself judges them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from shared.daemons import BUILT, ROOT

UNITS = ROOT / "deploy" / "systemd"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units with this checkout in the place of /opt/lakehouse, so that paths exist."""
    folder = tmp_path_factory.mktemp("units")
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("/opt/lakehouse", str(ROOT))
        (folder / unit.name).write_text(text)
    return folder


@pytest.mark.parametrize("unit", ["lakehouse.target", *(f"lakehouse@{n}.service" for n in BUILT)])
def test_systemd_has_nothing_to_say_against_it(installed: Path, unit: str) -> None:
    analyze = shutil.which("systemd-analyze")
    assert analyze, "systemd-analyze is missing: scripts/tools --all installs it"
    done = subprocess.run(
        [analyze, "verify", "--man=no", installed / unit],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "lakehouse" in line]
    assert (done.returncode, ours) == (0, [])


def test_the_service_runs_what_a_person_runs() -> None:
    text = (UNITS / "lakehouse@.service").read_text()
    assert "-m services.%i --config config/lakehouse.toml" in text
    for line in ("NoNewPrivileges=yes", "ProtectSystem=strict", "Restart=always"):
        assert line in text
