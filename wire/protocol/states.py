"""The names of a worker's states, and why things are refused. A leaf: imports nothing of the project.

What is *wanted* is the operator's word; the *state* is what is so. ``broker/supervision/supervisor.py`` holds
the transitions.
"""

from __future__ import annotations

from enum import Enum, StrEnum, auto


class WorkerState(StrEnum):
    """What a worker is doing."""

    STARTING = "starting"  #: its process is being started and has not reported yet
    AWAKE = "awake"  #: it answers requests; shown as Alive
    ASLEEP = "asleep"  #: its process lives, its port is closed
    SILENT = "silent"  #: its process lives, its heartbeats are missing
    DEAD = "dead"  #: its process is gone, a restart is pending
    FAILED = "failed"  #: its process is gone, and restarting it was given up


class WantedState(StrEnum):
    """What the operator wants a worker to be."""

    AWAKE = "awake"
    ASLEEP = "asleep"


class RefusalReason(StrEnum):
    """Why a worker refuses a request."""

    SLEEPING = "sleeping"  #: it is going to sleep: ask another one
    BUSY = "busy"  #: too many requests of this client are queued: ask again later
    UNKNOWN = "unknown"  #: it does not share a file of this name or id
    CHANGED = "changed"  #: the file is not the version of its manifest any more
    UNREADABLE = "unreadable"  #: the file cannot be read
    BAD_REQUEST = "bad-request"  #: the request makes no sense


class ConnectionRefusal(Enum):
    """Why the other side does not want this connection."""

    KEY = auto()  #: it does not admit the key that was shown
    MECHANISM = auto()  #: one side takes keys and the other does not
    HANDSHAKE = auto()  #: the other side broke off; it may have another key than expected
    VERSION = auto()  #: it speaks another version of the protocol

    def explained(self, server: object, *, encrypted: bool) -> str:
        """What to tell people who could not connect to ``server``; ``encrypted``: they showed a key."""
        match self:
            case ConnectionRefusal.KEY:
                return f"{server} does not admit this key: have it admitted there with msd keys admit"
            case ConnectionRefusal.MECHANISM if encrypted:
                return f"{server} takes no keys: leave --server-key out, and server_key in config.toml"
            case ConnectionRefusal.MECHANISM:
                return f"{server} takes keys only: give --server-key with the key that msd serve prints there"
            case ConnectionRefusal.HANDSHAKE:
                return f"{server} has another key than --server-key says: compare it with what msd serve prints there"
            case ConnectionRefusal.VERSION:
                return f"{server} speaks another version of the protocol: update the older side"
