"""The names of a worker's states. A leaf: imports nothing of the project.

What is *wanted* is the operator's word; the *state* is what is so. ``broker/supervision.py`` holds
the transitions.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """What a worker is doing."""

    STARTING = "starting"  #: its process is being started and has not reported yet
    AWAKE = "awake"  #: it answers requests; shown as Alive
    ASLEEP = "asleep"  #: its process lives, its port is closed
    SILENT = "silent"  #: its process lives, its heartbeats are missing
    DEAD = "dead"  #: its process is gone, a restart is pending
    FAILED = "failed"  #: its process is gone, and restarting it was given up


class Wanted(StrEnum):
    """What the operator wants a worker to be."""

    AWAKE = "awake"
    ASLEEP = "asleep"


class Reason(StrEnum):
    """Why a worker refuses a request."""

    SLEEPING = "sleeping"  #: it is going to sleep: ask another one
    BUSY = "busy"  #: too many requests of this client are queued: ask again later
    UNKNOWN = "unknown"  #: it does not share a file of this name or id
    CHANGED = "changed"  #: the file is not the version of its manifest any more
    UNREADABLE = "unreadable"  #: the file cannot be read
    BAD_REQUEST = "bad-request"  #: the request makes no sense
