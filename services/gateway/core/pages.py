"""What a page of the gateway may do in a browser: run its own script, ask its own server."""

from __future__ import annotations

import base64
import hashlib
import re

_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)
_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def content_security_policy(page: str) -> str:
    """A policy under which nothing but the page's own inline script and style is used.

    They are named by their SHA-256, so markup that found its way into the page could neither
    run nor load anything, and the page itself cannot come to depend on another host.
    """
    scripts = " ".join(_hash(text) for text in _SCRIPT.findall(page)) or "'none'"
    styles = " ".join(_hash(text) for text in _STYLE.findall(page)) or "'none'"
    return (
        f"default-src 'none'; connect-src 'self'; script-src {scripts}; style-src {styles}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
