"""Configuration: one TOML file, one frozen class per section, all of it checked at once.

`load` is the only way in. It reads the file, lays the environment's overrides over it
(`LAKEHOUSE_<SECTION>__<KEY>`, nested keys by further double underscores; values are read
as TOML, or as plain text where they are none) and validates everything before anything is
built. Every error comes in one message with its dotted path.
"""

from __future__ import annotations

import ipaddress
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError, model_validator

from shared.sections.base import DaemonSection, Section
from shared.sections.chat import ChatdSection
from shared.sections.common import AuthSection, FleetSection, HttpSection, LogSection
from shared.sections.data import (
    CatalogdSection,
    GatewaySection,
    IngestdSection,
    QuerydSection,
    StoragedSection,
)
from shared.sections.embed import EmbeddSection, FakeOllamaSection
from shared.sections.learning import PathwaydSection
from shared.sections.matrix import MatrixdSection, ModelsSection
from shared.sections.mcp import McpdSection
from shared.sections.observe import ObserverdSection
from shared.sections.storage import StorageSection
from shared.sections.vectors import VectordSection

ENV_PREFIX = "LAKEHOUSE_"
MASK = "********"


class ConfigError(Exception):
    """The configuration cannot be used; the message lists every reason by dotted path."""


class Config(Section):
    """The whole configuration. `base_dir` is the folder that relative paths start from."""

    base_dir: Path
    fleet: FleetSection = FleetSection()
    auth: AuthSection = AuthSection()
    http: HttpSection = HttpSection()
    log: LogSection = LogSection()
    storage: StorageSection = StorageSection()
    gateway: GatewaySection = GatewaySection()
    storaged: StoragedSection = StoragedSection()
    catalogd: CatalogdSection = CatalogdSection()
    ingestd: IngestdSection = IngestdSection()
    queryd: QuerydSection = QuerydSection()
    embedd: EmbeddSection = EmbeddSection()
    fake_ollama: FakeOllamaSection = FakeOllamaSection()
    vectord: VectordSection = VectordSection()
    pathwayd: PathwaydSection = PathwaydSection()
    matrixd: MatrixdSection = MatrixdSection()
    observerd: ObserverdSection = ObserverdSection()
    chatd: ChatdSection = ChatdSection()
    mcpd: McpdSection = McpdSection()
    models: ModelsSection = ModelsSection()

    @model_validator(mode="after")
    def _check_whole(self) -> Config:
        problems: list[str] = []
        taken: dict[int, str] = {}
        for name, section in self.daemons().items():
            # A section with a url of its own may describe a daemon on another machine.
            other = name if section.url else taken.setdefault(section.port, name)
            if other != name:
                problems.append(f"{name}.port: {section.port} is {other}'s already")
            if not is_loopback(section.host) and not self.token:
                problems.append(
                    f"{name}.host: {section.host} is not loopback, and no auth.token is set. "
                    "Set auth.token or auth.token_file, or bind 127.0.0.1"
                )
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def daemons(self) -> dict[str, DaemonSection]:
        """Every daemon's section by name."""
        found = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: s for name, s in found.items() if isinstance(s, DaemonSection)}

    def daemon(self, name: str) -> DaemonSection:
        """One daemon's section.

        Raises:
            KeyError: this build has no such daemon.
        """
        return self.daemons()[name]

    @property
    def token(self) -> str:
        """The shared secret; empty when auth is off."""
        return self.auth.token.get_secret_value()

    def data_dir(self, service: str = "") -> Path:
        """Absolute data directory of one daemon, or of the fleet; not created here."""
        return (self.base_dir / self.fleet.data_dir / service).resolve()

    def effective(self) -> dict[str, Any]:
        """All values in force as plain data, secrets masked, for people to read."""
        shown = self.model_dump(mode="json", exclude={"base_dir"})
        if self.auth.token.get_secret_value():
            shown["auth"]["token"] = MASK
        return shown


def is_loopback(host: str) -> bool:
    """Whether a bind address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def load(path: Path, environ: Mapping[str, str] | None = None) -> Config:
    """Reads, overlays and validates the configuration.

    Args:
        path: the TOML file. Relative paths in it start from its folder.
        environ: where overrides come from; none when absent.

    Raises:
        ConfigError: with every problem by its dotted path, a line each.
    """
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}") from None
    problems = overlay_environment(values, environ or {})
    problems += read_token_file(values, path.resolve().parent)
    try:
        config = Config.model_validate({**values, "base_dir": path.resolve().parent})
    except ValidationError as error:
        problems += describe_problems(error)
    else:
        if not problems:
            return config
    raise ConfigError(f"{path}: the configuration cannot be used:\n  " + "\n  ".join(problems))


def overlay_environment(values: dict[str, Any], environ: Mapping[str, str]) -> list[str]:
    """Lays `LAKEHOUSE_<SECTION>__<KEY>` over `values` in place; gives what was wrong."""
    problems: list[str] = []
    for name in sorted(environ):
        if not name.startswith(ENV_PREFIX) or "__" not in name:
            continue
        *parents, key = name[len(ENV_PREFIX) :].lower().split("__")
        table = values
        for parent in parents:
            inner: object = table.setdefault(parent, {})
            if not isinstance(inner, dict):
                problems.append(f"{name}: {parent} is a value, not a table")
                break
            table = cast("dict[str, Any]", inner)
        else:
            table[key] = parse_value(environ[name])
    return problems


def read_token_file(values: dict[str, Any], base_dir: Path) -> list[str]:
    """Puts the content of `auth.token_file` in place of `auth.token`; gives what was wrong."""
    section: object = values.get("auth", {})
    if not isinstance(section, dict):
        return []  # validation says so
    auth = cast("dict[str, Any]", section)
    named: object = auth.get("token_file")
    if not isinstance(named, str):
        return []
    try:
        auth["token"] = (base_dir / named).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        return [f"auth.token_file: cannot be read ({getattr(error, 'strerror', 'not UTF-8')})"]
    return [] if auth["token"] else ["auth.token_file: the file is empty"]


def parse_value(text: str) -> object:
    """A TOML value, or the text itself where it is none (`local`, `127.0.0.1`)."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def describe_problems(error: ValidationError) -> list[str]:
    """One line per problem, each beginning with the dotted path of its key."""
    lines: list[str] = []
    for problem in error.errors(include_url=False, include_input=False):
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"{where}: unknown key")
        elif problem["type"] == "value_error" and not where:
            lines += str(problem["ctx"]["error"]).split("\n")  # pyright: ignore[reportTypedDictNotRequiredAccess]
        else:
            lines.append(f"{where}: {problem['msg']}")
    return lines
