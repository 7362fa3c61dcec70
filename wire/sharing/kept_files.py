"""Keeps files that are needed later: holds them open, and writes them again if another program has removed them.

Programs that clean up below /tmp remove old files and folders without asking. Does not notice the removal by itself:
call ``restore()``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from msd.wire.sharing.runtime_folder import make_private_folders


class KeptFiles:
    """Files in the broker's ``folder``, by a purpose and their paths relative to the folder. Call ``close()``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, dict[str, int]] = {}

    def keep(self, purpose: str, names: Sequence[str]) -> None:
        """Keeps these files in place of the files kept for this purpose so far. Raises ``OSError``."""
        opened: dict[str, int] = {}
        try:
            for name in names:
                opened[name] = os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            _close(opened)
            raise
        _close(self._held.get(purpose, {}))
        self._held[purpose] = opened

    def restore(self) -> bool:
        """Writes all missing files again; returns True if files were missing. Raises ``MsdError`` and ``OSError``."""
        held = [(self._folder / name, fd) for files in self._held.values() for name, fd in files.items()]
        missing = [(path, fd) for path, fd in held if not path.exists()]
        if missing:
            make_private_folders(self._folder)
        for path, fd in missing:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            # Rename at the end, so that a worker never reads an incomplete file.
            unfinished = path.with_name(f"{path.name}.unfinished")
            with open(fd, "rb", closefd=False) as old, unfinished.open("wb") as new:
                old.seek(0)
                shutil.copyfileobj(old, new, 1 << 20)
            unfinished.rename(path)
        return bool(missing)

    def close(self) -> None:
        for files in self._held.values():
            _close(files)
        self._held.clear()


def _close(files: dict[str, int]) -> None:
    for fd in files.values():
        with contextlib.suppress(OSError):
            os.close(fd)
