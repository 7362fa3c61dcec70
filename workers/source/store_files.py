"""Reads the shared files of object stores and web servers, in the versions that were indexed: a ``Source``.

Each answer names the version it comes from, and once that is known, only that one is asked for. Keeps no content.
"""

from __future__ import annotations

import errno

from msd.wire.protocol.states import RefusalReason
from msd.workers.source.catalogue import SharedFile
from msd.workers.source.object_store import READ_LIMIT_S, ObjectStore, StoreError
from msd.workers.source.share import Share
from msd.workers.source.source import Content, ReadRefused, Wait

#: Attempts to read what the store sends wrongly.
ATTEMPTS = 2
#: Maximum size in bytes of the pieces that are read together. Larger ranges cost a store hardly less, and nothing of
#: them can be sent before all of it has arrived.
JOINED_SIZE = 4 << 20
#: Maximum number of ETags that are remembered.
MAX_ETAGS = 4096


class StoreFiles:
    """The files of ``share`` that are in ``stores``, which are by the names of ``share.stores``."""

    def __init__(self, share: Share, stores: dict[str, ObjectStore]) -> None:
        self._share = share
        self._stores = stores
        self._waits = {name: Wait(store.url.store, READ_LIMIT_S, JOINED_SIZE) for name, store in stores.items()}
        #: The ETags of the indexed versions, by the file's name and the version.
        self._etags: dict[tuple[str, int], str] = {}

    def waits_for(self, file: SharedFile) -> Wait | None:
        return self._waits[self._share.split(file.name)[0]]

    def has_reliable_versions(self, file: SharedFile) -> bool:  # noqa: ARG002
        return True

    def read(self, file: SharedFile, offset: int, length: int) -> Content | ReadRefused:
        root, name = self._share.split(file.name)
        store = self._stores[root]
        version = file.version
        for attempt in range(1, ATTEMPTS + 1):
            try:
                etag = self._etags.get((file.name, version.inode))
                data, found, etag = store.read(store.key(name), offset, length, etag)
            except StoreError as error:
                if error.errno != errno.EIO or attempt == ATTEMPTS:
                    return _refused(error, store)
                continue
            if (found.inode, found.size) != (version.inode, version.size):
                return ReadRefused(RefusalReason.CHANGED, "the object was replaced")
            if etag is not None:
                if len(self._etags) >= MAX_ETAGS:
                    self._etags.clear()
                self._etags[file.name, version.inode] = etag
            break
        return data

    def close_unread(self) -> None:
        pass

    def close(self) -> None:
        pass


def _refused(error: StoreError, store: ObjectStore) -> ReadRefused:
    detail = f"{store.url.store}: {error.strerror}"
    match error.errno:
        case errno.ENOENT:
            return ReadRefused(RefusalReason.CHANGED, "the object was deleted")
        case errno.ESTALE:
            return ReadRefused(RefusalReason.CHANGED, "the object was replaced")
        case errno.EAGAIN:
            return ReadRefused(RefusalReason.UNAVAILABLE, detail)
        case _:
            return ReadRefused(RefusalReason.UNREADABLE, detail)
