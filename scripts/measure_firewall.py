#!/usr/bin/env python3
"""Measures the text tests of the firewall on judged sets: leaks caught, clean rows stopped, cost.

    scripts/measure_firewall.py --dataset DIR [--dataset DIR …] [--seed 1] [--out FILE.json]

A judged set is a directory as `scripts/playbook_lift` takes it. A row is a query with the text
of its best document (the query alone where --prompts-only is given). Half of the topics are
held out, the other half's rows are the clean ones; then they change places. Leaks are held-out
texts with words edited at each rate (replaced .6, dropped .2, one added .2), beside a stranger's
other field. No embeddings: what is measured is what words alone can tell. Figures are shown for
all leaks, and for those of eight words or more.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_PYTHON = ROOT / ".venv" / "bin" / "python"
if _PYTHON.exists() and Path(sys.prefix) != ROOT / ".venv":
    os.execv(_PYTHON, [str(_PYTHON), *sys.argv])
sys.path.insert(0, str(ROOT))

import argparse
import json
import random
import time
import zlib
from collections import Counter
from typing import Any

from scripts.lift.judged import JudgedSet, load_set
from scripts.measure_distill import RATES, edit_text
from services.observerd.core.distill.firewall import FIREWALL, Firewall, Pair
from services.observerd.core.distill.words import normalise_words

LONG_WORDS = 8
# Rows shown of each half; the sets hold more queries than a measurement needs.
MOST = 1000


def make_rows(judged: JudgedSet, prompts_only: bool, dice: random.Random) -> list[tuple[str, Pair]]:
    """A topic and a row for each query, in an order of the dice's."""
    texts = {document.id: document.text for document in judged.documents}
    rows: list[tuple[str, Pair]] = []
    for query in judged.queries:
        gains = judged.relevant.get(query.id, {})
        best = max(gains, key=lambda name: (gains[name], name), default=None)
        answer = "" if prompts_only or best is None else texts[best]
        rows.append((query.topic, Pair(query.id, query.text, answer)))
    dice.shuffle(rows)
    return rows


def measure_set(rows: list[tuple[str, Pair]], seed: int) -> dict[str, Any]:
    """Share of leaks caught and of clean rows stopped, and rows checked in a second."""
    dice = random.Random(seed)
    words = [word for _, pair in rows for word in (pair.answer or pair.prompt).split()]
    caught: Counter[tuple[str, float]] = Counter()
    shown: Counter[tuple[str, float]] = Counter()
    clean = stopped = 0
    reasons: Counter[str] = Counter()
    seconds = 0.0
    for half in (0, 1):
        mine = [[pair for topic, pair in rows if _side(topic, seed) == side] for side in (0, 1)]
        held, others = mine[half][:MOST], mine[1 - half][:MOST]
        wall = Firewall(held, others)
        begun = time.perf_counter()
        for row in others:
            found = wall.check_row(row)
            stopped += found.decision != "clear"
            reasons.update([found.reason] if found.decision != "clear" else [])
        seconds += time.perf_counter() - begun
        clean += len(others)
        for rate in RATES:
            for pair in held:
                stranger = dice.choice(others)
                prompt = edit_text(pair.prompt, rate, words, dice)
                longer = f"{stranger.prompt} {prompt}"
                leaks = [
                    ("prompt alone", pair.prompt, Pair("x", prompt, stranger.answer)),
                    ("prompt inside another", pair.prompt, Pair("x", longer, stranger.answer)),
                ]
                if pair.answer:
                    answer = edit_text(pair.answer, rate, words, dice)
                    leaks.append(("answer alone", pair.answer, Pair("x", stranger.prompt, answer)))
                for kind, original, leak in leaks:
                    found = wall.check_row(leak).decision != "clear"
                    long = len(normalise_words(original)) >= LONG_WORDS
                    for name in [kind, f"{kind}, {LONG_WORDS} words or more"][: 1 + long]:
                        shown[name, rate] += 1
                        caught[name, rate] += found
    kinds = sorted({kind for kind, _ in shown})
    return {
        "clean_rows": clean,
        "clean_stopped": stopped / clean,
        "clean_reasons": dict(reasons),
        "clean_rows_per_second": round(clean / seconds, 1),
        "leaks_each": {kind: shown[kind, 0.0] for kind in kinds},
        "recall": {k: {str(r): caught[k, r] / max(1, shown[k, r]) for r in RATES} for k in kinds},
    }


def _side(topic: str, seed: int) -> int:
    return zlib.crc32(f"{seed}:{topic}".encode()) % 2


def main() -> int:
    """Measures each set and prints the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", type=Path, action="append", required=True)
    parser.add_argument("--prompts-only", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    report: dict[str, Any] = {"firewall": FIREWALL, "seed": arguments.seed, "sets": {}}
    for folder in arguments.dataset:
        rows = make_rows(load_set(folder), arguments.prompts_only, random.Random(arguments.seed))
        report["sets"][folder.name] = measure_set(rows, arguments.seed)
    text = json.dumps(report, indent=1)
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
