"""Every message of the protocol, as typed values.

``docs/protocol.md`` defines their meaning; ``wire/protocol/codec.py`` encodes them. Unknown keys are ignored, so that
later versions can add keys; a value of the wrong type makes the message malformed.
"""

from __future__ import annotations

import itertools
from typing import Annotated

import msgspec
from msgspec import Meta

from msd.wire.protocol.segments import MAX_FILE_SIZE
from msd.wire.protocol.states import DownloadState, RefusalReason, ReportedState, WantedState, WorkerState

PROTOCOL_VERSION = 2

Natural = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Positive = Annotated[int, Meta(ge=1, le=2**63 - 1)]
#: A worker's number; bounded because clients store a worker's number in 16 bits for each segment.
Number = Annotated[int, Meta(ge=1, le=1024)]
#: Nanoseconds since 1970.
TimestampNs = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
#: The permission bits of a file or folder, as ``chmod`` takes them.
Mode = Annotated[int, Meta(ge=0, le=0o7777)]
#: Maximum length of a file's name, in characters.
MAX_NAME = 4096
Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
#: Maximum number of files in a bundle.
MAX_BUNDLE_FILES = 512
#: The status of a file in a bundle that is not refused.
FILE_OK = "ok"
#: Maximum number of entries of a page of the catalogue. No array of another message is longer.
MAX_ENTRIES = 8192
#: Maximum number of holders in a reply.
MAX_HOLDERS = 16
#: A number of seconds; neither NaN nor infinite, because a timer with such a value would never expire.
Seconds = Annotated[float, Meta(ge=0, le=86400)]
#: Bytes a second.
MAX_RATE = 2**63
Rate = Annotated[float, Meta(ge=0, le=MAX_RATE)]
#: A duration in seconds, possibly of many years.
Duration = Annotated[float, Meta(ge=0, le=2**40)]
#: Seconds since 1970; bounded so that it can be formatted as a date in every time zone (up to the year 9999).
Timestamp = Annotated[float, Meta(ge=0, le=253_402_000_000)]
#: Matches text without characters that could control a terminal.
_PRESENTABLE = r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*\Z"
#: Human-readable text.
Text = Annotated[str, Meta(max_length=1024, pattern=_PRESENTABLE)]
#: The name of a worker: fits into a table, a file name and a metric's label.
WorkerName = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+\Z")]
#: How a client is called, and what it downloads.
MAX_CLIENT_NAME, MAX_SELECTION = 64, 256
ClientName = Annotated[str, Meta(max_length=MAX_CLIENT_NAME, pattern=_PRESENTABLE)]
Selection = Annotated[str, Meta(max_length=MAX_SELECTION, pattern=_PRESENTABLE)]
#: Seconds of which a value of ``total_rates`` in a report is the mean.
TOTAL_RATE_S = 2
#: The feature of a broker that takes ``progress`` messages.
PROGRESS_FEATURE = "progress"
#: In the ``features`` of a ``welcome``: the worker is a receiver that passes on what it has, and may lack units.
PASSES_ON = "passes-on"
#: The same: the worker gets what it sends from an object store, so an answer takes longer than the round trip.
READS_STORE = "reads-store"
#: Names of optional parts of the protocol that a peer speaks, such as ``PASSES_ON``.
Features = Annotated[list[Annotated[str, Meta(max_length=64, pattern=r"^[a-z0-9-]+\Z")]], Meta(max_length=64)]
#: The versions of the protocol that a peer speaks.
Versions = Annotated[list[Natural], Meta(max_length=64)]
#: The id of a file's content, see ``segments.file_id``.
FileId = Annotated[bytes, Meta(min_length=32, max_length=32)]
#: The digest of a catalogue; empty before the first edition.
CatalogueId = Annotated[bytes, Meta(max_length=32)]
#: A public key; empty if no keys are used.
PublicKey = Annotated[bytes, Meta(max_length=32)]


class Message(msgspec.Struct, frozen=True, tag_field="type", kw_only=True, gc=False):
    """Base class of all messages; the key ``type`` identifies the message."""


class Correlated(Message, frozen=True):
    """Base class of requests that have a reply, and of replies. A reply repeats the ``rid`` of its request."""

    rid: Natural


_RIDS = itertools.count(1)


def new_rid() -> int:
    """Returns a request id that is unique in this process, so a reply cannot be matched with the wrong request."""
    return next(_RIDS)


class WorkerReply(Correlated, frozen=True):
    """Base class of a worker's replies; ``epoch`` identifies the run of its process."""

    epoch: Natural


# Data socket: client to worker.


class Hello(Correlated, tag="hello", frozen=True):
    """Opens a session. ``session`` is a random number, the same on all connections of a client; 0 for a client that is
    not counted. ``rid`` and ``version`` are in every version of the protocol.
    """

    version: Natural
    session: Natural = 0
    features: Features = []


class List(Correlated, tag="list", frozen=True):
    """Requests the entries whose names begin with ``prefix`` and sort after ``after``: of the catalogue with this
    digest or, with None, of the current one.
    """

    after: Annotated[str, Meta(max_length=MAX_NAME)] = ""
    prefix: Annotated[str, Meta(max_length=MAX_NAME)] = ""
    catalogue: CatalogueId | None = None


class Describe(Correlated, tag="describe", frozen=True):
    """Requests the description of a file: by name, by id, by both, or by neither if only one file is shared."""

    name: Name | None = None
    id: FileId | None = None


class Digests(Correlated, tag="digests", frozen=True):
    """Requests the segment digests of file ``id`` from segment ``start`` on."""

    id: FileId
    start: Natural


class Get(Correlated, tag="get", frozen=True):
    """Requests a segment, or the part of it with ``length`` bytes from ``start`` on (None: to the segment's end)."""

    id: FileId
    index: Natural
    start: Natural = 0
    length: Positive | None = None


class GetBundle(Correlated, tag="bundle", frozen=True):
    """Requests small files in one reply: ``length`` bytes of their concatenation from ``start`` on, which is in the
    first file (None: to the end of the last file). ``ids`` are their ids, one after another.
    """

    ids: Annotated[bytes, Meta(min_length=32, max_length=32 * MAX_BUNDLE_FILES)]
    start: Natural = 0
    length: Positive | None = None

    def __post_init__(self) -> None:
        if len(self.ids) % 32:
            raise ValueError(f"`ids` has {len(self.ids)} bytes, which is not a multiple of 32")


class Bye(Message, tag="bye", frozen=True):
    """Closes a session. Has no reply."""

    session: Natural


# Data socket: worker to client.


class Welcome(WorkerReply, tag="welcome", frozen=True):
    """The reply to ``hello``. ``number`` is the worker's number; ``files`` is the number of shared files."""

    version: Natural
    number: Number
    files: Natural
    catalogue: CatalogueId
    features: Features = []


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A shared file, or a folder below a shared path. The name of a folder ends with ``/``; its size and time are 0, it
    has no id. ``mode`` is the permission bits.
    """

    name: Name
    size: Annotated[int, Meta(ge=0, le=MAX_FILE_SIZE)]
    mtime_ns: TimestampNs
    mode: Mode = 0
    id: FileId | None = None

    @property
    def is_folder(self) -> bool:
        return self.name.endswith("/")


class CataloguePage(WorkerReply, tag="catalog", frozen=True):
    """A page of the entries of ``catalogue``, sorted by name; ``more`` is True if further pages follow."""

    catalogue: CatalogueId
    entries: Annotated[list[Entry], Meta(max_length=MAX_ENTRIES)]
    more: bool


class Described(WorkerReply, tag="manifest", frozen=True):
    """The description of a file; its digests are requested in pages."""

    name: Name
    size: Natural
    mtime_ns: TimestampNs
    segment_size: Natural
    id: FileId
    mode: Mode = 0


class DigestPage(WorkerReply, tag="digests", frozen=True):
    """Digests from segment ``start`` on; the payload frame contains them, 32 bytes each."""

    start: Natural


class Segment(WorkerReply, tag="segment", frozen=True):
    """A segment, or a part of it from ``start`` on; the payload frame contains the bytes."""

    index: Natural
    start: Natural = 0


class Bundle(WorkerReply, tag="bundle", frozen=True):
    """Small files; the payload frame contains their bytes, one file after another. For each file, ``statuses`` has
    ``FILE_OK`` or the reason of its refusal, and ``lengths`` the number of its bytes in the payload.
    """

    statuses: Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(max_length=MAX_BUNDLE_FILES)]
    lengths: Annotated[list[Natural], Meta(max_length=MAX_BUNDLE_FILES)]


class Refusal(WorkerReply, tag="refusal", frozen=True):
    """The negative reply to a request. ``versions`` are those that the worker speaks, if that is the reason."""

    reason: RefusalReason
    detail: Text = ""
    versions: Versions = []


class Holds(Correlated, tag="holds", frozen=True):
    """Asks a receiver that passes on what it has for the units of its plan that it holds."""


class Held(WorkerReply, tag="held", frozen=True):
    """The reply to ``holds``: the receiver's plan. In the payload, bit N (bit N % 8 of byte N // 8, the least
    significant one first) is set if it holds unit N; bytes at the end that are zero are left out.
    """

    plan: FileId


DataRequest = Hello | List | Describe | Digests | Get | GetBundle | Holds | Bye
DataReply = Welcome | CataloguePage | Described | DigestPage | Segment | Bundle | Held | Refusal


# Status socket: the broker's full snapshot.


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One worker in a snapshot. ``host`` is the one from which it joined; empty for a worker that the broker started.
    ``key`` is its own public key; empty if it uses that of the broker, or no keys. ``catalogue`` and ``files`` are what
    it serves. ``complainants`` are the clients with the most complaints. ``rate`` is its recent sending rate in bytes
    a second, and ``limit`` the most that the broker lets it send, 0 without a limit. ``uptime`` is the age of its
    process in seconds, or the time since it joined if the broker did not start it.
    """

    number: Number
    name: Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9._-]*\Z")] = ""
    host: Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9.:%_-]*\Z")] = ""
    endpoint: Annotated[str, Meta(max_length=300)]
    key: PublicKey = b""
    catalogue: CatalogueId = b""
    files: Natural = 0
    state: WorkerState
    wanted: WantedState
    epoch: Natural
    pid: Natural
    restarts: Natural
    clients: Natural
    bytes_sent: Natural
    rate: Rate
    limit: Natural = 0
    complaints: Natural
    complainants: Annotated[list[Text], Meta(max_length=16)] = []
    malformed_messages: Natural = msgspec.field(default=0, name="garbage")
    rejected_connections: Natural = msgspec.field(default=0, name="refused")
    uptime: Duration = 0.0
    reason: Text = ""

    @property
    def place(self) -> str:
        """The name and the host of a worker that has joined from another host, as text; otherwise empty."""
        return ", ".join(filter(None, (self.name, self.host))) if self.host else ""


class Status(Message, tag="status", frozen=True):
    """The snapshot of server 5, published after every change and every ``interval`` seconds. ``clients`` is the number
    of clients being served; a client connected to several workers counts once. ``indexing`` is the percentage of the
    bytes that an indexing has processed, None if no indexing has reported it.
    """

    version: Natural
    epoch: Natural
    seq: Natural
    interval: Seconds
    control: Annotated[str, Meta(max_length=300)]
    catalogue: CatalogueId
    files: Natural
    workers: Annotated[list[WorkerStatus], Meta(max_length=256)]
    features: Features = []
    clients: Natural = 0
    indexing: Natural | None = None
    malformed_messages: Natural = msgspec.field(default=0, name="garbage")
    rejected_connections: Natural = msgspec.field(default=0, name="refused")


# Control socket: to the broker.


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's load: its current clients, and totals since its process started. ``stale`` is True if a shared file on
    disk is no longer the version that was indexed. ``trouble`` says why files cannot be read at the moment; usually it
    is empty.
    """

    bytes_sent: Natural = 0
    clients: Natural = 0
    malformed_messages: Natural = msgspec.field(default=0, name="garbage")
    rejected_connections: Natural = msgspec.field(default=0, name="refused")
    stale: bool = False
    trouble: Text = ""


class SuspectSegment(msgspec.Struct, frozen=True):
    """A segment whose data on the servers' disk may differ from its digest."""

    id: FileId
    index: Natural


class ServedSession(msgspec.Struct, frozen=True):
    """A session in which a worker has sent digests or segments. ``key`` is the client's public key; empty if the
    servers use no keys.
    """

    session: Natural
    key: Annotated[bytes, Meta(max_length=32)] = b""


class Heartbeat(Message, tag="heartbeat", frozen=True):
    """A worker's heartbeat, sent by the loop that serves requests, over the connection on which the worker joined.
    ``edition`` is the edition of the catalogue that the worker serves, ``catalogue`` its digest and ``files`` the
    number of its files. ``admitted`` is the digest of the last ``admitted`` message. ``sessions`` are open; ``served``
    have begun to be served since the last heartbeat, and may have ended since. ``suspect`` is a segment whose data did
    not match although the times of its file are the indexed ones.
    """

    number: Number
    epoch: Positive
    state: ReportedState
    edition: Natural
    load: Load
    sessions: Annotated[list[Natural], Meta(max_length=1024)]
    catalogue: CatalogueId = b""
    files: Natural = 0
    admitted: Annotated[bytes, Meta(max_length=32)] = b""
    served: Annotated[list[ServedSession], Meta(max_length=1024)] = []
    suspect: SuspectSegment | None = None


class ControlCommand(Correlated, frozen=True, kw_only=True):
    """Base class of the requests of operators and clients."""

    version: Natural = PROTOCOL_VERSION


class Join(ControlCommand, tag="join", frozen=True):
    """Registers a run of a worker. ``token`` proves later to be the same run; for a process that the broker has started
    it is the broker's, and ``pid`` is the process. Any other worker names its ``endpoint``, its own public key ``key``
    if it uses keys and, if it had them before, its number and wanted state. The host ``*`` of the endpoint stands for
    the one from which the worker joins.
    """

    name: WorkerName
    epoch: Positive
    token: Annotated[bytes, Meta(min_length=16, max_length=64)]
    pid: Natural = 0
    endpoint: Annotated[str, Meta(max_length=300)] = ""
    key: PublicKey = b""
    features: Features = []
    number: Number | None = None
    wanted: WantedState = WantedState.AWAKE

    def __post_init__(self) -> None:
        if len(self.key) not in (0, 32):
            raise ValueError(f"`key` has {len(self.key)} bytes, but a public key has 32")


class Toggle(ControlCommand, tag="toggle", frozen=True):
    """Flips the wanted state of a worker, or sets it to ``wanted``."""

    number: Number
    wanted: WantedState | None = msgspec.field(default=None, name="want")


class StatusRequest(ControlCommand, tag="status", frozen=True):
    """Requests a ``report``."""


class Quit(ControlCommand, tag="quit", frozen=True):
    """Requests that the broker and all workers shut down."""


class Done(ControlCommand, tag="done", frozen=True):
    """A client finished its download; ``session`` is the number from its ``hello``."""

    session: Natural


class Complaint(ControlCommand, tag="complaint", frozen=True):
    """A client received a corrupt segment from a worker."""

    number: Number
    id: FileId
    index: Natural


class DownloadProgress(Message, tag="progress", frozen=True):
    """How far a client's download is; has no reply. ``session`` is the number from its ``hello``; ``name`` is how the
    client calls itself, empty if it does not; ``selection`` is what it downloads.

    ``bytes`` of ``total`` are verified, in ``files`` files as far as the client knows. It has received ``received``
    bytes over the network in this run, wasted ones included, and ``peer_bytes`` of the verified ones from peers. It
    receives from ``workers`` workers and ``peers`` peers at ``rate``, or in the last message: it has received from
    them. ``seconds`` have passed since its first request.
    ``passes_on`` is True if it serves other clients. ``exit_code`` says why it is broken.
    """

    session: Positive
    state: DownloadState
    selection: Selection
    bytes: Natural
    total: Natural
    name: ClientName = ""
    received: Natural = 0
    files: Natural = 0
    rate: Rate = 0.0
    seconds: Duration = 0.0
    workers: Natural = 0
    peers: Natural = 0
    peer_bytes: Natural = 0
    passes_on: bool = False
    exit_code: Annotated[int, Meta(ge=0, le=255)] = 0


class Holder(msgspec.Struct, frozen=True):
    """A receiver that passes on a plan: where it listens, and its own public key (empty without keys)."""

    endpoint: Annotated[str, Meta(max_length=300)]
    key: PublicKey = b""


class Announce(ControlCommand, tag="announce", frozen=True):
    """A receiver that passes on what it has of a plan: ``units`` units so far, at ``endpoint``, with its own public key
    ``key`` if it uses keys. The host ``*`` stands for the one from which it announces. ``endpoint`` is empty for a
    receiver that only asks for holders. ``silent`` are holders that did not answer, ``corrupt`` those that have sent
    corrupt units. ``admitted`` is the digest of the admitted keys that it knows; empty if it does not need them.
    """

    plan: FileId
    units: Natural
    endpoint: Annotated[str, Meta(max_length=300)] = ""
    key: PublicKey = b""
    silent: Annotated[list[Holder], Meta(max_length=MAX_HOLDERS)] = []
    corrupt: Annotated[list[Holder], Meta(max_length=MAX_HOLDERS)] = []
    admitted: Annotated[bytes, Meta(max_length=32)] = b""

    def __post_init__(self) -> None:
        if len(self.key) not in (0, 32):
            raise ValueError(f"`key` has {len(self.key)} bytes, but a public key has 32")


ControlRequest = Join | Heartbeat | Toggle | StatusRequest | Quit | Done | Complaint | DownloadProgress | Announce


# Control socket: from the broker.


class Order(Message, tag="order", frozen=True):
    """To a worker: its wanted state, and the edition of the catalogue that it must serve."""

    wanted: WantedState
    edition: Natural


class QuitOrder(Message, tag="quit-order", frozen=True):
    """To a worker: finish sending, then exit."""


class JoinOrder(Message, tag="join-order", frozen=True):
    """To a worker: the broker does not know the sender of this heartbeat; join again."""


class Joined(Correlated, tag="joined", frozen=True):
    """The reply to ``join``: the worker's number, the order that it begins with, and the host from which the broker saw
    it join (empty for a process that the broker started).
    """

    number: Number
    wanted: WantedState
    edition: Natural
    host: Annotated[str, Meta(max_length=64)] = ""


class AdmittedHash(msgspec.Struct, frozen=True, kw_only=True):
    """An admitted key: its hash, its role, and for how many more seconds it is admitted (None: until it is revoked).
    ``scope`` is the only file or folder that its holder may have; empty for everything.
    """

    hash: Annotated[bytes, Meta(min_length=32, max_length=32)]
    role: Annotated[str, Meta(max_length=64)]
    seconds: Duration | None = None
    scope: Annotated[str, Meta(max_length=MAX_NAME)] = ""


class Admitted(Message, tag="admitted", frozen=True):
    """To a worker on another machine: the keys that it admits, and a digest of this list. Repeated until its heartbeats
    name that digest.
    """

    digest: Annotated[bytes, Meta(min_length=32, max_length=32)]
    keys: Annotated[list[AdmittedHash], Meta(max_length=MAX_ENTRIES)]


class Reached(Message, tag="reached", frozen=True):
    """To a worker on another machine: the broker has tried to reach it at ``endpoint``. ``reason`` says why it could
    not; empty if it could.
    """

    endpoint: Annotated[str, Meta(max_length=300)]
    reason: Text = ""


class Accepted(Correlated, tag="accepted", frozen=True):
    """The request was carried out."""


class Holders(Correlated, tag="holders", frozen=True):
    """The reply to ``announce``: some holders of the plan, and the seconds after which to announce again."""

    holders: Annotated[list[Holder], Meta(max_length=MAX_HOLDERS)]
    seconds: Seconds


class Toggled(Correlated, tag="toggled", frozen=True):
    """The state after a toggle; ``reached`` is False if the worker did not reach the wanted state in time."""

    number: Number
    state: WorkerState
    reached: bool


class LoggedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event at ``time`` (seconds since 1970), as human-readable text. ``seq`` numbers the events of a broker;
    ``worker`` is the number of the worker that it is about, None for other events.
    """

    seq: Natural = 0
    time: Timestamp
    text: Text
    is_failure: bool = msgspec.field(name="bad")
    worker: Number | None = None


class DownloadStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A client's download, as the client reports it. ``number`` is its number among the downloads of this broker.
    ``client`` is the name of the client's key, else the name that it gives itself, else its address; ``host`` is its
    address. ``silent_seconds`` have passed since its last message. The other fields are those of that message.
    """

    number: Natural
    client: ClientName
    host: Annotated[str, Meta(max_length=64)]
    state: DownloadState
    selection: Selection
    bytes: Natural
    total: Natural
    received: Natural
    files: Natural
    rate: Rate
    seconds: Duration
    workers: Natural
    peers: Natural
    peer_bytes: Natural
    passes_on: bool
    exit_code: Natural
    silent_seconds: Duration


class RequestedSelection(msgspec.Struct, frozen=True):
    """What clients have asked for: the ``selection`` of at least one download, the number of such ``downloads`` since
    the broker started, and the bytes that they have ``received`` over the network.
    """

    selection: Selection
    downloads: Natural
    received: Natural


class StatusReport(Correlated, tag="report", frozen=True):
    """The reply to ``status``: the snapshot, the broker's clock, and the recent events (newest first). ``rates``
    contains a list for each worker, in the order of the workers' numbers: its recent rates in bytes a second, newest
    last. ``total_rates`` are the recent rates of all workers together: means of ``TOTAL_RATE_S`` seconds, newest last.
    ``downloads`` are those of the clients and ``requested`` the selections that were requested last (newest first),
    both for operators only. ``receivers`` is the number of clients that pass on what they
    have. ``not_shared`` says, for operators only, how many files are not shared and why.
    """

    status: Status
    time: Timestamp
    events: Annotated[list[LoggedEvent], Meta(max_length=256)] = []
    rates: Annotated[list[Annotated[list[Rate], Meta(max_length=256)]], Meta(max_length=256)] = []
    total_rates: Annotated[list[Rate], Meta(max_length=256)] = []
    downloads: Annotated[list[DownloadStatus], Meta(max_length=MAX_ENTRIES)] = []
    requested: Annotated[list[RequestedSelection], Meta(max_length=256)] = []
    receivers: Natural = 0
    not_shared: Annotated[list[Text], Meta(max_length=16)] = []


class Rejected(Correlated, tag="rejected", frozen=True):
    """The request was not carried out; ``message`` is the reason. ``denied`` is True if the key's role forbids it.
    ``versions`` are those that the broker speaks, if that is the reason.
    """

    message: Text
    denied: bool = False
    versions: Versions = []


ControlReply = Accepted | Toggled | StatusReport | Holders | Rejected
WorkerOrder = Order | QuitOrder | JoinOrder | Admitted | Reached
#: What a worker receives from the broker.
WorkerMessage = WorkerOrder | Joined | Rejected
