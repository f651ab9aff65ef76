"""Makes judged folders from public collections as they are published.

    python -m scripts.lift.convert esco OCCUPATIONS.csv OUT [--split]
    python -m scripts.lift.convert stackfaq FAQ.json OUT [--far CLINC.json] [--split]
    python -m scripts.lift.convert clinc CLINC.json OUT
    python -m scripts.lift.convert wordnet /usr/share/wordnet OUT
    python -m scripts.lift.convert icd10cm TABULAR.xml OUT
    python -m scripts.lift.convert merge FOLDER,FOLDER,… OUT

ESCO: a document is an occupation's description, without its titles; a query is an alternative
title that no other occupation has. StackFAQ: a document is an answer; a query a rephrasing of
its question. CLINC: a document is what ten requests of one intent look like; queries are the
test requests. WordNet: a document is a gloss, a query a word of no other synset. ICD-10-CM: a
document is a diagnosis, a query another name of it. With --split the documents are several
similar corpora: major groups of ISCO, or the products that the questions are about. --far takes
CLINC's out-of-scope requests. `merge` puts judged folders together, each as corpora of its own;
`staffing` stands for the built-in set.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.lift import icd, wordnet
from scripts.lift.judged import JudgedSet, JudgedSetError, load_set
from scripts.lift.staffing import build_staffing_set

MAJOR_GROUPS = {
    "0": "armed forces",
    "1": "managers",
    "2": "professionals",
    "3": "technicians",
    "4": "clerks",
    "5": "services",
    "6": "farming",
    "7": "crafts",
    "8": "plants",
    "9": "elementary",
}
PRODUCTS = {
    "mail": r"gmail|e-?mail|mail\b",
    "documents": r"docs?\b|drive|spreadsheet|document",
    "social": r"facebook|twitter|tweet|hangouts|quora",
    "video": r"youtube|vimeo|video",
    "work": r"trello|github|dropbox",
}
OTHER = "web"
# What the gate asks of each set beyond the general thresholds.
ESCO_HEADROOM, STACKFAQ_HEADROOM = 0.35, 0.50
SHOWN_REQUESTS = 10
ORACLE_GAP = 0.01
Record = dict[str, Any]


def convert_esco(source: Path, out: Path, *, split: bool) -> int:
    """ESCO's occupations as a judged folder; gives how many queries."""
    with source.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    needed = {"conceptUri", "iscoGroup", "preferredLabel", "altLabels", "description"}
    if not rows or not needed <= rows[0].keys():
        raise JudgedSetError(f"{source}: not ESCO's occupations; columns {sorted(needed)} wanted.")
    labels = [_split_labels(row["altLabels"]) for row in rows]
    times = Counter(label for found in labels for label in found)
    documents: list[Record] = []
    queries: list[Record] = []
    relevant: list[tuple[str, str]] = []
    for row, found in zip(rows, labels, strict=True):
        identifier = row["conceptUri"].rsplit("/", 1)[-1]
        if not row["description"].strip():
            continue
        corpus = MAJOR_GROUPS.get(row["iscoGroup"][:1], "other") if split else "occupations"
        documents.append({"_id": identifier, "text": row["description"].strip(), "corpus": corpus})
        for label in found:
            if times[label] == 1 and label != row["preferredLabel"].lower():
                query = f"q{len(queries)}"
                queries.append({"_id": query, "text": label, "topic": identifier})
                relevant.append((query, identifier))
    name = "esco-split" if split else "esco"
    _write(out, name, documents, queries, relevant, [], None if split else ESCO_HEADROOM)
    return len(queries)


def convert_stackfaq(source: Path, out: Path, *, far: Path | None, split: bool) -> int:
    """StackFAQ as a judged folder; gives how many queries."""
    try:
        pairs = _read_json(source)["root"]["qapair"]
        documents: list[Record] = []
        queries: list[Record] = []
        relevant: list[tuple[str, str]] = []
        for number, pair in enumerate(pairs):
            answers = [pair["answer"]] if isinstance(pair["answer"], str) else pair["answer"]
            corpus = _find_product(pair["question"]) if split else "answers"
            names = []
            for answer in filter(None, answers):
                names.append(f"a{len(documents)}")
                documents.append({"_id": names[-1], "text": answer, "corpus": corpus})
            for text in pair["rephr"]:
                if text and text.strip() not in ("", "*"):
                    query = f"q{len(queries)}"
                    queries.append({"_id": query, "text": text.strip(), "topic": f"faq {number}"})
                    relevant.extend((query, name) for name in names)
    except (KeyError, TypeError) as error:
        raise JudgedSetError(f"{source}: not StackFAQ as published ({error!r}).") from error
    strange = _read_out_of_scope(far) if far else []
    name = "stackfaq-split" if split else "stackfaq"
    _write(out, name, documents, queries, relevant, strange, None if split else STACKFAQ_HEADROOM)
    return len(queries)


def convert_clinc(source: Path, out: Path) -> int:
    """CLINC's intents as a judged folder; gives how many queries."""
    found = _read_json(source)
    try:
        requests: dict[str, list[str]] = {}
        for text, intent in found["train"]:
            requests.setdefault(intent, []).append(text)
        documents = [
            {"_id": intent, "text": " . ".join(texts[:SHOWN_REQUESTS]), "corpus": "intents"}
            for intent, texts in sorted(requests.items())
        ]
        queries = [
            {"_id": f"q{number}", "text": text, "topic": intent}
            for number, (text, intent) in enumerate(found["test"])
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise JudgedSetError(f"{source}: not CLINC150 as published ({error!r}).") from error
    relevant = [(query["_id"], query["topic"]) for query in queries]
    _write(out, "clinc", documents, queries, relevant, _read_out_of_scope(source), None)
    return len(queries)


def convert_wordnet(source: Path, out: Path) -> int:
    """WordNet's glosses and words as a judged folder; gives how many queries."""
    try:
        needs, others = wordnet.choose_needs(wordnet.read_synsets(source))
    except ValueError as error:
        raise JudgedSetError(str(error)) from error
    documents: list[Record] = [
        {"_id": each.id, "text": f"{each.gloss[:1].upper()}{each.gloss[1:]}."}
        for each in sorted([*needs, *others], key=lambda each: each.id)
    ]
    queries: list[Record] = []
    for need in needs:
        for word in need.words:
            queries.append({"_id": f"q{len(queries)}", "text": word, "topic": need.id})
    relevant = [(query["_id"], query["topic"]) for query in queries]
    _write(out, "wordnet", documents, queries, relevant, [], None)
    return len(queries)


def convert_icd(source: Path, out: Path) -> int:
    """ICD-10-CM's codes and inclusion terms as a judged folder; gives how many queries."""
    try:
        needs, others = icd.choose_needs(icd.read_codes(source))
    except ValueError as error:
        raise JudgedSetError(str(error)) from error
    codes = sorted([*needs, *others], key=lambda code: code.id)
    documents: list[Record] = [{"_id": code.id, "text": f"{code.text}."} for code in codes]
    queries: list[Record] = []
    for need in needs:
        for term in need.terms:
            queries.append({"_id": f"q{len(queries)}", "text": term, "topic": need.id})
    relevant = [(query["_id"], query["topic"]) for query in queries]
    _write(out, "icd10cm", documents, queries, relevant, [], None)
    return len(queries)


def merge_sets(sources: Sequence[JudgedSet], out: Path) -> int:
    """Several judged sets as one of several corpora; gives how many queries."""
    documents: list[Record] = []
    queries: list[Record] = []
    relevant: list[tuple[str, str]] = []
    for judged in sources:
        name = judged.name
        for each in judged.documents:
            corpus = name if len(judged.corpora) == 1 else f"{name} {each.corpus}"
            documents.append({"_id": f"{name} {each.id}", "text": each.text, "corpus": corpus})
        for query in judged.queries:
            found = judged.relevant.get(query.id, {})
            relevant.extend((f"{name} {query.id}", f"{name} {document}") for document in found)
            queries.append(
                {"_id": f"{name} {query.id}", "text": query.text, "topic": f"{name} {query.topic}"}
            )
    _write(out, "merged", documents, queries, relevant, [], None)
    demands = {"name": "merged", "oracle_gap": ORACLE_GAP}
    (out / "set.json").write_text(json.dumps(demands) + "\n", "utf-8")
    return len(queries)


def _split_labels(text: str) -> list[str]:
    return sorted({line.strip().lower() for line in text.split("\n") if line.strip()})


def _find_product(question: str) -> str:
    return next((n for n, words in PRODUCTS.items() if re.search(words, question, re.I)), OTHER)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise JudgedSetError(f"{path} cannot be read as JSON: {error}.") from error


def _read_out_of_scope(path: Path) -> list[str]:
    found = _read_json(path)
    try:
        parts = [found[part] for part in ("oos_test", "oos_val", "oos_train")]
        return [str(text) for part in parts for text, _ in part]
    except (KeyError, TypeError, ValueError) as error:
        raise JudgedSetError(f"{path}: no out-of-scope requests as CLINC150 has them.") from error


def _write(
    out: Path,
    name: str,
    documents: list[Record],
    queries: list[Record],
    relevant: list[tuple[str, str]],
    far: list[str],
    headroom: float | None,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for file, records in (("corpus.jsonl", documents), ("queries.jsonl", queries)):
        lines = (json.dumps(record, ensure_ascii=False) for record in records)
        (out / file).write_text("\n".join(lines) + "\n", "utf-8")
    judged = "".join(f"{query}\t{document}\t1\n" for query, document in relevant)
    (out / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged, "utf-8")
    (out / "set.json").write_text(
        json.dumps({"name": name, "paraphrase_headroom": headroom}) + "\n", "utf-8"
    )
    if far:
        (out / "far.txt").write_text("\n".join(far) + "\n", "utf-8")


def main() -> int:
    """Parses the command line; gives the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "kind", choices=("esco", "stackfaq", "clinc", "wordnet", "icd10cm", "merge")
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", action="store_true", help="several similar corpora")
    parser.add_argument("--far", type=Path, help="CLINC150's data_full.json")
    found = parser.parse_args()
    try:
        if found.kind == "esco":
            count = convert_esco(found.source, found.out, split=found.split)
        elif found.kind == "stackfaq":
            count = convert_stackfaq(found.source, found.out, far=found.far, split=found.split)
        elif found.kind == "clinc":
            count = convert_clinc(found.source, found.out)
        elif found.kind == "wordnet":
            count = convert_wordnet(found.source, found.out)
        elif found.kind == "icd10cm":
            count = convert_icd(found.source, found.out)
        else:
            names = str(found.source).split(",")
            sets = [build_staffing_set() if n == "staffing" else load_set(Path(n)) for n in names]
            count = merge_sets(sets, found.out)
    except (JudgedSetError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{count} queries in {found.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
