"""How an ingest is done, in the one form that its identity is made of.

Workers know it too, so nothing is imported here that takes long: requests are read, with their
models, in `requested`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from services.ingestd.core.dialect import Given

if TYPE_CHECKING:
    from shared.wire.ingestd import Contract, Mode

# Part of every ingest id: a change of what the same input becomes makes another ingest.
IDENTITY_VERSION = 1


@dataclass(frozen=True, slots=True)
class Options:
    """How one ingest is to be done; None is to be found out from the file.

    Everything here is part of the ingest's identity but `stated`, the format that the
    Content-Type names: it decides nothing, and a file that is something else is refused.
    """

    mode: Mode = "append"
    contract: Contract = "freeze"
    header: bool | None = None
    delimiter: str | None = None
    quote: str | None = None
    escape: str | None = None
    encoding: str | None = None
    key: tuple[str, ...] = ()
    format: str | None = None
    stated: str | None = None

    def given(self) -> Given:
        """What is known of the file's dialect."""
        quote = None if self.quote is None else self.quote.encode()
        escape = None if self.escape is None else self.escape.encode()
        if escape is None and quote == b"":
            escape = b""
        delimiter = None if self.delimiter is None else self.delimiter.encode()
        return Given(delimiter, quote, escape)


def make_ingest_id(
    input_sha256: str, options: Options, dataset_uuid: str, repetition: int = 0
) -> str:
    """The name of an ingest: the same input, options and dataset have the same.

    `repetition` counts how often a later replace took away what the input had brought.
    """
    canonical = json.dumps(
        {
            "version": IDENTITY_VERSION,
            "input": input_sha256,
            "options": _identify(options),
            "dataset": dataset_uuid,
            "repetition": repetition,
        },
        sort_keys=True,
        separators=(",", ":"),
    )
    return hashlib.sha256(canonical.encode()).hexdigest()


def _identify(options: Options) -> dict[str, Any]:
    """The options that make one ingest differ from another, in plain form.

    What came later is left out where it says nothing, so that older ids stay what they are.
    Of formats only `jsonl` makes of a file what it would not be: what is not CSV or Parquet is
    refused.
    """
    plain = asdict(options)
    del plain["stated"]
    if plain["format"] != "jsonl":
        del plain["format"]
    if not plain["key"]:
        del plain["key"]
    return plain


def options_from(values: Mapping[str, Any]) -> Options:
    """Options from their plain form (`dataclasses.asdict`)."""
    plain: dict[str, Any] = {**values, "key": tuple(values.get("key", ()))}
    return Options(**plain)
