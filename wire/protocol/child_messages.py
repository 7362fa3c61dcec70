"""Messages between the broker and its child processes over their standard streams.

Not part of the network protocol: both sides always have the same version.
"""

from __future__ import annotations

from msd.wire.protocol.messages import Message, Natural, Number
from msd.wire.protocol.states import WantedState


class WorkerSettings(Message, tag="settings", frozen=True):
    """The first frame on a worker's standard input. ``root`` is the path of the shared file or folder; it may not
    be UTF-8. ``catalogue`` is the folder that contains all editions. ``rate`` is in bytes a second, 0 for no limit.
    ``secret`` is the servers' secret key and ``keys`` the folder of keys; both are empty if the servers use no keys.
    """

    number: Number
    parent: Natural
    bind: str
    control: str
    token: bytes
    root: bytes
    catalogue: str
    edition: Natural
    rate: Natural
    wanted: WantedState
    secret: bytes = b""
    keys: str = ""


class IndexProgress(Message, tag="progress", frozen=True):
    """A line of the indexer's output: the file being read, and how many of the ``total`` bytes have been processed."""

    name: str
    done: Natural
    total: Natural


class IndexSkipped(Message, tag="skipped", frozen=True):
    """A line of the indexer's output: a file that is not shared, and the reason."""

    name: str
    reason: str


class Indexed(Message, tag="indexed", frozen=True):
    """A line of the indexer's output: an edition of the catalogue is complete. ``catalogue`` is its digest. ``hashed``
    is the number of bytes that were read and hashed; the digests of unchanged files were reused. ``unnamed`` is the
    number of files that are not shared and were not reported by name.
    """

    files: Natural
    size: Natural
    hashed: Natural
    catalogue: str
    edition: Natural = 0
    unnamed: Natural = 0


IndexLine = IndexProgress | IndexSkipped | Indexed
