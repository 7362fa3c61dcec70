"""Listing and reading objects. ``tests/stores`` does it with real servers."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from msd.wire.config.store_urls import StoreUrl
from msd.wire.errors import UsageError
from msd.workers.source.object_store import ObjectStore, StoreError, _store_error
from tests.local_stores import LocalStores, stores

__all__ = ["stores"]


@pytest.fixture
def unused_port() -> Iterator[int]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def failure(errno_: int) -> pytest.RaisesExc[StoreError]:
    return pytest.RaisesExc(StoreError, check=lambda error: error.errno == errno_)


def test_objects_below_a_prefix_are_listed_and_read(stores: LocalStores) -> None:
    for key in ("new/a b.mkv", "new/deep/ü", "old/c", "newer"):
        stores.put(key, key.encode())
    store = stores.open("s3://films/new")
    found = dict(store.list())
    assert found.keys() == {"a b.mkv", "deep/ü"}
    assert not store.is_object
    key = store.key("a b.mkv")
    assert key == "new/a b.mkv"
    data, version, etag = store.read(key, 4, 3, None)
    assert (bytes(data), version) == (b"a b", found["a b.mkv"])
    assert bytes(store.read(key, 0, 1, etag)[0]) == b"n"
    assert {*dict(stores.open("s3://films").list())} == {"new/a b.mkv", "new/deep/ü", "old/c", "newer"}


def test_a_url_may_be_that_of_an_object(stores: LocalStores) -> None:
    stores.put("new/film", b"film")
    store = stores.open("s3://films/new/film")
    assert store.is_object
    assert store.key("film") == "new/film"
    assert not stores.open("s3://films/new/film/").is_object
    assert stores.open("s3://films/new").key("film") == "new/film"


def test_another_version_is_known_by_its_etag(stores: LocalStores) -> None:
    stores.put("film", b"old")
    store = stores.open("s3://films")
    _, before, etag = store.read("film", 0, 3, None)
    stores.put("film", b"new")
    data, after, _ = store.read("film", 0, 3, None)
    assert bytes(data) == b"new"
    assert after.inode != before.inode
    with failure(errno.ESTALE):
        store.read("film", 0, 3, etag)
    assert after.device == stores.open("s3://films/other/").find("film").device, "the cache knows it in each share"


def test_an_object_that_is_gone_and_a_range_that_is_not_there(stores: LocalStores) -> None:
    store = stores.open("s3://films")
    with failure(errno.ENOENT):
        store.find("gone")
    with failure(errno.ENOENT):
        store.read("gone", 0, 1, None)


def test_a_store_that_does_not_answer_is_told_in_words(unused_port: int) -> None:
    settings = {"endpoint": f"http://127.0.0.1:{unused_port}", "access_key_id": "a", "secret_access_key": "secret"}
    store = ObjectStore(StoreUrl.parse("s3://films"), settings)
    with pytest.raises(StoreError) as raised:
        store.find("film")
    assert (raised.value.errno, raised.value.strerror) == (errno.EAGAIN, "connection refused")
    with pytest.raises(StoreError, match="connection refused"):
        dict(store.list())


def test_missing_credentials_are_told_in_words() -> None:
    asked = (
        "Error performing PUT http://169.254.169.254/latest/api/token in 101.5ms: error sending request\n\nDebug source"
    )
    assert str(_store_error(OSError(asked)).strerror).startswith("there are no credentials: set them in ")


def test_a_setting_that_obstore_does_not_accept_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="s3://films: "):
        ObjectStore(StoreUrl.parse("s3://films"), {"no_such_setting": "1"})


def test_a_machine_without_certificates_is_told_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("builder error\n\nDebug source:\nGeneral(No CA certificates were loaded from the system)")

    monkeypatch.setattr("obstore.store.HTTPStore.from_url", fail)
    with pytest.raises(UsageError, match="builder error: there are no CA certificates: install ca-certificates"):
        ObjectStore(StoreUrl.parse("http://host/film"), {})


def test_a_missing_storage_account_is_an_error_that_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(UsageError, match="Account must be specified: set AZURE_STORAGE_ACCOUNT_NAME to"):
        ObjectStore(StoreUrl.parse("az://films/new/"), {})
