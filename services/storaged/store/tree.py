"""The folders that objects lie in: placing, removing, walking in key order, syncing.

All changes happen under one lock, held for a few system calls and never for a sync: so a
condition and the change it guards are one step, and a folder that is removed because it is
empty is never one that an object is just being placed in.
"""

from __future__ import annotations

import errno
import itertools
import os
import threading
from bisect import bisect_left
from pathlib import Path

from services.storaged.core.keys import DIRECTORY_MARK, name_path, name_segment, parse_names
from services.storaged.store.tags import sync_directory

_NO_DIRECTORY = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})


class ObjectTree:
    """Objects as files under `root`.

    `lock` guards every change of the tree; hold it around a check and the change after it.
    """

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.lock = threading.RLock()
        # Directories with entries that no sync has covered yet, each with a stamp of the last.
        self._unsynced: dict[str, int] = {}
        self._stamps = itertools.count()

    def locate(self, key: str) -> str:
        """Path of the object's file, whether or not it exists."""
        return "/".join((self.root, *name_path(key)))

    def place(self, staged: str, target: str, *, create: bool) -> None:
        """Gives a finished file its place, making folders on the way; hold `lock`.

        Args:
            staged: path of the file, durable already.
            target: its path in the tree.
            create: refuse to replace a file, whoever made it.

        Raises:
            FileExistsError: `create`, and there is one.
        """
        move = os.link if create else os.replace
        try:
            move(staged, target)
        except FileNotFoundError:
            self._make_directory(os.path.dirname(target))
            move(staged, target)

    def remove(self, target: str) -> None:
        """Removes a file, and the folders that are empty without it; hold `lock`."""
        os.unlink(target)
        self._prune(os.path.dirname(target))

    def sync(self, target: str) -> None:
        """Makes the entry of `target` durable, present or gone, and the folders above it."""
        directory = os.path.dirname(target)
        reached = False
        while True:
            stamp = self._unsynced.get(directory)
            if stamp is not None or not reached:
                # A folder that is gone meanwhile is vouched for by the one above it.
                reached = self._sync_one(directory, stamp)
            if directory == self.root:
                return
            directory = os.path.dirname(directory)

    def walk(self, prefix: str, start: str) -> TreeWalk:
        """Keys from `start` on that begin with `prefix`, in byte order."""
        return TreeWalk(self, prefix, start)

    def read(self, base: str) -> list[str]:
        """What lies directly under `base` ("" or ending in a slash); folders end in a slash.

        Not sorted, and empty when there is no such folder.
        """
        folders = [f"/{name_segment(segment)}{DIRECTORY_MARK}" for segment in base.split("/")[:-1]]
        directory = self.root + "".join(folders)
        try:
            names = os.listdir(directory)
        except OSError as error:
            if error.errno in _NO_DIRECTORY:
                return []
            raise
        if not names and base:
            # Left by a process that died between making the folder and filling it.
            with self.lock:
                self._prune(directory)
        return [base + segment for segment in parse_names(names)]

    def _make_directory(self, path: str) -> None:
        missing = [path]
        while not os.path.isdir(os.path.dirname(missing[-1])):
            missing.append(os.path.dirname(missing[-1]))
        for directory in reversed(missing):
            os.mkdir(directory, 0o755)
            self._unsynced[os.path.dirname(directory)] = next(self._stamps)

    def _prune(self, directory: str) -> None:
        while directory != self.root:
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                pass
            except OSError:
                return
            self._unsynced.pop(directory, None)
            directory = os.path.dirname(directory)

    def _sync_one(self, directory: str, stamp: int | None) -> bool:
        try:
            sync_directory(directory)
        except FileNotFoundError:
            return False
        with self.lock:
            # Entries that came after the sync began keep their folder on the list.
            if stamp is not None and self._unsynced.get(directory) == stamp:
                del self._unsynced[directory]
        return True


class TreeWalk:
    """A walk over the keys of a tree, in byte order.

    Reads only the folders that wanted keys lie in, each as the walk comes to it. What exists
    throughout the walk is met exactly once.

    Args:
        tree: where to walk.
        prefix: what the keys begin with.
        start: the first key that is wanted, or what is least before it.
    """

    def __init__(self, tree: ObjectTree, prefix: str, start: str) -> None:
        self._tree = tree
        self._prefix = prefix
        self._start = start
        # The folders being read, innermost last: each with what is left of it, last first.
        self._open: list[tuple[str, list[str]]] = []
        self._enter(prefix[: prefix.rfind("/") + 1])

    def __iter__(self) -> TreeWalk:
        return self

    def __next__(self) -> str:
        while self._open:
            base, left = self._open[-1]
            if not left or not self._wants(base):
                self._open.pop()
                continue
            found = left.pop()
            if not self._wants(found):
                continue
            if not found.endswith("/"):
                return found
            self._enter(found)
        raise StopIteration

    def seek(self, start: str) -> None:
        """Goes on at the first key that is not before `start`."""
        self._start = start

    def _enter(self, base: str) -> None:
        found = self._tree.read(base)
        if len(self._prefix) > len(base):
            found = [key for key in found if key.startswith(self._prefix)]
        # With its slash a folder sorts exactly where the keys beneath it do.
        found.sort()
        first = bisect_left(found, self._start)
        # A folder before the start may still hold keys after it; they all begin like it.
        if first and self._wants(found[first - 1]):
            first -= 1
        self._open.append((base, found[first:][::-1]))

    def _wants(self, key: str) -> bool:
        """Whether a key, or some key beneath a folder, is one to come."""
        if key and not key.endswith("/"):
            return key >= self._start and key.startswith(self._prefix)
        beneath = key.startswith(self._prefix) or self._prefix.startswith(key)
        return beneath and (key >= self._start or self._start.startswith(key))
