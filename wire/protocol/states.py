"""Worker states, and the reasons why requests and connections are refused. Imports no other module of the project.

The *wanted* state is what the operator asked for; the *state* is the actual one. The transitions are in
``broker/supervision/supervisor.py``.
"""

from __future__ import annotations

from enum import Enum, StrEnum, auto


class WorkerState(StrEnum):
    """The actual state of a worker."""

    STARTING = "starting"  #: its process was started and has not sent a heartbeat yet
    AWAKE = "awake"  #: it serves requests; shown as Alive
    ASLEEP = "asleep"  #: its process runs, but its port is closed
    SILENT = "silent"  #: its process runs, but its heartbeats are missing
    DEAD = "dead"  #: its process ended, and a restart is pending
    FAILED = "failed"  #: its process ended, and the broker stopped restarting it
    LOST = "lost"  #: the broker did not start it, and its heartbeats have been missing for 10 s
    UNREACHABLE = "unreachable"  #: it serves requests, but the broker could not reach it at its endpoint


class ReportedState(StrEnum):
    """A state that a worker reports about itself; the broker detects the other states."""

    AWAKE = "awake"
    ASLEEP = "asleep"
    LEAVING = "leaving"  #: it ends in order; only a worker that the broker did not start says so


class DownloadState(StrEnum):
    """The state of a download, as its client reports it."""

    DOWNLOADING = "downloading"  #: it looks for files, receives them, or compares what is on the disk
    FINISHING = "finishing"  #: all bytes are verified; the client computes a checksum or syncs the disk
    DONE = "done"  #: the files are in place
    BROKEN = "broken"  #: it ended with an error, or because its user ended it


class WantedState(StrEnum):
    """The state that the operator asked for."""

    AWAKE = "awake"
    ASLEEP = "asleep"


class RefusalReason(StrEnum):
    """Why a worker refuses a request."""

    SLEEPING = "sleeping"  #: it is going to sleep: ask another worker
    BUSY = "busy"  #: too many requests of this client are queued: retry later
    UNKNOWN = "unknown"  #: it does not share a file with this name or id
    CHANGED = "changed"  #: the file is no longer the version that the manifest describes
    UNREADABLE = "unreadable"  #: the file cannot be read
    MISSING = "missing"  #: it passes on what it has received, and does not have this unit yet
    UNAVAILABLE = "unavailable"  #: the file cannot be read at the moment: retry later
    BAD_REQUEST = "bad-request"  #: the request is invalid, such as a segment past the end
    VERSION = "version"  #: it does not speak the client's version of the protocol
    OTHER = "other"  #: a reason that this version of msd does not know

    @classmethod
    def _missing_(cls, value: object) -> RefusalReason | None:
        return cls.OTHER if isinstance(value, str) else None


#: ZAP's status codes for a key that is accepted, that is not admitted, and that is admitted in another role. ZeroMQ
#: reports 400 and 500 to the connecting side, but not 300.
ACCEPTED, NOT_ADMITTED, OTHER_ROLE = 200, 400, 500


class ConnectionRefusal(Enum):
    """Why a server refuses a connection."""

    KEY = auto()  #: it does not admit the client's key
    ROLE = auto()  #: it admits the client's key in another role
    MECHANISM = auto()  #: one side uses keys and the other does not
    HANDSHAKE = auto()  #: it closed the connection during the handshake; its key may differ from the expected key
    VERSION = auto()  #: it uses another version of the protocol
