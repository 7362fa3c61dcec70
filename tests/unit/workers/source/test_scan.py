"""Scans of the shared folder: which files are shared, and the reasons for skipping the others."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from msd.wire.errors import MsdError, NotFoundError, SourceError
from msd.workers.source.catalogue import Version
from msd.workers.source.scan import scan


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
    result = scan(root)
    assert list(result.files) == ["numbers"]
    assert all(name.isprintable() for name in result.skipped)
    return result.skipped


def test_a_scan_returns_the_version_of_each_file(root: Path) -> None:
    for name in (".hidden", "sub/sub/ü 🙂", "empty folder/x"):
        put(root / name)
    (root / "empty folder" / "x").unlink()
    versions = {name: Version.of((root / name).stat()) for name in ("numbers", ".hidden", "sub/sub/ü 🙂")}
    assert scan(root) == (versions, {})


def test_a_single_file_is_shared_under_its_own_name(root: Path) -> None:
    path = root / "numbers"
    assert scan(path) == ({"numbers": Version.of(path.stat())}, {})


def test_skips_anything_but_regular_files(root: Path) -> None:
    os.mkfifo(root / "fifo")
    os.mknod(root / "socket", stat.S_IFSOCK | 0o600)
    (root / "zero").symlink_to("/dev/zero")
    assert skipped(root) == dict.fromkeys(["fifo", "socket", "zero"], "not a regular file")


def test_skips_links_that_point_outside_the_folder(root: Path, tmp_path: Path) -> None:
    secret = put(tmp_path / "shared and more" / "secret")
    (root / "link").symlink_to(secret)
    (root / "relative").symlink_to("../shared and more/secret")
    (root / "folder").symlink_to(secret.parent)
    why = "a link that points outside the shared folder"
    before = skipped(root)
    assert before == {"link": why, "relative": why, "folder": "a link to a folder"}
    secret.write_bytes(b"changed")
    assert skipped(root) == before


def test_shares_links_that_stay_inside_the_folder(root: Path, tmp_path: Path) -> None:
    (root / "link").symlink_to("numbers")
    assert scan(root).files["link"] == Version.of((root / "numbers").stat())
    link_to_root = tmp_path / "link to root"
    link_to_root.symlink_to(root)
    assert scan(link_to_root) == scan(root)


def test_skips_dangling_and_circular_links(root: Path) -> None:
    (root / "dangling").symlink_to("nothing")
    (root / "loop").symlink_to("loop")
    (root / "folder loop").symlink_to(".")
    assert skipped(root) == {
        "dangling": "No such file or directory",
        "loop": "Too many levels of symbolic links",
        "folder loop": "a link to a folder",
    }


def test_skips_part_files_unless_shared_explicitly(root: Path) -> None:
    put(root / "sub" / "film.mp4.part")
    assert skipped(root) == {"sub/film.mp4.part": "an unfinished download (*.part)"}
    assert list(scan(root / "sub" / "film.mp4.part").files) == ["film.mp4.part"]


@pytest.mark.parametrize("name", ["line\nbreak", "tab\t", "\x1b[31mred", "delete\x7f", "c1\x9b", "sub\n/file"])
def test_skips_a_name_with_control_characters(root: Path, name: str) -> None:
    put(root / name)
    assert skipped(root) == {ascii(name)[1:-1]: "its name contains control characters"}


def test_skips_a_name_that_is_not_utf8(root: Path) -> None:
    put(root / os.fsdecode(b"latin \xe9"))
    assert skipped(root) == {"latin \\udce9": "its name is not UTF-8"}


def test_skips_a_file_that_is_too_large(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msd.workers.source.scan.MAX_FILE_SIZE", 245)
    (root / "large").write_bytes(bytes(246))
    assert skipped(root) == {"large": "larger than 245 bytes"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_skips_a_folder_without_read_permission(root: Path) -> None:
    folder = put(root / os.fsdecode(b"locked \xe9") / "file").parent
    folder.chmod(0)
    assert skipped(root) == {"locked \\udce9": "Permission denied"}
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
        with pytest.raises(NotFoundError) as caught:
            scan(path)
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
    with pytest.raises(MsdError) as caught:
        scan(root)
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
    with pytest.raises(SourceError) as caught:
        scan(path)
    assert str(caught.value) == f"{path}: cannot be shared: {why}"
