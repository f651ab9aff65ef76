"""What a PUT states about its body, checked before and after the bytes have come.

`Content-Digest` (or `Repr-Digest`; the same for bodies that are not encoded) with sha-256
lets a caller have the received bytes checked against its own hash (RFC 9530).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass

from services.storaged.core.conditions import WriteCondition, parse_write_condition
from shared.errors import Invalid, UnsupportedMediaType
from shared.wire.storaged import DEFAULT_CONTENT_TYPE

MAX_CONTENT_TYPE = 200

_SHA256 = re.compile(r"(?:^|,)[ \t]*sha-256[ \t]*=[ \t]*([^,;]*)")
_VISIBLE = re.compile(r"[\x20-\x7e]+")


@dataclass(frozen=True, slots=True)
class UploadPlan:
    """The head of a PUT, parsed.

    `length` is the declared number of bytes, None when the body is chunked; `sha256` the
    digest that the caller stated, if any.
    """

    content_type: str
    length: int | None
    condition: WriteCondition
    sha256: bytes | None

    def check_received(self, size: int, sha256: bytes) -> None:
        """Lets a body pass that is what its head promised.

        Raises:
            Invalid: it is shorter or longer than declared, or has another digest.
        """
        if self.length is not None and size != self.length:
            raise Invalid(
                f"The body has {size} bytes, but Content-Length said {self.length}. "
                "Nothing was stored; send it again."
            )
        if self.sha256 is not None and sha256 != self.sha256:
            raise Invalid(
                "The body's SHA-256 is not the one in the digest header, so it was damaged "
                "on its way or the header is wrong. Nothing was stored; send it again.",
                details={"received_sha256": sha256.hex(), "size": size},
            )


def parse_upload(headers: Mapping[str, str]) -> UploadPlan:
    """Reads a PUT's headers (names in lower case).

    Raises:
        Invalid: a header is malformed or asks for what PUT does not do.
        UnsupportedMediaType: the body is encoded; objects are stored as they come.
    """
    if "content-range" in headers:
        raise Invalid("PUT stores whole objects. Send all of it, without Content-Range.")
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMediaType(
            "Objects are stored as they come: send the encoded bytes without Content-Encoding, "
            "and say so in the key (for example .csv.gz)."
        )
    content_type = headers.get("content-type", DEFAULT_CONTENT_TYPE).strip()
    if len(content_type) > MAX_CONTENT_TYPE or not _VISIBLE.fullmatch(content_type):
        raise Invalid(f"Content-Type must be 1 to {MAX_CONTENT_TYPE} printable ASCII characters.")
    declared = headers.get("content-length")
    return UploadPlan(
        content_type=content_type,
        length=int(declared) if declared is not None else None,
        condition=parse_write_condition("PUT", headers),
        sha256=_parse_digest(headers),
    )


def _parse_digest(headers: Mapping[str, str]) -> bytes | None:
    found: set[bytes] = set()
    for name in ("content-digest", "repr-digest"):
        # Other algorithms may stand beside it; RFC 9530 lets a receiver pass them over.
        for value in _SHA256.findall(headers.get(name, "")):
            found.add(_parse_sha256(name, value.strip()))
    if len(found) > 1:
        raise Invalid("The digest headers state different SHA-256 values.")
    return found.pop() if found else None


def _parse_sha256(name: str, value: str) -> bytes:
    try:
        if len(value) < 2 or value[0] != ":" or value[-1] != ":":
            raise ValueError
        digest = base64.b64decode(value[1:-1], validate=True)
    except (ValueError, binascii.Error):
        digest = b""
    if len(digest) != 32:
        raise Invalid(f"{name} must be sha-256=:<base64 of 32 bytes>: (RFC 9530).")
    return digest
