"""The local backend by itself: its files, tags, faults and races."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.storaged.core.conditions import Expects, WriteCondition
from services.storaged.core.listing import parse_query
from services.storaged.core.uploads import parse_upload
from services.storaged.store import local, local_files, tags
from services.storaged.store.local import LocalBackend
from services.storaged.store.tags import SidecarTags, choose_tags
from services.storaged.store.tree import ObjectTree
from shared.errors import InsufficientStorage, PreconditionFailed, Unavailable

CREATE = {"if-none-match": "*"}


def start(root: Path, *, sidecars: bool = False, min_free_bytes: int = 0) -> LocalBackend:
    """A backend with its data under `root`."""
    backend = LocalBackend(
        root,
        min_free_bytes=min_free_bytes,
        clock_ns=time.time_ns,
        tags=SidecarTags(root / "tags", root / "staging") if sidecars else None,
    )
    backend.start()
    return backend


@pytest.fixture(params=["attributes", "sidecars"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LocalBackend]:
    """A running backend, with either way of keeping tags."""
    made = start(tmp_path, sidecars=request.param == "sidecars")
    yield made
    made.stop()


def put(backend: LocalBackend, key: str, content: bytes, **headers: str) -> bool:
    """Stores an object; true when it is new."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    upload = backend.begin(key, parse_upload(named))
    try:
        upload.write(content)
        return upload.commit()[1]
    finally:
        upload.discard()


def get(backend: LocalBackend, key: str) -> bytes:
    """The object's bytes."""
    reader = backend.open(key)
    try:
        return reader.read(0, reader.stored.size)
    finally:
        reader.close()


def etag_of(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()}"'


def list_keys(backend: LocalBackend, prefix: str = "") -> list[str]:
    """All keys under a prefix."""
    page = backend.list(parse_query(prefix, None, 1000, None))
    assert page.next_start is None
    return [stored.key for stored in page.objects]


def paths_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_an_object_keeps_its_digest_and_type_over_restarts(backend: LocalBackend) -> None:
    put(backend, "a/b.csv", b"1,2", content_type="text/csv")
    before = backend.open("a/b.csv")
    before.close()
    backend.stop()
    again = start(backend.data_dir, sidecars=isinstance(backend.tags, SidecarTags))
    after = again.open("a/b.csv")
    after.close()
    again.stop()
    assert after.stored == before.stored
    assert after.stored.etag == etag_of(b"1,2")
    assert after.stored.content_type == "text/csv"


def test_no_file_is_hashed_to_answer_for_a_stored_object(
    backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(backend, "k", b"content")

    def refuse(*_: Any) -> bytes:
        raise AssertionError("the file was read")

    monkeypatch.setattr(local.os, "pread", refuse)
    backend.open("k").close()
    assert list_keys(backend) == ["k"]
    assert backend.delete("k", WriteCondition(Expects.ONE_OF, (etag_of(b"content"),)))


@pytest.mark.parametrize("loss", ["dropped", "garbage", "of another file"])
def test_a_lost_or_wrong_tag_is_made_again(backend: LocalBackend, loss: str) -> None:
    content = os.urandom(3_000_000)
    put(backend, "a/k.bin", content, content_type="text/csv")
    target = backend.tree.locate("a/k.bin")
    if loss == "of another file":
        with open(target, "r+b") as file:
            file.write(b"other bytes")
        content = Path(target).read_bytes()
    elif isinstance(backend.tags, SidecarTags):
        for path in (backend.data_dir / "tags").rglob("*"):
            if path.is_file():
                path.unlink() if loss == "dropped" else path.write_bytes(b"garbage")
    elif loss == "dropped":
        os.removexattr(target, tags.ATTRIBUTE)
    else:
        os.setxattr(target, tags.ATTRIBUTE, b"garbage")
    page = backend.list(parse_query("", None, 10, None))
    assert page.objects[0].etag == etag_of(content)
    assert page.objects[0].size == len(content)
    # It is kept: the second look finds a valid tag.
    assert backend.tags.read(target, os.stat(target)) is not None
    assert put(backend, "a/k.bin", b"new", if_match=etag_of(content)) is False


def test_sidecars_come_and_go_with_their_objects(tmp_path: Path) -> None:
    backend = start(tmp_path, sidecars=True)

    def sidecars() -> int:
        return sum(path.is_file() for path in (tmp_path / "tags").rglob("*"))

    put(backend, "a", b"1")
    put(backend, "a", b"2")
    put(backend, "b", b"3")
    assert sidecars() == 2
    late = backend.begin("c", parse_upload(CREATE))
    put(backend, "c", b"first")
    with pytest.raises(PreconditionFailed):
        late.commit()
    assert sidecars() == 3
    for key in "abc":
        backend.delete(key, WriteCondition())
    assert sidecars() == 0
    backend.stop()


def test_file_systems_without_attributes_get_sidecars(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: Any) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    probe = tmp_path / "probe"
    probe.touch()
    monkeypatch.setattr(tags.os, "setxattr", unsupported)
    assert isinstance(choose_tags(probe, tmp_path / "tags", tmp_path), SidecarTags)


def test_a_start_empties_staging_and_keeps_objects(tmp_path: Path) -> None:
    for sidecars in (False, True):
        backend = start(tmp_path, sidecars=sidecars)
        put(backend, "kept", b"1")
        upload = backend.begin("lost", parse_upload({}))
        upload.write(b"half of it")
        backend.stop()  # as a crash would leave it
        again = start(tmp_path, sidecars=sidecars)
        assert paths_in(tmp_path / "staging") == []
        assert list_keys(again) == ["kept"]
        again.stop()
        upload.discard()


def test_one_process_has_the_data_directory(tmp_path: Path) -> None:
    backend = start(tmp_path)
    with pytest.raises(Unavailable, match="in use"):
        start(tmp_path)
    backend.stop()
    start(tmp_path).stop()


def test_a_data_directory_whose_path_leaves_no_room_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="too long"):
        start(tmp_path / ("d" * 200) / ("d" * 200) / ("d" * 200) / ("d" * 200) / ("d" * 200))


@pytest.mark.parametrize(
    ("call", "answer", "reason"),
    [("exists", True, "capital"), ("hardlink_to", None, "hard links")],
)
def test_a_file_system_that_cannot_keep_objects_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, answer: Any, reason: str
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Path, call, (lambda _: answer) if answer else fail_with(errno.EPERM))
        with pytest.raises(Unavailable, match=reason):
            start(tmp_path)
    backend = start(tmp_path)
    assert paths_in(tmp_path / "objects") == []
    backend.stop()


def test_a_reader_keeps_its_version_while_the_key_gets_another(backend: LocalBackend) -> None:
    old = os.urandom(100_000)
    put(backend, "k", old)
    reader = backend.open("k")
    half = reader.read(0, 50_000)
    put(backend, "k", b"new")
    backend.delete("k", WriteCondition())
    assert half + reader.read(50_000, 50_000) == old
    assert reader.stored.etag == etag_of(old)
    reader.close()
    reader.close()


def test_nothing_is_acknowledged_before_it_is_durable(
    backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file with its tag is synced, then placed, then each folder with a new entry synced."""
    events: list[tuple[str, str]] = []
    root = str(backend.data_dir)

    def note(name: str, call: Callable[..., Any]) -> None:
        def noting(first: Any, *rest: Any) -> Any:
            path = os.readlink(f"/proc/self/fd/{first}") if isinstance(first, int) else str(first)
            result = call(first, *rest)
            # Sidecars have their own files; what matters is that they come before the rest.
            if "/tags" not in path and not path.endswith(".tag"):
                events.append((name, path.removeprefix(root)))
            elif name == "fsync":
                assert not [event for event in events if event[0] in ("replace", "link")]
            return result

        monkeypatch.setattr(local.os, name, noting)

    for name in ("fsync", "replace", "link", "setxattr"):
        note(name, getattr(os, name))
    put(backend, "a/b/c", b"1")
    if not isinstance(backend.tags, SidecarTags):
        assert events.pop(0)[0] == "setxattr"
    file = events[0][1]
    assert file.startswith("/staging/")
    assert events == [
        ("fsync", file),
        ("replace", file),
        ("fsync", "/objects/a~/b~"),
        ("fsync", "/objects/a~"),
        ("fsync", "/objects"),
    ]
    late = backend.begin("a/b/d", parse_upload(CREATE))
    events.clear()
    put(backend, "a/b/d", b"1", **CREATE)
    assert events[-2:] == [("link", events[-2][1]), ("fsync", "/objects/a~/b~")]
    events.clear()
    # Who is told that it exists may rely on it, so it is made durable before that as well.
    with pytest.raises(PreconditionFailed):
        late.commit()
    assert events[-1] == ("fsync", "/objects/a~/b~")
    events.clear()
    backend.delete("a/b/d", WriteCondition())
    assert events == [("fsync", "/objects/a~/b~")]


def fail_with(number: int) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("call", ["write", "fsync", "replace", "link", "setxattr", "open", "mkdir"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    backend = start(tmp_path)
    headers = CREATE if call == "link" else {}
    with monkeypatch.context() as patched:
        patched.setattr(local.os, call, fail_with(number))
        with pytest.raises(InsufficientStorage, match="full"):
            put_plain(backend, "a/b", b"content", headers)
    assert paths_in(tmp_path / "staging") == []
    assert paths_in(tmp_path / "objects") in ([], ["a~"])
    assert list_keys(backend) == []
    put_plain(backend, "a/b", b"content", headers)
    assert get(backend, "a/b") == b"content"
    backend.stop()


def put_plain(backend: LocalBackend, key: str, content: bytes, headers: dict[str, str]) -> None:
    put(backend, key, content, **headers)


def test_a_failed_sync_stops_all_further_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = start(tmp_path)
    put(backend, "k", b"before")
    with monkeypatch.context() as patched:
        patched.setattr(local.os, "fsync", fail_with(errno.EIO))
        with pytest.raises(InsufficientStorage, match="only reads"):
            put(backend, "k", b"after")
    # The disk may work again, but what it holds is not known any more.
    with pytest.raises(InsufficientStorage, match="only reads"):
        put(backend, "other", b"1")
    with pytest.raises(InsufficientStorage, match="only reads"):
        backend.delete("k", WriteCondition())
    assert get(backend, "k") == b"before"
    assert backend.check()["data_dir"] != "ok"
    backend.stop()


def test_space_is_kept_free_while_a_body_of_unknown_length_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = start(tmp_path, min_free_bytes=1000)
    monkeypatch.setattr(local_files, "SPACE_CHECK_BYTES", 100)
    upload = backend.begin("k", parse_upload({}))
    upload.write(bytes(90))
    monkeypatch.setattr(backend, "free_bytes", lambda: 999)
    with pytest.raises(InsufficientStorage, match="room"):
        upload.write(bytes(90))
    upload.discard()
    assert paths_in(tmp_path / "staging") == []
    backend.stop()


def test_readiness_tells_a_directory_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = start(tmp_path)
    assert backend.check() == {"data_dir": "ok", "free_space": "ok"}
    monkeypatch.setattr(Path, "touch", fail_with(errno.EROFS))
    assert "cannot be written" in backend.check()["data_dir"]
    backend.stop()


def test_folders_are_made_and_removed_under_fire(
    backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deletes that empty a folder race with puts into it: no put fails, nothing is lost."""
    kept = [f"d/e/kept-{n}" for n in range(3)]
    rounds = 60
    rmdir = os.rmdir

    def remove_late(path: str) -> None:
        # Widens the window in which a folder found empty may have been filled again.
        time.sleep(0.0005)
        rmdir(path)

    monkeypatch.setattr("services.storaged.store.tree.os.rmdir", remove_late)

    def churn(worker: int) -> None:
        for n in range(rounds):
            key = f"d/e/f/{worker}-{n}"
            put(backend, key, key.encode())
            assert get(backend, key) == key.encode()
            assert backend.delete(key, WriteCondition())

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(churn, worker) for worker in range(4)]:
            done.result()
    assert paths_in(backend.data_dir / "objects") == []
    for key in kept:
        put(backend, key, b"1")
    assert list_keys(backend) == kept


def test_a_folder_just_made_is_not_taken_for_one_left_by_a_crash(
    backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = os.mkdir
    lists: list[threading.Thread] = []

    def make_and_list(path: str, mode: int = 0o777) -> None:
        mkdir(path, mode)
        if "new~" not in str(path):
            return
        lists.append(threading.Thread(target=list_keys, args=(backend, "new/")))
        lists[-1].start()
        # It can only end now if it does not wait for the put that is under way.
        lists[-1].join(0.2)

    monkeypatch.setattr("services.storaged.store.tree.os.mkdir", make_and_list)
    put(backend, "new/folder/k", b"1")
    for thread in lists:
        thread.join()
    assert len(lists) == 2
    assert list_keys(backend) == ["new/folder/k"]


def test_a_folder_left_empty_by_a_crash_goes_when_it_is_met(backend: LocalBackend) -> None:
    put(backend, "a/k", b"1")
    os.makedirs(backend.data_dir / "objects" / "a~" / "b~" / "c~")
    assert list_keys(backend) == ["a/k"]
    assert paths_in(backend.data_dir / "objects") == ["a~", "a~/k"]


def test_foreign_files_in_the_tree_are_no_objects(backend: LocalBackend) -> None:
    put(backend, "a", b"1")
    (backend.data_dir / "objects" / "not ours.txt").write_text("x")
    assert list_keys(backend) == ["a"]


@settings(max_examples=60, deadline=None)
@given(
    st.sets(st.text("ab/-~.é0", min_size=1, max_size=7), max_size=25),
    st.text("ab/é", max_size=3),
    st.text("ab/-é", max_size=3),
)
def test_a_walk_is_a_sorted_filter_of_all_keys(
    tmp_path_factory: pytest.TempPathFactory, names: set[str], prefix: str, start_at: str
) -> None:
    tree = ObjectTree(tmp_path_factory.mktemp("tree"))
    keys = {name for name in names if all(part not in ("", ".", "..") for part in name.split("/"))}
    for key in keys:
        path = Path(tree.locate(key))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    expected = [key for key in keys if key.startswith(prefix) and key >= start_at]
    assert list(tree.walk(prefix, start_at)) == sorted(expected, key=str.encode)


def test_a_walk_reads_only_the_folders_on_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = start(tmp_path)
    for folder in "abcd":
        for n in range(3):
            put(backend, f"{folder}/{n}/k", b"1")
    read: list[str] = []
    listdir = os.listdir

    def note(path: str) -> list[str]:
        read.append(str(path).rpartition("/objects")[2])
        return listdir(path)

    monkeypatch.setattr("services.storaged.store.tree.os.listdir", note)
    assert list(backend.tree.walk("b/1/", "")) == ["b/1/k"]
    assert read == ["/b~/1~"]
    read.clear()
    page = backend.list(parse_query("", "/", 10, None))
    assert page.prefixes == ["a/", "b/", "c/", "d/"]
    # Each folder once, and beneath it only as far as its first object.
    assert read == ["", "/a~", "/a~/0~", "/b~", "/b~/0~", "/c~", "/c~/0~", "/d~", "/d~/0~"]
    read.clear()
    assert next(backend.tree.walk("", "d/1/k")) == "d/1/k"
    assert read == ["", "/d~", "/d~/1~"]
    backend.stop()


def test_a_listing_under_fire_misses_and_repeats_nothing(backend: LocalBackend) -> None:
    """Keys that exist throughout are each listed once while others come and go."""
    stable = sorted(f"p/{n % 7}/{n:03}" for n in range(120))
    for key in stable:
        put(backend, key, b"1")
    stop = threading.Event()

    def churn(worker: int) -> None:
        n = 0
        while not stop.is_set():
            key = f"p/{n % 9}/x{worker}-{n % 5}"
            put(backend, key, b"2")
            put(backend, stable[n % len(stable)], b"3")
            backend.delete(key, WriteCondition())
            n += 1

    with ThreadPoolExecutor(2) as pool:
        workers = [pool.submit(churn, worker) for worker in range(2)]
        try:
            for _ in range(10):
                seen: list[str] = []
                query = parse_query("p/", None, 10, None)
                start_at: str | None = "p/"
                while start_at is not None:
                    page = backend.list(type(query)("p/", "", 10, start_at))
                    seen += [stored.key for stored in page.objects]
                    start_at = page.next_start
                assert seen == sorted(set(seen), key=str.encode)
                assert [key for key in seen if "x" not in key] == stable
        finally:
            stop.set()
        for worker in workers:
            worker.result()
