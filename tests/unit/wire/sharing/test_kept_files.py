"""Files that are needed later are written again if another program has removed them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from msd.wire.errors import NotAllowedError
from msd.wire.sharing.kept_files import KeptFiles


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "msd-1" / "127.0.0.1-39224"
    for edition in ("1", "2"):
        (folder / "catalogue" / edition).mkdir(parents=True)
        (folder / "catalogue" / edition / "digests").write_text(f"edition {edition}")
    (folder / "catalogue" / "share").write_text("shared paths")
    folder.parent.chmod(0o700)
    return folder


@pytest.fixture
def kept(folder: Path) -> Iterator[KeptFiles]:
    kept = KeptFiles(folder)
    kept.keep("share", ["catalogue/share"])
    kept.keep("catalogue", ["catalogue/1/digests"])
    kept.keep("catalogue", ["catalogue/2/digests"])
    yield kept
    kept.close()
    assert not [fd for fd in Path("/proc/self/fd").iterdir() if os.path.islink(fd) and "msd-1" in os.readlink(fd)]


def test_nothing_is_restored_while_nothing_is_missing(kept: KeptFiles) -> None:
    assert not kept.restore()


@pytest.mark.parametrize("removed", ["..", ".", "catalogue", "catalogue/2"])
def test_removed_files_are_restored_in_private_folders(folder: Path, kept: KeptFiles, removed: str) -> None:
    shutil.rmtree((folder / removed).resolve())
    for _ in range(2):
        assert kept.restore()
        assert (folder / "catalogue" / "2" / "digests").read_text() == "edition 2"
        assert (folder / "catalogue" / "share").read_text() == "shared paths"
        assert folder.parent.stat().st_mode & 0o777 == 0o700
        assert not kept.restore()
        (folder / "catalogue" / "2" / "digests").unlink()
    if removed != "catalogue/2":
        assert not (folder / "catalogue" / "1").exists()


def test_a_folder_that_another_user_has_made_is_not_used(folder: Path, kept: KeptFiles) -> None:
    shutil.rmtree(folder.parent)
    folder.parent.mkdir()
    folder.parent.chmod(0o755)
    with pytest.raises(NotAllowedError):
        kept.restore()


def test_files_that_cannot_be_opened_leave_the_earlier_ones_kept(folder: Path, kept: KeptFiles) -> None:
    with pytest.raises(FileNotFoundError):
        kept.keep("catalogue", ["catalogue/2/digests", "catalogue/3/digests"])
    shutil.rmtree(folder)
    assert kept.restore()
    assert (folder / "catalogue" / "2" / "digests").exists()
