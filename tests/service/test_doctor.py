"""scripts/doctor: keys and tiers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from scripts.doctor_checks import check_keys, check_tiers
from tests.support.apps import make_config
from tests.support.chatd import CLOUDS, world, write_key

pytestmark = pytest.mark.anyio


def test_keys_are_found_missing_or_open_to_others(tmp_path: Path) -> None:
    write_key(tmp_path, "kimi", "KIMI_API_KEY=sk-1\n")
    write_key(tmp_path, "opencode", "OPENCODE_API_KEY=sk-2\n", mode=0o644)
    config = make_config(tmp_path, chatd={"keys_dir": tmp_path / "keys"})
    found = {finding.what: finding for finding in check_keys(config)}
    assert (found["key kimi"].ok, found["key kimi"].found) == (True, "found")
    assert found["key openrouter"].ok
    assert not found["key opencode"].ok
    assert "chmod 600" in found["key opencode"].advice
    assert "sk-" not in str(found)


async def test_a_tier_whose_model_is_gone_is_a_fault(tmp_path: Path) -> None:
    models = {"local_fast": "small", "local_judge": "lost"}
    async with world(tmp_path, providers={"ollama": CLOUDS["ollama"]}, models=models) as w:
        # As the fleet would have it: at the port of the configuration.
        section = w.config.chatd.model_copy(update={"port": w.port})
        config = w.config.model_copy(update={"chatd": section})
        found = {f.what: f for f in await asyncio.to_thread(check_tiers, config)}
    assert found["tier local_fast"].found == "small: ok"
    assert not found["tier local_judge"].ok
    assert "ollama pull lost" in found["tier local_judge"].advice
    (away,) = await asyncio.to_thread(check_tiers, config)
    assert away.ok
    assert "not running" in away.found
