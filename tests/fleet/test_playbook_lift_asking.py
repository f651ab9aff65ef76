"""Plain queries through the whole edge: searched, judged by the local_judge tier, recorded."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.private_fleet import PrivateFleet
from shared.daemons import ROOT
from tests.support.providers import Reply, Seen, fake, json_reply

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

WORDS = "oak pine elm fig ash yew fir gum bay box".split()


def judge(seen: Seen) -> Reply:
    """A judge that goes by the tree's name, and is wrong about box."""
    question = seen.body["messages"][1]["content"]
    query, _, rest = question.partition("\n\n")
    texts = re.findall(r"Document \d+:\n([^\n]*)", rest)
    said = [
        {"document": n, "relevant": any(f" {w}" in f" {query}" and w in text for w in WORDS[:-1])}
        for n, text in enumerate(texts, 1)
    ]
    content = json.dumps({"ratings": said})
    return json_reply({"choices": [{"message": {"content": content}, "finish_reason": "stop"}]})


async def test_the_owners_queries_are_judged_by_the_tier(tmp_path: Path) -> None:
    documents = [{"_id": f"d{w}", "text": f"how to care for the {w} tree"} for w in WORDS]
    known = [{"_id": f"k{w}", "text": f"looking after {w}", "topic": w} for w in WORDS]
    for name, records in (("corpus.jsonl", documents), ("queries.jsonl", known)):
        (tmp_path / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "qrels.tsv").write_text("".join(f"k{w}\td{w}\t1\n" for w in WORDS))
    own = tmp_path / "own.txt"
    own.write_text("".join(f"is my {w} healthy\n" for w in WORDS[:8]) + "where is the moon\n")
    out = tmp_path / "out.json"
    async with fake("chat") as model:
        model.replies = [judge] * 1000
        settings = {
            "CHATD__PROVIDERS__JUDGE__URL": f'"{model.url}"',
            "MODELS__LOCAL_JUDGE": '"judge/words"',
        }
        fleet = await asyncio.to_thread(PrivateFleet, (), settings)
        await asyncio.to_thread(fleet.__enter__)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(ROOT / "scripts" / "playbook_lift"),
                *("--fast", "--far", "5", "--gateway", fleet.urls["gateway"]),
                *("--dataset", str(tmp_path), "--queries", str(own), "--out", str(out)),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            shown, _ = await process.communicate()
        finally:
            await asyncio.to_thread(fleet.__exit__, None, None, None)
    text = shown.decode()
    assert process.returncode in (0, 1), text
    assert "judge tier/local_judge: coverage 100%" in text
    assert "1 of 9 queries have no relevant document" in text
    record: dict[str, Any] = json.loads(out.read_text())
    found = record["run"]["judge"]
    assert found["coverage"] == 1.0
    # Right about nine trees of ten.
    assert 0.85 < found["kappa"] < 1.0
    assert found["low"] <= found["kappa"] <= found["high"]
    assert record["set"]["name"] == "own"
    assert record["set"]["topics"] == 8
    assert {seen.body["model"] for seen in model.seen} == {"words"}
    assert {seen.body["temperature"] for seen in model.seen} == {0}
