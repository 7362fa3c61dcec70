"""The broker's own folder: the catalogue, the workers' logs, the local control socket.

It is named for the host and port of the control socket, which only one broker at a time can bind:
what a killed broker left there is simply used again by the next one, and no other broker of this
user has a folder of that name. Make it once the control socket is bound.
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

#: Longest path of a Unix socket, in bytes (sun_path less its final zero).
MAX_SOCKET_PATH = 107


def make_folder(control: Endpoint) -> Path:
    """Creates the empty folder, readable by this user alone. Raises ``MsdError``."""
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir(), f"msd-{os.getuid()}")
    host = "any" if control.host in ANY_HOSTS else re.sub(r"[^0-9A-Za-z.-]", "_", control.host)
    folder = base / f"{host}-{control.port}"
    if len(os.fsencode(folder / "control")) > MAX_SOCKET_PATH:
        raise DiskError(f"{folder}: too long a path for a socket: set XDG_RUNTIME_DIR to a shorter one")
    try:
        base.mkdir(mode=0o700, exist_ok=True)
        status = base.lstat()
        # In a folder everyone may write to, somebody else may have been here first.
        if status.st_uid != os.getuid() or status.st_mode & 0o077 or base.is_symlink():
            raise NotAllowedError(f"{base} is not a folder of yours alone: remove it, or set XDG_RUNTIME_DIR")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        (folder / "catalogue").mkdir(mode=0o700)
    except OSError as error:
        raise DiskError(f"{folder}: {error.strerror}: set XDG_RUNTIME_DIR to a folder of yours") from None
    return folder


def remove_folder(folder: Path) -> None:
    """Removes it, and its parent if no other broker of this user runs."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()
