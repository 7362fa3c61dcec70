"""What is shared: the paths that the operator named, and which of the files below them are left out.

Does not look at the files: see ``workers/source/scan.py``.
"""

from __future__ import annotations

import os
from collections import Counter
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec
from msgspec import Struct

from msd.wire.config.store_urls import DEFAULT_CACHE, StoreUrl
from msd.wire.protocol.child_messages import SHARE_FILE, ShareSettings

if TYPE_CHECKING:
    from msd.workers.source.object_store import ObjectStore


class Share(Struct, frozen=True):
    """The shared paths and stores by name. The only one has the name "": the files of a folder then have names relative
    to it, and a file has its base name. Otherwise each has its base name, which is the first part of its files' names.
    """

    roots: dict[str, Path]
    hidden: bool = False
    follow_links: bool = False
    excludes: tuple[str, ...] = ()
    #: How many bytes of what has to be waited for each worker keeps in memory.
    cache: int = DEFAULT_CACHE
    stores: dict[str, str] = {}
    #: The settings of [store].
    store_settings: dict[str, str] = {}
    #: True if the index of a store is written beside its objects.
    keep_index: bool = False

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Reads the share that the broker wrote to ``folder``. Raises ``OSError``."""
        settings = msgspec.json.decode((folder / SHARE_FILE).read_bytes(), type=ShareSettings)
        roots = {name: Path(os.fsdecode(path)) for name, path in settings.roots.items()}
        return cls(
            roots,
            settings.hidden,
            settings.follow_links,
            settings.excludes,
            settings.cache,
            settings.stores,
            settings.store_settings,
            settings.keep_index,
        )

    def split(self, name: str) -> tuple[str, str]:
        """Returns the name of the path or store of a file, and the name of the file in it."""
        if "" in self.roots or "" in self.stores:
            return "", name
        first, slash, rest = name.partition("/")
        return first, rest if slash else first

    def is_in_store(self, name: str) -> bool:
        """True if the file ``name`` is in a store."""
        return bool(self.stores) and self.split(name)[0] in self.stores

    def open_stores(self) -> dict[str, ObjectStore]:
        """Opens all stores. Raises ``UsageError``."""
        if not self.stores:
            return {}
        # Importing it takes time that shares of local files save.
        from msd.workers.source.object_store import ObjectStore

        return {name: ObjectStore(StoreUrl.parse(url), self.store_settings) for name, url in self.stores.items()}

    def locate(self, name: str) -> str:
        """Returns the path of the file ``name``. Raises ``PermissionError`` if no shared path has the first part of the
        name.
        """
        # Strings, because making a ``Path`` takes longer than opening a small file.
        if "" in self.roots:
            root = self.roots[""]
            return str(root) if name == root.name and not os.path.isdir(root) else f"{root}/{name}"
        first, slash, rest = name.partition("/")
        if first not in self.roots:
            raise PermissionError(1, "not below a shared path", name)
        return f"{self.roots[first]}{slash}{rest}"

    def __str__(self) -> str:
        first, *others = [*map(str, self.roots.values()), *self.stores.values()]
        return f"{first} and {len(others)} more" if others else str(first)


class LeftOut(Enum):
    """A kind of files and folders that are not shared: singular, plural, and the flag that shares them."""

    HIDDEN = "hidden", "hidden", "--hidden"
    LEADS_OUT = "link that leads out", "links that lead out", "--follow-links"
    EXCLUDED = "excluded", "excluded", ""
    UNFINISHED = "unfinished download", "unfinished downloads", ""
    BROKEN_LINK = "broken link", "broken links", ""
    LOOP = "link into a loop", "links into a loop", ""
    SPECIAL = "pipe, socket or device", "pipes, sockets and devices", ""


def left_out_text(counts: Counter[LeftOut]) -> str:
    """Returns what is left out, such as "2 hidden, 1 broken link (--hidden)"; empty if nothing is."""
    kinds = [kind for kind in LeftOut if counts[kind]]
    text = ", ".join(f"{counts[kind]:,} {kind.value[counts[kind] > 1]}" for kind in kinds)
    flags = ", ".join(kind.value[2] for kind in kinds if kind.value[2])
    return f"{text} ({flags})" if flags else text
