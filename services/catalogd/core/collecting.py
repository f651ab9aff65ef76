"""What an orphan is, and when it may go: names of places, and the decision.

A place is an object of storaged (`object:<key>`) or a file of metadata on local disk (its path).
Only places of datasets that this catalogue made are ever looked at: an object under the uuid of
another catalogue's dataset, or of one whose database was lost, is nobody's here.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

OBJECT = "object:"
DATA_PREFIX = "datasets/"
METADATA_PREFIX = "_catalog/"

_OF_DATASET = re.compile(r"(?:datasets|_catalog)/([0-9a-f-]{36})/(rejects/)?.+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Place:
    """A file that a dataset may or may not need.

    Attributes:
        name: see above.
        uri: its address as metadata names it.
        changed_ms: when it was written, in milliseconds since 1970.
        size: bytes.
        uuid: of the dataset it was written for.
        rejected: it holds rows that an ingest kept out.
    """

    name: str
    uri: str
    changed_ms: int
    size: int
    uuid: str
    rejected: bool = False


def name_object(key: str) -> str:
    """The place that a key is."""
    return OBJECT + key


def is_data(place: str) -> bool:
    """Whether a place is an object that somebody stored, and no metadata of ours."""
    return place.startswith(OBJECT) and not place.startswith(OBJECT + METADATA_PREFIX)


def find_owner(key: str) -> tuple[str, bool] | None:
    """The uuid that an object was stored under, and whether it holds rejects."""
    found = _OF_DATASET.fullmatch(key)
    return None if found is None else (found[1], found[2] is not None)


def digest_address(address: str) -> int:
    """64 bits for an address; two that share them only keep a file too long."""
    text = address.removeprefix("file://") if address.startswith("file:///") else address
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


class Digests:
    """A set of addresses in eight bytes each: `add` all, then `seal`, then ask."""

    def __init__(self) -> None:
        self._values = array("Q")

    def add(self, digests: Iterable[int]) -> None:
        """Adds digests from `digest_address`."""
        self._values.extend(digests)

    def seal(self) -> None:
        """Makes it ready to be asked."""
        self._values = array("Q", sorted(set(self._values)))

    def __contains__(self, address: str) -> bool:
        digest = digest_address(address)
        position = bisect_left(self._values, digest)
        return position < len(self._values) and self._values[position] == digest

    def __len__(self) -> int:
        return len(self._values)


def choose_taken(
    orphans: Iterable[tuple[Place, int]], now_ms: int, grace_ms: int, most: int
) -> list[Place]:
    """Orphans that may go now.

    Args:
        orphans: each with when it was first seen to be one, in milliseconds since 1970.
        now_ms: the clock.
        grace_ms: how long it must have been one, and how long ago it must have been written:
            a query may still read a snapshot that has just been expired, and an ingest may not
            have registered yet what it has stored.
        most: how many at most.
    """
    latest = now_ms - grace_ms
    ripe = [place for place, seen in orphans if seen <= latest and place.changed_ms <= latest]
    return ripe[:most]
