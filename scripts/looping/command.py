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
from scripts.looping.rounds import Loop
from scripts.looping.tally import Round, pool_rounds
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
    seeds: tuple[int, ...]
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
        plans = [plan_rounds(judged, s, options.rounds, options.topics) for s in options.seeds]
        record, checks = run_loop(judged, plans, options)
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


def run_loop(
    judged: JudgedSet, plans: Sequence[Plan], options: Options
) -> tuple[dict[str, Any], list[Check]]:
    """All seeds one after another on one fleet; gives the report and the checks."""
    begun = time.monotonic()
    say = _make_say(begun)
    by_seed: list[list[Round]] = []
    with _open_fleet(options) as fleet:
        address = options.gateway or (fleet.urls["gateway"] if fleet else "")
        token = os.environ.get("LAKEHOUSE_TOKEN", "")
        edge = LoopEdge(address, token, f"loop-{secrets.token_hex(4)}")
        try:
            answer, answered_by = choose_answerer(edge, options.model, MOST_TOKENS)
            say(f"answers by {answered_by}; building the corpora of {judged.name}")
            edge.build_corpora(judged.documents)
            for plan in plans:
                loop = Loop(
                    edge,
                    judged,
                    plan,
                    answer,
                    lambda what, seed=plan.seed: say(f"seed {seed}, {what}"),
                    references=options.references,
                    drafts=options.drafts,
                )
                try:
                    rounds = [loop.start()]
                    rounds += [loop.run_round(n) for n in range(1, options.rounds + 1)]
                finally:
                    # Each seed begins with nothing learnt, and a given gateway is left clean.
                    _forget(edge, loop)
                by_seed.append(rounds)
                if options.export:
                    _write_export(loop.files, options.export)
        finally:
            if fleet is None:
                _try(edge.drop_corpora)
            edge.close()
    pooled = pool_rounds(by_seed)
    checks = check_loop(pooled)
    facts = {
        "seeds": [plan.seed for plan in plans],
        "rounds": options.rounds,
        "drafts": options.drafts,
        "topics": len(plans[0].recorded),
        "held_out_queries": len(plans[0].held),
        "unseen_queries": len(plans[0].unseen),
        "answered_by": answered_by,
        "feedback": (
            "known good answers beside the one it judges, never that one"
            if options.references
            else "what searches with the question and with the answer bring up, and no labels"
        ),
        "fast": options.fast,
        "per_seed": [[one.compare("held").delta for one in rounds] for rounds in by_seed],
        "elapsed_s": time.monotonic() - begun,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return describe_loop(judged, facts, pooled, checks), checks


def write_reports(record: dict[str, Any], options: Options) -> list[Path]:
    """Writes the JSON and the page beside it; gives where."""
    name = record["set"]["name"].replace("/", "-").replace(" ", "-").lower()
    parts = [name, "" if options.references else "evidence", "fast" if options.fast else ""]
    stem = "-".join(part for part in parts if part)
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
        held, answers = one["held"], one["answers"]
        line = (
            f"  round {one['number']}: held-out nDCG@10 {held['after']:.3f} "
            f"({held['delta']:+.4f} [{held['low']:+.4f}, {held['high']:+.4f}]), "
            f"control {held['before']:.3f}; answers {answers['right'] / answers['asked']:.0%} "
            f"right, {answers['accepted'] / answers['asked']:.0%} accepted"
        )
        if one["feed"]:
            line += f"; {one['feed']['recorded']} of {one['feed']['offered']} runs recorded"
            line += f", drift {', '.join(one['drift']['verdicts'])}"
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
    parser.add_argument("--seeds", default="3", help="such as 3,4,5; pooled (3)")
    parser.add_argument(
        "--model",
        help="who answers: a model or tier, 'stand-in', or 'auto' (the tier local_fast where it\n"
        "answers, else the stand-in); default auto, with --fast the stand-in",
    )
    parser.add_argument(
        "--feedback",
        choices=("references", "evidence"),
        default="references",
        help="what the scorer sees beside the answer: known good answers, or only what searches\n"
        "with question and answer bring up, as where nobody has labels (references)",
    )
    parser.add_argument("--gateway", help="an address; otherwise a fleet of its own is started")
    parser.add_argument("--out", type=Path, help="where the JSON goes; the HTML goes beside it")
    parser.add_argument("--export", type=Path, help="a folder for the training data of all rounds")
    found = parser.parse_args(arguments)
    fast = found.fast
    try:
        seeds = tuple(int(each) for each in found.seeds.split(","))
    except ValueError:
        parser.error("--seeds takes whole numbers with commas between, such as 3,4")
    options = Options(
        fast=fast,
        dataset=found.dataset,
        rounds=found.rounds or (FAST_ROUNDS if fast else ROUNDS),
        topics=found.topics or (FAST_TOPICS if fast else TOPICS),
        drafts=found.drafts or (FAST_DRAFTS if fast else DRAFTS),
        seeds=seeds,
        model=found.model or (STAND_IN if fast else "auto"),
        references=found.feedback == "references",
        gateway=found.gateway,
        out=found.out,
        export=found.export,
    )
    if len(set(seeds)) < len(seeds):
        parser.error("--seeds must differ")
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


def _forget(edge: LoopEdge, loop: Loop) -> None:
    _try(lambda: edge.retire_fed(sorted(loop.recorded)))
    _try(lambda: edge.freeze(loop.refiner, "the loop that it belonged to has ended"))
    _try(edge.reset_tuning)


def _try(work: Callable[[], object]) -> None:
    """Takes something back; where that fails it is told, and the rest goes on."""
    try:
        work()
    except (EdgeError, httpx.TransportError) as error:
        print(f"loop: not everything could be taken back: {error}", file=sys.stderr)


def _make_say(begun: float) -> Callable[[str], None]:
    def say(what: str) -> None:
        if sys.stderr.isatty() or os.environ.get("LAKEHOUSE_LIFT_PROGRESS"):
            print(f"  {time.monotonic() - begun:6.1f} s  {what}", file=sys.stderr, flush=True)

    return say
