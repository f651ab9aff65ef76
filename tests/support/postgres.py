"""A PostgreSQL server of one's own: Debian's programs, a temporary folder, a free port.

It has nothing to do with a server that the machine runs anyway: neither its files, its port,
its sockets nor its settings. `initdb` refuses to work for root, so under root everything
belongs to an unprivileged user.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import sql

from scripts.private_fleet import reserve_ports

ROLE = "lakehouse"
# With what an address must escape, and what a log would give away.
PASSWORD = "s3cr:t/pa@ss word%41"
DEBIAN = Path("/usr/lib/postgresql")
# Longest that it may take to start, and to stop. Seconds.
START_S, STOP_S = 60.0, 30.0


class Postgres:
    """Starts and stops a PostgreSQL around a `with` block.

    Args:
        parent: where its temporary folder is made, on the disk to measure for example. Whom the
            server runs as must be able to get there.

    Attributes:
        port: on 127.0.0.1, the same after a restart.
    """

    def __init__(self, parent: Path | None = None) -> None:
        self.programs = find_programs()
        self.folder = Path(tempfile.mkdtemp(prefix="lakehouse-pg-", dir=parent))
        self.data = self.folder / "data"
        self.log = self.folder / "postgres.log"
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._owner = choose_owner()

    def __enter__(self) -> Postgres:
        try:
            self._initialise()
            self.start()
            with self.connect("postgres", "postgres") as connection:
                create = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
                connection.execute(create.format(sql.Identifier(ROLE), sql.Literal(PASSWORD)))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # Nobody needs its data any more: no checkpoint, which takes long for many databases.
        self.crash()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Starts it and waits until it lets somebody in.

        Raises:
            RuntimeError: it did not start, with the end of its log.
        """
        tries = 1 if self.port else 5
        for _ in range(tries):
            # Another test may take a port that was free a moment ago; after a restart it must
            # be the one that clients know.
            self.port = self.port if tries == 1 else reserve_ports(1)[0]
            if self._run():
                return
        raise RuntimeError(f"PostgreSQL did not start:\n{self.log.read_text('utf-8')[-3000:]}")

    def stop(self) -> None:
        """Ends it as an administrator does: clients are cut off, what they began is undone."""
        self._end(signal.SIGINT)

    def crash(self) -> None:
        """Ends it at once: nothing is written any more, and its next start has to recover."""
        self._end(signal.SIGQUIT)

    def make_database(self) -> str:
        """Makes an empty database of the tests' role; gives its name."""
        name = f"catalogue_{secrets.token_hex(6)}"
        with self.connect("postgres", "postgres") as connection:
            create = sql.SQL("CREATE DATABASE {} OWNER {}")
            connection.execute(create.format(sql.Identifier(name), sql.Identifier(ROLE)))
        return name

    def make_schema(self, database: str) -> str:
        """Makes an empty schema, in milliseconds; gives an address at which there is only that."""
        name = f"s{secrets.token_hex(8)}"
        with self.connect(database) as connection:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
        return f"{self.uri(database)}?options=-csearch_path%3D{name}"

    def uri(self, database: str, **parts: str) -> str:
        """The address that catalogd is given.

        Args:
            parts: others than the right ones: `user`, `password`, `host` or `port`.
        """
        user, password = parts.get("user", ROLE), parts.get("password", PASSWORD)
        login = user + (f":{quote(password, safe='')}" if password else "")
        where = f"{parts.get('host', '127.0.0.1')}:{parts.get('port', self.port)}"
        return f"postgresql://{login}@{where}/{database}"

    def connect(self, database: str, user: str = ROLE) -> psycopg.Connection[Any]:
        """A connection beside catalogd's, for a look; the superuser needs no password."""
        password = PASSWORD if user == ROLE else None
        return psycopg.connect(
            host="127.0.0.1" if password else str(self.folder),
            port=self.port,
            dbname=database,
            user=user,
            password=password,
            autocommit=True,
            connect_timeout=10,
        )

    def _initialise(self) -> None:
        if self._owner is not None:
            os.chown(self.folder, self._owner, -1)
        # Sorted as people sort: whoever relies on the order of bytes must say so.
        locale = ("--encoding=UTF8", "--locale=C", "--locale-provider=icu", "--icu-locale=en-US")
        done = subprocess.run(
            [
                str(self.programs / "initdb"),
                f"--pgdata={self.data}",
                "--username=postgres",
                "--auth-local=trust",
                "--auth-host=scram-sha-256",
                "--no-sync",
                "--no-instructions",
                *locale,
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env=clean_environment(),
            timeout=START_S,
            **self._as_owner(),
        )
        if done.returncode:
            raise RuntimeError(f"initdb failed:\n{done.stdout}{done.stderr}")

    def _run(self) -> bool:
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
            "fsync": "on",
            "synchronous_commit": "on",
            "shared_buffers": "16MB",
            "max_connections": "60",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(self.programs / "postgres"), "-D", str(self.data), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=clean_environment(),
                start_new_session=True,
                **self._as_owner(),
            )
        deadline = time.monotonic() + START_S
        while self.process.poll() is None:
            try:
                self.connect("postgres", "postgres").close()
                return True
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    self.stop()
                    return False
                time.sleep(0.02)
        self.process = None
        return False

    def _end(self, how: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _as_owner(self) -> dict[str, Any]:
        if self._owner is None:
            return {}
        return {"user": self._owner, "group": pwd.getpwuid(self._owner).pw_gid, "extra_groups": ()}


def find_programs() -> Path:
    """The folder of `initdb` and `postgres`: Debian's newest, else where the PATH has them.

    Raises:
        RuntimeError: there is none.
    """
    versions = [path for path in DEBIAN.glob("*/bin") if path.parent.name.isdigit()]
    for folder in sorted(versions, key=lambda path: int(path.parent.name), reverse=True):
        if all((folder / name).exists() for name in ("initdb", "postgres")):
            return folder
    found = shutil.which("initdb")
    if found is None:
        raise RuntimeError("PostgreSQL's server is missing: scripts/tools --all installs it")
    return Path(found).resolve().parent


def choose_owner() -> int | None:
    """Whom the server runs as: an unprivileged user for root, else whoever runs the tests."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    raise RuntimeError("PostgreSQL does not run as root, and there is no user nobody")


def clean_environment() -> dict[str, str]:
    """The environment without what speaks of another server."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("PG")},
        "LC_ALL": "C",
    }
