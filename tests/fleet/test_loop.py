"""The closed loop end to end: a fleet of its own, and a gateway that is given and left clean."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from scripts.private_fleet import PrivateFleet
from services.observerd.core.distill.scorer import SCORER
from shared.daemons import ROOT
from tests.support.providers import Reply, Seen, fake, json_reply

SCRIPT = ROOT / "scripts" / "loop"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.timeout(240)
def test_the_fast_loop_runs_every_step_and_takes_back_what_it_made(tmp_path: Path) -> None:
    out, export = tmp_path / "out.json", tmp_path / "export"
    with PrivateFleet() as fleet:
        gateway = fleet.urls["gateway"]
        places = ("--gateway", gateway, "--out", str(out), "--export", str(export))
        done = run("--fast", *places)
        assert done.returncode == 0, done.stdout + done.stderr
        playbook = httpx.get(f"{gateway}/v1/matrix/playbook", params={"retired": True}).json()
        corpora = httpx.get(f"{gateway}/v1/matrix/corpora").json()["corpora"]
        (refiner,) = httpx.get(f"{gateway}/v1/observer/refiners").json()["refiners"]
        stats = httpx.get(f"{gateway}/v1/observer/stats").json()
    record = json.loads(out.read_text())
    rounds = record["rounds"]
    assert (record["passed"], len(rounds)) == (True, 3)
    assert all(one["held"]["queries"] == 16 for one in rounds)
    assert rounds[0]["held"]["delta"] == 0
    for one in rounds[1:]:
        # Every step of a round did something, and what is held out was offered and stopped.
        assert one["tasks"]["accepted"] >= one["feed"]["recorded"] > 0
        assert one["feed"]["held_out_offered"] > one["feed"]["held_out_recorded"] == 0
        assert one["feed"]["withheld"]["stopped: lineage"] >= one["feed"]["held_out_offered"]
        assert 0 < one["refine"]["learnt"] <= one["tasks"]["tasks"]
        assert one["control_moved"] == 0
        assert one["distil"]["changed_again"] == 0
        assert (one["drift"]["anchors"] >= 30, one["drift"]["changed"]) == (True, 0)
    sources = {one["source"] for one in playbook["episodes"]}
    assert sources == {f"distilled:{SCORER}"}
    assert playbook["retired"] == playbook["total"] > 0
    assert (corpora, bool(refiner["frozen"])) == ([], True)
    assert stats["by_mode"]["distillation.feed"]["by_verdict"]["accepted"] > 0
    manifest = json.loads((export / "manifest.json").read_text())
    assert manifest["run_hash"] == rounds[-1]["distil"]["run_hash"]
    lines = (export / "chat.jsonl").read_text().splitlines()
    assert len(lines) == rounds[-1]["distil"]["rows"]["chat.jsonl"] > 0
    page = out.with_suffix(".html").read_text()
    assert page.startswith("<!doctype html>")
    assert page.count("<svg") == 2


def answer(seen: Seen) -> Reply:
    """A model that gives the first source it reads back, and cites it."""
    texts = [one["content"] for one in seen.body["messages"] if one["role"] == "system"]
    found = re.search(r"^\[(\d+)\] \S+: (.*)$", texts[0], re.MULTILINE) if texts else None
    content = f"{found[2]} [{found[1]}]" if found else "yes"
    return json_reply({"choices": [{"message": {"content": content}, "finish_reason": "stop"}]})


@pytest.mark.anyio
@pytest.mark.timeout(240)
async def test_a_model_of_the_tier_answers_where_one_is_in_reach(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    async with fake("chat") as model:
        model.replies = [answer] * 1000
        settings = {
            "CHATD__PROVIDERS__SMALL__URL": f'"{model.url}"',
            "MODELS__LOCAL_FAST": '"small/reader"',
        }
        fleet = await asyncio.to_thread(PrivateFleet, (), settings)
        await asyncio.to_thread(fleet.__enter__)
        try:
            gateway = fleet.urls["gateway"]
            places = ("--gateway", gateway, "--out", str(out), "--model", "auto")
            small = ("--rounds", "1", "--topics", "8", "--drafts", "2")
            done = await asyncio.to_thread(run, "--fast", *small, *places)
        finally:
            await asyncio.to_thread(fleet.__exit__, None, None, None)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert "answers by small/reader (tier/local_fast)" in done.stdout
    record = json.loads(out.read_text())
    assert record["rounds"][1]["feed"]["recorded"] > 0
    assert {seen.body["temperature"] for seen in model.seen} == {0}
    # It is asked with what was composed, and with nothing that was in an earlier draft.
    asked = [seen.body["messages"] for seen in model.seen[1:]]
    assert all(messages[-1]["role"] == "user" for messages in asked)
    # One draft of each held-out query before and after; two of each of the eight tasks.
    assert len(asked) == 8 + 8 + 2 * 8


def test_what_cannot_be_run_is_told(tmp_path: Path) -> None:
    missing = run("--dataset", str(tmp_path / "nothing"))
    assert missing.returncode == 2
    assert "is not a folder" in missing.stderr
    absent = run("--fast", "--gateway", "http://127.0.0.1:1")
    assert absent.returncode == 2
    assert "cannot be reached" in absent.stderr
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d", "text": "x"}\n')
    lone = "".join(f'{{"_id": "q{n}", "text": "ask {n}"}}\n' for n in range(6))
    (tmp_path / "queries.jsonl").write_text(lone)
    (tmp_path / "qrels.tsv").write_text("".join(f"q{n}\td\t1\n" for n in range(6)))
    single = run("--dataset", str(tmp_path))
    assert single.returncode == 2
    assert "one query a topic" in single.stderr
