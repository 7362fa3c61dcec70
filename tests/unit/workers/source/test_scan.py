"""Scans of the shared folder: which files are shared, and the reasons for skipping the others."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from msd.wire.config.store_urls import StoreUrl
from msd.wire.errors import DiskError, SourceError, UsageError
from msd.wire.support.presentable_names import presentable
from msd.workers.source.catalogue import SharedFolder, Version
from msd.workers.source.object_store import ObjectStore, StoreError
from msd.workers.source.scan import current_versions, scan
from msd.workers.source.share import LeftOut, Share, left_out_text
from tests.local_stores import LocalStores, share_of_stores, stores
from tests.unit.shares import share_of

__all__ = ["stores"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "shared"
    root.mkdir()
    put(root / "numbers")
    return root


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(range(245)))
    return path


def skipped(root: Path) -> dict[str, str]:
    """Scans ``root`` and returns the skipped files; asserts that only ``numbers`` is shared."""
    result = scan(share_of(root))
    assert list(result.files) == ["numbers"]
    assert all(name.isprintable() for name in result.skipped)
    return result.skipped


def left_out(root: Path, *, follow_links: bool = False) -> dict[LeftOut, int]:
    """Scans ``root`` and returns the numbers of files that are left out; asserts that no file is skipped."""
    result = scan(Share({"": root}, follow_links=follow_links))
    assert result.skipped == {}
    return dict(result.left_out)


def test_a_scan_returns_the_version_of_each_file_and_the_mode_of_each_folder(root: Path) -> None:
    for name in ("sub/sub/ü 🙂", "empty folder/x"):
        put(root / name)
    (root / "empty folder" / "x").unlink()
    for name, mode in ("sub", 0o755), ("sub/sub", 0o700), ("empty folder", 0o2770):
        (root / name).chmod(mode)
    versions = {name: Version.of((root / name).stat()) for name in ("numbers", "sub/sub/ü 🙂")}
    modes = {"sub/": 0o755, "sub/sub/": 0o700, "empty folder/": 0o770}
    folders = {name: SharedFolder(name, mode) for name, mode in modes.items()}
    assert scan(share_of(root)).versions == versions | folders
    assert scan(share_of(root)) == (versions, folders, {}, {})


def test_folders_that_are_left_out_or_cannot_be_read_are_not_listed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (".hidden", "excluded", "locked", "line\nbreak", "kept"):
        (root / name).mkdir()
    (root / "link").symlink_to("kept")
    (root / "loop").symlink_to(".")

    def scandir(path: str) -> Any:
        if path.endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return os_scandir(path)

    os_scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: scandir(path.rstrip("/")))
    assert {*scan(Share({"": root}, excludes=("excluded",))).folders} == {"kept/", "link/"}


def test_a_single_file_is_shared_under_its_own_name(root: Path) -> None:
    path = root / "numbers"
    assert scan(share_of(path)) == ({"numbers": Version.of(path.stat())}, {}, {}, {})


def test_several_paths_are_shared_under_their_names(root: Path, tmp_path: Path) -> None:
    film = put(tmp_path / "films" / ".film")
    put(root / "sub" / "x")
    result = scan(Share({"shared": root, ".film": film}))
    assert set(result.files) == {"shared/numbers", "shared/sub/x", ".film"}
    assert set(result.folders) == {"shared/", "shared/sub/"}
    film.unlink()
    with pytest.raises(UsageError):
        scan(Share({"shared": root, ".film": film}))
    result = scan(Share({"shared": root, ".film": film}), tolerant=True)
    assert set(result.files) == {"shared/numbers", "shared/sub/x"}
    assert result.skipped == {".film": f"{film}: no such file or folder to share"}


def test_hidden_files_and_folders_are_left_out(root: Path) -> None:
    for name in (".env", ".git/config", ".git/HEAD", "sub/.cache"):
        put(root / name)
    assert left_out(root) == {LeftOut.HIDDEN: 3}
    result = scan(Share({"": root}, hidden=True))
    assert (set(result.files), result.left_out) == (
        {"numbers", ".env", ".git/config", ".git/HEAD", "sub/.cache"}, {}
    )  # fmt: skip


def test_a_named_path_is_shared_whatever_its_name_is(root: Path) -> None:
    put(root / ".hidden" / "file")
    assert list(scan(share_of(root / ".hidden")).files) == ["file"]
    assert list(scan(share_of(put(root / ".env"))).files) == [".env"]


def test_excluded_files_and_folders_are_left_out(root: Path) -> None:
    for name in ("a.tmp", "sub/b.tmp", "cache/x", "cache/y"):
        put(root / name)
    result = scan(Share({"": root}, excludes=("*.tmp", "cache/")))
    assert (list(result.files), result.left_out) == (["numbers"], {LeftOut.EXCLUDED: 3})


def test_anything_but_regular_files_is_left_out(root: Path) -> None:
    os.mkfifo(root / "fifo")
    os.mknod(root / "socket", stat.S_IFSOCK | 0o600)
    (root / "zero").symlink_to("/dev/zero")
    assert left_out(root) == {LeftOut.SPECIAL: 2, LeftOut.LEADS_OUT: 1}
    assert left_out(root, follow_links=True) == {LeftOut.SPECIAL: 3}
    assert list(scan(share_of(root)).files) == ["numbers"]


def test_links_that_lead_out_of_the_share_are_followed_on_request_only(root: Path, tmp_path: Path) -> None:
    secret = put(tmp_path / "shared and more" / "secret")
    (root / "link").symlink_to(secret)
    (root / "relative").symlink_to("../shared and more/secret")
    (root / "folder").symlink_to(secret.parent)
    assert left_out(root) == {LeftOut.LEADS_OUT: 3}
    result = scan(Share({"": root}, follow_links=True))
    assert set(result.files) == {"numbers", "link", "relative", "folder/secret"}
    assert result.left_out == {}


def test_links_to_files_and_folders_inside_the_share_are_shared(root: Path, tmp_path: Path) -> None:
    put(root / "sub" / "x")
    (root / "link").symlink_to("numbers")
    (root / "folder").symlink_to("sub")
    assert scan(share_of(root)).files["link"] == Version.of((root / "numbers").stat())
    assert set(scan(share_of(root)).files) == {"numbers", "link", "sub/x", "folder/x"}
    link_to_root = tmp_path / "link to root"
    link_to_root.symlink_to(root)
    assert scan(share_of(link_to_root)) == scan(share_of(root))


def test_a_snapshot_in_the_cache_of_a_model_hub_alone_leads_out(tmp_path: Path) -> None:
    """The cache as a whole does not: there, snapshots are links to blobs beside them."""
    hub = tmp_path / "hub"
    put(hub / "model" / "blobs" / "1")
    put(hub / "model" / "snapshots" / "abc" / ".hidden")
    snapshot = hub / "model" / "snapshots" / "abc"
    (snapshot / "weights").symlink_to("../../blobs/1")
    assert set(scan(share_of(hub)).files) == {"model/blobs/1", "model/snapshots/abc/weights"}
    result = scan(share_of(snapshot))
    assert left_out_text(result.left_out) == "1 hidden, 1 link that leads out (--hidden, --follow-links)"
    assert set(scan(Share({"": snapshot}, follow_links=True)).files) == {"weights"}


def test_a_link_from_one_shared_path_to_another_stays_inside_the_share(root: Path, tmp_path: Path) -> None:
    film = put(tmp_path / "film")
    (root / "link").symlink_to(film)
    assert set(scan(Share({"shared": root, "film": film})).files) == {"shared/numbers", "shared/link", "film"}


def test_dangling_and_circular_links_are_left_out(root: Path) -> None:
    put(root / "a" / "x")
    put(root / "b" / "y")
    (root / "dangling").symlink_to("nothing")
    (root / "loop").symlink_to("loop")
    (root / "folder loop").symlink_to(".")
    (root / "a" / "to b").symlink_to("../b")
    (root / "b" / "to a").symlink_to("../a")
    assert left_out(root) == {LeftOut.BROKEN_LINK: 1, LeftOut.LOOP: 4}
    assert set(scan(share_of(root)).files) == {"numbers", "a/x", "b/y", "a/to b/y", "b/to a/x"}


def test_part_files_are_left_out_unless_shared_explicitly(root: Path) -> None:
    put(root / "sub" / ".film.mp4.msd-part")
    assert left_out(root) == {LeftOut.UNFINISHED: 1}
    assert list(scan(share_of(root / "sub" / ".film.mp4.msd-part")).files) == [".film.mp4.msd-part"]


@pytest.mark.parametrize("name", ["line\nbreak", "tab\t", "\x1b[31mred", "delete\x7f", "c1\x9b", "sub\n/file"])
def test_skips_a_name_with_control_characters(root: Path, name: str) -> None:
    """Of a folder with such a name only the folder is named."""
    put(root / name)
    assert skipped(root) == {ascii(name)[1:-1].removesuffix("/file"): "its name contains control characters"}


def test_skips_a_name_that_is_not_utf8(root: Path) -> None:
    put(root / os.fsdecode(b"latin \xe9"))
    put(root / os.fsdecode(b"folder \xe9") / "file")
    assert skipped(root) == {
        "latin \\udce9": "its name is not UTF-8",
        "folder \\udce9": "its name is not UTF-8",
    }


def test_skips_a_file_that_is_too_large(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msd.workers.source.scan.MAX_FILE_SIZE", 245)
    (root / "large").write_bytes(bytes(246))
    assert skipped(root) == {"large": "larger than 245 bytes"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_skips_a_folder_without_read_permission(root: Path) -> None:
    folder = put(root / "locked" / "file").parent
    (root / "link").symlink_to("locked/file")
    folder.chmod(0)
    assert skipped(root) == {"locked": "Permission denied", "link": "Permission denied"}
    folder.chmod(0o700)


def test_ignores_a_folder_that_is_deleted_during_the_scan(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deleted = put(root / "sub" / "file").parent
    scandir = os.scandir

    def remove_and_scan(path: str) -> object:
        if Path(path) == deleted:
            (deleted / "file").unlink()
            deleted.rmdir()
        return scandir(path)

    monkeypatch.setattr(os, "scandir", remove_and_scan)
    assert skipped(root) == {}


def test_a_missing_share_is_an_error(root: Path) -> None:
    for path in (root / "none", root / "numbers" / "below a file"):
        with pytest.raises(UsageError) as caught:
            scan(share_of(path))
        assert str(caught.value).startswith(f"{path}: no such file or folder to share")


@pytest.mark.parametrize("call", ["stat", "scandir"])
@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(107, "Not connected")])
def test_a_share_that_cannot_be_read_is_an_error(
    root: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: OSError
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(os, call, fail)
    monkeypatch.setattr(Path, "stat", os.stat if call == "stat" else Path.stat)
    with pytest.raises(DiskError) as caught:
        scan(share_of(root))
    assert str(caught.value) == f"{root}: cannot be shared: {error.strerror}"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("fifo", "not a regular file"),
        ("line\nbreak", "its name contains control characters"),
        (os.fsdecode(b"\xe9"), "its name is not UTF-8"),
    ],
)
def test_a_single_file_that_cannot_be_shared_is_an_error(root: Path, name: str, why: str) -> None:
    path = root / name
    if name == "fifo":
        os.mkfifo(path)
    else:
        put(path)
    with pytest.raises(UsageError) as caught:
        scan(share_of(path))
    assert str(caught.value) == f"{path}: cannot be shared: {why}"


def test_equal_versions_are_the_known_objects(root: Path) -> None:
    put(root / "sub" / "other")
    known = scan(share_of(root)).versions
    (root / "sub" / "other").write_bytes(b"changed")
    again = scan(share_of(root), known=known)
    assert again.files["numbers"] is known["numbers"]
    assert again.files["sub/other"] != known["sub/other"]


def test_the_current_versions_of_files_and_folders_are_those_that_a_scan_sees(root: Path) -> None:
    put(root / "sub" / "file")
    (root / "link").symlink_to("sub")
    put(root / "gone").unlink()
    put(root / "now a folder")
    result = scan(share_of(root)).versions
    (root / "now a folder").unlink()
    (root / "now a folder").mkdir()
    names = [*result, "gone", "sub/gone", "no folder/"]
    assert current_versions(share_of(root), names, {}) == {
        name: version for name, version in result.items() if name != "now a folder"
    }
    share = Share({"one": root, "numbers": root / "numbers"})
    assert current_versions(share, ["one/", "one/sub/", "one/numbers", "numbers"], {}) == {
        name: version
        for name, version in scan(share).versions.items()
        if name in ("one/", "one/sub/", "one/numbers", "numbers")
    }


def test_objects_of_stores_have_the_names_of_files_and_their_folders(stores: LocalStores) -> None:
    for key in ("new/a b", "new/deep/er/ü", "new/.hidden/x", "new/c.tmp", "new/d.msd-part", "old/e", "new/bad/ctl\x01"):
        stores.put(key, b"content")
    share = share_of_stores("s3://films/new/", excludes=("*.tmp",))
    result = scan(share, stores=share.open_stores())
    assert {*result.files} == {"a b", "deep/er/ü"}
    assert {*result.folders} == {"deep/", "deep/er/"}
    assert result.left_out == {LeftOut.HIDDEN: 1, LeftOut.EXCLUDED: 1, LeftOut.UNFINISHED: 1}
    assert result.skipped == {"bad": f"it has the key {presentable('/new/bad/ctl' + chr(1))}, which is no path"}
    several = share_of_stores("s3://films/new/", "s3://films/old/e", hidden=True)
    result = scan(several, stores=several.open_stores())
    assert {*result.files} == {"new/a b", "new/deep/er/ü", "new/.hidden/x", "new/c.tmp", "e"}
    assert {*result.folders} == {"new/", "new/deep/", "new/deep/er/", "new/.hidden/"}


@pytest.mark.parametrize("hidden", [False, True])
def test_the_indexes_that_msd_keeps_are_neither_shared_nor_counted(stores: LocalStores, hidden: bool) -> None:
    stores.put("new/film", b"content")
    for url in ("s3://films", "s3://films/new/", "s3://films/new/film"):
        stores.put(stores.open(url).index_key, b"index")
    share = share_of_stores("s3://films", hidden=hidden)
    result = scan(share, stores=share.open_stores())
    assert ({*result.files}, {*result.folders}, result.left_out) == ({"new/film"}, {"new/"}, {})


def test_an_object_that_is_the_folder_of_others_is_left_out(
    stores: LocalStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store of local files cannot have both, so the list is made up."""
    stores.put("a", b"content")
    version = stores.open("s3://films").find("a")
    bad = StoreError(errno.EINVAL, "a key that is no path")
    listed = [("a", version), ("a/b", version), ("c", bad)]
    monkeypatch.setattr(ObjectStore, "list", lambda self: iter(listed))
    share = share_of_stores("s3://films")
    result = scan(share, stores=share.open_stores())
    assert {*result.files} == {"a/b"}
    assert result.skipped == {"a": "it is an object and the folder of others", "c": "a key that is no path"}


def test_a_store_that_cannot_be_listed_keeps_its_files(stores: LocalStores, monkeypatch: pytest.MonkeyPatch) -> None:
    for bucket in ("films", "music"):
        stores.put("a/b", b"content", bucket=bucket)
    share = share_of_stores("s3://films", "s3://music")
    known = scan(share, stores=share.open_stores()).versions

    def fail(store: ObjectStore) -> Iterator[tuple[str, Version]]:
        if store.url.place == "films":
            raise StoreError(errno.EAGAIN, "503 Slow Down")
        yield from ()

    monkeypatch.setattr(ObjectStore, "list", fail)
    with pytest.raises(SourceError, match="s3://films: cannot be listed: 503 Slow Down"):
        scan(share, stores=share.open_stores())
    result = scan(share, tolerant=True, known=known, stores=share.open_stores())
    assert result.versions == {name: version for name, version in known.items() if name.startswith("films/")}
    assert result.skipped == {"s3://films": "s3://films: cannot be listed: 503 Slow Down"}
    assert current_versions(share, ["films/a/b", "music/a/b"], result.versions) == {"films/a/b": known["films/a/b"]}


def test_a_url_without_objects_is_an_error_at_the_start_only(stores: LocalStores) -> None:
    stores.put("a", b"content")
    for url in ("s3://films/b", "s3://films/b/"):
        share = share_of_stores(url)
        with pytest.raises(UsageError, match="there is no such object, and none below it"):
            scan(share, stores=share.open_stores())
    share = share_of_stores("s3://empty")
    assert not scan(share, stores=share.open_stores()).files, "an empty bucket may fill"


@pytest.mark.parametrize(
    ("url", "place", "verb"),
    [("s3://films/new/", "s3://films/new/ at {}", "listed"), ("{}/film", "{}/film", "read")],
)
def test_a_store_that_cannot_be_reached_is_named_with_its_endpoint(url: str, place: str, verb: str) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        server = f"127.0.0.1:{bound.getsockname()[1]}"
        settings = {"endpoint": f"http://user:word@{server}", "access_key_id": "a", "secret_access_key": "secret"}
        store = ObjectStore(StoreUrl.parse(url.format(f"http://{server}")), settings)
        with pytest.raises(SourceError) as raised:
            scan(share_of_stores("s3://films"), stores={"": store})
    assert str(raised.value) == f"{place.format(f'http://{server}')}: cannot be {verb}: connection refused"
