"""Judged sets: documents, queries that ask for them, and which answer which.

A folder in BEIR's layout: `corpus.jsonl` ({_id, text, title?, corpus?}), `queries.jsonl`
({_id, text, topic?}), `qrels.tsv` or `qrels/test.tsv` (query-id, corpus-id, score, tabs, with
or without a header). Queries that share a topic are paraphrases of one need; `corpus` splits
the documents. Two files may be added: `far.txt`, queries that no document answers, one a line,
and `set.json` ({"name", "paraphrase_headroom", "oracle_gap"}), what is asked of the set beyond
the general thresholds; `oracle_gap` is how far corpora of different content, merged, may be
behind a search that knows which one answers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Largest number of problems that one message tells.
TOLD = 5
# What a set may demand beyond the general thresholds.
DEMANDS = ("paraphrase_headroom", "oracle_gap")
# Gains under this mean answers that are judged, and judged wrong.
RELEVANT = 0


class JudgedSetError(Exception):
    """The set cannot be used; the message says where and what to do."""


@dataclass(frozen=True, slots=True)
class Document:
    """One document of one corpus."""

    id: str
    text: str
    corpus: str


@dataclass(frozen=True, slots=True)
class Query:
    """One query; those of one topic ask for the same."""

    id: str
    text: str
    topic: str


@dataclass(frozen=True, slots=True)
class JudgedSet:
    """A judged set. `relevant` holds the gains above 0 of each query that has any."""

    name: str
    documents: tuple[Document, ...]
    queries: tuple[Query, ...]
    relevant: dict[str, dict[str, float]]
    far: tuple[str, ...] = ()
    demands: dict[str, float] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def corpora(self) -> list[str]:
        """Names of the corpora."""
        return sorted({document.corpus for document in self.documents})

    @property
    def answers(self) -> float:
        """Mean number of relevant documents of a query."""
        return sum(map(len, self.relevant.values())) / max(1, len(self.relevant))

    def group_topics(self) -> dict[str, list[Query]]:
        """The judged queries of each topic, in the file's order."""
        topics: dict[str, list[Query]] = {}
        for query in self.queries:
            if query.id in self.relevant:
                topics.setdefault(query.topic, []).append(query)
        return topics


def load_set(folder: Path, *, labels: bool = True) -> JudgedSet:
    """Reads a folder.

    Args:
        labels: whether it must have judged queries; else, without them, only documents are read.

    Raises:
        JudgedSetError: what is missing or malformed, by file and line.
    """
    if not folder.is_dir():
        raise JudgedSetError(f"{folder} is not a folder. --dataset takes a folder: {_LAYOUT}")
    qrels = next(
        (p for p in (folder / "qrels.tsv", folder / "qrels/test.tsv") if p.is_file()), None
    )
    missing = [n for n in ("corpus.jsonl", "queries.jsonl") if not (folder / n).is_file()]
    if not labels and qrels is None and "corpus.jsonl" not in missing:
        documents, blank = _read_documents(folder / "corpus.jsonl")
        remarks = ("no judged queries: the judge is held against nothing", *_tell_blank(blank))
        return JudgedSet(folder.resolve().name, tuple(documents), (), {}, remarks=remarks)
    if qrels is None:
        missing.append("qrels.tsv (or qrels/test.tsv)")
    if missing or qrels is None:
        raise JudgedSetError(f"{folder} has no {', no '.join(missing)}. {_LAYOUT}")
    demands, name = _read_demands(folder)
    documents, blank = _read_documents(folder / "corpus.jsonl")
    queries = _read_queries(folder / "queries.jsonl")
    known = {document.id for document in documents}
    asked = {query.id for query in queries}
    gains, strays = _read_qrels(qrels, asked, known)
    relevant = {q: {d: g for d, g in found.items() if g > RELEVANT} for q, found in gains.items()}
    relevant = {q: found for q, found in relevant.items() if found}
    remarks = [*_tell_blank(blank), *strays]
    unjudged = len(asked) - len(relevant)
    if unjudged:
        remarks.append(f"{unjudged} of {len(asked)} queries have no relevant document: left out")
    if not relevant:
        raise JudgedSetError(
            f"{qrels}: no query has a relevant document. Each line is query-id, corpus-id and a "
            "score above 0, with tabs between, and the ids are those of the other two files."
        )
    far = folder / "far.txt"
    far_lines = _read_text(far).splitlines() if far.is_file() else []
    return JudgedSet(
        name or folder.resolve().name,
        tuple(documents),
        tuple(queries),
        relevant,
        tuple(line.strip() for line in far_lines if line.strip()),
        demands,
        tuple(remarks),
    )


def _tell_blank(count: int) -> list[str]:
    return [f"{count} documents have neither title nor text: left out"] if count else []


_LAYOUT = (
    "It needs corpus.jsonl ({_id, text, title?, corpus?}), queries.jsonl ({_id, text, topic?}) "
    "and qrels.tsv or qrels/test.tsv (query-id, corpus-id, score)."
)


def _read_demands(folder: Path) -> tuple[dict[str, float], str]:
    path = folder / "set.json"
    if not path.is_file():
        return {}, ""
    try:
        record = json.loads(_read_text(path))
        demands = {name: float(record[name]) for name in DEMANDS if record.get(name) is not None}
        return demands, str(record.get("name", ""))
    except (ValueError, TypeError, AttributeError) as error:
        raise JudgedSetError(
            f"{path}: not an object with name, paraphrase_headroom, oracle_gap ({error})."
        ) from error


def _read_documents(path: Path) -> tuple[list[Document], int]:
    documents: list[Document] = []
    blank = 0
    for place, record in _read_records(path):
        title = _take(record, "title", place, optional=True)
        # Published collections have documents whose text is empty; one without the key is a slip.
        text = _take(
            record, "text", place, optional=bool(title) or isinstance(record.get("text"), str)
        )
        if not title and not text:
            blank += 1
            continue
        corpus = _take(record, "corpus", place, optional=True)
        whole = f"{title}. {text}" if title and text else title or text
        documents.append(Document(_take(record, "_id", place), whole, corpus or "documents"))
    _check_ids(path, [document.id for document in documents])
    return documents, blank


def _read_queries(path: Path) -> list[Query]:
    queries: list[Query] = []
    for place, record in _read_records(path):
        identifier = _take(record, "_id", place)
        topic = _take(record, "topic", place, optional=True)
        queries.append(
            Query(identifier, _take(record, "text", place), topic or f"query {identifier}")
        )
    _check_ids(path, [query.id for query in queries])
    return queries


def _read_text(path: Path) -> str:
    # Spreadsheets and editors put a byte order mark in front.
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise JudgedSetError(f"{path}: not UTF-8 ({error.reason}).") from error


def _read_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                place = f"{path}, line {number}"
                try:
                    record = json.loads(line)
                except ValueError as error:
                    raise JudgedSetError(f"{place}: not JSON ({error}).") from error
                if not isinstance(record, dict):
                    raise JudgedSetError(f"{place}: not an object.")
                yield place, record
    except UnicodeDecodeError as error:
        raise JudgedSetError(f"{path}: not UTF-8 ({error.reason}).") from error


def _take(record: dict[str, Any], key: str, place: str, *, optional: bool = False) -> str:
    value = record.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is None or (isinstance(value, str) and not value.strip()):
        if optional:
            return ""
        raise JudgedSetError(f"{place}: {key} is missing or empty.")
    if not isinstance(value, str):
        raise JudgedSetError(f"{place}: {key} is not a text.")
    return value.strip()


def _check_ids(path: Path, ids: list[str]) -> None:
    if not ids:
        raise JudgedSetError(f"{path}: no records.")
    seen: set[str] = set()
    twice: list[str] = []
    for identifier in ids:
        if identifier in seen:
            twice.append(identifier)
        seen.add(identifier)
    if twice:
        raise JudgedSetError(
            f"{path}: {len(twice)} _id more than once, such as {', '.join(twice[:TOLD])}."
        )


def _read_qrels(
    path: Path, queries: set[str], documents: set[str]
) -> tuple[dict[str, dict[str, float]], list[str]]:
    gains: dict[str, dict[str, float]] = {}
    lost = 0
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        fields = [each.strip() for each in line.strip().split("\t")]
        if not line.strip() or (number == 1 and fields[-1].lower() in ("score", "relevance")):
            continue
        # TREC's form has a column of zeros in the second place.
        if len(fields) == 4:
            fields = [fields[0], fields[2], fields[3]]
        if len(fields) != 3:
            raise JudgedSetError(
                f"{path}, line {number}: {len(fields)} columns; "
                "query-id, corpus-id and score are wanted, with tabs between."
            )
        query, document, score = fields
        try:
            gain = float(score)
        except ValueError as error:
            raise JudgedSetError(
                f"{path}, line {number}: the score {score!r} is no number."
            ) from error
        if not math.isfinite(gain):
            raise JudgedSetError(f"{path}, line {number}: the score {score!r} is no finite number.")
        if query in queries and document in documents:
            gains.setdefault(query, {})[document] = gain
        else:
            lost += 1
    remarks = (
        [f"{lost} judgments name a query or document that is not there: left out"] if lost else []
    )
    return gains, remarks
