"""Which key an address means, held against how storaged makes addresses."""

from __future__ import annotations

import pytest

from services.catalogd.core.addresses import find_key
from services.storaged.core.keys import name_path

FOLDER = "file:///data/storaged/objects/"


def locate(key: str) -> str:
    return FOLDER + "/".join(name_path(key))


@pytest.mark.parametrize("key", ["a.parquet", "datasets/7f-1/ab12-0.parquet", "x/y_/z.1/w"])
def test_a_plain_key_is_found_from_its_place_on_disk(key: str) -> None:
    assert find_key(locate(key), "", FOLDER) == key


@pytest.mark.parametrize("key", ["a b.parquet", "Ø/x", "a=b/c", "a~/b", "x" * 200 + "/ä" * 3])
def test_an_escaped_key_is_not_guessed(key: str) -> None:
    assert find_key(locate(key), "", FOLDER) is None


def test_in_a_bucket_the_key_is_the_rest_of_the_address() -> None:
    assert find_key("s3://house/lake/a b/c", "s3://house/lake/", FOLDER) == "a b/c"
    assert find_key("s3://other/lake/a", "s3://house/lake/", FOLDER) is None


def test_what_lies_elsewhere_has_no_key() -> None:
    for uri in ("file:///data/other/a", FOLDER + "a/b.parquet", "s3://house/a"):
        assert find_key(uri, "", FOLDER) is None
