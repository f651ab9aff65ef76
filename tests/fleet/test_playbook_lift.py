"""The gate end to end: a fleet of its own, recordings and searches through the gateway."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from shared.daemons import ROOT

SCRIPT = ROOT / "scripts" / "playbook_lift"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.timeout(240)
def test_a_small_set_in_two_corpora_is_judged_and_reported(tmp_path: Path) -> None:
    words = "oak pine elm fig ash yew fir gum bay box".split()
    documents = [
        {"_id": f"d{n}", "text": f"how to care for the {word} tree", "corpus": "ab"[n % 2]}
        for n, word in enumerate(words)
    ]
    queries = [
        {"_id": f"q{n}-{m}", "text": ask.format(word), "topic": word}
        for n, word in enumerate(words)
        for m, ask in enumerate(("looking after {}", "my {} is ill", "{} needs what?"))
    ]
    for name, records in (("corpus.jsonl", documents), ("queries.jsonl", queries)):
        (tmp_path / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    lines = [f"q{n}-{m}\td{n}\t1\n" for n in range(len(words)) for m in range(3)]
    (tmp_path / "qrels.tsv").write_text("".join(lines))
    out = tmp_path / "out.json"
    done = run("--fast", "--dataset", str(tmp_path), "--far", "5", "--out", str(out))
    assert done.returncode in (0, 1), done.stdout + done.stderr
    record = json.loads(out.read_text())
    assert record["passed"] is (done.returncode == 0)
    assert record["set"]["corpora"] == 2
    exact = {"retired differ": 0, "recovery differ": 0, "restart differ": 0}
    assert exact.items() <= record["counts"].items()
    assert record["counts"]["recovery moved"] > 0
    assert {"cache", "popularity", "kNN vote", "Rocchio"} == set(record["baselines"])
    assert out.with_suffix(".html").read_text().startswith("<!doctype html>")


def test_what_cannot_be_run_is_told(tmp_path: Path) -> None:
    missing = run("--dataset", str(tmp_path / "nothing"))
    assert missing.returncode == 2
    assert "is not a folder" in missing.stderr
    absent = run("--fast", "--gateway", "http://127.0.0.1:1")
    assert absent.returncode == 2
    assert "cannot be reached" in absent.stderr
    wrong = run("--seeds", "one")
    assert wrong.returncode == 2
    assert "--seeds takes whole numbers" in wrong.stderr
