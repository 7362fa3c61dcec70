"""What the content of a share is read from."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from msd.workers.source.local_files import LocalFiles
from msd.workers.source.source_of import source_of
from msd.workers.source.store_files import StoreFiles
from tests.local_stores import LocalStores, share_of_stores, stores
from tests.unit.shares import share_of
from tests.unit.workers.source.test_local_files import put

__all__ = ["stores"]


def test_paths_are_read_from_the_file_system(tmp_path: Path) -> None:
    assert isinstance(source_of(share_of(tmp_path)), LocalFiles)


def test_stores_are_read_from_there(stores: LocalStores) -> None:
    assert isinstance(source_of(share_of_stores("s3://films")), StoreFiles)


def test_of_both_each_file_is_read_where_it_is(stores: LocalStores, tmp_path: Path) -> None:
    stores.put("film", b"film")
    root = tmp_path / "disk"
    root.mkdir()
    local = put(root, "numbers")
    share = replace(share_of_stores("s3://films", "s3://music"), roots={"disk": root})
    source = source_of(share)
    on_disk = replace(local, name="disk/numbers")
    in_store = replace(local, name="films/film", version=stores.open("s3://films").find("film"))
    assert source.waits_for(on_disk) is None
    wait = source.waits_for(in_store)
    assert wait is not None
    assert wait.name == "s3://films"
    assert source.read(in_store, 0, 4) == b"film"
    assert source.read(on_disk, 0, 3) == bytes(range(3))
    assert source.has_reliable_versions(in_store)
    source.close_unread()
    source.close()
