"""Chooses for each shared file what its content is read from. Reads nothing itself."""

from __future__ import annotations

from msd.workers.source.catalogue import SharedFile
from msd.workers.source.local_files import LocalFiles
from msd.workers.source.share import Share
from msd.workers.source.source import Content, ReadRefused, Source, Wait


def source_of(share: Share) -> Source:
    """Returns the source of a share. Raises ``UsageError`` if a store cannot be used."""
    local = LocalFiles(share)
    if not share.stores:
        return local
    from msd.workers.source.store_files import StoreFiles

    stores = StoreFiles(share, share.open_stores())
    return _Both(share, local, stores) if share.roots else stores


class _Both:
    """Files of paths, and files of stores."""

    def __init__(self, share: Share, local: Source, stores: Source) -> None:
        self._share = share
        self._local = local
        self._stores = stores

    def waits_for(self, file: SharedFile) -> Wait | None:
        return self._of(file).waits_for(file)

    def has_reliable_versions(self, file: SharedFile) -> bool:
        return self._of(file).has_reliable_versions(file)

    def read(self, file: SharedFile, offset: int, length: int) -> Content | ReadRefused:
        return self._of(file).read(file, offset, length)

    def close_unread(self) -> None:
        self._local.close_unread()

    def close(self) -> None:
        self._local.close()

    def _of(self, file: SharedFile) -> Source:
        return self._stores if self._share.split(file.name)[0] in self._share.stores else self._local
