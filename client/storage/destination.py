"""Where a download is saved: the path that ``-o`` and the name of the shared file give. Makes missing folders.

Writes no file; ``client/storage/part_file.py`` does.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from msd.client.storage.part_file import check_output
from msd.client.storage.segments_on_disk import disk_errors
from msd.wire.errors import UsageError


class Destination:
    """The file or the folder that ``output`` names; None stands for the current folder.

    An ``output`` that ends in ``/``, ``.`` or ``..`` names a folder, which may be missing. Any other ``output`` names a
    folder if one exists at that path, otherwise a file. A folder receives the file under its base name. Raises
    ``MsdError`` if the download cannot be saved there; ``replace`` allows it to replace an existing file.
    """

    def __init__(self, output: str | Path | None, *, replace: bool) -> None:
        text = os.fspath(output) if output is not None else "."
        if not text:
            raise UsageError("output is empty: give the name of a file or a folder", arguments=("output",))
        self._path = Path(text)
        self._replace = replace
        self._is_folder = os.path.basename(text) in ("", ".", "..") or os.path.isdir(text)
        if self._is_folder:
            self._check_folder()
        else:
            check_output(self._path, replace=replace)

    def create(self, name: str) -> Path:
        """Returns the path of the output for the shared file ``name``, and makes missing folders. Raises ``MsdError``
        if a file cannot be saved there.
        """
        if self._is_folder:
            with disk_errors(self._path):
                self._path.mkdir(parents=True, exist_ok=True)
        return self.check(name)

    def check(self, name: str) -> Path:
        """Does the same, but makes no folders."""
        path = self._path / safe_name(name) if self._is_folder else self._path
        if not self._is_folder or os.path.lexists(self._path):
            check_output(path, replace=self._replace)
        return path

    def _check_folder(self) -> None:
        """Raises ``UsageError`` if something other than a folder has the path of the folder or of one above it."""
        for folder in (self._path, *self._path.parents):
            if os.path.lexists(folder):
                if not os.path.isdir(folder):
                    raise UsageError(f"{folder} is not a folder: choose another path", arguments=("output",))
                return


def safe_name(name: str) -> str:
    """Returns the base name of a shared file as a safe local file name.

    Replaces separators and control characters; never returns an empty name or only dots.
    """
    base = re.sub(r"[\x00-\x1f\x7f/\\]", "_", name.rsplit("/", 1)[-1])
    return base if base.strip(".") else "download"
