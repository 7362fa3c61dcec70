"""Where a download is saved, for each kind of ``-o``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msd.client.storage.destination import Destination, safe_name
from msd.wire.errors import DiskError, UsageError


@pytest.fixture(autouse=True)
def _current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here" / "there").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")


@pytest.mark.parametrize(
    ("output", "path"),
    [
        (None, "Star.mp4"),
        ("copy", "copy"),
        (Path("copy"), "copy"),
        ("there/copy", "there/copy"),
        ("there", "there/Star.mp4"),
        (Path("there"), "there/Star.mp4"),
        ("there/", "there/Star.mp4"),
        (".", "Star.mp4"),
        ("./", "Star.mp4"),
        ("..", "../Star.mp4"),
        ("there/..", "there/../Star.mp4"),
        ("new/", "new/Star.mp4"),
        ("new/.", "new/Star.mp4"),
        ("new//", "new/Star.mp4"),
        ("a/b c/ä/", "a/b c/ä/Star.mp4"),
    ],
)
def test_a_folder_receives_the_file_under_its_base_name(output: str | Path | None, path: str) -> None:
    assert Destination(output, replace=False).create("films/2020/Star.mp4") == Path(path)
    assert Path(path).parent.is_dir()
    assert not Path(path).exists()


def test_a_folder_is_made_only_when_the_file_is_known() -> None:
    destination = Destination("new/", replace=False)
    assert not Path("new").exists()
    destination.create("Star.mp4")
    assert Path("new").is_dir()


def test_a_link_to_a_folder_is_a_folder() -> None:
    Path("link").symlink_to("there")
    assert Destination("link", replace=False).create("Star.mp4") == Path("link/Star.mp4")


@pytest.mark.parametrize("output", ["file/", "file/below/", "file/a/b/", "dangling/", "there/fifo/x/"])
def test_a_file_in_place_of_a_folder_is_a_usage_error(output: str) -> None:
    Path("file").write_bytes(b"")
    os.mkfifo("there/fifo")
    Path("dangling").symlink_to("nothing")
    with pytest.raises(UsageError, match=r"^(file|dangling|there/fifo) is not a folder: choose another path$"):
        Destination(output, replace=True)


@pytest.mark.parametrize("replace", [False, True])
def test_an_existing_file_in_the_folder_is_replaced_only_on_request(replace: bool) -> None:
    Path("there/Star.mp4").write_bytes(b"old")
    destination = Destination("there", replace=replace)
    if replace:
        assert destination.create("Star.mp4") == Path("there/Star.mp4")
    else:
        with pytest.raises(UsageError, match=r"^there/Star.mp4 exists: choose another path"):
            destination.create("Star.mp4")


def test_a_check_makes_no_folder() -> None:
    assert Destination("missing/folder/", replace=False).check("photos/Star.mp4") == Path("missing/folder/Star.mp4")
    assert not Path("missing").exists()
    Path("there/Star.mp4").write_bytes(b"old")
    with pytest.raises(UsageError, match="exists"):
        Destination("there", replace=False).check("Star.mp4")


def test_an_existing_file_is_an_error_before_the_download() -> None:
    Path("copy").write_bytes(b"old")
    with pytest.raises(UsageError, match=r"^copy exists"):
        Destination("copy", replace=False)


def test_a_folder_with_the_name_of_the_file_is_an_error() -> None:
    Path("there/Star.mp4").mkdir()
    with pytest.raises(UsageError, match=r"^there/Star.mp4 is a folder: give the name of a file$"):
        Destination("there", replace=True).create("Star.mp4")


def test_an_empty_output_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="output is empty"):
        Destination("", replace=False)


def test_a_folder_that_cannot_be_made_is_a_disk_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(DiskError, match=r"^new: Permission denied: choose a folder that you can write to$"):
        Destination("new/", replace=False).create("Star.mp4")


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("Star.mp4", "Star.mp4"),
        ("films/2020/Star.mp4", "Star.mp4"),
        ("../../etc/passwd", "passwd"),
        ("/etc/passwd", "passwd"),
        (".hidden", ".hidden"),
        ("ä b (1).mp4", "ä b (1).mp4"),
        ("C:\\Windows\\win.ini", "C:_Windows_win.ini"),
        ("a\x00b\x1b[31m\x7f\n", "a_b_[31m__"),
        ("", "download"),
        (".", "download"),
        ("..", "download"),
        ("films/..", "download"),
        ("films/", "download"),
    ],
)
def test_a_safe_name_is_made_from_the_base_name(name: str, safe: str) -> None:
    assert safe_name(name) == safe


@given(st.text(max_size=50))
def test_a_safe_name_never_leaves_the_folder(name: str) -> None:
    safe = safe_name(name)
    assert safe
    assert Path(safe).name == safe
    assert os.path.normpath(safe) == safe
    assert not any(ord(character) < 32 or character in "/\\\x7f" for character in safe)
