"""Bodies that name files in storage in place of being one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from services.ingestd.core.requested import REFERENCE, UPLOADS
from shared.errors import Invalid

_FORMS = frozenset({"object", "objects", "prefix"})


@dataclass(frozen=True, slots=True)
class Reference:
    """Which objects are meant: those of the keys, in this order, or all under a prefix.

    Attributes:
        keys: of one or several objects; none where there is a prefix.
        prefix: what the keys begin with.
    """

    keys: tuple[str, ...] = ()
    prefix: str | None = None

    @property
    def name(self) -> str | None:
        """The key of the one object, or the prefix; None for a list."""
        return self.prefix if len(self.keys) != 1 else self.keys[0]


def parse_reference(body: bytes, most: int) -> Reference:
    """The objects that a body names.

    Args:
        body: JSON: `{"object": key}`, `{"objects": [key, …]}` or `{"prefix": text}`.
        most: files that one ingest may have.

    Raises:
        Invalid: the body is none of these, or names objects elsewhere, twice, or too many.
    """
    try:
        found: object = json.loads(body)
    except ValueError:
        found = None
    given = cast("dict[str, object]", found) if isinstance(found, dict) else {}
    if len(given) != 1 or not given.keys() <= _FORMS:
        raise _refuse()
    (form, value) = next(iter(given.items()))
    if form == "prefix":
        if not isinstance(value, str):
            raise _refuse()
        if not value.startswith(UPLOADS):
            raise _refuse_place(value)
        return Reference(prefix=value)
    keys: Sequence[object] = (value,)
    if form == "objects":
        if not isinstance(value, list) or not value:
            raise _refuse()
        keys = cast("list[object]", value)
    check_count(len(keys), most)
    checked: dict[str, None] = {}
    for key in keys:
        if not isinstance(key, str):
            raise _refuse()
        if not key.startswith(UPLOADS) or key == UPLOADS:
            raise _refuse_place(key)
        if key in checked:
            raise Invalid(
                f"{key[:200]!r} is named twice. Name each object once.", details={"object": key}
            )
        checked[key] = None
    return Reference(tuple(checked))


def check_count(count: int, most: int) -> None:
    """Refuses more files than one ingest may have."""
    if count > most:
        raise Invalid(
            f"One ingest takes at most {most} files, and these are more. Send them in several "
            "requests, or raise ingestd.max_files.",
            details={"limit": most},
        )


def _refuse() -> Invalid:
    return Invalid(
        f'A body of {REFERENCE} is {{"object": "{UPLOADS}…"}}, the key of a file in storage, '
        f'{{"objects": ["{UPLOADS}…", …]}} for several as one ingest, or '
        f'{{"prefix": "{UPLOADS}…"}} for all whose keys begin so. To send rows themselves, use '
        "text/csv, or application/x-ndjson for JSON lines."
    )


def _refuse_place(key: str) -> Invalid:
    return Invalid(
        f"Files are taken from beneath {UPLOADS}, and {key[:200]!r} is not there. "
        f"PUT /storage/objects/{UPLOADS}… stores one.",
        details={"object": key[:4096]},
    )
