"""Knows whether a file system records each change of a file in the file's times.

FAT and exFAT have no time of the last change of a file: after a write, a program can put the modification time back,
and nothing tells of the write. Network file systems and FUSE may show old times or have none. There the content itself
has to be compared. Reads no shared file.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

#: The types of file systems whose times do not tell of each change.
UNRELIABLE = frozenset({"9p", "cifs", "exfat", "fuse", "fuseblk", "msdos", "nfs", "nfs4", "smb3", "vfat", "virtiofs"})


class ChangeTimes:
    """Remembers the answer for each device, until ``clear()``: a device number may be used again."""

    def __init__(self, mounts: Path = Path("/proc/self/mountinfo")) -> None:
        self._mounts = mounts
        self._reliable: dict[int, bool] = {}

    def are_reliable(self, device: int) -> bool:
        """True if every change of a file on this device changes its times; also if the device is unknown."""
        if device not in self._reliable:
            self._reliable[device] = not self._is_unreliable(self._type(device))
        return self._reliable[device]

    def clear(self) -> None:
        self._reliable.clear()

    def _type(self, device: int) -> str:
        """Returns the type of the file system on a device, "" if it is not in the list of mounts."""
        number = f"{os.major(device)}:{os.minor(device)}"
        with contextlib.suppress(OSError):
            for line in self._mounts.read_bytes().decode(errors="replace").splitlines():
                mount, _, file_system = line.partition(" - ")
                if mount.split()[2] == number:
                    return file_system.split()[0]
        return ""

    @staticmethod
    def _is_unreliable(kind: str) -> bool:
        # A FUSE file system has a type such as "fuse.sshfs".
        return kind in UNRELIABLE or kind.startswith("fuse.")
