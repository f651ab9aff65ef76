"""Where an object's digest and content type live beside its bytes.

They must never disagree with the bytes, whatever instant the process dies in, so they are
bound to the file itself and written before it becomes visible: as an extended attribute,
or on file systems without those as a sidecar named after the file's inode. Publishing the
file, which is one atomic link or rename, publishes them with it. A tag counts only while
size and modification time are as it says; for a file without a valid one (restored from a
backup that dropped attributes, say) the digest is computed again and kept.
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from shared.wire.storaged import DEFAULT_CONTENT_TYPE

# Kept short so that it fits beside the inode of common file systems, at no block of its own.
ATTRIBUTE = "user.lakehouse"
# Version, size, modification time in nanoseconds, SHA-256; then the content type unless it is
# the default.
_LAYOUT = struct.Struct("<BQq32s")
_VERSION = 1
_UNSUPPORTED = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM})


@dataclass(frozen=True, slots=True)
class Tag:
    """What is kept of an object beside its bytes."""

    size: int
    modified_ns: int
    digest: bytes
    content_type: str

    def pack(self) -> bytes:
        """As it lies on disk."""
        head = _LAYOUT.pack(_VERSION, self.size, self.modified_ns, self.digest)
        stated = "" if self.content_type == DEFAULT_CONTENT_TYPE else self.content_type
        return head + stated.encode("ascii")


def unpack_tag(raw: bytes, status: os.stat_result) -> Tag | None:
    """The tag of a file in this state, or None when the bytes are no tag of it."""
    if len(raw) < _LAYOUT.size or raw[0] != _VERSION:
        return None
    _, size, modified_ns, digest = _LAYOUT.unpack_from(raw)
    if (size, modified_ns) != (status.st_size, status.st_mtime_ns):
        return None
    content_type = raw[_LAYOUT.size :].decode("ascii", "replace") or DEFAULT_CONTENT_TYPE
    return Tag(size, modified_ns, digest, content_type)


class Tags(Protocol):
    """A way of keeping tags."""

    def write(self, fd: int, tag: Tag) -> None:
        """Binds a tag to an open file; made durable by syncing that file, at the latest."""
        ...

    def read(self, file: int | str, status: os.stat_result) -> Tag | None:
        """The valid tag of a file, given open or by path, or None."""
        ...

    def drop(self, status: os.stat_result) -> None:
        """Forgets the tag of a file that is gone."""
        ...


class AttributeTags:
    """Tags as extended attributes."""

    def write(self, fd: int, tag: Tag) -> None:
        """The attribute is part of the inode: the file's own sync makes it durable."""
        os.setxattr(fd, ATTRIBUTE, tag.pack())

    def read(self, file: int | str, status: os.stat_result) -> Tag | None:
        """One call to the kernel."""
        try:
            return unpack_tag(os.getxattr(file, ATTRIBUTE), status)
        except OSError as error:
            if error.errno in (errno.ENODATA, *_UNSUPPORTED):
                return None
            raise

    def drop(self, status: os.stat_result) -> None:
        """Nothing to do: the attribute went with the file."""


class SidecarTags:
    """Tags as small files, named after the inode of the object's file.

    Named so, a sidecar is durable before its object is visible, and the sidecars of an
    object and of the version that replaces it never meet. When an inode number is used
    again, its old sidecar is overwritten before the new file is published.
    """

    def __init__(self, directory: Path, staging: Path) -> None:
        self.directory = directory
        self.staging = staging

    def write(self, fd: int, tag: Tag) -> None:
        """Writes and syncs the sidecar, then the folder it lies in."""
        path = self._path(os.fstat(fd).st_ino)
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = self.staging / f"{path.name}.tag"
        with open(staged, "wb") as file:
            file.write(tag.pack())
            file.flush()
            os.fsync(file.fileno())
        os.replace(staged, path)
        for directory in (path.parent, self.directory):
            sync_directory(directory)

    def read(self, file: int | str, status: os.stat_result) -> Tag | None:
        """Reads the sidecar of this inode, if it is of this file."""
        try:
            return unpack_tag(self._path(status.st_ino).read_bytes(), status)
        except FileNotFoundError:
            return None

    def drop(self, status: os.stat_result) -> None:
        """Removes the sidecar."""
        self._path(status.st_ino).unlink(missing_ok=True)

    def _path(self, inode: int) -> Path:
        name = f"{inode:016x}"
        return self.directory / name[-2:] / name


def choose_tags(probe: Path, sidecars: Path, staging: Path) -> Tags:
    """Attributes where the file system of `probe` (a file) has them, else sidecars."""
    try:
        os.setxattr(probe, f"{ATTRIBUTE}.probe", b"1")
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return SidecarTags(sidecars, staging)
        raise
    return AttributeTags()


def sync_directory(path: Path | str) -> None:
    """Makes the directory's entries durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
