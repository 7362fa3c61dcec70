"""Every message of the protocol, as typed values.

``docs/protocol.md`` is the authority on what they mean; ``wire/protocol/codec.py`` turns them into frames.
Unknown keys are ignored, so that later versions may add some; wrong types are refused.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from msd.wire.protocol.states import RefusalReason, WantedState, WorkerState

PROTOCOL_VERSION = 1

Natural = Annotated[int, Meta(ge=0, le=2**63 - 1)]
#: A worker's number; bounded, for a client keeps one in 16 bits for each segment.
Number = Annotated[int, Meta(ge=1, le=1024)]
#: Nanoseconds since 1970.
Time = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
#: Characters of a file's name.
MAX_NAME = 4096
Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
#: Neither NaN nor infinite, so that a peer cannot stop a clock that is set by it.
Seconds = Annotated[float, Meta(ge=0, le=86400)]
Rate = Annotated[float, Meta(ge=0, le=2**63)]
#: Seconds, too, but of something that may last for years.
Duration = Annotated[float, Meta(ge=0, le=2**40)]
#: Seconds since 1970, of a time of day that can be written: to the year 9999 in all zones.
Timestamp = Annotated[float, Meta(ge=0, le=253_402_000_000)]
#: For people: nothing in it acts on a terminal.
Text = Annotated[str, Meta(max_length=1024, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*\Z")]
FileId = Annotated[bytes, Meta(min_length=32, max_length=32)]
#: The digest of a catalogue; empty while there is none yet.
CatalogueId = Annotated[bytes, Meta(max_length=32)]


class Message(msgspec.Struct, frozen=True, tag_field="type", kw_only=True, gc=False):
    """Base of all messages; the key ``type`` says which one it is."""


# Data socket: client to worker. Every request carries an ``rid`` that its reply echoes.


class Hello(Message, tag="hello", frozen=True):
    """Opens a session. ``session`` is the same random number on all connections of one client."""

    rid: Natural
    version: Natural
    session: Natural


class List(Message, tag="list", frozen=True):
    """Asks for the shared files whose names sort after ``after``."""

    rid: Natural
    after: Annotated[str, Meta(max_length=4096)] = ""


class Describe(Message, tag="describe", frozen=True):
    """Asks for a file by name, by id, by both, or (neither) for the only one shared."""

    rid: Natural
    name: Name | None = None
    id: FileId | None = None


class Digests(Message, tag="digests", frozen=True):
    """Asks for segment digests of ``id`` from segment ``start`` on."""

    rid: Natural
    id: FileId
    start: Natural


class Get(Message, tag="get", frozen=True):
    """Asks for one segment."""

    rid: Natural
    id: FileId
    index: Natural


class Bye(Message, tag="bye", frozen=True):
    """Closes a session. Has no reply."""

    session: Natural


# Data socket: worker to client.


class Welcome(Message, tag="welcome", frozen=True):
    rid: Natural
    version: Natural
    epoch: Natural
    number: Number
    files: Natural
    catalogue: CatalogueId


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One shared file in a catalogue."""

    name: Name
    size: Natural
    mtime_ns: Time
    id: FileId


class CataloguePage(Message, tag="catalog", frozen=True):
    """A page of shared files in order of their names; ``more`` says whether there are others."""

    rid: Natural
    epoch: Natural
    entries: Annotated[list[Entry], Meta(max_length=1024)]
    more: bool


class Described(Message, tag="manifest", frozen=True):
    """One file; its digests are asked for in pages."""

    rid: Natural
    epoch: Natural
    name: Name
    size: Natural
    mtime_ns: Time
    segment_size: Natural
    id: FileId


class DigestPage(Message, tag="digests", frozen=True):
    """Digests from segment ``start`` on; the payload frame holds them, 32 bytes each."""

    rid: Natural
    epoch: Natural
    start: Natural


class Segment(Message, tag="segment", frozen=True):
    """One segment; the payload frame holds its bytes."""

    rid: Natural
    epoch: Natural
    index: Natural


class Refusal(Message, tag="refusal", frozen=True):
    rid: Natural
    epoch: Natural
    reason: RefusalReason
    detail: Text = ""


DataRequest = Hello | List | Describe | Digests | Get | Bye
DataReply = Welcome | CataloguePage | Described | DigestPage | Segment | Refusal


# Status socket: the broker's full snapshot.


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What server 5 knows of one worker. ``rate`` is in bytes a second, as sent lately; ``uptime`` is that of
    its process, 0 while there is none.
    """

    number: Number
    endpoint: Annotated[str, Meta(max_length=300)]
    state: WorkerState
    wanted: WantedState
    epoch: Natural
    pid: Natural
    restarts: Natural
    clients: Natural
    bytes_sent: Natural
    rate: Rate
    complaints: Natural
    malformed_messages: Natural = msgspec.field(default=0, name="garbage")
    rejected_connections: Natural = msgspec.field(default=0, name="refused")
    uptime: Duration = 0.0
    reason: Text = ""


class Status(Message, tag="status", frozen=True):
    """The whole state, at every change and every ``interval`` seconds. ``clients`` are those being served
    now, each counted once however many workers serve it.
    """

    version: Natural
    epoch: Natural
    seq: Natural
    interval: Seconds
    control: Annotated[str, Meta(max_length=300)]
    catalogue: CatalogueId
    files: Natural
    workers: Annotated[list[WorkerStatus], Meta(max_length=256)]
    clients: Natural = 0
    malformed_messages: Natural = msgspec.field(default=0, name="garbage")
    rejected_connections: Natural = msgspec.field(default=0, name="refused")


# Control socket: to the broker.


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How busy a worker is: totals since its process started. ``malformed_messages`` counts messages that were
    none, ``refused`` connections that were not let in; ``stale`` says that it has met a file that is not
    the one that was indexed.
    """

    bytes_sent: Natural = 0
    clients: Natural = 0
    malformed_messages: Natural = msgspec.field(default=0, name="garbage")
    rejected_connections: Natural = msgspec.field(default=0, name="refused")
    stale: bool = False


class Heartbeat(Message, tag="heartbeat", frozen=True):
    """A worker's sign of life, from the loop that serves. ``token`` proves whose child it is,
    ``edition`` is the catalogue that it serves.
    """

    token: Annotated[bytes, Meta(max_length=64)]
    number: Number
    pid: Natural
    epoch: Natural
    state: WorkerState
    edition: Natural
    load: Load
    sessions: Annotated[list[Natural], Meta(max_length=1024)]


class Toggle(Message, tag="toggle", frozen=True):
    """Flips what is wanted of a worker, or sets it where ``want`` is given."""

    rid: Natural
    number: Number
    want: WantedState | None = None


class StatusRequest(Message, tag="status", frozen=True):
    rid: Natural


class Quit(Message, tag="quit", frozen=True):
    rid: Natural


class Done(Message, tag="done", frozen=True):
    """A client has everything; ``session`` is the one of its ``hello``."""

    rid: Natural
    session: Natural


class Complaint(Message, tag="complaint", frozen=True):
    """A client received a corrupt segment from a worker."""

    rid: Natural
    number: Number
    id: FileId
    index: Natural


ControlRequest = Heartbeat | Toggle | StatusRequest | Quit | Done | Complaint


# Control socket: from the broker.


class Order(Message, tag="order", frozen=True):
    """To a worker: what is wanted of it, and which edition of the catalogue it is to serve."""

    wanted: WantedState
    edition: Natural


class QuitOrder(Message, tag="quit-order", frozen=True):
    """To a worker: let what is being sent finish, then end."""


class Accepted(Message, tag="accepted", frozen=True):
    """The request was carried out."""

    rid: Natural


class Toggled(Message, tag="toggled", frozen=True):
    """The state a toggle led to; ``reached`` is false if it was not there in time."""

    rid: Natural
    number: Number
    state: WorkerState
    reached: bool


class LoggedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened at ``time`` (seconds since 1970), for people; ``bad``: nobody ordered it."""

    time: Timestamp
    text: Text
    bad: bool


class StatusReport(Message, tag="report", frozen=True):
    """The answer to ``status``, with what happened lately, the newest first, and the workers' last rates, the
    newest last, in the order of their numbers.
    """

    rid: Natural
    status: Status
    events: Annotated[list[LoggedEvent], Meta(max_length=256)] = []
    rates: Annotated[list[Annotated[list[Rate], Meta(max_length=256)]], Meta(max_length=256)] = []


class Rejected(Message, tag="rejected", frozen=True):
    """The request was not carried out; ``message`` says why. ``denied``: this key may not ask for it."""

    rid: Natural
    message: Text
    denied: bool = False


ControlReply = Accepted | Toggled | StatusReport | Rejected
WorkerOrder = Order | QuitOrder
