"""Knows of each file system whether it records each change of a file in the file's times, and whether a read may hang.

FAT and exFAT have no time of the last change of a file: after a write, a program can put the modification time back,
and nothing tells of the write. Network file systems and FUSE may show old times or have none, so the content itself has
to be compared. They are also served by another machine or program: if it does not answer, a read waits without an end.
Reads no shared file.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from msd.workers.source.source import Wait

#: The types of file systems that another machine or program serves.
REMOTE = frozenset({"9p", "afs", "ceph", "cifs", "fuse", "fuseblk", "lustre", "nfs", "nfs4", "smb3", "virtiofs"})
#: A read from another machine or program that takes longer (seconds) hangs. Therefore pieces are not read together:
#: a slow mount could not send 16 reads of 4 MiB in that time.
READ_LIMIT_S = 10.0
#: Further types of file systems whose times do not tell of each change.
UNRELIABLE = frozenset({"exfat", "msdos", "vfat"})


class FileSystems:
    """Remembers the type of each file system, until ``clear()``: a device number may be used again."""

    def __init__(self, mounts: Path = Path("/proc/self/mountinfo")) -> None:
        self._mounts = mounts
        #: By device: True if the times are reliable, and what a read may have to wait for.
        self._known: dict[int, tuple[bool, Wait | None]] = {}

    def has_reliable_times(self, device: int) -> bool:
        """True if every change of a file on this device changes its times; also if the device is unknown."""
        return self._find(device)[0]

    def wait(self, device: int) -> Wait | None:
        """Returns what a read from this device may have to wait for: the mount, if another machine or program serves
        it. None if it is on this machine, or if the device is unknown.
        """
        return self._find(device)[1]

    def clear(self) -> None:
        self._known.clear()

    def _find(self, device: int) -> tuple[bool, Wait | None]:
        known = self._known.get(device)
        if known is None:
            kind, path = self._mount(device)
            # A FUSE file system has a type such as "fuse.sshfs".
            is_remote = kind in REMOTE or kind.startswith("fuse.")
            wait = Wait(path, READ_LIMIT_S) if is_remote else None
            known = self._known[device] = not is_remote and kind not in UNRELIABLE, wait
        return known

    def _mount(self, device: int) -> tuple[str, str]:
        """Returns the type of the file system on a device, and where it is mounted; "" if it is not mounted."""
        number = f"{os.major(device)}:{os.minor(device)}"
        with contextlib.suppress(OSError):
            for line in self._mounts.read_bytes().decode(errors="replace").splitlines():
                mount, _, file_system = line.partition(" - ")
                fields = mount.split()
                if fields[2] == number:
                    return file_system.split()[0], _unescaped(fields[4])
        return "", ""


def _unescaped(path: str) -> str:
    """Returns a path of the list of mounts, in which spaces and a few other characters are octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)
