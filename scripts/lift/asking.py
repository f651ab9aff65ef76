"""Plain queries, which nobody has judged: the local_judge tier judges what a search returns.

The judge is a model behind the gateway's chat, asked for by its tier. It sees a query and the
documents of the returned top ten, without their ranks or scores, in an order of their ids. How
far it can be trusted is measured beside: coverage, the share of documents that it rated at all,
and Cohen's kappa against labels that are known, over judged queries of the same documents.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scripts.lift.edge import Edge, Ref
from scripts.lift.judged import JudgedSet, JudgedSetError, Query

DEPTH = 10
# Judged queries that the judge is held against, at most.
KNOWN_QUERIES = 30
RESAMPLES = 2000
TIER = "tier/local_judge"
LONGEST_DOCUMENT = 1500

INSTRUCTIONS = (
    "You judge search results. For each numbered document decide whether it answers the need "
    "behind the query: true only if every condition that the query states is met by what the "
    "document says, false otherwise. Judge each document by itself. Answer with JSON only: "
    '{"ratings": [{"document": 1, "relevant": true}, …]}, one entry for each document.'
)
_FORM: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": "ratings",
        "schema": {
            "type": "object",
            "properties": {
                "ratings": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "document": {"type": "integer"},
                            "relevant": {"type": "boolean"},
                        },
                        "required": ["document", "relevant"],
                    },
                }
            },
            "required": ["ratings"],
        },
    },
}

Ask = Callable[[str, Sequence[str]], str]


@dataclass(frozen=True, slots=True)
class Trust:
    """How far a judge can be trusted.

    Attributes:
        shown, rated: documents that it saw, and those of them that it rated.
        kappa, low, high: agreement with known labels beyond chance, and its 95 % interval over
            queries; None where no labels are known, or either side says the same of all.
        pairs: ratings that were compared.
    """

    model: str
    shown: int
    rated: int
    pairs: int
    kappa: float | None
    low: float | None = None
    high: float | None = None

    @property
    def coverage(self) -> float:
        """Share of the shown documents that were rated."""
        return self.rated / self.shown if self.shown else 0.0

    def describe(self) -> str:
        """One line for people."""
        told = f"judge {self.model}: coverage {self.coverage:.0%} of {self.shown} documents"
        if self.kappa is None:
            return f"{told}; kappa against known labels: not to be had ({self.pairs} labels)"
        interval = f" [{self.low:.2f}, {self.high:.2f}]" if self.low is not None else ""
        return f"{told}; kappa {self.kappa:.2f}{interval} over {self.pairs} known labels"


def read_queries(path: Path) -> list[str]:
    """The queries of a file, one a line; blank lines and those that begin with # are none.

    Raises:
        JudgedSetError: it cannot be read, or has too few.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise JudgedSetError(f"{path} cannot be read as text: {error}") from None
    found = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    queries = list(dict.fromkeys(found))
    if len(queries) < 4:
        raise JudgedSetError(
            f"{path} has {len(queries)} different queries; at least 4 are needed, because half of "
            "them are recorded and the others are the control."
        )
    return queries


def make_question(query: str, texts: Sequence[str]) -> str:
    """What the judge is asked."""
    documents = "\n\n".join(
        f"Document {number}:\n{text[:LONGEST_DOCUMENT]}" for number, text in enumerate(texts, 1)
    )
    return f"Query: {query}\n\n{documents}"


def read_ratings(answer: str, count: int) -> dict[int, bool]:
    """Ratings by position from 0; what is malformed, unknown or said twice otherwise is none.

    Small models put prose or fences around their JSON, so the outermost object is read.
    """
    try:
        body: Any = json.loads(answer[answer.index("{") : answer.rindex("}") + 1])
    except ValueError:
        return {}
    entries = body.get("ratings") if isinstance(body, dict) else None
    found: dict[int, bool] = {}
    torn: set[int] = set()
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict):
            continue
        number, relevant = entry.get("document"), entry.get("relevant")
        if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= count:
            continue
        if not isinstance(relevant, bool):
            continue
        if found.setdefault(number - 1, relevant) is not relevant:
            torn.add(number - 1)
    return {at: relevant for at, relevant in found.items() if at not in torn}


@dataclass(slots=True)
class Panel:
    """Asks the judge, and counts.

    Args:
        ask: a query and documents' texts to the judge's words.
        texts: of all documents by id.
    """

    ask: Ask
    texts: Mapping[str, str]
    shown: int = 0
    rated: int = 0

    def judge(self, query: str, refs: Sequence[Ref]) -> dict[str, bool]:
        """Ratings of documents by id."""
        ids = sorted({identifier for _, identifier in refs[:DEPTH]})
        if not ids:
            return {}
        found = read_ratings(self.ask(query, [self.texts[each] for each in ids]), len(ids))
        self.shown += len(ids)
        self.rated += len(found)
        return {ids[at]: relevant for at, relevant in found.items()}


def judge_queries(
    edge: Edge, base: JudgedSet, queries: Sequence[str], name: str, model: str, ask: Ask
) -> tuple[JudgedSet, Trust]:
    """Judges plain queries on the documents of a set.

    Args:
        edge: with the set's corpora built.
        base: its documents are searched, its known labels are what the judge is held against.
        name: of the new set.
        model: the judge's, for the report.

    Raises:
        JudgedSetError: the judge rates nothing, or finds nothing relevant.
    """
    panel = Panel(ask, {document.id: document.text for document in base.documents})
    known = choose_known(base)
    agreements = [
        compare_labels(panel.judge(query.text, found.refs), base.relevant[query.id])
        for query, found in zip(
            known, edge.search_all([q.text for q in known], playbook=False), strict=True
        )
    ]
    made: list[Query] = []
    relevant: dict[str, dict[str, float]] = {}
    for number, found in enumerate(edge.search_all(queries, playbook=False), 1):
        query = Query(f"q{number}", queries[number - 1], f"q{number}")
        made.append(query)
        answers = {d: 1.0 for d, said in panel.judge(query.text, found.refs).items() if said}
        if answers:
            relevant[query.id] = answers
    kappa, low, high = kappa_of(agreements)
    pairs = sum(map(len, agreements))
    trust = Trust(model, panel.shown, panel.rated, pairs, kappa, low, high)
    if not panel.rated:
        raise JudgedSetError(
            f"The judge {model} gave no rating that can be read, of {panel.shown} documents. Name "
            "another model in [models] local_judge, or by --judge."
        )
    if not relevant:
        raise JudgedSetError(
            f"The judge {model} found no document relevant to any of {len(queries)} queries. Do "
            "the queries fit the documents? " + trust.describe()
        )
    remarks = (
        trust.describe(),
        f"{len(queries) - len(relevant)} of {len(queries)} queries have no relevant document "
        "among the ten that a cold search returns: left out",
    )
    judged = replace(base, name=name, queries=tuple(made), relevant=relevant, remarks=remarks)
    return replace(judged, demands={}), trust


def choose_known(base: JudgedSet) -> list[Query]:
    """Judged queries to hold the judge against: one a topic, the same ones every time."""
    topics = base.group_topics()
    names = sorted(topics)
    random.Random("known labels").shuffle(names)
    return [topics[name][0] for name in names[:KNOWN_QUERIES]]


def compare_labels(
    said: Mapping[str, bool], relevant: Mapping[str, float]
) -> list[tuple[bool, bool]]:
    """What the judge said and what is known, for each rated document of one query."""
    return [(rating, identifier in relevant) for identifier, rating in sorted(said.items())]


def kappa_of(
    agreements: Sequence[Sequence[tuple[bool, bool]]],
) -> tuple[float | None, float | None, float | None]:
    """Cohen's kappa (1960) and its 95 % interval from resampling queries, whose ratings are not
    independent."""
    point = cohen([pair for each in agreements for pair in each])
    if point is None:
        return None, None, None
    dice = random.Random(1)
    found: list[float] = []
    for _ in range(RESAMPLES):
        drawn = [pair for each in dice.choices(agreements, k=len(agreements)) for pair in each]
        value = cohen(drawn)
        if value is not None:
            found.append(value)
    found.sort()
    last = len(found) - 1
    return point, found[round(0.025 * last)], found[round(0.975 * last)]


def cohen(pairs: Sequence[tuple[bool, bool]]) -> float | None:
    """Agreement beyond chance; None where chance alone explains all of it."""
    if not pairs:
        return None
    count = len(pairs)
    observed = sum(one is other for one, other in pairs) / count
    yes_one = sum(one for one, _ in pairs) / count
    yes_other = sum(other for _, other in pairs) / count
    expected = yes_one * yes_other + (1 - yes_one) * (1 - yes_other)
    return None if expected >= 1 else (observed - expected) / (1 - expected)


def asker(edge: Edge, model: str) -> Ask:
    """Asks through the gateway's chat."""

    def ask(query: str, texts: Sequence[str]) -> str:
        return edge.chat(model, INSTRUCTIONS, make_question(query, texts), _FORM)

    return ask
