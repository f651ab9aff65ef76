"""Configuration: everything wrong is told at once, by its dotted path."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from shared.config import Config, ConfigError, is_loopback, load, parse_value
from shared.daemons import BUILT, PORTS, ROOT

SHIPPED = ROOT / "config" / "lakehouse.toml"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "lakehouse.toml"
    path.write_text(text)
    return path


def test_shipped_file_holds_the_defaults_and_nothing_else() -> None:
    config = load(SHIPPED)
    assert config == Config(base_dir=SHIPPED.parent)
    assert {name: config.daemon(name).port for name in BUILT} == {n: PORTS[n] for n in BUILT}


def test_every_setting_stands_in_the_shipped_file_with_a_comment() -> None:
    text = SHIPPED.read_text("utf-8")
    for section, fields in Config(base_dir=SHIPPED.parent).effective().items():
        body = text.split(f"\n[{section}]", 1)[1].split("\n[", 1)[0]
        for key, value in fields.items():
            if isinstance(value, dict):
                assert f"\n[{section}.{key}]" in text, f"{section}.{key} is not in the file"
                continue
            lines = [line for line in body.splitlines() if line.lstrip("# ").startswith(f"{key} =")]
            assert lines, f"{section}.{key} is not in {SHIPPED.name}"
            assert "  # " in lines[0] or " # " in lines[0], f"{section}.{key} has no comment"


def test_all_problems_come_in_one_message_with_their_paths(tmp_path: Path) -> None:
    path = write(tmp_path, '[gateway]\nport = "x"\n[queryd]\nporrt = 1\n[unknown]\na = 1\n')
    with pytest.raises(ConfigError) as caught:
        load(path, {"LAKEHOUSE_HTTP__MAX_HEADER_BYTES": "3"})
    message = str(caught.value)
    assert "gateway.port: " in message
    assert "queryd.porrt: unknown key" in message
    assert "unknown: unknown key" in message
    assert "http.max_header_bytes: " in message


def test_environment_overrides_the_file_and_only_through_its_argument(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKEHOUSE_GATEWAY__PORT", "9999")
    path = write(tmp_path, "[gateway]\nport = 4000\n")
    assert load(path).gateway.port == 4000
    assert load(path, {"LAKEHOUSE_GATEWAY__PORT": "4001"}).gateway.port == 4001


def test_environment_that_nests_into_a_value_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, "[gateway]\nport = 4000\n")
    with pytest.raises(ConfigError, match="port is a value, not a table"):
        load(path, {"LAKEHOUSE_GATEWAY__PORT__DEEPER": "1"})


def test_public_bind_without_a_token_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, '[gateway]\nhost = "0.0.0.0"\n')
    with pytest.raises(ConfigError, match=r"gateway\.host: 0\.0\.0\.0 is not loopback"):
        load(path)
    assert load(path, {"LAKEHOUSE_AUTH__TOKEN": "secret"}).gateway.host == "0.0.0.0"


def test_two_daemons_cannot_share_a_port(tmp_path: Path) -> None:
    path = write(tmp_path, "[gateway]\nport = 3211\n")
    with pytest.raises(ConfigError, match=r"storaged\.port: 3211 is gateway's already"):
        load(path)


def test_token_file_is_read_relative_to_the_file_and_masked(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    path = write(tmp_path, '[auth]\ntoken_file = "token"\n')
    config = load(path)
    assert config.token == "s3cret"
    assert "s3cret" not in str(config.effective())
    assert "s3cret" not in repr(config)


@pytest.mark.parametrize(("content", "why"), [(None, "cannot be read"), ("\n", "empty")])
def test_token_file_that_gives_no_token_is_an_error(
    tmp_path: Path, content: str | None, why: str
) -> None:
    if content is not None:
        (tmp_path / "token").write_text(content)
    path = write(tmp_path, '[auth]\ntoken_file = "token"\n')
    with pytest.raises(ConfigError, match=why):
        load(path)


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load(write(tmp_path, "[gateway\n"))


def test_relative_data_dir_starts_from_the_files_folder(tmp_path: Path) -> None:
    config = load(write(tmp_path, '[fleet]\ndata_dir = "state"\n'))
    assert config.data_dir("storaged") == tmp_path / "state" / "storaged"


@pytest.mark.parametrize(
    ("text", "value"),
    [("4000", 4000), ("true", True), ('["a"]', ["a"]), ("local", "local"), ("0.5", 0.5), ("", "")],
)
def test_environment_values_are_toml_or_text(text: str, value: object) -> None:
    assert parse_value(text) == value


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("[::1]", True), ("localhost", True), ("0.0.0.0", False)],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_effective_values_survive_a_round_trip_through_toml(tmp_path: Path) -> None:
    from scripts.fleet import render_toml

    config = Config(base_dir=tmp_path)
    again = tomllib.loads(render_toml(config.effective()))
    assert Config.model_validate({**again, "base_dir": tmp_path}) == config
