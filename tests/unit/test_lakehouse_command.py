"""What the lakehouse command makes of what is typed, and of what goes wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from scripts.lake.data_verbs import name_dataset, read_value
from scripts.lake.main import app
from scripts.lake.pathway_verbs import read_content
from scripts.lake.playbook_verbs import read_document
from scripts.lake.target import explain, make
from scripts.lake.verbs import GATEWAY, make_target
from shared import errors
from shared.daemons import ROOT
from shared.wire.matrixd import MatrixSearch, Source

CONFIG = ROOT / "config" / "lakehouse.toml"
VERBS = [
    ["up"], ["down"], ["status"], ["doctor"], ["ingest"], ["tables"], ["sql"], ["search"],
    ["chat"], ["lift"], ["mcp"],
    ["corpus", "build"], ["corpus", "list"], ["corpus", "refresh"], ["corpus", "delete"],
    ["playbook", "record"], ["playbook", "list"], ["playbook", "retire"],
    *(["pathway", verb] for verb in
      ("add", "get", "update", "revise", "retire", "history", "search", "stats")),
]  # fmt: skip


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_has_help_and_speaks_json(verb: list[str]) -> None:
    result = CliRunner().invoke(app, [*verb, "--help"], env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    assert "--json" in result.stdout
    if verb != ["lift"]:
        assert "--gateway" in result.stdout
        assert "LAKEHOUSE_TOKEN" in result.stdout


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("workers.csv", "workers"),
        ("/data/Job Orders (2026).csv.gz", "job_orders_2026"),
        ("a-b.c.d", "a_b"),
        ("x" * 80 + ".csv", "x" * 63),
    ],
)
def test_a_dataset_is_named_after_its_file(file: str, name: str) -> None:
    assert name_dataset(file) == name


@pytest.mark.parametrize("file", ["-", "2026.csv", "___.csv", ".csv", "åä.csv"])
def test_where_no_name_can_be_made_one_is_asked_for(file: str) -> None:
    with pytest.raises(errors.Invalid, match="--dataset"):
        name_dataset(file)


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", 5), ("5.5", 5.5), ("null", None), ("true", True), ('"5"', "5"), ("Oslo", "Oslo"),
     ("[1,2]", [1, 2]), ("007", "007"), ("", "")],
)  # fmt: skip
def test_parameters_are_json_or_text(text: str, value: Any) -> None:
    assert read_value(text) == value


def test_documents_are_written_with_their_corpus() -> None:
    rated = read_document("people/a/b c", -1)
    assert (rated.corpus, rated.id, rated.rating) == ("people", "a/b c", -1)
    for wrong in ("people", "people/", "/1", "", "bad name!/1"):
        with pytest.raises(errors.Invalid):
            read_document(wrong, 1)


def test_content_is_json_or_text_and_never_nothing() -> None:
    assert read_content('{"a": [1]}') == {"a": [1]}
    assert read_content(" just words ") == "just words"
    with pytest.raises(errors.Invalid, match="nothing to keep"):
        read_content("  ")


def test_a_request_that_cannot_be_is_told_in_one_line() -> None:
    with pytest.raises(errors.Invalid, match=r"^k: Input should be less than or equal to 200"):
        make(MatrixSearch, query="x", k=201)
    with pytest.raises(errors.Invalid, match=r"^give exactly one of dataset"):
        make(Source, dataset="a", sql="b")


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (errors.Unavailable("x", details={"peer": "gateway"}), 3, "lakehouse up"),
        (errors.Unavailable("y", details={"peer": "gateway", "peer_status": 503}), 3, "y"),
        (errors.Upstream("y"), 3, "y"),
        (errors.Unauthorized("x"), 4, "LAKEHOUSE_TOKEN"),
        (errors.Forbidden("Only SELECT."), 4, "Only SELECT."),
        (errors.Invalid("y"), 1, "y"),
        (errors.NotFound("y"), 1, "y"),
        (errors.RateLimited("y"), 1, "y"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_failures_say_what_to_do_and_have_their_status(
    error: errors.LakehouseError, status: int, words: str
) -> None:
    message, found = explain(error, "http://gateway")
    assert found == status
    assert words in message


def test_a_token_of_this_machine_is_never_sent_elsewhere(tmp_path: Path) -> None:
    config = tmp_path / "lakehouse.toml"
    config.write_text('[auth]\ntoken = "ours"\n[gateway]\nport = 3999\n')
    here = make_target("", None, config, False)
    same = make_target("http://127.0.0.1:3999/", None, config, False)
    there = make_target("https://lake.example", None, config, False)
    given = make_target("lake.example:80", "theirs", config, False)
    assert (here.config.token, here.local) == ("ours", True)
    assert (same.config.token, same.local) == ("ours", True)
    assert (there.config.token, there.local) == ("", False)
    assert (given.config.token, given.url) == ("theirs", "http://lake.example:80")
    assert given.config.daemon("queryd").address == "http://lake.example:80/v1"


@pytest.mark.parametrize(
    "address", ["ftp://x", "http://", "http://a b", "http://user:secret@host", "http://x:port"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    assert not GATEWAY.fullmatch(address)
    with pytest.raises(typer.Exit) as left:
        make_target(address, None, CONFIG, False)
    assert left.value.exit_code == 2


def test_a_wrong_configuration_is_told_by_its_key(tmp_path: Path) -> None:
    config = tmp_path / "lakehouse.toml"
    config.write_text("[gateway]\nprot = 1\n")
    result = CliRunner().invoke(app, ["tables", "--config", str(config)])
    assert result.exit_code == 2
    assert "gateway.prot: unknown key" in result.stderr


def test_help_and_completion_do_without_the_clients() -> None:
    code = (
        "import scripts.lake.main, sys; print('aiohttp' in sys.modules, 'fastapi' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]
