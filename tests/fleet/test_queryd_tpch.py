"""TPC-H at scale .1 through the gateway: registered as anyone would, all 22 answers right."""

from __future__ import annotations

import io
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import httpx
import pyarrow as pa
import pytest

from scripts.private_fleet import PrivateFleet
from tests.support import tpch

SCALE = 0.1
ANSWERS = tpch.load_answers(SCALE)
QUERIES = tpch.load_queries()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    tables = tpch.write_tables(tmp_path_factory.mktemp("tpch"), SCALE)
    with (
        PrivateFleet(("gateway", "storaged", "catalogd", "queryd")) as fleet,
        httpx.Client(base_url=fleet.urls["gateway"] + "/v1", timeout=60) as made,
    ):
        for name, path in tables.items():
            register(made, name, path)
        yield made


def register(client: httpx.Client, name: str, path: Path) -> None:
    key = f"tpch/{name}.parquet"
    client.put(f"/storage/objects/{key}", content=path.read_bytes()).raise_for_status()
    body = {"name": name, "objects": [key], "ingest_id": f"tpch-{name}"}
    client.post("/catalog/datasets", json=body).raise_for_status()


def test_all_queries_and_answers_are_there() -> None:
    assert sorted(QUERIES) == sorted(ANSWERS) == list(tpch.QUERIES)


@pytest.mark.parametrize("number", tpch.QUERIES)
def test_a_query_gives_the_published_answer(client: httpx.Client, number: int) -> None:
    answer = client.post(
        "/sql",
        json={"sql": QUERIES[number]},
        headers={"accept": "application/vnd.apache.arrow.stream"},
    )
    assert answer.status_code == 200, answer.text
    table = pa.ipc.open_stream(io.BytesIO(answer.content)).read_all()
    rows = [tuple(row.values()) for row in table.to_pylist()]
    assert tpch.find_difference(table.column_names, rows, ANSWERS[number]) == ""


def test_a_wrong_answer_is_seen() -> None:
    wrong = [("A", Decimal("1.50"), 2.0)]
    assert tpch.find_difference(("a", "b", "c"), wrong, "a|b|c\nA|1.50|2.0\n") == ""
    for row in ("A|1.50|2.001", "A|1.51|2.0", "B|1.50|2.0", "A|1.50", "A|1.50|2.0\nA|1.50|2.0"):
        assert tpch.find_difference(("a", "b", "c"), wrong, f"a|b|c\n{row}\n")
    assert tpch.find_difference(("a", "b", "c"), wrong, "a|b|d\nA|1.50|2.0\n")
