"""The built-in judged set: staffing workers, and needs whose answers follow from attributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from scripts.lift.far import list_far_queries
from scripts.lift.judged import Document, JudgedSet, JudgedSetError, Query
from scripts.staffing_data import WORKER_COLUMNS, generate_workers

FILE = Path(__file__).resolve().parents[2] / "tests" / "reality" / "playbook_lift_queries.txt"
WORKERS = 320
CORPUS = "workers"
Row = Mapping[str, str]
_COLUMNS = {"years": "years_experience"}


def build_staffing_set(path: Path = FILE, workers: int = WORKERS) -> JudgedSet:
    """The set from a file of needs and so many generated workers.

    Raises:
        JudgedSetError: a line of the file cannot be read, or no worker answers a need.
    """
    rows = [dict(zip(WORKER_COLUMNS, row, strict=True)) for row in generate_workers(workers)]
    documents = tuple(Document(row["worker_id"], row["summary"], CORPUS) for row in rows)
    queries: list[Query] = []
    relevant: dict[str, dict[str, float]] = {}
    for topic, (place, condition, lines) in enumerate(_read_blocks(path), start=1):
        matches = _read_condition(condition, place)
        answers = {row["worker_id"]: 1.0 for row in rows if all(test(row) for test in matches)}
        if not answers:
            raise JudgedSetError(f"{place}: no worker answers {condition!r}.")
        for number, line in enumerate(lines, start=1):
            identifier = f"{topic}-{number}"
            queries.append(Query(identifier, line, f"need {topic}"))
            relevant[identifier] = answers
    return JudgedSet("staffing", documents, tuple(queries), relevant, tuple(list_far_queries()))


def _read_blocks(path: Path) -> list[tuple[str, str, list[str]]]:
    blocks: list[tuple[str, str, list[str]]] = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        text = line.strip()
        place = f"{path.name}, line {number}"
        if not text or text.startswith("#"):
            continue
        if text.startswith("?"):
            blocks.append((place, text[1:].strip(), []))
        elif blocks:
            blocks[-1][2].append(text)
        else:
            raise JudgedSetError(f"{place}: a query before the first '?' line.")
    empty = [place for place, _, lines in blocks if not lines]
    if empty or not blocks:
        raise JudgedSetError(f"{empty[0] if empty else path}: no queries below it.")
    return blocks


def _read_condition(condition: str, place: str) -> list[Callable[[Row], bool]]:
    tests: list[Callable[[Row], bool]] = []
    for part in condition.split(";"):
        words = part.split(maxsplit=2)
        if len(words) != 3 or words[1] not in ("is", "has", "least"):
            raise JudgedSetError(
                f"{place}: {part.strip()!r} is not 'attribute is|has|least value'."
            )
        column, relation, value = _COLUMNS.get(words[0], words[0]), words[1], words[2].strip()
        if column not in WORKER_COLUMNS:
            raise JudgedSetError(f"{place}: workers have no attribute {words[0]!r}.")
        tests.append(_make_test(column, relation, value))
    return tests


def _make_test(column: str, relation: str, value: str) -> Callable[[Row], bool]:
    if relation == "is":
        return lambda row: row[column] == value
    if relation == "has":
        return lambda row: value in row[column].split("; ")
    return lambda row: row[column].isdigit() and int(row[column]) >= int(value)
