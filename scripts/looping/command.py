"""The command: reads the set, runs the rounds on a fleet, checks, writes the reports."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from scripts.lift.checks import Check
from scripts.lift.edge import EdgeError
from scripts.lift.judged import JudgedSet, JudgedSetError, load_set
from scripts.lift.planning import Plan, make_plan
from scripts.lift.staffing import build_staffing_set
from scripts.looping.answering import STAND_IN, choose_answerer
from scripts.looping.edge import LoopEdge
from scripts.looping.report import describe_loop, render_loop
from scripts.looping.rounds import Loop, Round
from scripts.looping.verdict import check_loop
from scripts.private_fleet import PrivateFleet

ROOT = Path(__file__).resolve().parents[2]
REPORTS = ROOT / "reports" / "loop"
ROUNDS, TOPICS, DRAFTS = 5, 60, 10
FAST_ROUNDS, FAST_TOPICS, FAST_WORKERS, FAST_DRAFTS = 2, 16, 200, 5
MOST_TOKENS = 300
DAEMONS = (
    "gateway", "storaged", "catalogd", "ingestd", "queryd", "vectord", "embedd", "matrixd",
    "observerd", "chatd",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for."""

    fast: bool
    dataset: Path | None
    rounds: int
    topics: int
    drafts: int
    seed: int
    model: str
    references: bool
    gateway: str | None
    out: Path | None
    export: Path | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; gives the exit status."""
    options = _read_options(arguments)
    try:
        judged = _read_set(options)
        for remark in judged.remarks:
            print(f"  note: {remark}")
        plan = plan_rounds(judged, options.seed, options.rounds, options.topics)
        record, checks = run_loop(judged, plan, options)
    except (JudgedSetError, EdgeError) as error:
        print(f"loop: {error}", file=sys.stderr)
        return 2
    except httpx.TransportError as error:
        print(f"loop: the gateway cannot be reached ({error}).", file=sys.stderr)
        return 2
    paths = write_reports(record, options)
    show(record, checks)
    print("  " + "\n  ".join(str(path) for path in paths))
    return 0 if all(check.passed for check in checks) else 1


def plan_rounds(judged: JudgedSet, seed: int, rounds: int, topics: int) -> Plan:
    """The lift's plan, with further queries of the recorded topics for as many rounds.

    Raises:
        JudgedSetError: there is nothing that could be held out of a recorded topic.
    """
    plan = make_plan(judged, seed, rounds, topics)
    if not plan.held:
        raise JudgedSetError(
            f"{judged.name} has one query a topic, so none can be held out of a topic that is "
            "worked on. Give queries that ask for the same a common topic."
        )
    grouped = judged.group_topics()
    recorded = {
        topic: [
            *queries,
            *(q for q in grouped[topic] if q not in queries and q != plan.held[topic]),
        ][:rounds]
        for topic, queries in plan.recorded.items()
    }
    return replace(plan, recorded=recorded)


def run_loop(judged: JudgedSet, plan: Plan, options: Options) -> tuple[dict[str, Any], list[Check]]:
    """All rounds on one fleet; gives the report and the checks."""
    begun = time.monotonic()
    say = _make_say(begun)
    rounds: list[Round] = []
    with _open_fleet(options) as fleet:
        address = options.gateway or (fleet.urls["gateway"] if fleet else "")
        token = os.environ.get("LAKEHOUSE_TOKEN", "")
        edge = LoopEdge(address, token, f"loop-{secrets.token_hex(4)}")
        loop: Loop | None = None
        try:
            answer, answered_by = choose_answerer(edge, options.model, MOST_TOKENS)
            say(f"answers by {answered_by}; building the corpora of {judged.name}")
            edge.build_corpora(judged.documents)
            loop = Loop(
                edge,
                judged,
                plan,
                answer,
                say,
                references=options.references,
                drafts=options.drafts,
            )
            rounds.append(loop.start())
            for number in range(1, options.rounds + 1):
                rounds.append(loop.run_round(number))
            if options.export:
                _write_export(loop.files, options.export)
        finally:
            if fleet is None:
                _clear(edge, loop)
            edge.close()
    checks = check_loop(rounds)
    facts = {
        "seed": options.seed,
        "rounds": options.rounds,
        "drafts": options.drafts,
        "topics": len(plan.recorded),
        "held_out_queries": len(plan.held),
        "unseen_queries": len(plan.unseen),
        "answered_by": answered_by,
        "feedback": (
            "known good answers beside the one it judges, never that one"
            if options.references
            else "retrieved texts alone"
        ),
        "fast": options.fast,
        "elapsed_s": time.monotonic() - begun,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return describe_loop(judged, facts, rounds, checks), checks


def write_reports(record: dict[str, Any], options: Options) -> list[Path]:
    """Writes the JSON and the page beside it; gives where."""
    name = record["set"]["name"].replace("/", "-").replace(" ", "-").lower()
    parts = [name, f"seed{options.seed}", "" if options.references else "evidence"]
    stem = "-".join(part for part in [*parts, "fast" if options.fast else ""] if part)
    path = (options.out or REPORTS / f"loop-{stem}.json").with_suffix(".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    pages = {
        path: json.dumps(record, indent=1) + "\n",
        path.with_suffix(".html"): render_loop(record),
    }
    for file, text in pages.items():
        staged = file.with_name(file.name + ".part")
        staged.write_text(text, "utf-8")
        staged.replace(file)
    return list(pages)


def show(record: dict[str, Any], checks: Sequence[Check]) -> None:
    """Prints the rounds and the checks."""
    run = record["run"]
    print(f"\n  loop on {record['set']['name']}: answers by {run['answered_by']}")
    for one in record["rounds"]:
        held, right = one["held"], one["answers"]["right"]
        line = (
            f"  round {one['number']}: held-out nDCG@10 {held['after']:.3f} "
            f"({held['delta']:+.4f} [{held['low']:+.4f}, {held['high']:+.4f}]), "
            f"control {held['before']:.3f}, right answers {right:.0%}"
        )
        if one["feed"]:
            line += f", {one['tasks']['accepted']} accepted, {one['feed']['recorded']} recorded"
            line += f", drift {one['drift']['verdict']}"
        print(line)
    width = max(len(check.name) for check in checks)
    for check in checks:
        mark = "ok  " if check.passed else "MISS"
        missed = f"  missed by {check.missed_by}" if check.missed_by else ""
        note = f"  ({check.note})" if check.note else ""
        print(f"  {mark} {check.name.ljust(width)}  {check.value}  {check.wanted}{missed}{note}")


def _read_options(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(
        prog="loop", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--fast", action="store_true", help="two rounds of a small staffing set")
    parser.add_argument("--dataset", type=Path, help="a folder with a judged set in BEIR's layout")
    parser.add_argument("--rounds", type=int, help=f"({ROUNDS}; --fast: {FAST_ROUNDS})")
    parser.add_argument("--topics", type=int, help=f"worked on ({TOPICS}; --fast: {FAST_TOPICS})")
    parser.add_argument(
        "--drafts",
        type=int,
        help="of an answer for each task, each from sources that none before was made from\n"
        f"({DRAFTS}; --fast: {FAST_DRAFTS})",
    )
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument(
        "--model",
        help="who answers: a model or tier, 'stand-in', or 'auto' (the tier local_fast where it\n"
        "answers, else the stand-in); default auto, with --fast the stand-in",
    )
    parser.add_argument(
        "--feedback",
        choices=("references", "evidence"),
        default="references",
        help="what the scorer sees beside the answer: known good answers too, or retrieved\n"
        "texts alone, as where nobody has labels (references)",
    )
    parser.add_argument("--gateway", help="an address; otherwise a fleet of its own is started")
    parser.add_argument("--out", type=Path, help="where the JSON goes; the HTML goes beside it")
    parser.add_argument("--export", type=Path, help="a folder for the training data of all rounds")
    found = parser.parse_args(arguments)
    fast = found.fast
    options = Options(
        fast=fast,
        dataset=found.dataset,
        rounds=found.rounds or (FAST_ROUNDS if fast else ROUNDS),
        topics=found.topics or (FAST_TOPICS if fast else TOPICS),
        drafts=found.drafts or (FAST_DRAFTS if fast else DRAFTS),
        seed=found.seed,
        model=found.model or (STAND_IN if fast else "auto"),
        references=found.feedback == "references",
        gateway=found.gateway,
        out=found.out,
        export=found.export,
    )
    if options.rounds < 1 or options.topics < 2 or options.drafts < 1:
        parser.error("--rounds and --drafts must be at least 1, --topics at least 2")
    return options


def _read_set(options: Options) -> JudgedSet:
    if options.dataset:
        return load_set(options.dataset)
    return build_staffing_set(workers=FAST_WORKERS) if options.fast else build_staffing_set()


def _open_fleet(options: Options) -> AbstractContextManager[PrivateFleet | None]:
    return nullcontext(None) if options.gateway else PrivateFleet(DAEMONS)


def _write_export(files: dict[str, str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        staged = folder / f"{name}.part"
        staged.write_bytes(text.encode())
        staged.replace(folder / name)


def _clear(edge: LoopEdge, loop: Loop | None) -> None:
    try:
        if loop is not None:
            edge.retire_fed(sorted(loop.recorded))
            edge.freeze(loop.refiner, "the loop that it belonged to has ended")
        edge.drop_corpora()
    except (EdgeError, httpx.TransportError) as error:
        print(f"loop: not everything could be taken back: {error}", file=sys.stderr)


def _make_say(begun: float) -> Callable[[str], None]:
    def say(what: str) -> None:
        if sys.stderr.isatty() or os.environ.get("LAKEHOUSE_LIFT_PROGRESS"):
            print(f"  {time.monotonic() - begun:6.1f} s  {what}", file=sys.stderr, flush=True)

    return say
