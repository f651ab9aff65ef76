"""scripts/scrum_review.sh against a chatd whose tiers are fakes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from shared.daemons import ROOT
from tests.support.chatd import World, world
from tests.support.providers import Said, json_reply
from tests.support.sockets import serving

pytestmark = pytest.mark.anyio

MODELS = {
    "frontier_review": "messages/opus",
    "frontier_arch": "chat/kimi",
    "cloud_review": "ollama/qwen",
}
DIFF = "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a = 1\n+a = 2\n"


@asynccontextmanager
async def edge(tmp_path: Path) -> AsyncGenerator[World]:
    """A chatd that also answers under the path by which the gateway shows it."""
    async with world(tmp_path, models=MODELS) as w:

        async def unversioned(scope: Any, receive: Any, send: Any) -> None:
            path = scope["path"].removeprefix("/v1")
            await w.app({**scope, "path": path, "raw_path": path.encode()}, receive, send)

        async with serving(unversioned) as port:
            w.port = port
            yield w


async def review(w: World, folder: Path, label: str) -> tuple[int, str]:
    """Runs the command."""
    bundle = folder / "bundle.diff"
    bundle.write_text(DIFF)
    process = await asyncio.create_subprocess_exec(
        str(ROOT / "scripts" / "scrum_review.sh"),
        str(bundle),
        label,
        "--out",
        str(folder / "scrum"),
        env={**os.environ, "LAKEHOUSE_GATEWAY": w.url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


async def test_three_lineages_review_a_diff(tmp_path: Path) -> None:
    async with edge(tmp_path) as w:
        w.fakes["messages"].said = Said(pieces=("BLOCK | x.py:1 | wrong\n", "\nBecause."))
        w.fakes["chat"].said = Said(pieces=("WARN | x.py:2 | also wrong",))
        w.fakes["ollama"].said = Said(pieces=("NONE",))
        status, out = await review(w, tmp_path, "first")
        assert status == 0, out
        assert "frontier_review (messages/opus): 1 BLOCK, 0 WARN, 0 INFO" in out
        for wire in ("messages", "chat", "ollama"):
            assert DIFF.strip() in str(w.fakes[wire].seen[0].body).replace("\\n", "\n")
        (today,) = (tmp_path / "scrum" / "_evidence").iterdir()
        verdicts = sorted(file.name for file in (today / "verdicts").iterdir())
        assert verdicts == [
            "first_cloud_review.md",
            "first_frontier_arch.md",
            "first_frontier_review.md",
        ]
        given = (today / "verdicts" / "first_frontier_review.md").read_text()
        assert given == "BLOCK | x.py:1 | wrong\n\nBecause.\n"
        table = (today / "disposition.md").read_text()
        assert table.count("| yes | open |") == 2


async def test_who_could_not_is_told(tmp_path: Path) -> None:
    async with edge(tmp_path) as w:
        w.fakes["chat"].always = json_reply({"error": {"message": "no credit"}}, 402)
        w.fakes["ollama"].said = Said(pieces=("BLOCK | x.py",), reason="length")
        w.fakes["messages"].said = Said(pieces=("NONE",))
        status, out = await review(w, tmp_path, "second")
        assert status == 1
        assert "MISS frontier_arch" in out
        assert "no credit" in out
        assert "ended by length" in out
    status, out = await review(w, tmp_path, "third")  # chatd is gone
    assert status == 2
    assert "cannot be reached" in out
    status, out = await review(w, tmp_path, "no/label")
    assert status == 2
    assert "LABEL" in out
