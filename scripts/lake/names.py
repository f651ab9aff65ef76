"""Names for shell completion, asked of the gateway; whatever goes wrong, there are none."""

from __future__ import annotations

import http.client
import json
import os
from typing import Any
from urllib.parse import urlsplit

from shared.config import ConfigError, load
from shared.daemons import ROOT

# A shell waits for this. Seconds.
PATIENCE_S = 1.0


def complete_table(incomplete: str) -> list[str]:
    """Tables that begin so."""
    found = _ask("/v1/sql/tables").get("tables", [])
    return [name for name in found if name.startswith(incomplete)]


def complete_corpus(incomplete: str) -> list[str]:
    """Corpora that begin so."""
    found = _ask("/v1/matrix/corpora").get("corpora", [])
    return [each["name"] for each in found if each["name"].startswith(incomplete)]


def complete_tier(incomplete: str) -> list[str]:
    """Tiers that begin so."""
    found = _ask("/v1/models").get("data", [])
    names = [str(each["id"]) for each in found]
    return [name for name in names if name.startswith(incomplete)]


def _ask(path: str) -> dict[str, Any]:
    try:
        config = load(ROOT / "config" / "lakehouse.toml", os.environ)
        own = config.gateway.address
        address = (os.environ.get("LAKEHOUSE_GATEWAY") or own).rstrip("/")
        url = urlsplit(address if "://" in address else f"http://{address}")
        # As everywhere: the configured secret is for the configured gateway alone.
        token = os.environ.get("LAKEHOUSE_TOKEN") or (config.token if address == own else "")
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        connection = kind(url.netloc, timeout=PATIENCE_S)
        try:
            headers = {"authorization": f"Bearer {token}"} if token else {}
            connection.request("GET", url.path.rstrip("/") + path, headers=headers)
            answer: Any = json.loads(connection.getresponse().read())
        finally:
            connection.close()
    except (ConfigError, OSError, ValueError, http.client.HTTPException):
        return {}
    return answer if isinstance(answer, dict) else {}
