#!/usr/bin/env python3
"""Makes the files of a new daemon. What it makes runs; the repo tests say what is left.

Written: the service folder, wire, client, docs page and a service test. Told, because they
hold decisions: the section class, its table in config/lakehouse.toml, the systemd target's
line, the smoke, and the routes themselves.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from shared.daemons import BUILT, PORTS

FILES = {
    "services/{name}/__init__.py": '"""{name}: say in one sentence what it owns."""\n',
    "services/{name}/__main__.py": '''"""python -m services.{name} --config FILE"""

from services.{name}.app import create_app
from shared.runtime import serve

serve("{name}", create_app)
''',
    "services/{name}/core.py": '"""Decisions of {name}: no I/O, no framework, no clock."""\n',
    "services/{name}/store.py": '"""Side effects of {name}."""\n',
    "services/{name}/app.py": '''"""Wiring and routes of {name}."""

from __future__ import annotations

from fastapi import FastAPI

from shared.config import Config
from shared.runtime import Transports, create_base


def create_app(config: Config, *, transports: Transports | None = None) -> FastAPI:
    """The {name} app; `transports` joins it to other apps in one process."""
    return create_base("{name}", config)
''',
    "shared/wire/{name}.py": '"""{name}: its requests and responses."""\n',
    "shared/clients/{name}.py": '''"""Client of {name}."""

from __future__ import annotations

from shared.clients.base import ServiceClient
from shared.config import Config
from shared.runtime import Transports


class {title}Client(ServiceClient):
    """Talks to {name}."""

    def __init__(self, config: Config, transports: Transports | None = None) -> None:
        super().__init__(config, "{name}", transports)
''',
    "docs/{name}.md": "# {name}\n\nPort {port}. What it owns, its routes, its settings.\n",
    "tests/service/test_{name}.py": '''"""{name} over ASGI: every route has a wiring test."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.{name}.app import create_app
from tests.support.apps import client_of, make_config

pytestmark = pytest.mark.anyio


async def test_is_alive(tmp_path: Path) -> None:
    async with client_of(create_app(make_config(tmp_path))) as client:
        assert (await client.get("/health")).json()["service"] == "{name}"
''',
}


def main() -> int:
    """Writes the files of the daemon named on the command line; gives the exit status."""
    if len(sys.argv) != 2 or sys.argv[1] not in PORTS:
        print(f"usage: just new NAME, one of: {', '.join(n for n in PORTS if n not in BUILT)}")
        return 2
    name = sys.argv[1]
    if name in BUILT:
        print(f"services/{name} exists already.")
        return 1
    for template, content in FILES.items():
        path = ROOT / template.format(name=name)
        if path.exists():
            print(f"kept   {path.relative_to(ROOT)}")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content.format(name=name, port=PORTS[name], title=name.title()), "utf-8")
        print(f"made   {path.relative_to(ROOT)}")
    print(
        f"""
Next:
  1. shared/sections: class {name.title()}Section(DaemonSection), and a field of Config.
  2. config/lakehouse.toml: [{name}] with every key and a comment.
  3. deploy/systemd/lakehouse.target: Wants=lakehouse@{name}.service
  4. scripts/smoke/NN_story.sh, and its name in tests/repo/test_tree.py.
  5. scripts/verify stays red until all of it is filled."""
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
