"""What the broker and the processes it starts exchange over their standard streams.

Not part of the protocol that clients speak: both sides are always of one version.
"""

from __future__ import annotations

from msd.wire.protocol.messages import Message, Natural, Number
from msd.wire.protocol.states import WantedState


class WorkerSettings(Message, tag="settings", frozen=True):
    """The first frame on a worker's standard input. ``rate`` is in bytes a second, 0 = unlimited;
    ``catalogue`` is the folder of all editions. ``secret`` is the servers' secret key and ``keys`` the
    folder of the admitted ones, both empty where none are taken.
    """

    number: Number
    parent: Natural
    bind: str
    control: str
    token: bytes
    catalogue: str
    edition: Natural
    rate: Natural
    wanted: WantedState
    secret: bytes = b""
    keys: str = ""


class IndexProgress(Message, tag="progress", frozen=True):
    """A line of the indexer's output: how far it is, in bytes, and the file it is at."""

    name: str
    done: Natural
    total: Natural


class IndexSkipped(Message, tag="skipped", frozen=True):
    """A line of the indexer's output: a file that is not shared, and why."""

    name: str
    why: str


class Indexed(Message, tag="indexed", frozen=True):
    """A line of the indexer's output: an edition of the catalogue is complete, whose digest is
    ``catalogue``. ``hashed`` counts the bytes that had to be read.
    """

    files: Natural
    size: Natural
    hashed: Natural
    catalogue: str
    edition: Natural = 0


IndexLine = IndexProgress | IndexSkipped | Indexed
