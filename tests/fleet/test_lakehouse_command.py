"""The lakehouse command on a real fleet: each verb for people and in JSON, and what goes wrong."""

from __future__ import annotations

import gzip
import json
import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from scripts.lake.main import app
from scripts.private_fleet import PYTHON, PrivateFleet, reserve_ports
from shared.daemons import BUILT, ROOT

# Each test starts interpreters: a second each, and many where much else runs.
pytestmark = pytest.mark.timeout(300)

COMMAND = [str(PYTHON), str(ROOT / "scripts" / "lakehouse")]
TOKEN = "t0ken-of-the-test"
ROWS = 300


@pytest.fixture(scope="module")
def fleet() -> Iterator[PrivateFleet]:
    with PrivateFleet() as running:
        yield running


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("csv") / "Workers.csv"
    lines = ["id,name,role,city,rate"]
    for i in range(ROWS):
        role, city = ("welder", "nurse")[i % 2], ("Oslo", "Bergen", "Narvik")[i % 3]
        lines.append(f"{i},Name {i},{role},{city},{20 + i % 30}.5")
    file.write_text("\n".join(lines) + "\n")
    return file


class Shell:
    """The command in this process, against one fleet."""

    def __init__(self, fleet: PrivateFleet) -> None:
        self.env = {name: v for name, v in fleet.env.items() if name.startswith("LAKEHOUSE_")}

    def run(self, *words: str, status: int = 0, text: str | None = None) -> Result:
        result = CliRunner().invoke(app, list(words), env=self.env, input=text)
        assert result.exit_code == status, f"{words}: {result.output}\n{result.exception!r}"
        return result

    def json(self, *words: str, status: int = 0, text: str | None = None) -> Any:
        result = self.run(*words, "--json", status=status, text=text)
        assert result.stdout.count("\n") == 1, "one document, on one line"
        assert result.stderr == ""
        return json.loads(result.stdout)


@pytest.fixture
def shell(fleet: PrivateFleet) -> Shell:
    return Shell(fleet)


@pytest.fixture(scope="module")
def filled(fleet: PrivateFleet, workers: Path) -> Shell:
    """A shell on a fleet that has a table and a corpus."""
    shell = Shell(fleet)
    taken = shell.json("ingest", str(workers))
    assert (taken["dataset"], taken["rows_out"], taken["duplicate"]) == ("workers", ROWS, False)
    built = shell.json(
        "corpus", "build", "people", "-d", "workers", "--id", "id", "--text",
        "{name}: {role} in {city}", "-m", "city, role",
    )  # fmt: skip
    assert (built["status"], built["documents"]) == ("ready", ROWS)
    return shell


def test_status_for_people_and_machines(shell: Shell) -> None:
    told = shell.json("status")
    assert told["ready"]
    assert {row["daemon"]: row["state"] for row in told["daemons"]} == dict.fromkeys(
        told_names(told), "ready"
    )
    assert {row["daemon"] for row in told["daemons"]} == set(BUILT)
    shown = shell.run("status").stdout
    assert all(name in shown for name in BUILT)
    assert "MiB" in shown


def told_names(told: Any) -> list[str]:
    return [row["daemon"] for row in told["daemons"]]


def test_ingest_says_what_came_of_the_file(filled: Shell, workers: Path, tmp_path: Path) -> None:
    again = filled.json("ingest", str(workers))
    assert again["duplicate"]
    assert "nothing was written" in filled.run("ingest", str(workers)).stdout
    odd = tmp_path / "odd.csv"
    odd.write_text("a,b\n1,x\n2,y,z\n3,w\n")
    said = filled.run("ingest", str(odd)).stdout
    assert "odd: 2 of 3 rows stored" in said
    assert "1 rejected" in said
    piped = filled.json("ingest", "-", "-d", "piped", text="n\n1\n2\n")
    assert piped["rows_out"] == 2
    replaced = filled.json("ingest", "-", "-d", "piped", "--mode", "replace", text="n\n7\n")
    assert replaced["rows_out"] == 1
    assert filled.json("sql", "select n from piped")["rows"] == [[7]]


def test_ingest_takes_json_lines_and_parquet_packed_or_not(filled: Shell, tmp_path: Path) -> None:
    lines = tmp_path / "grown.jsonl"
    lines.write_text('{"id": 1, "tags": ["a"]}\n{"id": 2, "tags": []}\nbad\n')
    taken = filled.json("ingest", str(lines))
    assert (taken["dataset"], taken["rows_in"], taken["rows_out"]) == ("grown", 3, 2)
    packed = tmp_path / "grown.more.ndjson.gz"
    packed.write_bytes(gzip.compress(b'{"id": 3, "note": "x"}\n'))
    assert filled.json("ingest", str(packed), "--contract", "evolve")["rows_out"] == 1
    table = tmp_path / "grown.parquet"
    pq.write_table(pa.table({"id": [4], "note": ["y"]}), table)
    assert filled.json("ingest", str(table), "--contract", "evolve")["rows_out"] == 1
    damaged = tmp_path / "hurt.ndjson.zst"
    damaged.write_bytes(pa.compress(b"x\n" * 9 + b'{"id": 1}\n', codec="zstd", asbytes=True))
    assert filled.json("ingest", str(damaged), "-f", "jsonl")["rejects"]["count"] == 9
    found = filled.json("sql", "select id, note from grown order by id")["rows"]
    assert found == [[1, None], [2, None], [3, "x"], [4, "y"]]


def test_ingest_takes_several_files_as_one(filled: Shell, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("jan.csv", 'f"eb.csv')]
    paths[0].write_text("id,rate\n1,30\n")
    paths[1].write_text("id,rate,city\n2,30.5,Oslo\n3,x,y,z\n4,1.5,Voss\n")
    named = [str(path) for path in paths]
    refused = filled.run("ingest", *named, status=1)
    assert "--dataset" in refused.stderr
    refused = filled.run("ingest", *named, "-d", "months", status=1)
    assert "File 2 of 2, 'f\"eb.csv'" in refused.stderr
    taken = filled.json("ingest", *named, "-d", "months", "--contract", "evolve")
    assert [one["rows_out"] for one in taken["files"]] == [1, 2]
    said = filled.run("ingest", *reversed(named), "-d", "months", "--contract", "evolve").stdout
    assert "jan.csv: 1 of 1 rows" in said
    found = filled.json("sql", "select sum(rate)::varchar, count(city) from months")["rows"]
    assert found == [["124.0", 4]]
    missing = filled.run("ingest", named[0], str(tmp_path / "no.csv"), "-d", "months", status=1)
    assert "no.csv cannot be read" in missing.stderr


def test_ingest_refuses_with_what_does_not_fit(filled: Shell, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("id,nothing\n1,2\n")
    refused = filled.run("ingest", str(other), "-d", "workers", status=1)
    assert refused.stderr.startswith("lakehouse: ")
    assert "nothing" in refused.stderr
    told = filled.json("ingest", str(other), "-d", "workers", status=1)
    assert told["error"]["code"] == "conflict"
    assert told["error"]["details"]["columns"]
    missing = filled.run("ingest", str(tmp_path / "none.csv"), status=1)
    assert "No such file" in missing.stderr
    filled.run("ingest", str(other), "--mode", "upside-down", status=2)


def test_tables_and_one_of_them(filled: Shell) -> None:
    assert "workers" in [d["name"] for d in filled.json("tables")["datasets"]]
    assert f"{ROWS}" in filled.run("tables").stdout
    one = filled.json("tables", "workers")
    assert [c["name"] for c in one["columns"]] == ["id", "name", "role", "city", "rate"]
    assert "VARCHAR" in filled.run("tables", "workers").stdout
    assert "There is no dataset 'nobody'" in filled.run("tables", "nobody", status=1).stderr


def test_sql_in_every_form(filled: Shell, tmp_path: Path) -> None:
    query = "select city, count(*) as n from workers where rate > ? group by 1 order by 1"
    answer = filled.json("sql", query, "-p", "30")
    assert [row[0] for row in answer["rows"]] == ["Bergen", "Narvik", "Oslo"]
    shown = filled.run("sql", query, "-p", "30").stdout
    assert "Bergen" in shown
    assert "3 rows in" in shown
    text = filled.run("sql", "select id, null as x from workers order by id limit 2", "-f", "csv")
    assert text.stdout.splitlines() == ["id,x", "0,", "1,"]
    lines = filled.run("sql", "from workers", "-n", "1000", "-f", "ndjson").stdout.splitlines()
    assert len(lines) == ROWS
    assert json.loads(lines[0])["name"].startswith("Name ")
    file = tmp_path / "rows.arrow"
    filled.run("sql", "from workers", "-f", "arrow", "-o", str(file))
    import pyarrow as pa

    with pa.OSFile(str(file)) as source, pa.ipc.open_stream(source) as stream:
        assert stream.read_all().num_rows == ROWS
    stray = tmp_path / "x.csv"
    on_screen = filled.run("sql", "select 1", "-o", str(stray), status=1)
    assert "A table is for the screen" in on_screen.stderr
    assert (
        "leave out --format"
        in (filled.json("sql", "select 1", "-o", str(stray), status=1)["error"]["message"])
    )
    assert not stray.exists()
    assert "ask with --max-rows" in filled.run("sql", "from workers").stdout
    assert filled.json("sql", "-", text="select 1 as a")["rows"] == [[1]]


def test_values_never_become_markup(filled: Shell) -> None:
    shown = filled.run("sql", "select '[red]x[/red]' as \"[b]\", '[/]' as y").stdout
    assert "[red]x[/red]" in shown
    assert "[b]" in shown


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["sql", "selec 1"], 1, "The SQL cannot be read"),
        (["sql", "drop table workers"], 4, "Only SELECT"),
        (["sql", ""], 1, "sql: String should have at least 1 character"),
        (["search", "x", "--filter", "{"], 1, "--filter is not JSON"),
        (["search", "x", "--filter", "[]"], 1, "--filter is an object"),
        (["search", "x", "-c", "nothing"], 1, "nothing"),
        (["corpus", "build", "bad name", "-d", "workers", "--id", "id", "--text", "x"], 1, "name"),
        (["corpus", "build", "x", "--id", "id", "--text", "y"], 1, "exactly one"),
        (["corpus", "build", "x", "-d", "none", "--id", "id", "--text", "y"], 1, "none"),
        (["corpus", "refresh", "nothing"], 1, "nothing"),
        (["playbook", "record", "q"], 1, "--good or --bad"),
        (["playbook", "record", "q", "-g", "people"], 1, "CORPUS/ID"),
        (["playbook", "record", "q", "-g", "people/none"], 1, "none"),
        (["playbook", "retire", "ep-none"], 1, "ep-none"),
        (["pathway", "get", "none"], 1, "none"),
        (["pathway", "add", " "], 1, "nothing to keep"),
        (["chat", "hi", "-m", "nobody/nothing:cloud"], 1, "nothing"),
        (["chat", "-"], 1, "There is no question"),
        (["nosuch"], 2, "No such command"),
        (["search", "x", "-k", "0"], 2, "-k"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_that_helps(
    filled: Shell, words: list[str], status: int, said: str
) -> None:
    result = filled.run(*words, status=status, text="")
    assert said in result.stderr
    assert "Traceback" not in result.output
    if status != 2:
        assert result.stderr.count("\n") == 1
        assert result.stdout == ""
        assert said in filled.json(*words, status=status, text="")["error"]["message"]


def test_corpora_are_built_listed_refreshed_and_deleted(filled: Shell) -> None:
    built = filled.run(
        "corpus", "build", "roles", "--sql", "select role, count(*) n from workers group by 1",
        "--id", "role", "--text", "role", "--words", "20", "--follow",
    )  # fmt: skip
    assert "roles: 2 documents, ready" in built.stdout
    filled.run("corpus", "build", "roles", "-d", "workers", "--id", "id", "--text", "x", status=1)
    names = [each["name"] for each in filled.json("corpus", "list")["corpora"]]
    assert names == ["people", "roles"]
    assert "roles" in filled.run("corpus", "list").stdout
    assert filled.json("corpus", "refresh", "roles")["job"]["status"] == "done"
    assert filled.json("corpus", "delete", "roles") == {"name": "roles", "deleted": True}
    assert "no corpus roles" in filled.run("corpus", "delete", "roles").stdout
    with_gaps = filled.run(
        "corpus", "build", "gaps", "--sql",
        "select * from (values (1, 'a'), (1, 'b'), (2, '')) t(id, x)", "--id", "id", "--text", "x",
    )  # fmt: skip
    assert "2 rows left out" in with_gaps.stdout
    filled.run("corpus", "delete", "gaps")


def test_search_record_and_search_again(filled: Shell) -> None:
    words = ["search", "a nurse for the north", "-c", "people", "-k", "8"]
    cold = filled.json(*words, "--filter", '{"city": {"eq": "Narvik"}}')
    assert {hit["metadata"]["city"] for hit in cold["hits"]} == {"Narvik"}
    chosen = cold["hits"][-1]["id"]
    recorded = filled.json("playbook", "record", words[1], "-g", f"people/{chosen}")
    warm = filled.json(*words)
    assert warm["playbook"]["activated"]
    assert warm["hits"][0]["id"] == chosen
    shown = filled.run(*words, "--explain").stdout
    assert f"people/{chosen}" in shown
    assert "The playbook took part" in shown
    assert not filled.json(*words, "--no-playbook")["playbook"]["activated"]
    listed = filled.json("playbook", "list")
    assert listed["episodes"][0]["episode_id"] == recorded["episode_id"]
    assert words[1] in filled.run("playbook", "list").stdout
    assert filled.json("playbook", "retire", recorded["episode_id"])["retired"] == 1
    assert "1 were already" in filled.run("playbook", "retire", recorded["episode_id"]).stdout
    assert not filled.json(*words)["playbook"]["activated"]


def test_the_life_of_a_trace(shell: Shell) -> None:
    first = shell.json("pathway", "add", '{"tried": "a night shift"}', "-t", "shifts")
    assert shell.json("pathway", "add", '{"tried": "a night shift"}', "-t", "shifts")["duplicate"]
    again = shell.json("pathway", "add", '{"tried": "a night shift"}', "--again")
    assert again["id"] != first["id"]
    trace = first["id"]
    updated = shell.json("pathway", "update", trace, '{"tried": "nights", "went": "well"}')
    assert updated["version"] == 2
    stale = shell.run("pathway", "update", trace, "x", "--expected", "1", status=1)
    assert "version" in stale.stderr
    revised = shell.json("pathway", "revise", trace, "-", text='{"tried": "early shifts"}')
    assert revised["supersedes"] == trace
    found = shell.json("pathway", "search", "shifts", "-t", "shifts")
    assert [hit["id"] for hit in found["hits"]] == [revised["id"]]
    assert "early shifts" in shell.run("pathway", "search", "-t", "shifts").stdout
    events = [e["event"] for e in shell.json("pathway", "history", revised["id"])["entries"]]
    assert events == ["revise", "update", "add"]
    assert "update (v2)" in shell.run("pathway", "history", revised["id"]).stdout
    assert "early shifts" in shell.run("pathway", "get", revised["id"]).stdout
    assert shell.json("pathway", "get", trace, "--version", "1")["content"]["tried"] == (
        "a night shift"
    )
    retired = shell.json("pathway", "retire", revised["id"], "--reason", "over")
    assert retired["status"] == "retired"
    assert shell.json("pathway", "search", "-t", "shifts")["hits"] == []
    assert shell.json("pathway", "stats")["retired"] == 1
    assert "1 retired" in shell.run("pathway", "stats").stdout


def test_chat_streams_to_people_and_is_whole_for_machines(shell: Shell) -> None:
    said = shell.run("chat", "hello [there]", "-m", "fake/fake-chat").stdout
    assert said == "You said: hello [there]\n"
    whole = shell.json("chat", "-", "-m", "fake/fake-chat", "-s", "Be brief.", text="hello")
    assert whole["content"] == "You said: hello"
    assert whole["finish_reason"] == "stop"
    cut = shell.json("chat", "one two three four", "-m", "fake/fake-chat", "--max-tokens", "1")
    assert cut["finish_reason"] == "length"


def test_doctor_tells_what_it_finds(shell: Shell) -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"], env=shell.env)
    told = json.loads(result.stdout)
    found = {finding["what"]: finding for finding in told["findings"]}
    assert found["gateway"]["ok"]
    assert found["python"]["ok"]
    assert result.exit_code == (0 if told["ok"] else 1)
    printed = subprocess.run(
        [*COMMAND, "doctor"], env={**os.environ, **shell.env}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert "✓ gateway: ready" in printed.stdout


def test_without_a_gateway_it_says_how_to_get_one(shell: Shell) -> None:
    nobody = f"http://127.0.0.1:{reserve_ports(1)[0]}"
    for words in (["status"], ["tables"], ["search", "x"], ["chat", "x"], ["pathway", "stats"]):
        told = shell.run(*words, "--gateway", nobody, status=3)
        assert told.stderr == (
            f"lakehouse: No gateway answers at {nobody}. Start one with `lakehouse up`, or name "
            "another with --gateway or LAKEHOUSE_GATEWAY.\n"
        )
        assert shell.json(*words, "--gateway", nobody, status=3)["error"]["code"] == "unavailable"
    for words in (["up"], ["down"], ["doctor"]):
        told = shell.run(*words, "--gateway", nobody, status=1)
        assert "this machine's own fleet" in told.stderr


def test_a_pipe_that_is_closed_early_is_no_failure(filled: Shell) -> None:
    done = subprocess.run(
        ["bash", "-c", '"$@" | head -n 1', "-", *COMMAND, "sql", "from range(90000)",
         "-n", "90000", "-f", "ndjson"],
        env={**os.environ, **filled.env}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == '{"range":0}\n'
    assert done.stderr == ""


def test_options_may_stand_before_the_verb(filled: Shell) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("LAKEHOUSE_")}
    done = subprocess.run(
        [*COMMAND, "--json", "--gateway", filled.env["LAKEHOUSE_GATEWAY"], "tables", "workers"],
        env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["rows"] == ROWS


def test_names_are_completed_by_the_shell(filled: Shell) -> None:
    def complete(words: str, position: int) -> list[str]:
        asked = {
            "_LAKEHOUSE_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(position),
        }
        done = subprocess.run(
            COMMAND, env={**os.environ, **filled.env, **asked}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        return done.stdout.split()

    assert complete("lakehouse tables work", 2) == ["workers"]
    assert complete("lakehouse search x -c peo", 4) == ["people"]
    assert "ingest" in complete("lakehouse ing", 1)
    filled.env["LAKEHOUSE_GATEWAY"], kept = "http://127.0.0.1:9", filled.env["LAKEHOUSE_GATEWAY"]
    assert complete("lakehouse tables work", 2) == []
    filled.env["LAKEHOUSE_GATEWAY"] = kept


def on_a_terminal(env: dict[str, str], *words: str, until: bytes, limit_s: float = 100.0) -> bytes:
    """Runs the command on a terminal of its own; gives what was shown once `until` was."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(COMMAND[0], [*COMMAND, *words], {**os.environ, **env, "TERM": "xterm"})
    shown = b""
    deadline = time.monotonic() + limit_s
    try:
        while time.monotonic() < deadline:
            if select.select([terminal], [], [], 0.5)[0]:
                try:
                    piece = os.read(terminal, 65536)
                except OSError:
                    break  # it has ended
                shown += piece
                if until in shown and until != b"":
                    break
    finally:
        os.kill(pid, signal.SIGINT)
        os.waitpid(pid, 0)
        os.close(terminal)
    return shown


def test_long_work_shows_how_far_it_is(filled: Shell, tmp_path: Path) -> None:
    large = tmp_path / "large.csv"
    large.write_text("n,text\n" + "".join(f"{i},{'x' * 90}\n" for i in range(20_000)))
    shown = on_a_terminal(filled.env, "ingest", str(large), until=b"20,000 rows stored")
    assert b"20,000 of 20,000 rows stored" in shown
    assert b"sending large.csv" in shown or b"every row" in shown or b"its turn" in shown
    build = ["corpus", "build", "slow", "--sql", "from large limit 400", "--id", "n", "--text"]
    shown = on_a_terminal(filled.env, *build, "{n} of many", until=b"of 400")
    assert b"embed" in shown
    assert b"of 400" in shown
    filled.run("corpus", "delete", "slow")


def test_breaking_off_cancels_the_ingest(filled: Shell, tmp_path: Path) -> None:
    long = tmp_path / "broken_off.csv"
    # Quotes that are not doubled make it the careful reader's, which takes a while.
    lines = (f'{i},"a "quoted" name {i}"\n' for i in range(1_500_000))
    long.write_text("id,name\n" + "".join(lines))
    assert b"every row" in on_a_terminal(filled.env, "ingest", str(long), until=b"every row")
    url = filled.env["LAKEHOUSE_GATEWAY"]
    path = f"{url}/v1/ingest/jobs?dataset=broken_off"
    (job,) = httpx.get(path, trust_env=False).json()["jobs"]
    assert job["status"] == "cancelled"


def test_a_conversation_remembers_and_ends(shell: Shell) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        env = {**os.environ, **shell.env, "TERM": "xterm"}
        os.execve(COMMAND[0], [*COMMAND, "chat", "-m", "fake/fake-chat"], env)
    shown = b""

    def wait_for(word: bytes) -> None:
        nonlocal shown
        deadline = time.monotonic() + 30
        while word not in shown:
            assert time.monotonic() < deadline, shown
            if select.select([terminal], [], [], 0.5)[0]:
                shown += os.read(terminal, 65536)

    wait_for(b"> ")
    os.write(terminal, b"first\n")
    wait_for(b"You said: first")
    os.write(terminal, b"second\n")
    wait_for(b"You said: second")
    os.write(terminal, b"\n")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0


def test_up_and_down_with_a_token_and_from_afar(tmp_path: Path) -> None:
    ports = dict(zip(BUILT, reserve_ports(len(BUILT)), strict=True))
    env = {
        "LAKEHOUSE_FLEET__DATA_DIR": str(tmp_path / "data"),
        "LAKEHOUSE_AUTH__TOKEN": TOKEN,
        **{f"LAKEHOUSE_{name.upper()}__PORT": str(port) for name, port in ports.items()},
    }
    plain = {name: v for name, v in os.environ.items() if not name.startswith("LAKEHOUSE_")}

    def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *words], env={**plain, **more}, capture_output=True, text=True, check=False
        )

    daemons = "gateway,storaged,catalogd,queryd"
    up = run("up", "--only", daemons, "--wait", "60", "--json", **env)
    try:
        assert up.returncode == 0, up.stdout + up.stderr
        assert json.loads(up.stdout)["ok"]
        again = run("up", "--only", daemons, **env)
        assert "running already" in again.stdout
        # Another machine has neither the configuration nor its token.
        remote = {"LAKEHOUSE_GATEWAY": f"http://127.0.0.1:{ports['gateway']}"}
        denied = run("tables", **remote)
        assert denied.returncode == 4
        assert "wants a token. Set LAKEHOUSE_TOKEN" in denied.stderr
        assert run("tables", "--token", "wrong", **remote).returncode == 4
        allowed = run("tables", "--json", **remote, LAKEHOUSE_TOKEN=TOKEN)
        assert json.loads(allowed.stdout) == {"datasets": []}
        seen = json.loads(run("status", "--json", **remote, LAKEHOUSE_TOKEN=TOKEN).stdout)
        assert set(told_names(seen)) == set(daemons.split(","))
        assert seen["ready"]
        os.kill(pid_of(tmp_path, "queryd"), signal.SIGSTOP)
        try:
            stopped = run("status", "--json", **remote, LAKEHOUSE_TOKEN=TOKEN)
        finally:
            os.kill(pid_of(tmp_path, "queryd"), signal.SIGCONT)
        assert stopped.returncode == 3
        states = {row["daemon"]: row["state"] for row in json.loads(stopped.stdout)["daemons"]}
        assert [name for name, state in states.items() if state != "ready"] == ["queryd"]
    finally:
        down = run("down", **env)
    assert "The fleet is down" in down.stdout
    assert "not running" in run("down", **env).stdout
    gone = run("status", **env)
    assert gone.returncode == 3
    assert "lakehouse up" in gone.stderr


def pid_of(tmp_path: Path, name: str) -> int:
    state = json.loads((tmp_path / "data" / "run" / "fleet.json").read_text())
    return int(state["daemons"][name]["pid"])


def test_lift_runs_the_gate_against_a_gateway(filled: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "corpus.jsonl").write_text('{"_id": "1", "text": "a"}\n')
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "a"}\n')
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\t1\t1\n")
    env = {**os.environ, **filled.env}
    words = ["lift", "--dataset", str(folder), "--gateway", filled.env["LAKEHOUSE_GATEWAY"]]
    done = subprocess.run([*COMMAND, *words, "--json"], env=env, capture_output=True, text=True,
                          check=False)  # fmt: skip
    # A set this small is refused by the gate itself, in its own words.
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "failed"
    assert "playbook_lift:" in done.stderr
