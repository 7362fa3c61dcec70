"""A receiver that keeps the files of a selection in memory."""

from __future__ import annotations

from collections.abc import Generator

from msd.client.storage.existing_file import Decision
from msd.client.storage.output import Output
from msd.client.storage.tree import Saved
from msd.wire.errors import DiskError
from msd.wire.protocol.messages import Entry
from msd.wire.protocol.segments import Manifest


class MemoryOutput(Output):
    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.data = bytearray(manifest.size)

    def write(self, index: int, data: memoryview) -> None:
        offset, length = self.manifest.span(index)
        self.data[offset : offset + length] = data


class MemoryReceiver:
    """Keeps the files; ``broken`` names cannot be saved. Of the ``existing`` files, those with the shared content are
    kept once they were compared.
    """

    def __init__(self, *broken: str, existing: dict[str, bytes] | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self.manifests: dict[str, Manifest] = {}
        self._existing = existing or {}
        self._broken = broken
        self._outputs: dict[str, MemoryOutput] = {}
        self._saved: list[Saved] = []

    def check(self, entry: Entry) -> Decision:
        return Decision.COMPARE if entry.name in self._existing else Decision.FETCH

    def compare(self, entry: Entry) -> Generator[bool | None]:
        yield None
        yield self._existing[entry.name] == b"same"

    def check_replaceable(self, entry: Entry) -> None:
        if self._existing[entry.name] == b"mine":
            raise DiskError(f"{entry.name} exists")

    def check_free_space(self, needed: int) -> None:
        pass

    def add_folder(self, entry: Entry) -> None:
        if entry.name in self._broken:
            raise DiskError(f"{entry.name}: permission denied")
        self.files[entry.name] = b""

    def save(self, entry: Entry, data: memoryview) -> None:
        self._put(entry.name, bytes(data))

    def open(self, manifest: Manifest) -> MemoryOutput:
        if manifest.name in self._broken:
            raise DiskError(f"{manifest.name}: no space left")
        self.manifests[manifest.name] = manifest
        self._outputs[manifest.name] = MemoryOutput(manifest)
        return self._outputs[manifest.name]

    def finish(self, manifest: Manifest) -> None:
        self._put(manifest.name, bytes(self._outputs.pop(manifest.name).data))

    def discard(self, name: str) -> None:
        del self._outputs[name]

    def settle(self, now: float) -> list[Saved]:
        return []

    def complete(self) -> list[Saved]:
        saved, self._saved = self._saved, []
        return saved

    def _put(self, name: str, data: bytes) -> None:
        if name in self._broken:
            raise DiskError(f"{name}: no space left")
        self.files[name] = data
        self._saved.append(Saved(name, len(data)))
