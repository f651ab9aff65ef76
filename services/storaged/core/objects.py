"""What storaged knows of a stored object, and how it is told on the wire."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from urllib.parse import quote

from shared.wire.storaged import URI_HEADER, ObjectInfo

# Printable ASCII but for the percent sign, which has to mark what is encoded.
_HEADER_SAFE = "".join(chr(code) for code in range(0x20, 0x7F) if code != 0x25)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as a backend describes it.

    `digest` is the SHA-256 of the content, None where only the place's own mark of this
    version is known (`version`, unquoted); `modified_ns` is in nanoseconds since 1970.
    """

    key: str
    size: int
    digest: bytes | None
    modified_ns: int
    content_type: str
    uri: str
    version: str = ""

    @property
    def etag(self) -> str:
        """The content's hash, quoted: equal bytes have equal etags, on any machine.

        Where it is not known, the place's own mark of this version.
        """
        return f'"{self.digest.hex() if self.digest is not None else self.version}"'

    @property
    def modified_s(self) -> int:
        """Whole seconds since 1970, as HTTP dates count them."""
        return self.modified_ns // 1_000_000_000

    def to_info(self) -> ObjectInfo:
        """The wire model."""
        modified = datetime.fromtimestamp(self.modified_s, UTC)
        return ObjectInfo(
            key=self.key,
            etag=self.etag,
            size=self.size,
            uri=self.uri,
            last_modified=modified.strftime("%Y-%m-%dT%H:%M:%SZ"),
            content_type=self.content_type,
        )

    def headers(self) -> dict[str, str]:
        """Response headers that describe the object, whatever part of it is sent.

        A stored page must not act in the origin of the console, hence the last two.
        """
        described = {
            "etag": self.etag,
            "last-modified": formatdate(self.modified_s, usegmt=True),
            "accept-ranges": "bytes",
            "content-type": self.content_type,
            URI_HEADER: quote(self.uri, safe=_HEADER_SAFE),
            "x-content-type-options": "nosniff",
            "content-security-policy": "default-src 'none'; sandbox",
        }
        if self.digest is not None:
            encoded = base64.b64encode(self.digest).decode()
            described["repr-digest"] = f"sha-256=:{encoded}:"
        return described
