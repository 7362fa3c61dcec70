"""Decides what happens to a file of a selection, given what has its name on the disk already. Pure.

``client/storage/tree.py`` looks at the disk, and carries out the decisions.
"""

from __future__ import annotations

import enum

from msgspec import Struct

from msd.wire.protocol.messages import Entry

#: The steps in which file systems store times, in nanoseconds: FAT, ext3, exFAT, HFS, NTFS.
TIME_STEPS_NS = (2_000_000_000, 1_000_000_000, 10_000_000, 1_000, 100)


class Policy(Struct, frozen=True):
    """What the user allows: ``update`` and ``force`` replace files that differ. With ``update``, what they have in
    common with the shared version is not fetched. ``checksum`` compares contents even if size and time are the same.
    """

    update: bool = False
    force: bool = False
    checksum: bool = False

    @property
    def replaces(self) -> bool:
        """True if an existing file may be replaced."""
        return self.update or self.force


class Kind(enum.Enum):
    """What has the name of the file."""

    FILE = "a file"
    FOLDER = "a folder"
    LINK = "a symbolic link"
    SPECIAL = "not a regular file"


class Existing(Struct, frozen=True):
    """What has the name of the file: its kind, its size in bytes and the time of its last change."""

    kind: Kind
    size: int
    mtime_ns: int


class Decision(enum.Enum):
    """What happens to the shared file, or to what has its name."""

    FETCH = "fetch it"
    REPLACE = "fetch it, and replace what exists"
    KEEP = "keep what exists"
    COMPARE = "keep what exists if it has the shared content"
    REFUSE = "what exists may not be replaced"


def decide(entry: Entry, existing: Existing | None, policy: Policy) -> Decision:
    """Returns what happens to the shared file ``entry``. ``existing`` is None if nothing has its name."""
    if existing is None:
        return Decision.FETCH
    if existing.kind is Kind.FILE and existing.size == entry.size:
        has_same_time = is_same_time(existing.mtime_ns, entry.mtime_ns)
        if policy.checksum or (policy.update and not has_same_time):
            return Decision.COMPARE
        if has_same_time:
            return Decision.KEEP
    if existing.kind in (Kind.FILE, Kind.LINK) and policy.replaces:
        return Decision.REPLACE
    return Decision.REFUSE


def is_same_time(local_ns: int, shared_ns: int) -> bool:
    """True if a file system may store the shared time as the local one: some round it, to 2 s at the most."""
    difference = abs(local_ns - shared_ns)
    return not difference or any(difference < step and not local_ns % step for step in TIME_STEPS_NS)
