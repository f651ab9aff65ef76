"""The doctor's look at the bucket of [storage]: reached, written, and held to conditions.

A probe object of a name of its own is written beneath `_doctor/`, read back with the key that
queries use, and removed whatever happens.
"""

from __future__ import annotations

import uuid
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from scripts.doctor_findings import Finding
from shared.config import Config
from shared.errors import LakehouseError
from shared.s3keys import S3Keys, read_reader_keys, read_writer_keys

if TYPE_CHECKING:
    from services.storaged.store.s3_calls import S3Calls

_CONTENT = b"A probe of scripts/doctor. It may be deleted."
_RIGHTS = (
    "Give the key s3:GetObject, s3:PutObject and s3:DeleteObject beneath the prefix: docs/s3.md."
)


def check_storage(config: Config) -> list[Finding]:
    """What may be said of the bucket; nothing where objects are local files."""
    section = config.storage
    if not section.address:
        return []
    where = f"{section.address} at {section.endpoint or 'AWS'}"
    try:
        writer, reader = read_writer_keys(config), read_reader_keys(config)
    except LakehouseError as error:
        return [Finding("bucket", False, "its keys cannot be read", error.message)]
    with _connect(config, writer) as calls:
        state = calls.check()
        if state != "ok":
            advice = "Look at endpoint, bucket and key of [storage], and whether the server runs."
            return [Finding("bucket", False, f"{where}: {state}", advice)]
        findings = [Finding("bucket", True, f"{where} answers")]
        key = f"{section.prefix}_doctor/{uuid.uuid4().hex}"
        try:
            calls.run("put_object", Key=key, Body=_CONTENT)
            findings.append(Finding("bucket writes", True, "a probe was written"))
            findings.append(_check_conditions(calls, key))
            findings.append(_check_reader(config, reader, key))
        except Exception as error:
            # Whatever it is: the doctor tells it and goes on with its other checks.
            findings.append(Finding("bucket writes", False, _name(error), _RIGHTS))
        finally:
            with suppress(Exception):
                calls.run("delete_object", Key=key)
    return findings


def _check_conditions(calls: S3Calls, key: str) -> Finding:
    """Whether a write that may not replace anything is refused where there is something."""
    from services.storaged.store.s3_calls import Refused

    what = "bucket conditions"
    for condition in ({"IfNoneMatch": "*"}, {"IfMatch": '"no-such-etag"'}):
        name = "If-None-Match" if "IfNoneMatch" in condition else "If-Match"
        try:
            calls.run("put_object", Key=key, Body=_CONTENT, **condition)
        except Refused as refused:
            if refused.status in (409, 412):
                continue
            if refused.status == 501:
                advice = "They hold among the requests of one storaged: run no second one."
                return Finding(what, True, f"the server knows no {name}", advice)
            return Finding(what, False, f"{name} is answered by {refused.code}", _RIGHTS)
        return Finding(
            what,
            False,
            f"the server takes {name} and does not obey it",
            "Two writers would overwrite each other unseen. Use a server that honours "
            "conditional writes (AWS, SeaweedFS), and have one storaged until then.",
        )
    return Finding(what, True, "conditional writes are honoured")


def _check_reader(config: Config, keys: S3Keys, key: str) -> Finding:
    """Whether queries can read what storaged wrote."""
    what = "bucket reads"
    try:
        with _connect(config, keys) as calls:
            body = calls.run("get_object", Key=key)["Body"].read()
    except Exception as error:
        advice = "Give the reader's key s3:GetObject beneath the prefix: docs/s3.md."
        return Finding(what, False, _name(error), advice)
    if body != _CONTENT:
        advice = "A proxy or cache in between changes objects, or answers with old ones."
        return Finding(what, False, "the probe came back changed", advice)
    return Finding(what, True, "the probe was read with the key of queries")


@contextmanager
def _connect(config: Config, keys: S3Keys) -> Generator[S3Calls]:
    """A client that tries everything once: the doctor tells, and does not wait."""
    from services.storaged.store.s3_calls import S3Calls

    calls = S3Calls(config.storage.model_copy(update={"retry_s": 0.0}), keys, 2)
    try:
        yield calls
    finally:
        calls.client.close()


def _name(error: Exception) -> str:
    return error.message if isinstance(error, LakehouseError) else str(error)
