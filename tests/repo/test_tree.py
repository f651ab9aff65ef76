"""The tree itself: whoever knows one daemon finds everything of another at the same place."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shared.config import Config
from shared.daemons import BUILT, PORTS, ROOT
from shared.sections.matrix import ModelsSection

# The smoke that tells each daemon's story.
SMOKES = {
    "gateway": "d1",
    "storaged": "d2",
    "catalogd": "d3",
    "ingestd": "d4",
    "queryd": "d5",
    "vectord": "g1",
    "embedd": "g2",
    "fake_ollama": "g2_smoke_fixtures",
    "pathwayd": "pathway",
    "matrixd": "matrix",
    "observerd": "observer",
    "chatd": "chatd",
    "mcpd": "mcp",
}
# The gateway has no routes of its own to model: it passes on those of the others.
WITHOUT_WIRE = {"gateway"}

PYTHON_FILES = sorted(
    path
    for folder in ("services", "shared", "scripts", "tests", "bench")
    for path in (ROOT / folder).rglob("*.py")
)


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
    ).stdout.decode()
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).exists()]


@pytest.mark.parametrize("name", BUILT)
def test_every_daemon_has_all_its_files(name: str) -> None:
    folder = ROOT / "services" / name
    for module in ("__init__", "__main__", "app"):
        assert (folder / f"{module}.py").is_file(), f"services/{name}/{module}.py is missing"
    for room in ("core", "store"):
        assert (folder / f"{room}.py").is_file() or (folder / room / "__init__.py").is_file()
    assert name in Config.model_fields, f"[{name}] has no section class"
    if name not in WITHOUT_WIRE:
        for kind in ("wire", "clients"):
            assert (ROOT / "shared" / kind / f"{name}.py").is_file(), f"shared/{kind}/{name}.py"
    assert (ROOT / "docs" / f"{name}.md").is_file(), f"docs/{name}.md is missing"
    assert list((ROOT / "tests" / "unit").glob(f"test_{name}*.py")), "no unit tests"
    assert list((ROOT / "tests" / "service").glob(f"test_{name}*.py")), "no service tests"
    assert list((ROOT / "scripts" / "smoke").glob(f"[0-9]*_{SMOKES[name]}.sh")), "no smoke"
    target = (ROOT / "deploy" / "systemd" / "lakehouse.target").read_text()
    assert f"Wants=lakehouse@{name}.service" in target, "the systemd target does not start it"


def test_every_folder_of_services_is_on_the_roster() -> None:
    folders = {p.name for p in (ROOT / "services").iterdir() if (p / "__init__.py").is_file()}
    assert folders == set(BUILT)
    assert folders <= set(PORTS)


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_say_what_they_are_for_and_stay_readable(path: Path) -> None:
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    if path.name != "__init__.py" or path.parent.parent.name == "services":
        assert ast.get_docstring(tree), "the module has no docstring"
    if "tests" not in path.relative_to(ROOT).parts:
        assert text.count("\n") <= 400, "past 400 lines a module wants rooms"
        for node in tree.body:
            public = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            if public and not node.name.startswith("_"):
                stated = ast.get_docstring(node) or _is_error_class(path, node)
                assert stated, f"{node.name} has no docstring"


def _is_error_class(path: Path, node: ast.AST) -> bool:
    # The taxonomy's classes are their code and status, told in the module's docstring.
    return path.name == "errors.py" and isinstance(node, ast.ClassDef)


def _checks_something(node: ast.AST) -> bool:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Assert):
            return True
        if isinstance(inner, ast.Call):
            called = inner.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            # A call of a function that checks: pytest.raises, assert_…, expect_…, check_….
            if name == "raises" or re.match(r"_?(assert|expect|check)", name):
                return True
    return False


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "tests").rglob("test_*.py")),
    ids=lambda p: str(p.relative_to(ROOT / "tests")),
)
def test_every_test_can_fail(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith(
            "test_"
        ):
            # `check` of a Gatekeeper and the like raise; a bare call is a check only by name.
            assert _checks_something(node), f"{path.name}: {node.name} asserts nothing"


def test_no_file_speaks_of_the_place_it_was_made_in() -> None:
    # Spelled in pieces, so that this file does not find itself.
    forbidden = re.compile(
        r"\.\./sha" + r"red\b|/wo" + r"rk/|files\.python" + r"hosted|pypi\.o" + "rg/simple"
    )
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in tracked_files()
        if path.stat().st_size < 2_000_000
        for match in [forbidden.search(path.read_text("utf-8", "ignore"))]
        if match
    ]
    assert found == []


def test_models_are_named_in_the_configuration_alone() -> None:
    section = ModelsSection()
    values = [*section.weak_models, *(v for v in vars(section).values() if isinstance(v, str))]
    named = re.compile("|".join(re.escape(name.removesuffix(":latest")) for name in set(values)))
    homes = {ROOT / "config" / "lakehouse.toml", ROOT / "shared" / "sections" / "matrix.py"}
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in tracked_files()
        if path not in homes and path.suffix in {".py", ".sh", ".toml"}
        for match in [named.search(path.read_text("utf-8", "ignore"))]
        if match
    ]
    assert found == [], "name a tier (tier/local_fast) instead of a model"


# Families of models with what makes an id of their name: no code may hold one, known or not.
MODEL_ID = re.compile(
    r"\b(gpt-\d|gpt-oss|claude-[a-z0-9]|gemini-\d|qwen\d|kimi-k\d|llama-?\d|deepseek-[a-z]"
    r"|mistral-[a-z])",
    re.IGNORECASE,
)


def test_no_code_holds_a_models_id() -> None:
    # Its patterns say which protocol a family speaks; ids stand in [models] beside it.
    homes = {ROOT / "shared" / "sections" / "chat.py", ROOT / "shared" / "sections" / "matrix.py"}
    code = [ROOT / folder for folder in ("services", "shared", "scripts", "bench")]
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in tracked_files()
        if path.suffix in {".py", ".sh", ""} and path not in homes
        if any(folder in path.parents for folder in code)
        for match in [MODEL_ID.search(path.read_text("utf-8", "ignore"))]
        if match
    ]
    assert found == [], "name a tier (tier/local_fast) instead of a model"


def test_locks_carry_hashes_and_no_addresses() -> None:
    for name in ("requirements.lock", "requirements-dev.lock", "requirements-model.lock"):
        text = (ROOT / name).read_text()
        assert "://" not in text
        assert not re.search(r"^\s*--(index|find|extra-index)", text, re.M)
        packages = re.findall(r"^[a-zA-Z0-9][^\n]*==", text, re.M)
        blocks = re.split(r"^(?=[a-zA-Z0-9])", text, flags=re.M)
        unhashed = [b.split("=")[0] for b in blocks if "==" in b and "--hash=sha256:" not in b]
        assert packages
        assert unhashed == []


def test_import_contracts_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_recipes_name_scripts_that_exist() -> None:
    for script in re.findall(r"^ {4}(scripts/\S+)", (ROOT / "justfile").read_text(), re.M):
        path = ROOT / script
        assert path.is_file(), f"the justfile calls {script}, which is missing"
        assert path.stat().st_mode & 0o111, f"{script} is not executable"
