"""Reading objects of stores and computing their digests."""

from __future__ import annotations

import errno
import math
import random

import pytest
from msgspec.structs import replace

from msd.wire.protocol.segments import Manifest, content_id, cut, digest
from msd.workers.indexing.file_hasher import FileChangedError, HashedFile
from msd.workers.indexing.object_hasher import AHEAD, hash_objects
from msd.workers.source.catalogue import Version
from msd.workers.source.object_store import ObjectStore, StoreError
from tests.local_stores import LocalStores, share_of_stores, stores

__all__ = ["stores"]

LARGE = random.Random(1).randbytes((3 << 20) + 77)


def hashed(names: list[str], versions: dict[str, Version]) -> list[HashedFile | OSError]:
    share = share_of_stores("s3://films")
    return [*hash_objects(share, share.open_stores(), [(n, versions[n]) for n in names], lambda *_: None)]


def test_digests_are_those_of_a_file_with_this_content(stores: LocalStores) -> None:
    contents = {"a": b"small", "b": LARGE, "empty": b"", **{f"n{n}": bytes([n]) * n for n in range(100)}}
    for key, content in contents.items():
        stores.put(key, content)
    versions = {name: v for name, v in stores.open("s3://films").list() if isinstance(v, Version)}
    names = ["b", *contents]
    for name, result in zip(names, hashed(names, versions), strict=True):
        view = memoryview(contents[name])
        digests = b"".join(map(digest, cut(view))) if len(view) > 1 << 20 else b""
        expected = Manifest.build(name, len(view), digests).id if digests else content_id(view)
        assert result == HashedFile(versions[name], expected, digests, math.inf)


def test_an_object_that_was_replaced_or_deleted_is_an_error_and_the_next_is_not(stores: LocalStores) -> None:
    for key in ("a", "b", "c", "d"):
        stores.put(key, LARGE if key == "b" else b"old")
    versions = {name: v for name, v in stores.open("s3://films").list() if isinstance(v, Version)}
    stores.put("a", b"new")
    stores.put("b", LARGE[1:] + b"x")
    versions["c"] = replace(versions["c"], inode=0)
    versions["gone"] = replace(versions["d"])
    a, b, c, gone, d = hashed(["a", "b", "c", "gone", "d"], versions)
    assert all(isinstance(result, FileChangedError) for result in (a, b, c))
    assert isinstance(gone, StoreError)
    assert gone.errno == errno.ENOENT
    assert isinstance(d, HashedFile)


def test_what_does_not_answer_is_tried_again(stores: LocalStores, monkeypatch: pytest.MonkeyPatch) -> None:
    stores.put("a", b"content")
    versions = {name: v for name, v in stores.open("s3://films").list() if isinstance(v, Version)}
    read, failures = ObjectStore.read, [StoreError(errno.EAGAIN, "503"), StoreError(errno.EIO, "short")]

    def fail_first(self: ObjectStore, *arguments: object) -> object:
        if failures:
            raise failures.pop()
        return read(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ObjectStore, "read", fail_first)
    (result,) = hashed(["a"], versions)
    assert isinstance(result, HashedFile)
    failures += [StoreError(errno.EAGAIN, "503")] * 3
    (failed,) = hashed(["a"], versions)
    assert isinstance(failed, StoreError)


def test_after_a_range_that_cannot_be_read_the_rest_of_the_object_is_not_read(
    stores: LocalStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.put("a", bytes(200 << 20))
    stores.put("b", b"content")
    versions = {name: v for name, v in stores.open("s3://films").list() if isinstance(v, Version)}
    read, offsets = ObjectStore.read, []

    def fail_first(self: ObjectStore, key: str, offset: int, length: int, etag: str | None) -> object:
        offsets.append((key, offset))
        if key == "a" and offset == 0:
            raise StoreError(errno.EACCES, "403")
        return read(self, key, offset, length, etag)

    monkeypatch.setattr(ObjectStore, "read", fail_first)
    a, b, again = hashed(["a", "b", "a"], versions)
    assert isinstance(a, StoreError)
    assert a.strerror == "403"
    assert isinstance(b, HashedFile)
    assert isinstance(again, StoreError)
    # Ranges that were begun before the failure was known are read.
    assert len(offsets) <= 2 * (2 * AHEAD) + 1
