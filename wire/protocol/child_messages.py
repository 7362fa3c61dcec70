"""Messages between the broker and its child processes over their standard streams, and the files that they share.

Not part of the network protocol: both sides always have the same version.
"""

from __future__ import annotations

import struct

from msgspec import Struct

from msd.wire.protocol.messages import Entry, Message, Natural, Number, SuspectSegment
from msd.wire.protocol.states import WantedState


class WorkerSettings(Message, tag="settings", frozen=True):
    """The first frame on the standard input of a worker that the broker has started, which names the Unix socket
    ``control`` and its own process ``parent``. ``catalogue`` is the folder that contains the share and all editions.
    ``rate`` is in bytes a second, 0 for no limit. ``secret`` is the secret key of the servers and ``keys`` the folder
    of keys; both are empty if the servers use no keys.

    A worker on its own has no ``parent`` (0). It advertises ``endpoint``, ``secret`` is that of its own key, and
    ``number`` and ``wanted`` are None until the broker chooses them.
    """

    name: str
    number: Number | None
    parent: Natural
    bind: str
    token: bytes
    catalogue: str
    edition: Natural
    rate: Natural
    wanted: WantedState | None
    control: str = ""
    endpoint: str = ""
    secret: bytes = b""
    keys: str = ""


class PassOnSettings(Struct, frozen=True):
    """The first frame on the standard input, a Unix socket, of a worker that a download has started: the id of its
    plan, where it listens, the secret of its own key (empty without keys), the limit of its rate in bytes a second
    (0: none), and the descriptor of the folder of the files, which the process inherits (None: there are no paths).

    ``FilesListed`` follows until ``more`` is False, and then, in any order, ``FileReceived``, ``UnitsHeld``,
    ``Admitted`` and ``QuitOrder``. Heartbeats are written to standard output.
    """

    parent: int
    plan: bytes
    bind: str
    secret: bytes
    rate: int
    folder: int | None


class FilesListed(Message, tag="files", frozen=True):
    """Files of the plan, without empty ones, in any order."""

    entries: list[Entry]
    more: bool


class FileReceived(Message, tag="file", frozen=True):
    """The segments of the file ``name`` are the units from ``first_unit`` on, and have these digests. So many
    ``descriptors`` come with the frame: of files of which each may have any of the segments. Further ones may be in the
    file of that name, or in its part file.
    """

    name: str
    first_unit: Natural
    digests: bytes
    descriptors: Natural


class UnitsHeld(Message, tag="held", frozen=True):
    """The download has verified these units of its plan."""

    units: list[Natural]


#: The file in the catalogue's folder that holds the ``ShareSettings`` as JSON.
SHARE_FILE = "share"


class ShareSettings(Struct, frozen=True):
    """What the indexer and the workers share: paths in bytes and URLs of stores by name; the only one has the name "".

    ``excludes`` are the patterns of ``--exclude``. ``store_settings`` are those of [store] in ``config.toml``, and may
    be secret. ``cache`` is the number of bytes of a store that a worker keeps in memory. With ``keep_index`` the index
    of a store is written beside its objects.
    """

    roots: dict[str, bytes]
    hidden: bool = False
    follow_links: bool = False
    excludes: tuple[str, ...] = ()
    stores: dict[str, str] = {}
    store_settings: dict[str, str] = {}
    cache: int = 0
    keep_index: bool = False


#: The files of an edition of the catalogue: the names in UTF-8, sorted, each followed by a zero byte; the digest of the
#: catalogue and a record for each name; the segment digests of the large files, in the order of the names.
EDITION_FILES = NAMES, RECORDS, DIGESTS = "names", "records", "digests"
#: A record: device, inode, size, time of the last change of the status (ns), modification time (ns), permissions, id,
#: position of the first digest. A folder has only permissions.
RECORD = struct.Struct(">QQQqqH32sQ")


class RescanRequest(Struct, frozen=True):
    """A line of the indexer's input: a file may have changed. ``suspect`` is a segment whose data is to be compared."""

    suspect: SuspectSegment | None = None


class IndexProgress(Message, tag="progress", frozen=True):
    """A line of the indexer's output: the file being read, and how many of the ``total`` bytes and of the
    ``total_files`` files have been processed.
    """

    name: str
    done: Natural
    total: Natural
    files: Natural
    total_files: Natural

    @property
    def percent(self) -> int:
        return 100 * self.done // max(self.total, 1)


class IndexingDone(Message, tag="done", frozen=True):
    """A line of the indexer's output: an indexing that had reported its progress is done."""


class IndexNote(Message, tag="note", frozen=True):
    """A line of the indexer's output: a problem that prevents no file from being shared."""

    text: str


class IndexSkipped(Message, tag="skipped", frozen=True):
    """A line of the indexer's output: a file that is not shared, and the reason."""

    name: str
    reason: str


class IndexLeftOut(Message, tag="left-out", frozen=True):
    """A line of the indexer's output: the numbers of files that are not shared by kind have changed. ``text`` is empty
    if there are none.
    """

    text: str


class IndexSkips(Message, tag="skips", frozen=True):
    """A line of the indexer's output: the numbers of files that cannot be shared have changed, by reason. ``text`` is
    empty if there are none.
    """

    text: str


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


#: The lines about what is not shared.
NotShared = IndexLeftOut | IndexSkipped | IndexSkips
IndexLine = IndexProgress | IndexingDone | IndexNote | IndexSkipped | IndexLeftOut | IndexSkips | Indexed
