"""What one look sees of the shared files: which may be shared, and why the others may not."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from msd.wire.errors import MsdError, NotFoundError, SourceError
from msd.workers.source import scan
from msd.workers.source.catalogue import Version
from msd.workers.source.scan import look


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
    """What is left out of ``root``, where nothing but ``numbers`` is to be shared."""
    found = look(root)
    assert list(found.files) == ["numbers"]
    assert all(name.isprintable() for name in found.skipped)
    return found.skipped


def test_a_look_sees_the_version_of_each_file(root: Path) -> None:
    for name in (".hidden", "sub/sub/ü 🙂", "empty folder/x"):
        put(root / name)
    (root / "empty folder" / "x").unlink()
    versions = {name: Version.of((root / name).stat()) for name in ("numbers", ".hidden", "sub/sub/ü 🙂")}
    assert look(root) == (versions, {})


def test_one_file_is_seen_by_its_own_name(root: Path) -> None:
    path = root / "numbers"
    assert look(path) == ({"numbers": Version.of(path.stat())}, {})


def test_what_is_no_regular_file_is_left_out(root: Path) -> None:
    os.mkfifo(root / "fifo")
    os.mknod(root / "socket", stat.S_IFSOCK | 0o600)
    (root / "zero").symlink_to("/dev/zero")
    assert skipped(root) == dict.fromkeys(["fifo", "socket", "zero"], "not a regular file")


def test_a_link_out_of_the_folder_is_left_out_whatever_it_leads_to(root: Path, tmp_path: Path) -> None:
    secret = put(tmp_path / "shared and more" / "secret")
    (root / "link").symlink_to(secret)
    (root / "relative").symlink_to("../shared and more/secret")
    (root / "folder").symlink_to(secret.parent)
    out = "a link that leads out of what is shared"
    before = skipped(root)
    assert before == {"link": out, "relative": out, "folder": "a link to a folder"}
    secret.write_bytes(b"changed")
    assert skipped(root) == before


def test_a_link_inside_of_the_folder_is_shared(root: Path, tmp_path: Path) -> None:
    (root / "link").symlink_to("numbers")
    assert look(root).files["link"] == Version.of((root / "numbers").stat())
    other = tmp_path / "another way"
    other.symlink_to(root)
    assert look(other) == look(root)


def test_a_link_to_nothing_or_to_itself_is_left_out(root: Path) -> None:
    (root / "dangling").symlink_to("nothing")
    (root / "loop").symlink_to("loop")
    (root / "folder loop").symlink_to(".")
    assert skipped(root) == {
        "dangling": "No such file or directory",
        "loop": "Too many levels of symbolic links",
        "folder loop": "a link to a folder",
    }


def test_a_download_that_is_not_complete_is_left_out(root: Path) -> None:
    put(root / "sub" / "film.mp4.part")
    assert skipped(root) == {"sub/film.mp4.part": "an unfinished download (*.part)"}
    assert list(look(root / "sub" / "film.mp4.part").files) == ["film.mp4.part"], "unless it is all that is named"


@pytest.mark.parametrize("name", ["line\nbreak", "tab\t", "\x1b[31mred", "delete\x7f", "c1\x9b", "sub\n/file"])
def test_a_name_with_control_characters_is_left_out(root: Path, name: str) -> None:
    put(root / name)
    assert skipped(root) == {ascii(name)[1:-1]: "its name holds control characters"}


def test_a_name_that_is_not_utf8_is_left_out(root: Path) -> None:
    put(root / os.fsdecode(b"latin \xe9"))
    assert skipped(root) == {"latin \\udce9": "its name is not UTF-8"}


def test_a_file_that_is_too_large_is_left_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "MAX_FILE_SIZE", 245)
    (root / "large").write_bytes(bytes(246))
    assert skipped(root) == {"large": "larger than 245 bytes"}


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is locked to root")
def test_a_folder_that_may_not_be_read_is_left_out(root: Path) -> None:
    folder = put(root / os.fsdecode(b"locked \xe9") / "file").parent
    folder.chmod(0)
    assert skipped(root) == {"locked \\udce9": "Permission denied"}
    folder.chmod(0o700)


def test_a_folder_that_has_just_gone_is_no_news(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = put(root / "sub" / "file").parent
    scandir = os.scandir

    def remove_and_scan(path: str) -> object:
        if Path(path) == gone:
            (gone / "file").unlink()
            gone.rmdir()
        return scandir(path)

    monkeypatch.setattr(os, "scandir", remove_and_scan)
    assert skipped(root) == {}


def test_a_share_that_is_missing_is_no_such_file(root: Path) -> None:
    for path in (root / "none", root / "numbers" / "below a file"):
        with pytest.raises(NotFoundError) as caught:
            look(path)
        assert str(caught.value).startswith(f"{path}: no such file or folder to share")


@pytest.mark.parametrize("call", ["stat", "scandir"])
@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(107, "Not connected")])
def test_a_share_that_cannot_be_looked_at_is_an_error_of_one_line(
    root: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: OSError
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(os, call, fail)
    monkeypatch.setattr(Path, "stat", os.stat if call == "stat" else Path.stat)
    with pytest.raises(MsdError) as caught:
        look(root)
    assert str(caught.value) == f"{root}: cannot be shared: {error.strerror}"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("fifo", "not a regular file"),
        ("line\nbreak", "its name holds control characters"),
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
        look(path)
    assert str(caught.value) == f"{path}: cannot be shared: {why}"
