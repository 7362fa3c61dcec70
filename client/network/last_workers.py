"""The workers that server 5 listed last, in a file in the user's cache folder: for clients that find server 5 away.

There is a file for each address and public key of server 5. It is only a hint, so a file that cannot be read or written
is no error. Does not decide when the workers are used: ``client/network/connection_policy.py`` does.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from msd.wire.config.servers import Servers
from msd.wire.errors import ProtocolError
from msd.wire.protocol.codec import MAX_SNAPSHOT_FRAME, decode, encode
from msd.wire.protocol.messages import Message, Natural, Number, PublicKey, Status
from msd.wire.protocol.segments import digest
from msd.wire.support.files import replace_file

#: The maximum number of files; those that were written first are removed.
MAX_FILES = 32


class LastWorker(Struct, frozen=True):
    """What a snapshot says about the address of a worker, and the ``epoch`` of its process. ``place`` is its name and
    host if it is on another host.
    """

    endpoint: Annotated[str, Meta(max_length=300)]
    key: PublicKey = b""
    epoch: Natural = 0
    place: Annotated[str, Meta(max_length=200)] = ""


class _Workers(Message, tag="last-workers", frozen=True):
    workers: Annotated[list[tuple[Number, LastWorker]], Meta(max_length=256)]


class LastWorkers:
    """The workers that ``servers`` had last, by their numbers; none if there is no valid file."""

    def __init__(self, servers: Servers) -> None:
        key = servers.credentials.server.hex() if servers.credentials is not None else ""
        name = digest(f"{servers.status} {key}".encode()).hex()[:32]
        #: None if the user has no home folder.
        self._path: Path | None = None
        with contextlib.suppress(RuntimeError):
            cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
            self._path = Path(cache, "msd", "last-workers", name)
        self.workers = self._read()

    def keep(self, status: Status) -> None:
        """Keeps the workers of a snapshot for the next client, if they are others than before."""
        workers = {w.number: LastWorker(w.endpoint, w.key, w.epoch, w.place) for w in status.workers}
        # A broker that was just started lists none until they have joined.
        if workers and workers != self.workers:
            self.workers = workers
            self._write()

    def _read(self) -> dict[int, LastWorker]:
        if self._path is None:
            return {}
        try:
            with self._path.open("rb") as file:
                content: _Workers = decode(file.read(MAX_SNAPSHOT_FRAME), _Workers)
        except (OSError, ProtocolError):
            return {}
        return dict(content.workers)

    def _write(self) -> None:
        """Replaces the file. If that fails, the old one stays."""
        if self._path is None:
            return
        folder = self._path.parent
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self._path, encode(_Workers(workers=[*self.workers.items()])), mode=0o600)
            files = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
            for path in files[MAX_FILES:]:
                path.unlink()
