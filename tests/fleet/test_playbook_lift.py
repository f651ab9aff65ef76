"""The gate end to end: a fleet of its own, recordings and searches through the gateway."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from scripts.lift import command
from scripts.lift.checks import at_least
from scripts.lift.command import FAST_WORKERS
from scripts.lift.staffing import build_staffing_set
from scripts.private_fleet import PrivateFleet
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
    for arguments, told in (
        (("--gateway", "http://[bad"), "cannot be reached"),
        (("--out", str(tmp_path)), "is a folder"),
        (("--out", "/proc/nowhere/out.json"), "cannot be written"),
        (("--merging",), "leave --fast out"),
        (("--topics", "0"), "--topics be at least 2"),
        (("--far", "0"), "--far above 0"),
    ):
        done = run("--fast", *arguments)
        assert done.returncode == 2, done.stdout
        assert told in done.stderr
        assert "Traceback" not in done.stderr
    assert "Exit status: 0" in run("--help").stdout


def test_a_report_that_cannot_be_written_in_the_end_is_no_open_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check = at_least("c", 1.0, 0.0)
    judged = build_staffing_set(workers=FAST_WORKERS)
    monkeypatch.setattr(command, "run_gate", lambda *_: (judged, {}, [check]))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command, "write_reports", fail)
    assert command.main(["--fast", "--out", str(tmp_path / "x.json")]) == 2
    shown = capsys.readouterr()
    assert "1 of 1 checks pass" in shown.out
    assert "No space left" in shown.err


@pytest.mark.timeout(120)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_told_to_end_it_takes_back_what_it_recorded_elsewhere(
    tmp_path: Path, how: signal.Signals
) -> None:
    names = ("gateway", "storaged", "catalogd", "queryd", "vectord", "embedd", "fake_ollama")
    settings = {"EMBEDD__DEFAULT_MODEL": "fake"}
    with (
        PrivateFleet((*names, "matrixd"), settings) as fleet,
        httpx.Client(base_url=fleet.urls["gateway"], trust_env=False, timeout=30) as client,
    ):
        process = subprocess.Popen(
            [
                *(sys.executable, str(SCRIPT), "--fast", "--gateway", fleet.urls["gateway"]),
                *("--out", str(tmp_path / "out.json")),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 60
        while not client.get("/v1/matrix/playbook").json()["total"]:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(how)
        _, told = process.communicate(timeout=60)
        assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[how], told
        assert client.get("/v1/matrix/playbook").json()["episodes"] == []
        assert client.get("/v1/matrix/corpora").json()["corpora"] == []
        assert client.get("/v1/storage/objects", params={"prefix": "lift-"}).json()["objects"] == []
        assert "Traceback" not in told


@pytest.mark.timeout(120)
@pytest.mark.parametrize("times", [1, 40], ids=["once", "again and again"])
def test_broken_off_it_leaves_no_fleet(tmp_path: Path, times: int) -> None:
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), "--fast", "--out", str(tmp_path / "out.json")],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60

    def read_daemons() -> list[int]:
        for state in tmp_path.glob("lakehouse-*/run/fleet.json"):
            try:
                daemons = json.loads(state.read_text())["daemons"].values()
            except (OSError, ValueError):
                continue
            return [daemon["pid"] for daemon in daemons if daemon["pid"]]
        return []

    while len(pids := read_daemons()) < 8:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for _ in range(times):
        if not list(tmp_path.glob("lakehouse-*")):
            break
        # As a terminal does: to all that stands in the foreground.
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.02)
    _, told = process.communicate(timeout=60)
    assert process.returncode != 0
    assert not list(tmp_path.glob("lakehouse-*"))
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    if times == 1:
        assert process.returncode == 130
        assert "broken off" in told
        assert "Traceback" not in told
