"""Objects in a bucket of an S3 server.

An object's key is the bucket's prefix and its own key, as it stands; what other programs put
there are objects too. The SHA-256 of its content is in its metadata where it was known before
the body went up: for bodies of up to one part, and for those that came with a digest. Others
have the server's own etag.

Every write names itself in the metadata. So a write whose answer was lost is known again when
it is tried a second time and then meets its own object.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from datetime import datetime
from typing import Any

from services.storaged.core.conditions import Expects, WriteCondition
from services.storaged.core.keys import MAX_KEY_BYTES
from services.storaged.core.listing import ListQuery, select_page
from services.storaged.core.objects import StoredObject
from services.storaged.core.uploads import UploadPlan
from services.storaged.store.backend import ObjectPage
from services.storaged.store.s3_calls import CHECK_S, Refused, S3Calls
from services.storaged.store.s3_files import Publication, S3Reader, S3Upload
from services.storaged.store.s3_versions import (
    SHA256,
    UPLOAD,
    KeyLocks,
    OurKeys,
    Version,
    read_version,
)
from services.storaged.store.s3_walk import FlatWalk, FolderWalk, Found, OutOfOrder
from shared.errors import Invalid, LakehouseError, NotFound, Unavailable
from shared.s3keys import S3Keys
from shared.sections.base import MiB
from shared.sections.storage import StorageSection

logger = logging.getLogger("lakehouse.storaged")

# Descriptions of versions that are remembered, so that listings need not ask for each again.
REMEMBERED = 50_000
# Objects described at once for one listing.
DESCRIBERS = 8
# Pause between two sweeps of unfinished uploads, seconds.
SWEEP_S = 3600.0
# How often a conditional write looks again at a key that changes under it.
ROUNDS = 20
_ABSENT = frozenset({"404", "NoSuchKey", "NotFound"})


class S3Backend:
    """The backend for a bucket; see `store.backend.Backend` for what its calls promise.

    Args:
        section: which server and bucket.
        keys: what signs requests.
        connections: kept open at once.
    """

    def __init__(self, section: StorageSection, keys: S3Keys, connections: int) -> None:
        self.section = section
        self.base = section.prefix
        self.part_bytes = section.part_mb * MiB
        self._keys = keys
        self._connections = connections
        self._calls: S3Calls | None = None
        self._native = True  # whether the server knows conditional writes
        self._met = False  # whether it has been heard of
        self._by_folder = False  # whether it lists folders as SeaweedFS does
        self._locks = KeyLocks()
        self._doubtful: set[str] = set()
        self._known: OrderedDict[tuple[str, str, int, int], StoredObject] = OrderedDict()
        self._known_lock = threading.Lock()
        self._stopping = threading.Event()
        self._sweeper: threading.Thread | None = None
        self._describers: ThreadPoolExecutor | None = None

    @property
    def calls(self) -> S3Calls:
        """The bucket's client, once started."""
        assert self._calls is not None, "start() has not run"
        return self._calls

    def start(self) -> None:
        """Makes the client; the server may come later."""
        self._calls = S3Calls(self.section, self._keys, self._connections)
        self._describers = ThreadPoolExecutor(DESCRIBERS, "storaged-describe")
        self._stopping.clear()
        self._sweeper = threading.Thread(target=self._sweep, name="storaged-sweep", daemon=True)
        self._sweeper.start()

    def stop(self) -> None:
        """Ends what runs in the background."""
        self._stopping.set()
        if self._describers is not None:
            self._describers.shutdown(wait=True, cancel_futures=True)
        if self._sweeper is not None:
            self._sweeper.join(timeout=self.section.read_timeout_s)
        if self._calls is not None:
            self._calls.client.close()

    def begin(self, key: str, plan: UploadPlan) -> S3Upload:
        """Starts an upload, unless it is sure to fail."""
        self._name(key)
        # A small body is here already, and `publish` looks before it stores it.
        large = plan.length is None or plan.length > self.part_bytes
        if large and plan.condition.expects is not Expects.ANYTHING:
            current = self.find(key)
            plan.condition.check(current.stored.etag if current else None)
        return S3Upload(self, key, plan)

    def open(self, key: str) -> S3Reader:
        """Finds the object's current version."""
        found = self.find(key)
        if found is None:
            raise NotFound("No object is stored under this key.", details={"key": key})
        return S3Reader(self, found)

    def publish(self, new: Publication) -> tuple[StoredObject, bool]:
        """Gives an upload its key if the condition holds; true when the key was free.

        The server decides where it can. The lock makes one storaged right where it cannot:
        SeaweedFS lets several multipart uploads win that may only create.
        """
        condition = new.plan.condition
        with self._locks.hold(new.key, self.section.retry_s):
            for _ in range(ROUNDS):
                before = self.find(new.key)
                condition.check(before.stored.etag if before else None)
                try:
                    self._put(new, self._guard(condition, before))
                except Refused as refused:
                    now = self.find(new.key)
                    if now is not None and now.upload == new.name:
                        return now.stored, before is None  # only the answer to it was lost
                    self._expect_change(refused, new.key)
                except Unavailable:
                    if new.upload_id:
                        self._doubtful.add(new.name)
                    raise
                else:
                    now = self.find(new.key)
                    if now is not None and now.upload == new.name:
                        return now.stored, before is None
                    # The next writer has been there already; ours was stored all the same.
                    return new.describe(self.section.address, time.time_ns()), before is None
        raise _restless(new.key)

    def delete(self, key: str, condition: WriteCondition) -> bool:
        """Removes the object."""
        name = self._name(key)
        with self._locks.hold(key, self.section.retry_s):
            for _ in range(ROUNDS):
                before = self.find(key)
                condition.check(before.stored.etag if before else None)
                if before is None:
                    return False
                try:
                    self.calls.run("delete_object", Key=name, **self._guard(condition, before))
                except Refused as refused:
                    if refused.code in _ABSENT:
                        return True
                    self._expect_change(refused, key)
                else:
                    return True
        raise _restless(key)

    def list(self, query: ListQuery) -> ObjectPage:
        """One page; an object that goes away meanwhile may be missing from it."""
        if not self._met:
            self._note_server(self.calls.run("head_bucket"))
        while True:
            kind = FolderWalk if self._by_folder else FlatWalk
            walk = kind(self._list_page, self.base, query.prefix, query.start, query.delimiter)
            try:
                page = select_page(query, OurKeys(walk))
            except OutOfOrder:
                self._by_folder = True
                continue
            found = [walk.found[key] for key in page.keys]
            return ObjectPage(self._look_up(found), page.prefixes, page.next_start)

    def free_bytes(self) -> float:
        """Without a bound: the server says when it is full."""
        return math.inf

    def check(self) -> dict[str, str]:
        """Whether the bucket answers now."""
        return {"s3": self.calls.check()}

    def find(self, key: str) -> Version | None:
        """The object's current version, None where there is none."""
        try:
            answer = self.calls.run("head_object", Key=self._name(key))
        except Refused as refused:
            if refused.code in _ABSENT:
                return None
            raise self._explain(refused, key) from refused
        self._note_server(answer)
        return read_version(key, self.section.address + key, answer)

    def open_stream(self, key: str, etag: str, first: int, last: int) -> Any:
        """The body of these bytes of a version, as botocore gives it; one try."""
        answer = self.calls.client.get_object(
            Bucket=self.calls.bucket,
            Key=self._name(key),
            IfMatch=etag,
            Range=f"bytes={first}-{last}",
        )
        return answer["Body"]

    def begin_parts(self, key: str, plan: UploadPlan, name: str) -> str:
        """Begins a multipart upload; gives its id."""
        metadata = {UPLOAD: name}
        if plan.sha256 is not None:
            metadata[SHA256] = plan.sha256.hex()
        answer = self.calls.run(
            "create_multipart_upload",
            Key=self._name(key),
            ContentType=plan.content_type,
            Metadata=metadata,
        )
        return str(answer["UploadId"])

    def send_part(self, key: str, upload_id: str, number: int, body: bytes) -> str:
        """Sends a part of a multipart upload; gives its etag."""
        try:
            answer = self.calls.run(
                "upload_part",
                Key=self._name(key),
                UploadId=upload_id,
                PartNumber=number,
                Body=body,
            )
        except Refused as refused:
            raise self._explain(refused, key) from refused
        return str(answer["ETag"])

    def abort(self, key: str, upload_id: str, patience_s: float) -> None:
        """Removes a multipart upload; what cannot be removed now goes with the sweep."""
        with suppress(Refused, LakehouseError):
            self.calls.run(
                "abort_multipart_upload",
                patience_s=patience_s,
                Key=self._name(key),
                UploadId=upload_id,
            )

    def is_doubtful(self, name: str) -> bool:
        """Whether an upload may have become an object without our hearing of it."""
        return name in self._doubtful

    def _put(self, new: Publication, guard: dict[str, str]) -> None:
        if new.upload_id:
            self.calls.run(
                "complete_multipart_upload",
                Key=self._name(new.key),
                UploadId=new.upload_id,
                MultipartUpload={"Parts": new.parts},
                **guard,
            )
            return
        self.calls.run(
            "put_object",
            Key=self._name(new.key),
            Body=new.body,
            ContentType=new.plan.content_type,
            Metadata={SHA256: new.digest.hex(), UPLOAD: new.name},
            **guard,
        )

    def _guard(self, condition: WriteCondition, current: Version | None) -> dict[str, str]:
        """The condition as the server is told it."""
        if not self._native or condition.expects is Expects.ANYTHING:
            return {}
        return {"IfMatch": current.etag} if current else {"IfNoneMatch": "*"}

    def _expect_change(self, refused: Refused, key: str) -> None:
        """Lets answers pass after which the key is to be looked at again.

        Raises:
            Unavailable: any other answer.
        """
        if refused.status == 501 and self._native:
            self._native = False
            logger.warning(
                "The S3 server knows no conditional writes; they hold among this storaged's alone"
            )
        elif refused.status != 412 and refused.code != "PreconditionFailed":
            raise self._explain(refused, key) from refused

    def _note_server(self, answer: dict[str, Any]) -> None:
        server = str(answer["ResponseMetadata"]["HTTPHeaders"].get("server", ""))
        self._met = True
        self._by_folder = self._by_folder or "seaweed" in server.lower()

    def _list_page(self, **arguments: Any) -> dict[str, Any]:
        try:
            page: dict[str, Any] = self.calls.run("list_objects_v2", **arguments)
        except Refused as refused:
            raise self._explain(refused, "") from refused
        self._note_server(page)
        return page

    def _look_up(self, found: list[Found]) -> list[StoredObject]:
        assert self._describers is not None
        described: list[StoredObject | None] = []
        waiting = [
            self._describers.submit(copy_context().run, self._look_up_one, one) for one in found
        ]
        for one in waiting:
            described.append(one.result())
        return [one for one in described if one is not None]

    def _look_up_one(self, found: Found) -> StoredObject | None:
        mark = (found.key, found.etag, found.size, found.modified_ns)
        with self._known_lock:
            known = self._known.get(mark)
            if known is not None:
                self._known.move_to_end(mark)
                return known
        current = self.find(found.key)
        if current is not None and (current.etag, current.stored.size) == mark[1:3]:
            with self._known_lock:
                self._known[mark] = current.stored
                while len(self._known) > REMEMBERED:
                    self._known.popitem(last=False)
        return current.stored if current else None

    def _name(self, key: str) -> str:
        name = self.base + key
        if len(name.encode("utf-8")) > MAX_KEY_BYTES:
            raise Invalid(
                f"The key is too long for the bucket: with its prefix it may have {MAX_KEY_BYTES} "
                "bytes. Shorten it."
            )
        return name

    def _explain(self, refused: Refused, key: str) -> LakehouseError:
        logger.error("The S3 server refused a call: %s (%d)", refused.code, refused.status)
        return Unavailable(
            f"The S3 server behind storaged refused the call ({refused.code}). Nothing was "
            "acknowledged; its operator has to look at it.",
            details={"key": key, "reason": refused.code},
            headers={"Retry-After": "30"},
        )

    def _sweep(self) -> None:
        """Removes uploads that nobody can be waiting for, now and every hour."""
        while not self._stopping.is_set():
            try:
                self.remove_unfinished(time.time() - self.section.upload_expiry_s)
            except (Refused, LakehouseError) as error:
                logger.info("Unfinished uploads were not looked for: %s", error)
            self._stopping.wait(SWEEP_S)

    def remove_unfinished(self, before_s: float) -> int:
        """Aborts multipart uploads under our prefix begun before a time; gives how many."""
        removed = 0
        arguments: dict[str, Any] = {"Prefix": self.base}
        while not self._stopping.is_set():
            page = self.calls.run("list_multipart_uploads", patience_s=CHECK_S, **arguments)
            for one in page.get("Uploads", []):
                begun: datetime = one["Initiated"]
                key = str(one["Key"])
                if begun.timestamp() < before_s and key.startswith(self.base):
                    self.abort(key[len(self.base) :], one["UploadId"], CHECK_S)
                    removed += 1
            if not page.get("IsTruncated"):
                break
            arguments["KeyMarker"] = page["NextKeyMarker"]
            arguments["UploadIdMarker"] = page["NextUploadIdMarker"]
        return removed


def _restless(key: str) -> Unavailable:
    return Unavailable(
        "Others write to this key without a pause; nothing was changed. Try again.",
        details={"key": key},
        headers={"Retry-After": "1"},
    )
