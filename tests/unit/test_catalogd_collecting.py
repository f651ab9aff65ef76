"""What an orphan is, and when it may go."""

from __future__ import annotations

import pytest

from services.catalogd.core.collecting import (
    Digests,
    Place,
    choose_taken,
    digest_address,
    find_owner,
    is_data,
    name_object,
)

UUID = "7f3b0c0a-1111-4222-8333-944455566677"


@pytest.mark.parametrize(
    ("key", "owner"),
    [
        (f"datasets/{UUID}/ab-0.parquet", (UUID, False)),
        (f"datasets/{UUID}/rejects/ab.parquet", (UUID, True)),
        (f"_catalog/{UUID}/metadata/snap-1.avro", (UUID, False)),
        (f"datasets/{UUID}", None),
        (f"datasets/{UUID}/", None),
        ("datasets/short/ab.parquet", None),
        (f"raw/datasets/{UUID}/ab.parquet", None),
        (f"uploads/{UUID}/ab.parquet", None),
    ],
)
def test_whose_an_object_is(key: str, owner: tuple[str, bool] | None) -> None:
    assert find_owner(key) == owner


def test_metadata_in_a_bucket_is_no_data() -> None:
    assert is_data(name_object(f"datasets/{UUID}/a"))
    assert not is_data(name_object(f"_catalog/{UUID}/metadata/a"))
    assert not is_data("/data/catalogd/warehouse/a")


def test_addresses_are_found_however_they_name_a_local_file() -> None:
    digests = Digests()
    digests.add(map(digest_address, ["file:///a/b", "s3://house/k", "/c"]))
    digests.add(map(digest_address, ["file:///a/b"]))
    digests.seal()
    assert len(digests) == 3
    for address in ("file:///a/b", "/a/b", "s3://house/k", "/c", "file:///c"):
        assert address in digests, address
    for address in ("/a", "s3://house/k2", "file:///a/b/", ""):
        assert address not in digests, address
    empty = Digests()
    empty.seal()
    assert "/a" not in empty


def test_an_orphan_goes_when_both_its_ages_are_past_the_grace() -> None:
    def place(name: str, changed_ms: int) -> Place:
        return Place(name, name, changed_ms, 1, UUID)

    orphans = [
        (place("old, just found", 0), 900),
        (place("new, found long ago", 950), 0),
        (place("both old", 100), 200),
        (place("both at the edge", 500), 500),
    ]
    ripe = choose_taken(orphans, 1_000, 500, 10)
    assert [one.name for one in ripe] == ["both old", "both at the edge"]
    assert len(choose_taken(orphans, 1_000, 0, 3)) == 3
    assert choose_taken(orphans, 1_000, 2_000, 10) == []
