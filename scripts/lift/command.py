"""The command: reads the set, runs the seeds, checks, writes the reports."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx

from scripts.lift.asking import TIER, Trust, asker, judge_queries, read_queries
from scripts.lift.baselines import compare_baselines
from scripts.lift.checks import Check, check_all, compare_arms
from scripts.lift.edge import Edge, EdgeError
from scripts.lift.far import list_far_queries
from scripts.lift.judged import JudgedSet, JudgedSetError, load_set
from scripts.lift.latency import time_playbook
from scripts.lift.measures import Comparison
from scripts.lift.merging import (
    RECORDED,
    RUNS,
    Means,
    Merging,
    average_seeds,
    check_merging,
    plan_merging,
)
from scripts.lift.planning import Plan, make_plan
from scripts.lift.report import describe_run, render_html
from scripts.lift.staffing import build_staffing_set
from scripts.lift.trial import Outcome, Trial
from scripts.private_fleet import FleetError, PrivateFleet

ABOUT = """\
Does recording what worked make later searches better, and harm none? The gate.

Records judged searches through a gateway (one of its own, unless --gateway names another),
searches again, and writes a JSON and an HTML report. Exit status: 0 every check passes,
1 one is missed, 2 the run was not possible."""

Each = TypeVar("Each")
ROOT = Path(__file__).resolve().parents[2]
REPORTS = ROOT / "reports" / "reality-tests"
# Parameters were looked for with the first two seeds; the report is on the other three.
SEEDS = (1, 2, 3, 4, 5)
TUNED_ON = (1, 2)
RESTART_WAIT_S = 60.0
TOPICS = 60
# The quick check: fewer documents, topics and far-off queries.
FAST_WORKERS, FAST_TOPICS, FAST_FAR = 200, 16, 24


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for."""

    fast: bool
    dataset: Path | None
    seeds: tuple[int, ...]
    out: Path | None
    gateway: str | None
    topics: int
    far: int
    queries: Path | None = None
    judge: str = TIER
    merging: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; gives the exit status."""
    options = _read_options(arguments)
    ours = threading.current_thread() is threading.main_thread()
    if ours and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        # Told to end, it takes back what it recorded, as when it is broken off.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        _check_out(options)
        judged = _read_set(options)
        for remark in judged.remarks:
            print(f"  note: {remark}")
        plain = read_queries(options.queries) if options.queries else []
        judged, record, checks = run_gate(judged, plain, options)
    except (JudgedSetError, EdgeError, FleetError) as error:
        print(f"playbook_lift: {error}", file=sys.stderr)
        return 2
    except (httpx.TransportError, httpx.InvalidURL) as error:
        print(f"playbook_lift: the gateway cannot be reached ({error}).", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("playbook_lift: broken off; there is no report.", file=sys.stderr)
        return 130
    show_checks(judged, checks)
    try:
        paths = write_reports(record, options)
    except OSError as error:
        print(f"playbook_lift: the reports cannot be written: {error}", file=sys.stderr)
        return 2
    print("  " + "\n  ".join(_relative(path) for path in paths))
    return 0 if all(check.passed for check in checks) else 1


def run_gate(
    judged: JudgedSet, plain: Sequence[str], options: Options
) -> tuple[JudgedSet, dict[str, Any], list[Check]]:
    """Runs all seeds on one fleet; gives the set, the report and the checks.

    With `plain` queries the set's documents are searched for those, as a model judges them.
    """
    begun = time.monotonic()
    full = not options.fast
    far = list(judged.far) or list_far_queries()
    far = far[: options.far or None]
    # Before anything is started: a set that is too small is told at once.
    plans = _make_plans(judged, options) if not plain and not options.merging else []
    gap = judged.demands.get("oracle_gap") if len(judged.corpora) > 1 and not plain else None
    if options.merging and gap is None:
        raise JudgedSetError(
            "--merging needs a set of several corpora whose set.json has an oracle_gap."
        )
    mergings = [
        plan_merging(judged, seed) for seed in (options.seeds if gap is not None and full else ())
    ]
    merged: list[dict[str, Means]] = []
    trust: Trust | None = None
    outcomes: list[Outcome] = []
    baselines: dict[str, dict[str, Comparison]] = {}
    latency: dict[str, float] = {}
    trial: Trial | None = None
    with _open_fleet(options) as fleet:
        address, token, restart = _find_gateway(fleet, options)
        edge = Edge(address, token, f"lift-{secrets.token_hex(4)}")
        try:
            say = _make_say(begun)
            say(f"building {len(judged.corpora)} corpora of {len(judged.documents)} documents")
            edge.build_corpora(judged.documents)
            if plain and options.queries:
                say(f"{options.judge} judges {len(plain)} queries")
                ask = asker(edge, options.judge)
                name = options.queries.stem
                judged, trust = judge_queries(edge, judged, plain, name, options.judge, ask)
                for remark in judged.remarks:
                    print(f"  note: {remark}")
                plans = _make_plans(judged, options)
            if restart is not None:
                restart = _restart_and_wait(restart, edge)
            for plan in plans:
                trial = Trial(
                    edge,
                    judged,
                    plan,
                    far if plan is plans[0] else (),
                    lambda what, seed=plan.seed: say(f"seed {seed}: {what}"),
                    restart=restart if plan is plans[0] else None,
                    full=full,
                )
                outcomes.append(trial.run())
            for seed, merging in zip(options.seeds, mergings, strict=False):
                say(f"seed {seed}: merged corpora")
                run = Merging(edge, judged, merging, seed)
                merged.append(run.run(far if not merged else ()))
            if trial is not None:
                say("baselines and latency")
                baselines = compare_baselines(trial, min(2, plans[-1].sizes[-1]))
                latency = time_playbook(trial) if full else {}
        finally:
            _clear(edge, owned=fleet is not None)
            edge.close()
    reported = _choose_reported(options.seeds, outcomes) if outcomes else []
    arms = compare_arms(reported)
    checks = check_all(judged, reported, arms, latency.get("p95_ms")) if outcomes else []
    added = [each for outcome in outcomes for each in outcome.added_ms]
    if added:
        latency["through the gateway, mean added ms"] = sum(added) / len(added)
    facts: dict[str, Any] = {
        "tuned_on": [seed for seed in options.seeds if seed in TUNED_ON],
        "reported_seeds": [s for s in options.seeds if s not in TUNED_ON] or list(options.seeds),
        "topics_recorded": len(plans[0].recorded) if plans else RECORDED * len(judged.corpora),
        "sizes": list(plans[0].sizes) if plans else list(range(1, RUNS + 1)),
        "fast": options.fast,
        "elapsed_s": time.monotonic() - begun,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if trust is not None:
        facts["judge"] = {**asdict(trust), "coverage": trust.coverage}
    if merged and gap is not None:
        means = average_seeds(_choose_reported(options.seeds, merged))
        facts["merged"] = means
        checks += check_merging(means, gap)
    record = describe_run(judged, options.seeds, reported, arms, checks, baselines, latency, facts)
    return judged, record, checks


def _make_plans(judged: JudgedSet, options: Options) -> list[Plan]:
    most = 2 if options.fast else 8
    return [make_plan(judged, seed, most, options.topics) for seed in options.seeds]


def _check_out(options: Options) -> None:
    """Passes when a report can be written: better told now than after an hour."""
    folder = options.out.parent if options.out else REPORTS
    try:
        if options.out is not None and options.out.is_dir():
            raise JudgedSetError(f"--out {options.out} is a folder; it takes the JSON's file name.")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise JudgedSetError(
            f"Reports cannot be written to {folder} ({error.strerror}). Name another by --out."
        ) from None


def write_reports(record: dict[str, Any], options: Options) -> list[Path]:
    """Writes the JSON and the page beside it; gives where."""
    name = record["set"]["name"].replace("/", "-").replace(" ", "-").lower()
    suffix = "-fast" if options.fast else ""
    path = options.out or REPORTS / f"playbook_lift-{name}{suffix}.json"
    path = path if path.suffix == ".json" else path.with_suffix(".json")
    page = path.with_suffix(".html")
    path.parent.mkdir(parents=True, exist_ok=True)
    for file, text in ((path, json.dumps(record, indent=1) + "\n"), (page, render_html(record))):
        staged = file.with_name(file.name + ".part")
        staged.write_text(text, "utf-8")
        staged.replace(file)
    return [path, page]


def show_checks(judged: JudgedSet, checks: Sequence[Check]) -> None:
    """Prints each check, and at the end what is missed and by how much."""
    print(f"\n  playbook_lift on {judged.name}")
    width = max(len(check.name) for check in checks)
    for check in checks:
        mark = "ok  " if check.passed else "MISS"
        note = f"  ({check.note})" if check.note else ""
        missed = f"  missed by {check.missed_by}" if check.missed_by else ""
        line = f"{check.name.ljust(width)}  {check.value:>8}  {check.wanted}{missed}{note}"
        print(f"  {mark} {line}")
    missed = [check for check in checks if not check.passed]
    told = "; ".join(f"{check.name} by {check.missed_by}" for check in missed)
    print(f"\n  {len(checks) - len(missed)} of {len(checks)} checks pass.", end=" ")
    print(f"Missed: {told}." if missed else "The gate is open.")


def _read_options(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(
        prog="playbook_lift", description=ABOUT, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--fast", action="store_true", help="one seed, the short list of arms")
    parser.add_argument("--dataset", type=Path, help="a folder with a judged set in BEIR's layout")
    parser.add_argument("--seeds", help="seeds, such as 1,2 (default: 1,2,3,4,5; --fast: 3)")
    parser.add_argument("--out", type=Path, help="where the JSON goes; the HTML goes beside it")
    parser.add_argument(
        "--queries", type=Path, help="plain queries, one a line: judged by a model, no labels"
    )
    parser.add_argument("--judge", default=TIER, help=f"the model that judges them ({TIER})")
    parser.add_argument("--gateway", help="an address; otherwise a fleet of its own is started")
    parser.add_argument("--topics", type=int, help="topics recorded per seed (60; --fast: 16)")
    parser.add_argument("--far", type=int, help="far-off queries (all; --fast: 24)")
    parser.add_argument(
        "--merging", action="store_true", help="only how corpora of different content are merged"
    )
    found = parser.parse_args(arguments)
    if found.merging and found.fast:
        parser.error("--merging takes all of its runs: leave --fast out")
    try:
        default = (3,) if found.fast else SEEDS
        seeds = tuple(int(each) for each in found.seeds.split(",")) if found.seeds else default
    except ValueError:
        parser.error("--seeds takes whole numbers with commas between, such as 1,2")
    topics = (FAST_TOPICS if found.fast else TOPICS) if found.topics is None else found.topics
    far = (FAST_FAR if found.fast else 0) if found.far is None else found.far
    if len(set(seeds)) != len(seeds) or topics < 2 or (found.far is not None and far < 1):
        parser.error("seeds must differ, --topics be at least 2 and --far above 0")
    return Options(
        found.fast,
        found.dataset,
        seeds,
        found.out,
        found.gateway,
        topics,
        far,
        found.queries,
        found.judge,
        found.merging,
    )


def _read_set(options: Options) -> JudgedSet:
    if options.dataset:
        return load_set(options.dataset, labels=options.queries is None)
    return build_staffing_set(workers=FAST_WORKERS) if options.fast else build_staffing_set()


def _open_fleet(options: Options) -> AbstractContextManager[PrivateFleet | None]:
    if options.gateway:
        return nullcontext(None)
    return PrivateFleet()


def _find_gateway(
    fleet: PrivateFleet | None, options: Options
) -> tuple[str, str, Callable[[], object] | None]:
    token = os.environ.get("LAKEHOUSE_TOKEN", "")
    if fleet is None:
        return options.gateway or "", token, None
    return fleet.urls["gateway"], token, lambda: _restart(fleet)


def _restart(fleet: PrivateFleet) -> None:
    done: subprocess.CompletedProcess[str] = fleet.command("restart", "matrixd")
    if done.returncode:
        raise EdgeError(f"matrixd did not restart: {done.stdout}{done.stderr}")


def _restart_and_wait(restart: Callable[[], object], edge: Edge) -> Callable[[], None]:
    def run() -> None:
        restart()
        edge.wait_ready(RESTART_WAIT_S)

    return run


def _choose_reported(seeds: Sequence[int], outcomes: Sequence[Each]) -> list[Each]:
    fresh = [o for s, o in zip(seeds, outcomes, strict=True) if s not in TUNED_ON]
    return fresh or list(outcomes)


def _clear(edge: Edge, *, owned: bool) -> None:
    if owned:
        return  # the fleet and its data go away as a whole
    try:
        edge.retire_runs()
        edge.drop_corpora()
    except (EdgeError, httpx.TransportError, KeyboardInterrupt) as error:
        print(
            f"playbook_lift: not everything could be taken back ({error or 'broken off'}). "
            f"Corpora, objects and runs of this one begin with {edge.prefix}.",
            file=sys.stderr,
        )


def _make_say(begun: float) -> Callable[[str], None]:
    def say(what: str) -> None:
        if sys.stderr.isatty() or os.environ.get("LAKEHOUSE_LIFT_PROGRESS"):
            print(f"  {time.monotonic() - begun:6.1f} s  {what}", file=sys.stderr, flush=True)

    return say


def _relative(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
