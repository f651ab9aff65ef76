"""What is asked of embedd: names, texts, forms, and the shape of errors."""

from __future__ import annotations

from typing import Any

import pytest

from services.embedd.core.accept import choose_form
from services.embedd.core.names import make_id, resolve_name
from services.embedd.core.texts import check_texts, read_input
from shared.config import Config, ConfigError, load
from shared.errors import Invalid, NotAcceptable, NotFound, RateLimited, Unauthorized, Unavailable
from shared.protocols import openai_error
from shared.sections.embed import EmbeddSection
from shared.wire.embedd import ARROW_STREAM

PROVIDERS = {"local": ("minilm-x",), "ollama": ("nomic",), "api": ("small", "large", "nomic")}
ALIASES = {"fast": "local", "best": "big", "big": "api/large"}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("local", ("local", "minilm-x", "")),
        ("ollama/mxbai:v1", ("ollama", "mxbai:v1", "")),
        ("ollama/org/model:v1", ("ollama", "org/model:v1", "")),
        ("fast", ("local", "minilm-x", "")),
        ("best", ("api", "large", "")),
        ("minilm-x", ("local", "minilm-x", "")),
        ("local/minilm-x@0123456789ab", ("local", "minilm-x", "0123456789ab")),
        ("large@0123456789ab", ("api", "large", "0123456789ab")),
    ],
)
def test_names_stand_for_models(name: str, wanted: tuple[str, str, str]) -> None:
    assert resolve_name(name, ALIASES, PROVIDERS) == wanted


@pytest.mark.parametrize("name", ["absent", "nomic", "local/", "x/y", "large@short"])
def test_other_names_are_404_with_those_that_would_do(name: str) -> None:
    with pytest.raises(NotFound) as refused:
        resolve_name(name, ALIASES, PROVIDERS)
    assert "fast" in refused.value.message
    assert "api/large" in refused.value.details["known"]


def test_an_id_carries_the_hash_where_there_is_one() -> None:
    assert make_id("p", "m", "sha256:" + "ab" * 32) == "p/m@abababababab"
    assert make_id("p", "m", "") == "p/m"


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        ([], "is empty"),
        (["a", "", "b"], r"texts\[1\] is an empty string"),
        (["a"] * 4, "at most 3"),
    ],
)
def test_texts_without_a_vector_are_named(texts: list[str], says: str) -> None:
    with pytest.raises(Invalid, match=says):
        check_texts(texts, 3)
    check_texts([" ", "\x00", "a"], 3)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([1, 2, 3], "token arrays"),
        ([[1, 2], [3]], "token arrays"),
        (["a", 5], "token arrays"),
        (["a", None], r"input\[1\] is not a string"),
        (["a", True], r"input\[1\] is not a string"),
        (["a", {"x": 1}], r"input\[1\] is not a string"),
        ({"a": 1}, "must be a string or a list"),
        (None, "must be a string or a list"),
        ("", "empty string"),
        ([], "input is empty"),
    ],
)
def test_openai_input_that_is_refused(given: Any, says: str) -> None:
    with pytest.raises(Invalid, match=says) as refused:
        read_input(given, 10)
    assert refused.value.details["field"] == "input"


def test_openai_input_that_is_taken() -> None:
    assert read_input("a", 10) == ["a"]
    assert read_input(["a", "b"], 10) == ["a", "b"]


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "json"),
        ("*/*", "json"),
        ("application/json", "json"),
        (ARROW_STREAM, "arrow"),
        (f"{ARROW_STREAM};q=0.5, application/json;q=0.4", "arrow"),
        (f"{ARROW_STREAM}, application/json", "arrow"),
        (f"application/json, {ARROW_STREAM};q=0.9", "json"),
        (f"text/html, {ARROW_STREAM};q=0", "none"),
        ("text/csv", "none"),
        ("application/json;q=x", "none"),
    ],
)
def test_the_form_follows_accept(accept: str, form: str) -> None:
    if form == "none":
        with pytest.raises(NotAcceptable):
            choose_form(accept)
    else:
        assert choose_form(accept) == form


@pytest.mark.parametrize(
    ("error", "kind", "param", "code"),
    [
        (Invalid("x", details={"field": "input"}), "invalid_request_error", "input", "invalid"),
        (NotFound("x", details={"model": "m"}), "not_found_error", "model", "model_not_found"),
        (NotFound("x"), "not_found_error", None, "not_found"),
        (Unauthorized("x"), "authentication_error", None, "invalid_api_key"),
        (RateLimited("x"), "rate_limit_error", None, "rate_limit_exceeded"),
        (Unavailable("x"), "server_error", None, "unavailable"),
    ],
)
def test_openai_errors_have_all_four_keys(
    error: Any, kind: str, param: str | None, code: str
) -> None:
    body = openai_error(error)
    assert body == {"error": {"message": "x", "type": kind, "param": param, "code": code}}


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"LAKEHOUSE_EMBEDD__DEFAULT_MODEL": "absent/x"}, "absent/x names no provider"),
        ({"LAKEHOUSE_EMBEDD__ALIASES__A": "nowhere"}, "nowhere names no provider"),
        ({"LAKEHOUSE_EMBEDD__ALIASES": '{a = "b", b = "a"}'}, "leads back to itself"),
        ({"LAKEHOUSE_EMBEDD__MAX_QUEUED_TEXTS": "5"}, "max_queued_texts"),
        ({"LAKEHOUSE_EMBEDD__PROVIDERS__FAKE__URL": "http://x"}, "either url or daemon"),
        ({"LAKEHOUSE_EMBEDD__PROVIDERS__FAKE__DAEMON": "faked"}, "there is no faked"),
        ({"LAKEHOUSE_EMBEDD__PROVIDERS__LOCAL__SHA256": "12"}, "sha256"),
        ({"LAKEHOUSE_EMBEDD__PROVIDERS__LOCAL__KIND": "magic"}, "kind"),
    ],
)
def test_configuration_that_cannot_work_is_told(setting: dict[str, str], says: str) -> None:
    from shared.daemons import ROOT

    with pytest.raises(ConfigError, match=says):
        load(ROOT / "config" / "lakehouse.toml", setting)


def test_a_provider_can_be_changed_by_one_variable() -> None:
    from shared.daemons import ROOT

    config: Config = load(
        ROOT / "config" / "lakehouse.toml",
        {"LAKEHOUSE_EMBEDD__PROVIDERS__OLLAMA__URL": "http://elsewhere:1"},
    )
    changed = config.embedd.providers["ollama"]
    assert getattr(changed, "url", None) == "http://elsewhere:1"
    assert EmbeddSection().providers["local"] == config.embedd.providers["local"]
