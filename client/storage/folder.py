"""Saves the files of a selection in a folder, each under its shared name. Makes missing folders.

Each file is written as a part file, synced and renamed on its own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msd.client.storage.output import Output
from msd.client.storage.part_file import PartFile, check_output
from msd.client.storage.segments_on_disk import disk_errors
from msd.wire.errors import UsageError
from msd.wire.protocol.messages import Entry
from msd.wire.protocol.segments import Manifest, cut, digest


class Folder:
    """Saves files in ``path``. ``replace`` allows it to replace existing files. ``on_warning`` is as for ``PartFile``.

    Names must be relative paths without ``..``. Methods raise ``MsdError``.
    """

    def __init__(self, path: Path, *, replace: bool, sync: bool, on_warning: Callable[[str], None]) -> None:
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is not a folder: choose another path", arguments=("output",))
        self._path = path
        self._replace = replace
        self._sync = sync
        self._on_warning = on_warning
        #: The outputs that are not finished, by name.
        self._open: dict[str, Output] = {}

    def close(self) -> None:
        """Closes the outputs that are not finished; their part files are kept."""
        while self._open:
            self._open.popitem()[1].close()

    def add_folder(self, entry: Entry) -> None:
        self._make(self._path / entry.name)

    def save(self, entry: Entry, data: memoryview) -> None:
        parts = cut(data)
        output = self.open(Manifest.build(entry.name, len(data), b"".join(map(digest, parts))))
        for index, part in enumerate(parts):
            output.write(index, part)
        self.finish(output)

    def open(self, manifest: Manifest) -> Output:
        if (earlier := self._open.pop(manifest.name, None)) is not None:
            earlier.close()
        target = self._path / manifest.name
        self._make(target.parent)
        check_output(target, replace=self._replace)
        output = self._open[manifest.name] = PartFile(target, manifest, on_warning=self._on_warning)
        return output

    def finish(self, output: Output) -> None:
        try:
            if self._sync:
                output.sync()
            output.publish(replace=self._replace, sync=self._sync)
        finally:
            self.discard(output)

    def discard(self, output: Output) -> None:
        for name, other in [*self._open.items()]:
            if other is output:
                self._open.pop(name).close()

    def _make(self, folder: Path) -> None:
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
