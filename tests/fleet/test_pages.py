"""Every command of every page in docs/ works as it is written."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.private_fleet import ROOT, PrivateFleet
from shared.daemons import BUILT
from tests.support.pages import read_blocks, redirect, run_block

PAGES = sorted(path for path in (ROOT / "docs").glob("*.md") if read_blocks(path))


@pytest.fixture(scope="module")
def fleet() -> Iterator[PrivateFleet]:
    # What a page asks of the small local model, the fake answers: there is no model server here.
    with PrivateFleet(settings={"MODELS__LOCAL_FAST": '"fake/fake-chat"'}) as running:
        yield running


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_pages_commands_work(page: Path, fleet: PrivateFleet, tmp_path: Path) -> None:
    # A reader stands in the project's folder; what a page writes must not land there.
    for name in ("scripts", ".venv", "config", "data"):
        (tmp_path / name).symlink_to(ROOT / name)
    for block in read_blocks(page):
        done = run_block(redirect(block, fleet.urls), tmp_path, fleet.env)
        assert done.returncode == 0, f"{block}\n--- said:\n{done.stdout[-3000:]}"


@pytest.mark.parametrize("name", BUILT)
def test_every_daemon_has_a_page_with_commands(name: str) -> None:
    blocks = read_blocks(ROOT / "docs" / f"{name}.md")
    assert any("curl" in block for block in blocks), f"docs/{name}.md shows no command"


def test_a_command_that_fails_is_seen(fleet: PrivateFleet, tmp_path: Path) -> None:
    wrong = "curl http://127.0.0.1:3110/v1/sql/tables/there_is_none\n"
    done: subprocess.CompletedProcess[str] = run_block(
        redirect(wrong, fleet.urls), tmp_path, fleet.env
    )
    assert done.returncode != 0
    assert "not_found" in done.stdout
