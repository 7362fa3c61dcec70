"""Finds out which sockets occupy a TCP port, and which programs they belong to.

Reads ``/proc``: where it cannot be read, or where a socket neither listens nor is connected, nothing is found. Only
root sees the programs of other users. Decides nothing: see ``wire/net/ports.py``.
"""

from __future__ import annotations

import contextlib
import ipaddress
import struct
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

from msgspec import Struct


class PortUse(Enum):
    """What a socket uses its port for."""

    LISTENING = "listening"
    CONNECTION = "connection"
    #: The connection is closed; the kernel keeps its port for a minute (TIME_WAIT).
    CLOSED = "closed"


class PortUser(Struct, frozen=True):
    """A socket on a port. ``peer`` is the other end of its connection. ``program`` is the name and the pid of the
    program that holds the socket; empty if it is unknown.
    """

    use: PortUse
    peer: str = ""
    program: str = ""


#: States in ``/proc/net/tcp``; the sockets in all other states are connections.
_LISTEN, _TIME_WAIT = "0A", "06"


def find_users(port: int) -> list[PortUser]:
    """Returns the sockets that use ``port`` on any address of this machine."""
    rows = [row for table in ("tcp", "tcp6") for row in _rows(table) if int(row[1].rpartition(":")[2], 16) == port]
    programs = dict(_programs({row[9] for row in rows} - {"0"})) if rows else {}
    uses = {_LISTEN: PortUse.LISTENING, _TIME_WAIT: PortUse.CLOSED}
    return [
        PortUser(
            use=(use := uses.get(row[3], PortUse.CONNECTION)),
            peer=_format(row[2]) if use is PortUse.CONNECTION else "",
            program=programs.get(row[9], ""),
        )
        for row in rows
    ]


def _rows(table: str) -> list[list[str]]:
    try:
        return [line.split() for line in Path("/proc/net", table).read_text().splitlines()[1:]]
    except OSError:
        return []


def _programs(inodes: set[str]) -> Iterator[tuple[str, str]]:
    """Yields the program of each socket, by inode."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    for process in Path("/proc").glob("[0-9]*"):
        # A process may end meanwhile, or belong to another user.
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                if (inode := wanted.get(str(descriptor.readlink()))) is not None:
                    yield inode, f"{(process / 'comm').read_text().strip()} (pid {process.name})"


def _format(address: str) -> str:
    """Formats an address as ``/proc/net/tcp`` has it: words in the byte order of this machine, and the port."""
    words, _, port = address.partition(":")
    numbers = [int(words[i : i + 8], 16) for i in range(0, len(words), 8)]
    ip = ipaddress.ip_address(struct.pack(f"={len(numbers)}I", *numbers))
    if isinstance(ip, ipaddress.IPv6Address):
        return f"{ip.ipv4_mapped}:{int(port, 16)}" if ip.ipv4_mapped else f"[{ip}]:{int(port, 16)}"
    return f"{ip}:{int(port, 16)}"
