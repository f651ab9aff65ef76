#!/usr/bin/env python3
"""Measures distillation: what the deterministic scorer accepts, and what the firewall lets by.

    scripts/measure_distill.py --dataset FAQ.json [--seed 1] [--out FILE.json]

The dataset is a FAQ collection: {"root": {"qapair": [{"question", "rephr": […], "answer":
[…]}]}}, as StackFAQ is published. The scorer sees, for each thread of odd number (its weights
were fitted on even ones) and each draw: two answers of the thread (right), one of the three
nearest other threads (near), one of any other thread (far), and two vague ones from templates
that played no part in the fitting. Evidence are the ten answers nearest to the question without
the one that is judged; the thread's other answers are the known good ones. The firewall
holds out every second thread, is shown its rows edited at rates from 0 to .3, and the other
threads' rows as clean ones; then the halves change places.

Texts are embedded through the gateway at LAKEHOUSE_GATEWAY (about 3,000, cached in --cache when
given). The exit status is 1 when a figure misses what is asked for.
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
import re
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import httpx
import numpy as np

from services.observerd.core.distill.agreeing import drop_question
from services.observerd.core.distill.firewall import SIMILAR_COSINE, Firewall, Pair
from services.observerd.core.distill.scorer import (
    SCORER,
    Case,
    Text,
    judge_answer,
    measure_similarities,
)
from services.observerd.core.distill.words import normalise_words
from services.observerd.core.drift.agreement import measure_agreement

GATEWAY = os.environ.get("LAKEHOUSE_GATEWAY", "http://127.0.0.1:3110")
BATCH = 100
EVIDENCE = 10
DRAWS = 3
RATES = (0.0, 0.1, 0.2, 0.3)
MODES = ("with known good answers", "with neighbours", "with evidence alone")
LEAST = {0.0: 1.0, 0.1: 0.99, 0.2: 0.95, 0.3: 0.80}
# Answers that say nothing, in the manner of small models; the fitting used other ones.
VAGUE = (
    "Yes, that is possible. You just need to find the right option and change it.",
    "Regarding {topic}: this is a common question and the answer depends on what you need.",
    "I would recommend searching the help pages about {topic}; you will surely find something.",
    "{topic}: yes, people do it all the time. Have a look around and try a few things.",
    "Thank you for your question about {topic}. Many users asked the same and found a solution "
    "that works for them.",
    "The best approach for {topic} is to use the official tools and follow best practices.",
    "Maybe. Try it and see.",
    "{question} That is a good question. It is usually done with the features that are provided "
    "for this purpose.",
)


@dataclass(frozen=True)
class Thread:
    """One need: ways to ask for it and answers to it."""

    number: int
    questions: list[str]
    answers: list[str]


class Embedder:
    """Unit vectors by text, from the gateway, remembered in a file when one is named."""

    def __init__(self, cache: Path | None) -> None:
        self._cache = cache
        self._vectors: dict[str, Any] = {}
        if cache is not None and cache.exists():
            held = np.load(cache)
            self._vectors = dict(zip(held["t"].tolist(), held["v"], strict=True))

    def embed(self, texts: list[str]) -> Any:
        """A vector a row."""
        missing = sorted({text for text in texts if text not in self._vectors}, key=len)
        token = os.environ.get("LAKEHOUSE_TOKEN")
        headers = {"authorization": f"Bearer {token}"} if token else {}
        if missing:
            with httpx.Client(
                base_url=GATEWAY, headers=headers, timeout=120, trust_env=False
            ) as client:
                for start in range(0, len(missing), BATCH):
                    some = missing[start : start + BATCH]
                    answer = client.post("/v1/embed", json={"texts": some})
                    if answer.status_code != 200:
                        raise SystemExit(f"/v1/embed answered {answer.status_code}: {answer.text}")
                    vectors = np.array(answer.json()["vectors"], dtype=np.float32)
                    self._vectors |= dict(zip(some, vectors, strict=True))
            if self._cache is not None:
                names = list(self._vectors)
                np.savez(self._cache, t=np.array(names), v=np.stack([*self._vectors.values()]))
        return np.stack([self._vectors[text] for text in texts])


def read_threads(path: Path) -> list[Thread]:
    """Threads that have a way to ask and two answers of eight words or more."""
    found: list[Thread] = []
    for number, pair in enumerate(json.loads(path.read_text("utf-8"))["root"]["qapair"]):
        questions = [text for text in pair["rephr"] if text and text != "*"]
        answers = [text for text in pair["answer"] if text and len(text.split()) >= 8]
        if questions and len(answers) >= 2:
            found.append(Thread(number, questions, answers))
    return found


def measure_scorer(threads: list[Thread], embedder: Embedder, seed: int) -> dict[str, Any]:
    """κ and what was accepted, by kind of answer, by what is known beside the evidence."""
    pool = [(thread.number, answer) for thread in threads for answer in thread.answers]
    owners = np.array([owner for owner, _ in pool])
    vectors = embedder.embed([text for _, text in pool])
    drawn: list[tuple[Thread, str, str, str, list[int]]] = []
    for draw in range(DRAWS):
        dice = random.Random(f"{seed}-{draw}")
        for thread in threads:
            question = dice.choice(thread.questions)
            order = np.argsort(-(vectors @ embedder.embed([question])[0]), kind="stable").tolist()
            others = [at for at in order if owners[at] != thread.number]
            topic = " ".join(re.sub(r"[^\w\s]", "", question).split()[-5:])
            vague = [v.format(topic=topic, question=question) for v in dice.sample(VAGUE, 2)]
            answers = [("right", text) for text in dice.sample(thread.answers, 2)]
            answers += [("near", pool[dice.choice(others[:3])][1])]
            answers += [("far", pool[dice.choice(others[10:])][1])]
            answers += [("vague", text) for text in vague]
            if thread.number % 2:
                drawn += [(thread, question, kind, text, order) for kind, text in answers]
    embedder.embed(
        [text for _, asked, _, said, _ in drawn for text in (said, drop_question(asked, said))]
    )
    found: dict[str, Any] = {}
    for mode in MODES:
        kinds: list[str] = []
        verdicts: list[str] = []
        for thread, question, kind, answer, order in drawn:
            places = [at for at in order[: EVIDENCE + 4] if pool[at][1] != answer][:EVIDENCE]
            known: list[str] = []
            around: list[int] = []
            if mode == "with known good answers":
                known = [text for text in thread.answers if text != answer]
            said, rest = embedder.embed([answer, drop_question(question, answer)])
            if mode == "with neighbours":
                ranked = np.argsort(-(vectors @ said), kind="stable").tolist()
                around = [at for at in ranked if pool[at][1] != answer][:EVIDENCE]
            near = measure_similarities(
                embedder.embed([question])[0].tolist(),
                said.tolist(),
                vectors[places].tolist(),
                embedder.embed(known).tolist() if known else (),
                vectors[around].tolist(),
                rest.tolist() if around else None,
            )
            case = Case(
                run_id="case",
                question=question,
                answer=answer,
                evidence=tuple(Text(f"e{at}", pool[at][1]) for at in places),
                references=tuple(Text(f"g{at}", text) for at, text in enumerate(known)),
                neighbours=tuple(Text(f"e{at}", pool[at][1]) for at in around),
            )
            kinds.append(kind)
            verdicts.append(judge_answer(case, near).verdict)
        found[mode] = summarise(kinds, verdicts)
    return found


def summarise(kinds: list[str], verdicts: list[str]) -> dict[str, Any]:
    """Figures of one run of the scorer over labelled answers."""
    gold = ["good" if kind == "right" else "bad" for kind in kinds]
    given = ["good" if verdict == "accepted" else "bad" for verdict in verdicts]
    wrong = [verdict for kind, verdict in zip(kinds, verdicts, strict=True) if kind != "right"]
    decided = [at for at, verdict in enumerate(verdicts) if verdict in ("accepted", "rejected")]
    dice = np.random.default_rng(1)
    all_of = measure_agreement(gold, given, dice)
    of_decided = measure_agreement([gold[n] for n in decided], [given[n] for n in decided], dice)
    return {
        "answers": len(kinds),
        "kinds": dict(Counter(kinds)),
        "kappa": asdict(all_of.kappa),
        "ac1": asdict(all_of.ac1),
        "wrong_accepted": wrong.count("accepted") / len(wrong),
        "decided": len(decided) / len(kinds),
        "kappa_of_decided": asdict(of_decided.kappa),
        "verdicts": {
            kind: dict(Counter(v for k, v in zip(kinds, verdicts, strict=True) if k == kind))
            for kind in sorted(set(kinds))
        },
    }


def edit_text(text: str, rate: float, words: list[str], dice: random.Random) -> str:
    """Each word is, at that rate, replaced (.6), dropped (.2) or followed by a new one (.2)."""
    found: list[str] = []
    for word in text.split():
        if dice.random() >= rate:
            found.append(word)
            continue
        what = dice.random()
        if what < 0.6:
            found.append(dice.choice(words))
        elif what >= 0.8:
            found += [word, dice.choice(words)]
    return " ".join(found)


def measure_firewall(threads: list[Thread], embedder: Embedder, seed: int) -> dict[str, Any]:
    """Share of leaks caught by rate of edits and by what leaks, and of clean rows stopped."""
    dice = random.Random(seed)
    words = [word for thread in threads for answer in thread.answers for word in answer.split()]
    caught: Counter[tuple[str, float]] = Counter()
    shown: Counter[tuple[str, float]] = Counter()
    clean_stopped = clean = 0
    reasons: Counter[str] = Counter()
    for half in (0, 1):
        held = make_rows([t for t in threads if t.number % 2 == half])
        rows = make_rows([t for t in threads if t.number % 2 != half])
        wall = Firewall(held, rows)
        prompts = list(dict.fromkeys(pair.prompt for pair in held))
        matrix = embedder.embed(prompts)

        def check(
            row: Pair, wall: Firewall = wall, prompts: list[str] = prompts, matrix: Any = matrix
        ) -> str:
            cosines = matrix @ embedder.embed([row.prompt])[0]
            best = int(cosines.argmax())
            found = wall.check_row(row, similar=[(prompts[best], float(cosines[best]))])
            return found.reason

        embedder.embed([row.prompt for row in rows])
        for row in rows:
            reason = check(row)
            clean += 1
            clean_stopped += reason != "clear"
            reasons[reason] += reason != "clear"
        leaks: list[tuple[str, float, Pair]] = []
        for rate in RATES:
            for pair in held:
                stranger = dice.choice(rows)
                prompt = edit_text(pair.prompt, rate, words, dice)
                answer = edit_text(pair.answer, rate, words, dice)
                leaks.append(("row", rate, Pair("x", prompt, answer)))
                leaks.append(("answer alone", rate, Pair("x", stranger.prompt, answer)))
                leaks.append(("prompt alone", rate, Pair("x", prompt, stranger.answer)))
                if len(normalise_words(pair.answer)) < 13:
                    leaks.append(("short answer", rate, Pair("x", stranger.prompt, answer)))
        embedder.embed([pair.prompt for _, _, pair in leaks])
        for kind, rate, pair in leaks:
            shown[kind, rate] += 1
            caught[kind, rate] += check(pair) != "clear"
    recall = {
        kind: {str(rate): caught[kind, rate] / shown[kind, rate] for rate in RATES}
        for kind in ("row", "answer alone", "prompt alone", "short answer")
        if shown[kind, 0.0]
    }
    return {
        "clean_rows": clean,
        "clean_stopped": clean_stopped / clean,
        "clean_reasons": {reason: count for reason, count in reasons.items() if count},
        "recall": recall,
        "leaks_each": {kind: shown[kind, 0.0] for kind in recall},
        "similar_cosine": SIMILAR_COSINE,
    }


def make_rows(threads: list[Thread]) -> list[Pair]:
    """Every answer with one of its thread's questions."""
    return [
        Pair(f"{t.number}-{at}", t.questions[at % len(t.questions)], answer)
        for t in threads
        for at, answer in enumerate(t.answers)
    ]


def find_misses(scorer: dict[str, Any], firewall: dict[str, Any]) -> list[str]:
    """Figures below what is asked for."""
    judged = scorer["with known good answers"]
    misses: list[str] = []
    if judged["answers"] < 300 or judged["kappa"]["value"] < 0.6:
        misses.append(f"kappa {judged['kappa']['value']:.3f} on {judged['answers']} answers")
    if judged["wrong_accepted"] > 0.05:
        misses.append(f"wrong ones accepted {judged['wrong_accepted']:.3f}")
    for kind, recall in firewall["recall"].items():
        misses += [
            f"leaks caught, {kind} at {rate}: {recall[str(rate)]:.4f}"
            for rate, least in LEAST.items()
            if recall[str(rate)] < least
        ]
    for mode in MODES[1:]:
        found = scorer[mode]
        if found["kappa"]["value"] < 0.6 or found["wrong_accepted"] > 0.05:
            misses.append(
                f"{mode}: kappa {found['kappa']['value']:.3f}, wrong ones accepted "
                f"{found['wrong_accepted']:.3f}"
            )
    if firewall["clean_stopped"] > 0.005:
        misses.append(f"clean rows stopped {firewall['clean_stopped']:.4f}")
    return misses


def main() -> int:
    """Measures both; gives the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--cache", type=Path, help="an .npz file that keeps the vectors")
    arguments = parser.parse_args()
    threads = read_threads(arguments.dataset)
    embedder = Embedder(arguments.cache)
    scorer = measure_scorer(threads, embedder, arguments.seed)
    firewall = measure_firewall(threads, embedder, arguments.seed)
    misses = find_misses(scorer, firewall)
    report = {
        "scorer_version": SCORER,
        "seed": arguments.seed,
        "threads": len(threads),
        "scorer": scorer,
        "firewall": firewall,
        "misses": misses,
    }
    text = json.dumps(report, indent=1)
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n")
    print(text)
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
