"""Keys of a bucket in byte order, whatever order the server lists them in.

Most servers list in that order. SeaweedFS keeps objects in folders: it sorts by the names of
folders without their slash, leaves out what lies beneath a key when it is asked for what comes
after it, and shows folders that are empty. There the walk reads one folder at a time.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

# The last character that XML and URLs can carry: sorts after every key that has it not.
LAST = "\U0010fffd"

ListPage = Callable[..., dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Found:
    """What a listing tells of an object: enough to know this version again."""

    key: str
    etag: str
    size: int
    modified_ns: int


class OutOfOrder(Exception):
    """The server does not list in byte order."""


class FlatWalk:
    """A walk over keys from `start` on that begin with `prefix`, by the server's own order.

    Args:
        list_page: ListObjectsV2 with further arguments.
        base: what all keys of ours begin with in the bucket; taken off what the walk gives.
        prefix, start: of the listing.
        delimiter: the listing's.
    """

    def __init__(
        self, list_page: ListPage, base: str, prefix: str, start: str, delimiter: str
    ) -> None:
        self.found: dict[str, Found] = {}
        self._list_page = list_page
        self._base = base
        self._prefix = prefix
        self._start = start
        self._delimiter = delimiter
        self._keys = self._read()

    def __iter__(self) -> FlatWalk:
        return self

    def __next__(self) -> str:
        for key in self._keys:
            if key >= self._start:
                return key
        raise StopIteration

    def seek(self, start: str) -> None:
        """Goes on at the first key that is not before `start`."""
        self._start = start

    def _read(self) -> Iterator[str]:
        arguments: dict[str, Any] = {"Prefix": self._base + self._prefix}
        if self._delimiter:
            arguments["Delimiter"] = self._delimiter
        if self._start > self._prefix:
            arguments["StartAfter"] = self._base + precede(self._start)
        before = ""
        while True:
            page = self._list_page(**arguments)
            found = [read_found(one, self._base) for one in page.get("Contents", [])]
            self.found.update({one.key: one for one in found})
            folded = [str(one["Prefix"]) for one in page.get("CommonPrefixes", [])]
            keys = [one.key for one in found]
            if keys != sorted(keys):
                raise OutOfOrder
            for key in sorted([*keys, *(one[len(self._base) :] for one in folded)]):
                if key < before:
                    raise OutOfOrder
                before = key
                yield key
            if not page.get("IsTruncated"):
                return
            arguments.pop("StartAfter", None)
            arguments["ContinuationToken"] = page["NextContinuationToken"]


class FolderWalk:
    """As FlatWalk, one folder at a time; with the delimiter `/`, folders are not gone into.

    Of a page it gives only what nothing to come can precede in either order.
    """

    def __init__(
        self, list_page: ListPage, base: str, prefix: str, start: str, delimiter: str
    ) -> None:
        self.found: dict[str, Found] = {}
        self._list_page = list_page
        self._base = base
        self._prefix = prefix
        self._start = start
        self._folded = delimiter == "/"
        # The folders being read, innermost last: each with what is left of it.
        self._open: list[tuple[str, Iterator[str]]] = []
        self._enter(prefix[: prefix.rfind("/") + 1])

    def __iter__(self) -> FolderWalk:
        return self

    def __next__(self) -> str:
        while self._open:
            folder, entries = self._open[-1]
            entry = next(entries, None) if self._wants(folder) else None
            if entry is None:
                self._open.pop()
            elif not self._wants(entry):
                continue
            elif not entry.endswith("/"):
                return entry
            elif self._folded and len(entry) > len(self._prefix) and entry >= self._start:
                if self._holds(entry):
                    return entry
            else:
                self._enter(entry)
        raise StopIteration

    def seek(self, start: str) -> None:
        """Goes on at the first key that is not before `start`."""
        self._start = start

    def _enter(self, folder: str) -> None:
        self._open.append((folder, self._read(folder)))

    def _read(self, folder: str) -> Iterator[str]:
        """Names directly under a folder in the order of keys; folders end in a slash."""
        begun = self._start if self._start.startswith(folder) else ""
        within = self._prefix if self._prefix.startswith(folder) else folder
        name = begun[len(folder) :].partition("/")[0]
        held: list[str] = [f for f in self._before(folder, name) if self._holds(f)]
        heapq.heapify(held)
        given = ""
        arguments: dict[str, Any] = {"Prefix": self._base + within, "Delimiter": "/"}
        if name:
            arguments["StartAfter"] = self._base + folder + precede(name)
        while True:
            page = self._list_page(**arguments)
            last = self._take_page(page, held)
            more = page.get("IsTruncated", False)
            # What is still to come is after the last name, and so after all up to it.
            while held and (not more or held[0] <= last):
                entry = heapq.heappop(held)
                if entry != given:
                    yield entry
                given = entry
            if not more:
                return
            arguments.pop("StartAfter", None)
            arguments["ContinuationToken"] = page["NextContinuationToken"]

    def _take_page(self, page: dict[str, Any], held: list[str]) -> str:
        last = ""
        for one in page.get("Contents", []):
            found = read_found(one, self._base)
            if found.key and not found.key.endswith("/"):
                heapq.heappush(held, found.key)
                self.found[found.key] = found
            last = max(last, found.key.rstrip("/"))
        for one in page.get("CommonPrefixes", []):
            folder = str(one["Prefix"])[len(self._base) :]
            heapq.heappush(held, folder)
            last = max(last, folder.rstrip("/"))
        return last

    def _before(self, folder: str, name: str) -> list[str]:
        """Folders whose own names are before `name`, and their keys after it.

        Beneath `f` lie keys that follow `f-0`, as a slash follows a dash.
        """
        cuts = [cut for cut in range(1, len(name)) if name[cut] < "/"]
        return [f"{folder}{name[:cut]}/" for cut in cuts]

    def _holds(self, folder: str) -> bool:
        page = self._list_page(Prefix=self._base + folder, MaxKeys=1)
        return bool(page.get("Contents"))

    def _wants(self, key: str) -> bool:
        """Whether a key, or some key beneath a folder, is one to come."""
        if key and not key.endswith("/"):
            return key >= self._start and key.startswith(self._prefix)
        beneath = key.startswith(self._prefix) or self._prefix.startswith(key)
        return beneath and (key >= self._start or self._start.startswith(key))


def read_found(one: dict[str, Any], base: str) -> Found:
    """An entry of a listing."""
    stamp = int(one["LastModified"].timestamp() * 1000) * 1_000_000
    return Found(str(one["Key"])[len(base) :], str(one["ETag"]), int(one["Size"]), stamp)


def precede(name: str) -> str:
    """Text before `name` with as good as nothing in between."""
    code = ord(name[-1]) - 1
    if code < 0x20:
        return name[:-1]
    # Surrogates are no text; the code point before them is.
    return name[:-1] + chr(0xD7FF if 0xD800 <= code <= 0xDFFF else code) + LAST
