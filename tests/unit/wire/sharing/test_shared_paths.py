"""The paths to share: their names, and the errors for paths that cannot be shared together."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from msd.wire.config.settings import Config
from msd.wire.config.store_urls import StoreUrl
from msd.wire.errors import DiskError, UsageError
from msd.wire.protocol.child_messages import ShareSettings
from msd.wire.sharing.shared_paths import share_settings, write_share


def paths(folder: Path, *names: str) -> tuple[Path, ...]:
    """Creates these files in ``folder``."""
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    return tuple(folder / name for name in names)


def test_the_only_path_has_no_name(tmp_path: Path) -> None:
    (path,) = paths(tmp_path, "film")
    config = Config(paths=(path,), excludes=("*.tmp",), hidden=True, follow_links=True)
    assert share_settings(config) == ShareSettings({"": os.fsencode(path)}, True, True, ("*.tmp",), cache=64 << 20)


def test_each_of_several_paths_has_its_base_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths(tmp_path, "film", "sub/x")
    monkeypatch.chdir(tmp_path / "sub")
    share = share_settings(Config(paths=(Path("."), Path("../film"))))
    assert share.roots == {"sub": os.fsencode(tmp_path / "sub"), "film": os.fsencode(tmp_path / "film")}


def test_two_paths_with_one_name_are_an_error_that_names_both(tmp_path: Path) -> None:
    first, second = paths(tmp_path, "a/film", "b/film")
    with pytest.raises(UsageError) as caught:
        share_settings(Config(paths=(first, second)))
    assert str(caught.value) == f"{first} and {second} would both be shared as film: rename one of them"


@pytest.mark.parametrize("name", ["/", "line\nbreak"])
def test_a_path_without_a_presentable_name_can_only_be_shared_alone(tmp_path: Path, name: str) -> None:
    (film,) = paths(tmp_path, "film")
    path = tmp_path / name
    path.touch()
    assert list(share_settings(Config(paths=(path,))).roots) == [""]
    with pytest.raises(UsageError, match="its name cannot be shared"):
        share_settings(Config(paths=(film, path)))


def test_nothing_to_share_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"nothing to share: give a file or folder as PATH"):
        share_settings(Config())


@pytest.mark.parametrize(("code", "hint"), [(errno.EACCES, "permissions of the folders above it"), (errno.EIO, "path")])
def test_a_path_that_cannot_be_looked_at_is_an_error(monkeypatch: pytest.MonkeyPatch, code: int, hint: str) -> None:
    def fail(path: Path) -> bool:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "exists", fail)
    with pytest.raises(DiskError) as caught:
        share_settings(Config(paths=(Path("/home/films"),)))
    assert str(caught.value) == f"/home/films: {os.strerror(code)}: check the {hint}"


def test_the_error_about_a_missing_path_says_which_file_names_it(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(UsageError) as caught:
        share_settings(Config(paths=(missing,)))
    assert str(caught.value) == f"{missing}: no such file or folder to share: check the path"
    with pytest.raises(UsageError) as caught:
        share_settings(Config(paths=(missing,), share_file=Path("config.toml")))
    assert str(caught.value).endswith(": [share] path in config.toml names it: change it, or run msd serve PATH")


def test_a_share_that_cannot_be_written_is_a_disk_error(tmp_path: Path) -> None:
    with pytest.raises(DiskError):
        write_share(tmp_path / "missing", ShareSettings({}))


def test_urls_are_shared_with_the_settings_of_their_store(tmp_path: Path) -> None:
    urls = (StoreUrl.parse("s3://films/new/"), StoreUrl.parse("https://example.com/a.iso"))
    config = Config(paths=(*urls, tmp_path), store={"region": "eu"}, store_cache=7)
    share = share_settings(config)
    assert share.stores == {"new": "s3://films/new/", "a.iso": "https://example.com/a.iso"}
    assert share.roots == {tmp_path.name: os.fsencode(tmp_path)}
    assert (share.store_settings, share.cache) == ({"region": "eu"}, 7)
    assert share_settings(Config(paths=urls[:1])).stores == {"": "s3://films/new/"}
