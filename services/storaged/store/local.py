"""Objects as files of this machine: the embedded default.

    <data dir>/objects/…     one file per object, named after its key (core/keys.py)
    <data dir>/staging/      uploads under way; emptied at every start
    <data dir>/tags/         digests, only where the file system has no extended attributes

An upload is written in staging, synced with its tag, and given its place by one link or
rename: at every instant a key shows a whole object, the old or the new. Then the folder is
synced, and only then is it acknowledged.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from services.storaged.core.conditions import Expects, WriteCondition
from services.storaged.core.listing import ListQuery, select_page
from services.storaged.core.objects import StoredObject
from services.storaged.core.uploads import UploadPlan
from services.storaged.store.backend import ObjectPage
from services.storaged.store.local_files import LocalReader, LocalUpload, open_file
from services.storaged.store.tags import Tag, Tags, choose_tags, sync_directory
from services.storaged.store.tree import ObjectTree
from shared.errors import InsufficientStorage, NotFound, PreconditionFailed, Unavailable
from shared.lockfile import DirectoryLock
from shared.wire.storaged import DEFAULT_CONTENT_TYPE

# Longest path of a data directory that leaves room for the longest key under it.
MAX_ROOT_BYTES = 900
# In which pieces a file without a valid tag is hashed.
HASH_PIECE = 1024 * 1024
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FAILED = frozenset({errno.EIO, errno.EROFS})


class LocalBackend:
    """The backend for local files; see `store.backend.Backend` for what its calls promise.

    Args:
        data_dir: the daemon's data directory.
        min_free_bytes: uploads are refused when less than this would stay free.
        clock_ns: nanoseconds since 1970.
        tags: how digests are kept; chosen by what the file system can do unless given.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        min_free_bytes: int,
        clock_ns: Callable[[], int],
        tags: Tags | None = None,
    ) -> None:
        self.data_dir = data_dir
        self.staging = data_dir / "staging"
        self.tree = ObjectTree(data_dir / "objects")
        self.min_free_bytes = min_free_bytes
        self.clock_ns = clock_ns
        self._tags = tags
        self._lock = DirectoryLock(data_dir)
        self._failure = ""
        self._numbers = itertools.count(1)

    def start(self) -> None:
        """Takes the data directory and empties staging.

        Raises:
            Unavailable: another process has it, or objects cannot be kept there.
        """
        if len(os.fsencode(self.data_dir)) > MAX_ROOT_BYTES:
            raise Unavailable("storaged's data directory has too long a path. Move it up.")
        self._lock.acquire()
        try:
            for directory in (self.staging, Path(self.tree.root)):
                directory.mkdir(exist_ok=True)
            probe = self.staging / "probe"
            probe.touch()
            self._check_file_system(probe)
            self._tags = self._tags or choose_tags(probe, self.data_dir / "tags", self.staging)
            for left in os.scandir(self.staging):
                self._tags.drop(left.stat(follow_symlinks=False))
                os.unlink(left)
            sync_directory(self.data_dir)
        except BaseException:
            self._lock.release()
            raise

    def stop(self) -> None:
        """Lets the next process in."""
        self._lock.release()

    @property
    def tags(self) -> Tags:
        """How digests are kept, once started."""
        assert self._tags is not None, "start() has not run"
        return self._tags

    def begin(self, key: str, plan: UploadPlan) -> LocalUpload:
        """Starts an upload in staging, unless it is sure to fail."""
        self.refuse_failed()
        if plan.condition.expects is not Expects.ANYTHING:
            self._check_early(key, plan.condition)
        self.check_space(plan.length or 0)
        with self.disk_errors():
            return LocalUpload(self, key, plan, f"{self.staging}/{next(self._numbers)}")

    def open(self, key: str) -> LocalReader:
        """Opens the object's current version."""
        fd = open_file(self.tree.locate(key))
        if fd is None:
            raise NotFound("No object is stored under this key.", details={"key": key})
        try:
            return LocalReader(self._inspect(key, fd), fd)
        except BaseException:
            os.close(fd)
            raise

    def publish(self, staged: str, key: str, condition: WriteCondition) -> bool:
        """Gives an upload its key if the condition holds; true when the key was free."""
        target = self.tree.locate(key)
        # What is replaced is let go outside of the lock: freeing a large file takes time.
        with ExitStack() as after:
            try:
                with self.tree.lock:
                    old = self._hold(target, after)
                    condition.check(self._etag(key, old, condition))
                    self.tree.place(staged, target, create=condition.expects is Expects.NOTHING)
                    if old is not None:
                        self.tags.drop(os.fstat(old))
            finally:
                # Before a refusal too: its caller relies on the object that is there.
                self.sync(target)
        return old is None

    def delete(self, key: str, condition: WriteCondition) -> bool:
        """Removes the object and the folders that are empty without it."""
        self.refuse_failed()
        target = self.tree.locate(key)
        with ExitStack() as after:
            with self.disk_errors(), self.tree.lock:
                old = self._hold(target, after)
                condition.check(self._etag(key, old, condition))
                if old is None:
                    return False
                self.tree.remove(target)
                self.tags.drop(os.fstat(old))
            self.sync(target)
        return True

    def list(self, query: ListQuery) -> ObjectPage:
        """One page; an object that goes away meanwhile may be missing from it."""
        page = select_page(query, self.tree.walk(query.prefix, query.start))
        found = [self._look_up(key) for key in page.keys]
        return ObjectPage([one for one in found if one], page.prefixes, page.next_start)

    def free_bytes(self) -> int:
        """What the file system gives to this user."""
        space = os.statvfs(self.data_dir)
        return space.f_bavail * space.f_frsize

    def check(self) -> dict[str, str]:
        """Whether uploads can be taken now."""
        checks = {"data_dir": self._failure or "ok", "free_space": "ok"}
        probe = self.staging / f"probe-{next(self._numbers)}"
        try:
            probe.touch()
            probe.unlink()
        except OSError as error:
            checks["data_dir"] = f"cannot be written: {error.strerror}"
        free = self.free_bytes()
        if free < self.min_free_bytes:
            checks["free_space"] = f"{free} bytes are free, {self.min_free_bytes} are required"
        return checks

    def check_space(self, coming: int) -> None:
        """Lets `coming` further bytes pass if the required space stays free after them."""
        free = self.free_bytes()
        if free - coming < self.min_free_bytes:
            raise InsufficientStorage(
                f"storaged has {max(0, free - self.min_free_bytes)} bytes of room, too little for "
                "this object. Delete some, or give it a larger disk.",
                details={"free_bytes": free, "min_free_bytes": self.min_free_bytes},
            )

    def refuse_failed(self) -> None:
        """Refuses writes once the disk has failed one: nothing can be promised any more."""
        if self._failure:
            raise InsufficientStorage(
                "storaged only reads: its disk failed a write. Check the disk, then restart it."
            )

    def sync(self, target: str) -> None:
        """Makes the entry of a file durable, or stops taking writes."""
        with self.disk_errors():
            self.tree.sync(target)

    @contextmanager
    def disk_errors(self) -> Generator[None]:
        """Turns a full disk into 507, and a failed one into 507 from now on."""
        try:
            yield
        except OSError as error:
            if error.errno in _FULL:
                raise InsufficientStorage(
                    "The disk of storaged is full. Nothing was stored; delete objects, or give "
                    "it a larger disk."
                ) from error
            if error.errno in _FAILED:
                self._failure = f"a write failed: {error.strerror}"
                self.refuse_failed()
            raise

    def _check_file_system(self, probe: Path) -> None:
        if probe.with_name("PROBE").exists():
            raise Unavailable(
                "storaged's data directory does not tell capital letters from small ones, "
                "so different keys would be one object. Use another file system."
            )
        linked = Path(self.tree.root) / "~probe"  # a name that no key has
        try:
            linked.unlink(missing_ok=True)
            linked.hardlink_to(probe)
            linked.unlink()
        except OSError as error:
            raise Unavailable(
                "storaged's data directory does not take hard links between its folders "
                f"({error.strerror}). Use one local file system for all of it."
            ) from error

    def _check_early(self, key: str, condition: WriteCondition) -> None:
        """Spares a caller the upload of a body whose condition fails before it comes.

        Also computes a lost digest now and not while `publish` holds the lock.
        """
        target = self.tree.locate(key)
        with ExitStack() as after:
            try:
                condition.check(self._etag(key, self._hold(target, after), condition))
            except PreconditionFailed:
                self.sync(target)
                raise

    def _hold(self, target: str, after: ExitStack) -> int | None:
        fd = open_file(target)
        if fd is not None:
            after.callback(os.close, fd)
        return fd

    def _etag(self, key: str, fd: int | None, condition: WriteCondition) -> str | None:
        if fd is None:
            return None
        # Unconditional writes need no digest, which may have to be computed.
        return "" if condition.expects is Expects.ANYTHING else self._inspect(key, fd).etag

    def _look_up(self, key: str) -> StoredObject | None:
        target = self.tree.locate(key)
        try:
            status = os.lstat(target)
            tag = self.tags.read(target, status)
        except FileNotFoundError:
            return None
        if tag is not None:
            return self.describe(key, tag)
        fd = open_file(target)
        if fd is None:
            return None
        try:
            return self._inspect(key, fd)
        finally:
            os.close(fd)

    def _inspect(self, key: str, fd: int) -> StoredObject:
        status = os.fstat(fd)
        tag = self.tags.read(fd, status)
        return self.describe(key, tag or self._restore_tag(key, fd, status))

    def _restore_tag(self, key: str, fd: int, status: os.stat_result) -> Tag:
        digest = hashlib.sha256()
        offset = 0
        while piece := os.pread(fd, HASH_PIECE, offset):
            digest.update(piece)
            offset += len(piece)
        tag = Tag(status.st_size, status.st_mtime_ns, digest.digest(), DEFAULT_CONTENT_TYPE)
        with suppress(OSError), self.tree.lock:
            # Only for the version that the key shows: a tag of another would stay behind.
            if os.path.samestat(os.lstat(self.tree.locate(key)), status):
                self.tags.write(fd, tag)
        return tag

    def describe(self, key: str, tag: Tag) -> StoredObject:
        """An object as callers see it."""
        return StoredObject(
            key=key,
            size=tag.size,
            digest=tag.digest,
            modified_ns=tag.modified_ns,
            content_type=tag.content_type,
            # As it stands, not percent-encoded: DuckDB and Iceberg do not decode addresses.
            uri=f"file://{self.tree.locate(key)}",
        )
