"""The command: draws, asks, appends what was found to the chain of audits, and tells it."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from scripts.auditing.judging import AuditError, Gateway, Reading
from scripts.auditing.sampling import ACCEPTED, DECIDED, Case, draw_sample, find_audited, read_cases

TIER = "frontier_review"
SIZE = 30
# Share of the sample that has to be read for the audit to say something.
COVERAGE = 0.9
# After so many failures at the start nobody is asked any more.
FAILURES = 3


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for."""

    gateway: str
    size: int
    seed: int
    tier: str
    decided: bool
    after: int
    out: Path | None
    lineage: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; gives the exit status."""
    options = _read_options(arguments)
    token = os.environ.get("LAKEHOUSE_TOKEN", "")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    client = httpx.Client(base_url=options.gateway, headers=headers, timeout=60, trust_env=False)
    with client:
        gateway = Gateway(client)
        try:
            if options.lineage:
                return show_lineage(gateway.list_baselines())
            return run_audit(gateway, options)
        except AuditError as error:
            print(f"audit: {error}", file=sys.stderr)
        except httpx.TransportError as error:
            print(f"audit: {options.gateway} cannot be reached ({error}).", file=sys.stderr)
    return 2


def run_audit(gateway: Gateway, options: Options) -> int:
    """Draws and judges a sample, and appends the agreement.

    Raises:
        AuditError: the tier cannot be asked, or nothing can be audited.
    """
    model = gateway.check_tier(options.tier)
    cases = read_cases(gateway.list_events(options.after), DECIDED if options.decided else ACCEPTED)
    if not cases:
        raise AuditError(
            "No run can be audited: none was accepted, or none kept the evidence it rests on. "
            "Send runs with their evidence to POST /v1/observer/distillation/feed."
        )
    drawn = draw_sample(cases, options.size, options.seed)
    audited = find_audited(gateway.list_baselines()["baselines"], f"tier/{options.tier}")
    fresh = [case for case in drawn if case.run not in audited]
    print(
        f"  {len(drawn)} of {len(cases)} runs drawn by seed {options.seed}, "
        f"{len(drawn) - len(fresh)} of them audited before"
    )
    if not fresh:
        print("  Nothing is left to audit in this sample; raise --size or take another --seed.")
        return 0
    print(f"  tier/{options.tier} ({model}) judges {len(fresh)}")
    readings = judge_all(gateway, options.tier, fresh)
    added = [
        gateway.add_baseline(body)
        for body in make_entries(readings, options, population=len(cases))
    ]
    for entry in added:
        show_entry(entry)
    for reading in readings:
        if reading.verdict is None:
            print(f"  unread {reading.case.run}: {reading.problem}")
    if not options.decided:
        print(
            "  Only accepted runs were drawn, so kappa has one side and says little; read AC1 and "
            "the share upheld, or draw with --verdicts decided."
        )
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(added, indent=1) + "\n", "utf-8")
    read = sum(reading.verdict is not None for reading in readings)
    if read < COVERAGE * len(readings):
        print(f"  Only {read} of {len(readings)} replies could be read; {COVERAGE:.0%} are asked.")
        return 1
    return 0


def judge_all(gateway: Gateway, tier: str, cases: Sequence[Case]) -> list[Reading]:
    """One reading a case, one after another.

    Raises:
        AuditError: the judge does not answer at all.
    """
    readings: list[Reading] = []
    for case in cases:
        readings.append(gateway.judge(tier, case))
        silent = not any(reading.model for reading in readings)
        if silent and len(readings) >= min(FAILURES, len(cases)):
            raise AuditError(
                f"tier/{tier} does not answer ({readings[-1].problem}). Nothing was recorded; "
                "GET /v1/chat/providers?probe=1 tells how its provider is."
            )
    return readings


def make_entries(
    readings: Sequence[Reading], options: Options, *, population: int
) -> list[dict[str, Any]]:
    """One entry of the chain for each scorer and each model that answered: judges are not mixed.

    A run of which no model gave anything counts as unread by the one that answered most.
    """
    answered = Counter(reading.model for reading in readings if reading.model)
    main_model = min(answered, key=lambda name: (-answered[name], name))
    groups: dict[tuple[str, str], list[Reading]] = {}
    for reading in readings:
        key = (reading.case.scorer, reading.model or main_model)
        groups.setdefault(key, []).append(reading)
    return [
        {
            "held_out": _hash_cases([reading.case for reading in group]),
            "scorer": scorer,
            "judge": f"tier/{options.tier}: {model}",
            "verdicts": [
                {"run": one.case.run, "scorer": one.case.verdict, "judge": one.verdict}
                for one in sorted(group, key=lambda one: one.case.run)
            ],
            "sample": {"seed": options.seed, "population": population},
        }
        for (scorer, model), group in sorted(groups.items())
    ]


def show_entry(entry: Mapping[str, Any]) -> None:
    """Prints one audit."""
    metrics = entry["metrics"]
    agreement = metrics["agreement"]
    unread = metrics["runs"] - metrics["judged"]
    print(
        f"  audit {entry['seq']}: {entry['scorer']} by {entry['judge']}: "
        f"{metrics['upheld']} of {metrics['judged']} upheld, {unread} unread; "
        f"agreement {_tell(agreement['observed'])}, kappa {_tell(agreement['kappa'])}, "
        f"AC1 {_tell(agreement['ac1'])}; {entry['hash'][:12]} after {entry['prev'][:12]}"
    )


def show_lineage(found: Mapping[str, Any]) -> int:
    """Prints the chain, and what is wrong with it; the exit status."""
    for entry in found["baselines"]:
        show_entry(entry)
    for problem in found["problems"]:
        print(f"  broken: {problem}")
    print(f"  {len(found['baselines'])} audits; the chain is {_whole(found)}")
    return 1 if found["problems"] else 0


def _whole(found: Mapping[str, Any]) -> str:
    return "broken" if found["problems"] else "whole"


def _tell(figure: Mapping[str, float | None]) -> str:
    if figure["value"] is None:
        return "undefined"
    value = f"{figure['value']:.2f}"
    if figure["low"] is None or figure["high"] is None:
        return value
    return f"{value} [{figure['low']:.2f}, {figure['high']:.2f}]"


def _hash_cases(cases: Sequence[Case]) -> str:
    said = sorted((case.run, case.question, case.answer) for case in cases)
    return hashlib.sha256(json.dumps(said, ensure_ascii=False).encode()).hexdigest()


def _read_options(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(
        prog="audit", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--gateway", default=os.environ.get("LAKEHOUSE_GATEWAY", "http://127.0.0.1:3110")
    )
    parser.add_argument("--size", type=int, default=SIZE, help=f"runs in the sample ({SIZE})")
    parser.add_argument("--seed", type=int, default=1, help="of the draw (1)")
    parser.add_argument("--tier", default=TIER, help=f"of [models], who judges ({TIER})")
    parser.add_argument(
        "--verdicts",
        choices=("accepted", "decided"),
        default="accepted",
        help="which runs are drawn: accepted ones, or all that the scorer decided (accepted)",
    )
    parser.add_argument("--after", type=int, default=0, help="place in the event log to begin at")
    parser.add_argument("--out", type=Path, help="also write what was appended here")
    parser.add_argument("--lineage", action="store_true", help="only show the chain of audits")
    found = parser.parse_args(arguments)
    if found.size < 1 or found.seed < 0 or found.after < 0:
        parser.error("--size must be at least 1, --seed and --after not below 0")
    return Options(
        found.gateway,
        found.size,
        found.seed,
        found.tier.removeprefix("tier/"),
        found.verdicts == "decided",
        found.after,
        found.out,
        found.lineage,
    )
