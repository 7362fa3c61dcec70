"""Object stores in folders, for tests without a server: obstore's own store of local files, which has ETags."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from msd.wire.config.store_urls import StoreUrl
from msd.workers.source import object_store
from msd.workers.source.object_store import ObjectStore
from msd.workers.source.share import Share

obstore_store = pytest.importorskip("obstore.store", reason="obstore is not installed")


class LocalStores:
    """Each bucket is a folder below ``root``."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._root = root
        monkeypatch.setattr(object_store, "_open", self._open)

    def _open(self, url: StoreUrl, settings: object) -> Any:
        (self._root / url.place).mkdir(exist_ok=True)
        return obstore_store.LocalStore(self._root / url.place)

    def put(self, key: str, content: bytes, bucket: str = "films") -> None:
        path = self._root / bucket / key
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name("unfinished")
        unfinished.write_bytes(content)
        os.replace(unfinished, path)

    def open(self, url: str) -> ObjectStore:
        return ObjectStore(StoreUrl.parse(url), {})


def share_of_stores(*urls: str, **options: Any) -> Share:
    """A share of stores: of several ones each has its base name."""
    names = [""] if len(urls) == 1 else [StoreUrl.parse(url).name for url in urls]
    return Share({}, stores=dict(zip(names, urls, strict=True)), **options)


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStores:
    (tmp_path / "stores").mkdir()
    return LocalStores(tmp_path / "stores", monkeypatch)
