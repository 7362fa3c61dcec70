"""Writes a file atomically: readers see either the old or the new content, never an incomplete file."""

from __future__ import annotations

import os
from pathlib import Path


def check_replaceable(path: Path) -> None:
    """Raises ``OSError`` if ``replace_file`` cannot create its temporary file beside ``path``."""
    temporary = _temporary(path)
    temporary.unlink(missing_ok=True)
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC))
    temporary.unlink()


def replace_file(path: Path, data: bytes, *, mode: int = 0o666, sync: bool = False) -> None:
    """Writes ``data`` to a temporary file beside ``path`` and renames it to ``path``.

    The permissions are ``mode`` less the umask, from the start. With ``sync`` the data is on the disk before the
    rename. If writing fails, removes the temporary file, keeps the old content and raises ``OSError``.
    """
    temporary = _temporary(path)
    temporary.unlink(missing_ok=True)
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(fd)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _temporary(path: Path) -> Path:
    return path.with_name(f".msd-{os.getpid()}.part")
