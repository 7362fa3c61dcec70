"""Reading the shared files of stores."""

from __future__ import annotations

import errno

import pytest

from msd.wire.protocol.segments import content_id
from msd.wire.protocol.states import RefusalReason
from msd.workers.source.catalogue import SharedFile, Version
from msd.workers.source.object_store import ObjectStore, StoreError
from msd.workers.source.source import ReadRefused
from msd.workers.source.store_files import StoreFiles
from tests.local_stores import LocalStores, share_of_stores, stores

__all__ = ["stores"]

REPLACED = ReadRefused(RefusalReason.CHANGED, "the object was replaced")


def shared(store: ObjectStore, key: str, name: str) -> SharedFile:
    return SharedFile(name, store.find(key), content_id(memoryview(b"")))


def test_files_of_several_stores_are_read(stores: LocalStores) -> None:
    stores.put("new/a", b"films")
    stores.put("b", b"music", bucket="music")
    share = share_of_stores("s3://films/new/", "s3://music")
    source = StoreFiles(share, share.open_stores())
    first = shared(stores.open("s3://films"), "new/a", "new/a")
    second = shared(stores.open("s3://music"), "b", "music/b")
    assert (source.read(first, 1, 3), source.read(second, 0, 5)) == (b"ilm", b"music")
    waits = [source.waits_for(file) for file in (first, second)]
    assert [wait and wait.name for wait in waits] == ["s3://films", "s3://music"]
    assert source.has_reliable_versions(first)


def test_an_object_that_was_replaced_or_deleted_is_refused(stores: LocalStores) -> None:
    stores.put("film", b"old")
    share = share_of_stores("s3://films")
    source = StoreFiles(share, share.open_stores())
    file = shared(stores.open("s3://films"), "film", "film")
    stores.put("film", b"new")
    assert source.read(file, 0, 3) == REPLACED, "the answer names another version"
    file = shared(stores.open("s3://films"), "film", "film")
    assert source.read(file, 0, 3) == b"new"
    stores.put("film", b"more")
    assert source.read(file, 0, 3) == REPLACED, "only the version is asked for"
    missing = SharedFile("gone", Version(0, 0, 1, 0, 0), bytes(32))
    assert source.read(missing, 0, 1) == ReadRefused(RefusalReason.CHANGED, "the object was deleted")


@pytest.mark.parametrize(
    ("code", "reason", "attempts"),
    [
        (errno.EAGAIN, RefusalReason.UNAVAILABLE, 1),
        (errno.EIO, RefusalReason.UNREADABLE, 2),
        (errno.EINVAL, RefusalReason.UNREADABLE, 1),
    ],
)
def test_a_failure_is_told_in_the_words_of_the_store(
    stores: LocalStores, monkeypatch: pytest.MonkeyPatch, code: int, reason: RefusalReason, attempts: int
) -> None:
    stores.put("film", b"old")
    share = share_of_stores("s3://films")
    file = shared(stores.open("s3://films"), "film", "film")
    tried: list[str] = []

    def read(self: ObjectStore, key: str, *_: object) -> object:
        tried.append(key)
        raise StoreError(code, "503 Slow Down")

    monkeypatch.setattr(ObjectStore, "read", read)
    result = StoreFiles(share, share.open_stores()).read(file, 0, 3)
    assert result == ReadRefused(reason, "s3://films: 503 Slow Down")
    assert tried == ["film"] * attempts
