"""The command behind scripts/scrum_review.sh."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import httpx

from scripts.scrum.verdicts import (
    INSTRUCTIONS,
    Verdict,
    make_prompt,
    put_section,
    read_dispositions,
    render_section,
)

ROOT = Path(__file__).resolve().parents[2]
# Three lineages, by tier: [models] says which models these are.
TIERS = "frontier_review,frontier_arch,cloud_review"
# About a hundred thousand tokens: what the reviewers' contexts hold with room to answer.
MAX_CHARS = 400_000
ANSWER_TOKENS = 4000
WAIT_S = 620.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Reviews a diff; gives the exit status."""
    parser = argparse.ArgumentParser(prog="scrum_review.sh", description=__doc__)
    parser.add_argument("bundle", type=Path, help="the diff to review")
    parser.add_argument("label", help="what the change is called in the reports")
    parser.add_argument("--tiers", default=TIERS, help="reviewers, by tier, with commas between")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "scrum")
    options = parser.parse_args(arguments)
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,80}", options.label):
        parser.error("LABEL is 1 to 80 letters, digits, dots, dashes and underscores")
    tiers = [tier.strip() for tier in options.tiers.split(",") if tier.strip()]
    if not tiers:
        parser.error("--tiers names nobody")
    try:
        diff = options.bundle.read_text("utf-8", "replace")
    except OSError as error:
        parser.error(f"{options.bundle} cannot be read: {error.strerror}")
    if not diff.strip():
        parser.error(f"{options.bundle} is empty; make it with git diff BASE...HEAD")
    if len(diff) > MAX_CHARS:
        parser.error(
            f"{options.bundle} has {len(diff)} characters; reviewers read {MAX_CHARS}. "
            "Review it in parts."
        )
    gateway = os.environ.get("LAKEHOUSE_GATEWAY", "http://127.0.0.1:3110")
    with ThreadPoolExecutor(len(tiers)) as pool:
        asked = [pool.submit(ask, gateway, tier, diff, options.label) for tier in tiers]
        verdicts = [each.result() for each in asked]
    today = options.out / "_evidence" / datetime.now(UTC).strftime("%Y-%m-%d")
    write_reports(today, options.label, verdicts)
    return report(today, verdicts)


def ask(gateway: str, tier: str, diff: str, label: str) -> Verdict:
    """One reviewer's verdict; what went wrong is told in it."""
    token = os.environ.get("LAKEHOUSE_TOKEN", "")
    body = {
        "model": f"tier/{tier}",
        "max_tokens": ANSWER_TOKENS,
        "messages": [
            {"role": "system", "content": INSTRUCTIONS},
            {"role": "user", "content": make_prompt(diff, label)},
        ],
    }
    try:
        answer = httpx.post(
            f"{gateway}/v1/chat",
            json=body,
            headers={"authorization": f"Bearer {token}"} if token else {},
            timeout=httpx.Timeout(WAIT_S, connect=5.0),
            trust_env=False,
        )
        found = answer.json()
        if answer.status_code != 200:
            return Verdict(tier, "?", "", str(found["error"]["message"]))
        if found["finish_reason"] != "stop":
            # Half a verdict would look like a whole one.
            why = f"its answer ended by {found['finish_reason']}"
            return Verdict(tier, found["model"], found["content"], why)
        if not found["content"].strip():
            return Verdict(tier, found["model"], "", "its answer is empty")
        return Verdict(tier, found["model"], found["content"])
    except httpx.TransportError as error:
        return Verdict(tier, "?", "", f"the gateway {gateway} cannot be reached ({error})")
    except (ValueError, KeyError, TypeError):
        return Verdict(tier, "?", "", f"the gateway answered {answer.status_code} and no JSON")


def write_reports(today: Path, label: str, verdicts: Sequence[Verdict]) -> None:
    """Writes each verdict as it was given, and the table; dispositions made before stay."""
    folder = today / "verdicts"
    folder.mkdir(parents=True, exist_ok=True)
    for verdict in verdicts:
        if verdict.text:
            write_whole(folder / f"{label}_{verdict.reviewer}.md", verdict.text.rstrip() + "\n")
    page = today / "disposition.md"
    before = page.read_text("utf-8") if page.is_file() else ""
    section = render_section(label, verdicts, read_dispositions(before))
    write_whole(page, put_section(before, label, section))


def write_whole(path: Path, text: str) -> None:
    """Replaces a file all at once."""
    staged = path.with_name(path.name + ".part")
    staged.write_text(text, "utf-8")
    staged.replace(path)


def report(today: Path, verdicts: Sequence[Verdict]) -> int:
    """Prints what was found; gives the exit status."""
    failed = 0
    for verdict in verdicts:
        if verdict.error:
            failed += 1
            print(f"  MISS {verdict.reviewer}: {verdict.error}")
            continue
        counts = [finding.severity for finding in verdict.findings]
        told = ", ".join(f"{counts.count(s)} {s}" for s in ("BLOCK", "WARN", "INFO"))
        note = "" if verdict.is_readable else "  (not in the form that was asked for)"
        print(f"  ok   {verdict.reviewer} ({verdict.model}): {told}{note}")
    print(f"  {today / 'disposition.md'}")
    return 0 if not failed else 2 if failed == len(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
