"""Tables: what the scheduler does after each refusal, and how long each ban lasts. Pure."""

from __future__ import annotations

import enum

from msgspec import Struct

from msd.client.network_events import BanReason
from msd.wire.protocol.states import RefusalReason


class BanScope(enum.StrEnum):
    """How long a ban lasts. No ban outlasts the download."""

    DOWNLOAD = "download"  #: until the end of the download
    PROCESS = "process"  #: until the worker's process is restarted
    CATALOGUE = "catalogue"  #: until the worker's process is restarted or server 5 publishes another catalogue


#: A worker that lacks the manifest's version of the file gets another try when the catalogue changes.
BAN_SCOPES = {
    BanReason.CORRUPT: BanScope.DOWNLOAD,
    BanReason.MALFORMED: BanScope.DOWNLOAD,
    BanReason.UNKNOWN: BanScope.CATALOGUE,
    BanReason.CHANGED: BanScope.CATALOGUE,
    BanReason.UNREADABLE: BanScope.PROCESS,
    BanReason.BAD_REQUEST: BanScope.PROCESS,
    BanReason.OTHER: BanScope.PROCESS,
}


#: A worker that is banned for one of these reasons may be asked for the units of other groups.
GROUP_BANS = frozenset({BanReason.UNKNOWN, BanReason.CHANGED, BanReason.UNREADABLE, BanReason.OTHER})


class RefusalPolicy(Struct, frozen=True):
    """What the scheduler does after a refusal, besides returning the refused unit to the queue."""

    #: Seconds during which no requests are sent to the worker.
    pause_s: float = 0.0
    #: True if all outstanding units of the worker return to the queue, not only the refused one.
    returns_all: bool = False
    #: Why the worker is banned, None if it is not; ``BAN_SCOPES`` says for how long. A ban also returns the outstanding
    #: units of the worker to the queue: all of them or, with one of ``GROUP_BANS``, those of the refused unit's group.
    ban: BanReason | None = None


REFUSAL_POLICIES = {
    # The worker will also refuse the other requests, or never answer them.
    RefusalReason.SLEEPING: RefusalPolicy(pause_s=0.5, returns_all=True),
    RefusalReason.BUSY: RefusalPolicy(pause_s=0.1),
    # What holds its files does not answer. Other requests would be refused, too.
    RefusalReason.UNAVAILABLE: RefusalPolicy(pause_s=1.0, returns_all=True),
    RefusalReason.UNKNOWN: RefusalPolicy(ban=BanReason.UNKNOWN),
    RefusalReason.CHANGED: RefusalPolicy(ban=BanReason.CHANGED),
    RefusalReason.UNREADABLE: RefusalPolicy(ban=BanReason.UNREADABLE),
    RefusalReason.BAD_REQUEST: RefusalPolicy(ban=BanReason.BAD_REQUEST),
    # Only of a worker that holds everything; the others are asked for other units meanwhile.
    RefusalReason.MISSING: RefusalPolicy(ban=BanReason.OTHER),
    # The reply to ``hello`` only.
    RefusalReason.VERSION: RefusalPolicy(ban=BanReason.OTHER),
    RefusalReason.OTHER: RefusalPolicy(ban=BanReason.OTHER),
}
