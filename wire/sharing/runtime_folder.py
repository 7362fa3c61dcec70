"""Creates and removes the own folder of a broker, or of a worker that joins one: the catalogue, the logs of child
processes, the local control socket.

The folder is named after the host and port of the control socket or of the worker, which only one process at a time can
bind, so two running processes never share a folder. A process replaces the folder that a killed one left behind. Create
the folder only after the port is bound or held. Containers may have the same addresses and share a folder for temporary
files: the folder of a worker is named after the worker, too.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from msd.wire.errors import DiskError, NotAllowedError
from msd.wire.net.endpoints import ANY_HOSTS, Endpoint

#: Longest path of a Unix socket, in bytes (sun_path without the terminating zero).
MAX_SOCKET_PATH = 107
#: The room that must be free at the start. The files are the logs of up to 64 workers, and two editions of a catalogue;
#: the bytes suffice for small catalogues only.
ROOM_FILES, ROOM_BYTES = 80, 64 << 10


def make_folder(bound: Endpoint, owner: str = "") -> Path:
    """Creates the empty folder, accessible to this user only, for the process that has bound ``bound``. ``owner`` is
    the name of a worker. Raises ``MsdError``, also if the disk is full.
    """
    # Absolute, because the indexer and the workers have another current folder.
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or _temporary_folder(), f"msd-{os.getuid()}").absolute()
    host = "any" if bound.host in ANY_HOSTS else re.sub(r"[^0-9A-Za-z.-]", "_", bound.host)
    folder = base / "-".join(filter(None, (owner, host, str(bound.port))))
    # A worker has no socket there.
    if not owner and len(os.fsencode(folder / "control")) > MAX_SOCKET_PATH:
        raise DiskError(f"{folder}: path too long for a Unix socket: set XDG_RUNTIME_DIR to a shorter path")
    _make_base(base)  # Remove nothing before it is certain that the parent folder belongs to this user.
    try:
        shutil.rmtree(folder, ignore_errors=True)
        make_private_folders(folder)
        _check_room(folder / "room")
    except DiskError:
        remove_folder(folder)
        raise
    return folder


def _temporary_folder() -> str:
    try:
        return tempfile.gettempdir()
    except FileNotFoundError as error:  # In a container with a read-only root file system.
        raise DiskError(f"{error.strerror}: set XDG_RUNTIME_DIR to a folder you can write to") from None


def _check_room(probe: Path) -> None:
    """Creates a few files and removes them again. Raises ``DiskError`` if the disk has no room for them."""
    try:
        probe.mkdir()
        for number in range(ROOM_FILES):
            (probe / str(number)).touch()
        (probe / "0").write_bytes(bytes(ROOM_BYTES))
    except OSError as error:
        hint = "free some space there, or set XDG_RUNTIME_DIR to another folder"
        raise DiskError(f"{probe.parent}: {error.strerror}: {hint}") from None
    finally:
        shutil.rmtree(probe, ignore_errors=True)


def make_private_folders(folder: Path) -> None:
    """Creates ``folder``, its parent and its folder for the catalogue, as far as they are missing. Raises ``MsdError``
    if another user can access them.
    """
    _make_base(folder.parent)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / "catalogue").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise _unwritable_error(folder, error) from None


def _make_base(base: Path) -> None:
    """Creates the folder that holds the folders of all brokers of this user. Raises ``MsdError``."""
    try:
        base.mkdir(mode=0o700, exist_ok=True)
        status = base.lstat()
    except OSError as error:
        raise _unwritable_error(base, error) from None
    # In a world-writable folder such as /tmp, another user may have created this folder.
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or base.is_symlink():
        raise NotAllowedError(f"{base} is not a folder that only you can access: remove it, or set XDG_RUNTIME_DIR")


def _unwritable_error(folder: Path, error: OSError) -> DiskError:
    return DiskError(f"{folder}: {error.strerror}: set XDG_RUNTIME_DIR to a folder you can write to")


def remove_folder(folder: Path) -> None:
    """Removes the folder, and its parent if no other broker of this user is running."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()
