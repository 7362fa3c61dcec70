"""The broker's own folder: private to its user, reused after the broker was killed, and removed at exit."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from msd.wire.errors import DiskError, NotAllowedError
from msd.wire.net.endpoints import Endpoint
from msd.wire.sharing.runtime_folder import MAX_SOCKET_PATH, make_folder, remove_folder

CONTROL = Endpoint("127.0.0.1", 39224)
NAME = "127.0.0.1-39224"


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary XDG_RUNTIME_DIR, with the most permissive umask."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    umask = os.umask(0)
    yield tmp_path
    os.umask(umask)


def base(runtime: Path) -> Path:
    return runtime / f"msd-{os.getuid()}"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_folder_and_its_content_are_private_to_this_user(runtime: Path) -> None:
    folder = make_folder(CONTROL)
    assert folder == base(runtime) / NAME
    assert [mode(path) for path in (folder.parent, folder, folder / "catalogue")] == [0o700] * 3


def test_without_a_runtime_folder_the_temporary_folder_is_used(
    runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert make_folder(CONTROL) == base(tmp_path) / NAME


def test_without_any_folder_to_write_to_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._candidate_tempdir_list", lambda: ["/proc", "/sys"])
    with pytest.raises(DiskError, match=r"No usable temporary directory found in .*/proc.*: set XDG_RUNTIME_DIR to"):
        make_folder(CONTROL)


@pytest.mark.parametrize("permissions", [0o777, 0o750, 0o701])
def test_a_folder_that_other_users_can_access_is_refused(runtime: Path, permissions: int) -> None:
    base(runtime).mkdir(mode=permissions)
    (base(runtime) / NAME).mkdir()
    with pytest.raises(NotAllowedError, match="not a folder that only you can access"):
        make_folder(CONTROL)
    assert (base(runtime) / NAME).exists()


def test_a_folder_of_another_user_is_refused(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    base(runtime).mkdir(mode=0o700)
    with pytest.raises(NotAllowedError, match="msd-4242 is not a folder that only you can access"):
        make_folder(CONTROL)


def test_a_symbolic_link_is_refused_even_to_a_private_folder(runtime: Path) -> None:
    (runtime / "elsewhere").mkdir(mode=0o700)
    base(runtime).symlink_to("elsewhere")
    with pytest.raises(NotAllowedError):
        make_folder(CONTROL)
    assert list((runtime / "elsewhere").iterdir()) == []


def test_a_file_with_the_name_of_the_folder_is_a_disk_error(runtime: Path) -> None:
    base(runtime).write_text("")
    with pytest.raises(DiskError, match="set XDG_RUNTIME_DIR"):
        make_folder(CONTROL)


def test_a_missing_runtime_folder_is_a_disk_error(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nowhere/at/all")
    with pytest.raises(DiskError, match="No such file or directory"):
        make_folder(CONTROL)


def test_the_folder_of_a_killed_broker_is_emptied_and_reused(runtime: Path) -> None:
    folder = make_folder(CONTROL)
    (folder / "worker-1.log").write_text("old")
    (folder / "catalogue" / "page").write_text("old")
    (folder / "control").write_text("")
    assert make_folder(CONTROL) == folder
    assert [path.name for path in folder.rglob("*")] == ["catalogue"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "*", "::1"])
@pytest.mark.parametrize("port", [CONTROL.port, CONTROL.port + 10])
def test_two_brokers_have_different_folders(runtime: Path, host: str, port: int) -> None:
    """Two brokers on one machine may use the same port at different addresses."""
    other = Endpoint(host, port)
    if other == CONTROL:
        return
    first, second = make_folder(CONTROL), make_folder(other)
    remove_folder(first)
    assert not first.exists()
    assert (second / "catalogue").is_dir()


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("*", "any-39224"),
        ("0.0.0.0", "any-39224"),
        ("::", "any-39224"),
        ("fe80::1%eth0", "fe80__1_eth0-39224"),
        ("../x", ".._x-39224"),
        ("büro.local", "b_ro.local-39224"),
    ],
)
def test_the_name_is_a_safe_file_name_for_any_host(runtime: Path, host: str, name: str) -> None:
    assert make_folder(Endpoint(host, CONTROL.port)) == base(runtime) / name


def test_workers_of_containers_that_share_a_temporary_folder_have_different_folders(runtime: Path) -> None:
    folders = [make_folder(CONTROL, name) for name in ("attic", "cellar")]
    assert folders == [base(runtime) / f"{name}-{NAME}" for name in ("attic", "cellar")]


def test_the_last_broker_removes_the_parent_folder_too(runtime: Path) -> None:
    folder = make_folder(CONTROL)
    (folder / "worker-1.log").write_text("text")
    remove_folder(folder)
    assert list(runtime.iterdir()) == []


def test_removing_a_removed_folder_is_not_an_error(runtime: Path) -> None:
    folder = make_folder(CONTROL)
    remove_folder(folder)
    remove_folder(folder)


def test_a_path_that_is_too_long_for_a_socket_is_refused(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime / ("x" * MAX_SOCKET_PATH)))
    with pytest.raises(DiskError, match="path too long for a Unix socket"):
        make_folder(CONTROL)
