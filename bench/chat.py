"""A chat through gateway and chatd beside the LiteLLM proxy and the provider itself.

    python bench/chat.py [--json FILE] [--seconds 3] [--rounds 3] [--peer-python PATH]

In one run, round by round, the same instant provider (OpenAI's protocol, 1 KB each way) is
asked directly, at chatd's own port, through the gateway, and through the LiteLLM proxy, which
lives in an environment of its own (`--peer-python`, an interpreter that has litellm[proxy]).
"Added" is a subject's latency less that of the provider asked directly. Then 128 streams at
once, memory (PSS), and the time from start to the first answer. Daemons run as shipped: edge,
figures, access log, ledger.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from bench.chat_upstream import EVENTS, KEY, ask_streams, ask_whole, make_request
from bench.gateway_stage import Stage, staged

CLIENTS = (1, 32)
STREAMS = 128
PATH = "/v1/chat/completions"
# The peer takes ten seconds and more to start.
START_S = 120.0


@dataclass
class Subject:
    """Something that answers chats."""

    name: str
    port: int
    model: str
    pids: list[int] = field(default_factory=list)
    start_s: float = 0.0
    p50: dict[int, list[float]] = field(default_factory=dict)
    p99: dict[int, list[float]] = field(default_factory=dict)
    rps: dict[int, list[float]] = field(default_factory=dict)

    def request(self, stream: bool = False) -> bytes:
        """A chat for it."""
        return make_request(self.port, PATH, self.model, stream)

    def middle(self, figure: str, clients: int) -> float:
        """The median of its rounds."""
        return statistics.median(getattr(self, figure)[clients])


def read_pss_mib(pid: int) -> float:
    """Memory of a process and its children, shared pages by their share."""
    total = 0.0
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for each in [pid, *map(int, children)]:
        for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) / 1024
    return total


def wait_answer(subject: Subject, begun: float) -> None:
    """Waits for the first answer, and notes how long it took from the start."""
    deadline = begun + START_S
    while True:
        with contextlib.suppress(OSError, RuntimeError, asyncio.IncompleteReadError, ValueError):
            if asyncio.run(ask_whole(subject.port, subject.request(), 1, 0.001)):
                subject.start_s = time.monotonic() - begun
                return
        if time.monotonic() > deadline or not Path(f"/proc/{subject.pids[0]}/exe").exists():
            raise RuntimeError(f"{subject.name} gave no answer in {START_S:g} s")
        time.sleep(0.01)


def start_ours(stage: Stage, upstream: int) -> tuple[Subject, Subject]:
    """chatd at its own port, and the gateway before it."""
    own, edge = next(stage.ports), next(stage.ports)
    config = stage.folder / "lakehouse.toml"
    config.write_text(
        f"[fleet]\ndata_dir = '{stage.folder}/data'\ndaemons = ['gateway', 'chatd']\n"
        f"[gateway]\nport = {edge}\n[chatd]\nport = {own}\n"
        f"[chatd.providers.bench]\nurl = 'http://127.0.0.1:{upstream}/v1'\nconcurrency = 256\n"
    )
    begun = time.monotonic()
    pids: list[int] = []
    for name, port in (("chatd", own), ("gateway", edge)):
        command = [sys.executable, "-m", f"services.{name}", "--config", str(config)]
        pids.append(stage.start(name, port, command).pid)
    chatd = Subject("chatd", own, "bench/bench", pids[:1])
    both = Subject("gateway+chatd", edge, "bench/bench", pids)
    for subject in (both, chatd):
        wait_answer(subject, begun)
    return chatd, both


def start_peer(stage: Stage, upstream: int, python: str) -> Subject:
    """The LiteLLM proxy, one worker."""
    port = next(stage.ports)
    config = stage.folder / "litellm.yaml"
    config.write_text(
        "model_list:\n  - model_name: bench\n    litellm_params:\n      model: openai/bench\n"
        f"      api_base: http://127.0.0.1:{upstream}/v1\n      api_key: sk-x\n"
        "litellm_settings:\n  telemetry: false\n  num_retries: 2\n"
        f"general_settings:\n  master_key: {KEY}\n"
    )
    command = [str(Path(python).with_name("litellm")), "--config", str(config)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    begun = time.monotonic()
    with (stage.folder / "litellm.log").open("wb") as log:
        environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment,
                                   cwd=stage.folder)  # fmt: skip
    stage.processes.append(process)
    subject = Subject("LiteLLM proxy", port, "bench", [process.pid])
    try:
        wait_answer(subject, begun)
    except RuntimeError:
        print((stage.folder / "litellm.log").read_text("utf-8", "replace")[-3000:])
        raise
    return subject


def measure(subject: Subject, clients: int, seconds: float) -> None:
    """One round of one subject."""
    took = asyncio.run(ask_whole(subject.port, subject.request(), clients, seconds))
    subject.p50.setdefault(clients, []).append(took[len(took) // 2])
    subject.p99.setdefault(clients, []).append(took[len(took) * 99 // 100])
    subject.rps.setdefault(clients, []).append(len(took) / seconds)


def make_rows(direct: Subject, ours: list[Subject], peer: Subject | None) -> list[dict[str, Any]]:
    """The comparisons, each a row of docs/BENCHMARKS.md."""
    rows: list[dict[str, Any]] = []

    def row(figure: str, mine: float, name: str, theirs: float, target: str = "") -> None:
        ratio = round(mine / theirs, 4) if theirs else None
        rows.append({"figure": figure, "ours": round(mine, 3), "peer_name": name,
                     "peer": round(theirs, 3), "ratio": ratio, "target": target})  # fmt: skip

    base = peer or direct
    asked = {"p50": "ours ≤ 1.5, goal 1", "p99": "ours ≤ 5, goal 2"}
    for subject in ours:
        edge = subject.name == "gateway+chatd"
        for clients in CLIENTS:
            at = f"{subject.name}, {clients} client{'s' * (clients > 1)}"
            goal = "≥ 10, goal 15" if edge and peer is not None else ""
            row(f"{at}: chats/s", subject.middle("rps", clients), base.name,
                base.middle("rps", clients), goal)  # fmt: skip
            for figure in ("p50", "p99"):
                floor = direct.middle(figure, clients)
                added = subject.middle(figure, clients) - floor
                if peer is not None:
                    theirs, name = peer.middle(figure, clients) - floor, f"{peer.name} adds"
                else:
                    theirs, name = floor, "the provider itself"
                target = asked[figure] if edge and clients == 1 else ""
                row(f"{at}: added {figure} ms", added, name, theirs, target)
    both = ours[-1]
    arrived, seconds = asyncio.run(ask_streams(both.port, both.request(stream=True), STREAMS))
    wanted = STREAMS * EVENTS
    row(f"frames of {STREAMS} streams through {both.name}", arrived, "sent", wanted, "1")
    floor_s = asyncio.run(ask_streams(direct.port, direct.request(stream=True), STREAMS))[1]
    row(f"seconds of {STREAMS} streams", seconds, "the provider itself", floor_s)
    if peer is not None:
        got, took = asyncio.run(ask_streams(peer.port, peer.request(stream=True), STREAMS))
        row(f"seconds of {STREAMS} streams", seconds, f"{peer.name} ({got}/{wanted})", took)
        row("memory MiB", sum(map(read_pss_mib, both.pids)), peer.name,
            sum(map(read_pss_mib, peer.pids)))  # fmt: skip
        row("start to first answer, s", both.start_s, peer.name, peer.start_s)
    return rows


def main() -> int:
    """Runs it all; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--seconds", type=float, default=3, help="length of a measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each subject")
    parser.add_argument("--peer-python", help="an interpreter that has litellm[proxy]")
    arguments = parser.parse_args()
    with staged() as stage:
        upstream = next(stage.ports)
        command = [sys.executable, "-m", "bench.chat_upstream", str(upstream)]
        stage.start("upstream", upstream, command)
        direct = Subject("the provider itself", upstream, "bench")
        ours = list(start_ours(stage, upstream))
        peer = None
        if arguments.peer_python:
            peer = start_peer(stage, upstream, arguments.peer_python)
        else:
            print("No LiteLLM proxy to compare with: name its interpreter by --peer-python.")
        subjects = [direct, *ours, *([peer] if peer else [])]
        for clients in CLIENTS:
            for subject in subjects:
                asyncio.run(ask_whole(subject.port, subject.request(), clients, 0.5))  # warm
            for _ in range(arguments.rounds):
                for subject in subjects:
                    measure(subject, clients, arguments.seconds)
            for subject in subjects:
                print(
                    f"{subject.name:<20} {clients:>3} clients "
                    f"{subject.middle('rps', clients):>8,.0f} chats/s  "
                    f"p50 {subject.middle('p50', clients):>7.3f} ms  "
                    f"p99 {subject.middle('p99', clients):>7.3f} ms"
                )
        rows = make_rows(direct, ours, peer)
    for row in rows:
        print(
            f"{row['figure']:<52} {row['ours']:>10} {row['peer_name']:>30} {row['peer']:>10} "
            f"ratio {row['ratio']} {row['target']}"
        )
    if arguments.json:
        host = {"cores": os.cpu_count(), "python": platform.python_version(),
                "missing": [] if arguments.peer_python else ["litellm"]}  # fmt: skip
        arguments.json.write_text(json.dumps({"bench": "chat", "host": host, "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
