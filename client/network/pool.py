"""The servers as a download sees them: who is connected, what server 5 says, what has arrived.

Joins the decisions of ``client/network/connection_policy.py`` to the sockets of ``client/network/transport.py``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from msd.client.events import WorkerChanged
from msd.client.network import connection_policy
from msd.client.network.transport import (
    LinkClosed,
    LinkOpened,
    ReplyReceived,
    SnapshotReceived,
    StatusRefused,
    Transport,
    TransportEvent,
)
from msd.wire.config.settings import Servers
from msd.wire.errors import NotAllowedError, UsageError
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.messages import PROTOCOL_VERSION, Message, Status
from msd.wire.protocol.states import ConnectionRefusal, WorkerState
from msd.wire.support.time_passed import TimePassed

#: Not looking at the sockets for longer than this (seconds) is a stall of this process.
STALL = 0.25


class ConnectionPool:
    """All connections of one download. ``close()`` it.

    The servers do not count a client that is no ``download`` among those they serve.
    """

    def __init__(self, servers: Servers, *, download: bool) -> None:
        session = int.from_bytes(os.urandom(8), "big") >> 2 if download else 0
        self.transport = Transport(servers, session=session)
        #: The workers that can be asked, and how each connection was opened.
        self.ready: dict[int, LinkOpened] = {}
        #: Seconds for which this process did not look, as noticed by the last ``wait``.
        self.stalled = 0.0
        #: When the last ``wait`` ended: silence until then is not this process's own.
        self.looked_at = time.monotonic()
        self._told_reachable = True
        #: Workers that speak another version of the protocol, by number.
        self._foreign: dict[int, int] = {}
        self._servers = servers
        #: What server 5 last said of its control socket.
        self._control = ""
        self._links = connection_policy.ConnectionPolicy(
            servers.workers, servers.status.host, pinned=servers.pinned, now=time.monotonic()
        )

    def close(self) -> None:
        self.transport.close()

    @property
    def status(self) -> Status | None:
        """Server 5's latest word; None while it says nothing."""
        return self._links.status

    @property
    def control(self) -> Endpoint | None:
        """The broker's control socket, on the host where server 5 was reached, as it was last told."""
        try:
            return Endpoint(self._servers.status.host, Endpoint.parse(self._control).port)
        except UsageError:
            return None

    @property
    def numbers(self) -> list[int]:
        """The workers known so far."""
        return sorted(self._links.links)

    def turn(self, deadline: float) -> list[TransportEvent]:
        """``wait`` and all ``events``."""
        self.wait(deadline)
        return [*self.events()]

    def wait(self, deadline: float) -> None:
        """Waits for something to happen until ``deadline``, and notices if this process was stopped."""
        began = time.monotonic()
        until = max(began, min(self._links.next_deadline(), deadline))
        self.transport.wait(until - began)
        now = time.monotonic()
        busy, overslept = began - self.looked_at, now - until
        self.stalled = sum(time for time in (busy, overslept) if time > STALL)
        self.looked_at = now

    def events(self) -> Iterator[TransportEvent]:
        """What has happened when ``wait`` returned, to be taken to its end. Follows the connections on the way. Raises
        ``NotAllowedError`` where the servers do not let this client in.
        """
        for event in self.transport.read():
            if not isinstance(event, ReplyReceived):
                if isinstance(event, LinkOpened) and event.welcome.version != PROTOCOL_VERSION:
                    # Not for good: it may be brought up to date while others serve.
                    self._foreign[event.worker] = event.welcome.version
                    self.transport.close_link(event.worker)
                    event = LinkClosed(event.worker, ConnectionRefusal.VERSION)
                self._follow(event)
            yield event
        # By the time of ``wait``: what has arrived since is not read yet, and its absence not silence.
        self._apply(TimePassed(), self.looked_at)
        if refused := self._links.refusal(self.looked_at):
            raise NotAllowedError(self._why_refused(refused))

    def request(self, worker: int, request: Message) -> None:
        self.transport.request(worker, request)

    def ban(self, worker: int) -> None:
        """Closes the connection to a worker, until it is another process or readmitted."""
        self.ready.pop(worker, None)
        self._apply(connection_policy.WorkerBanned(worker))

    def unban(self, worker: int) -> None:
        """Connects again to a worker that was set aside, as soon as it can be reached."""
        self._apply(connection_policy.WorkerUnbanned(worker))

    def news(self) -> WorkerChanged | None:
        """What to tell of server 5: that it fell silent, or came back; each once."""
        reachable = self.status is not None or not self._links.knows or self._links.is_refused
        if reachable == self._told_reachable:
            return None
        self._told_reachable = reachable
        if reachable:
            return WorkerChanged("server 5", "ready")
        return WorkerChanged("server 5", "lost", "it does not answer; going on without its status")

    def why_waiting(self) -> str:
        """Why nothing moves, for people."""
        if self.ready:
            return f"connected to {len(self.ready)} of {len(self.numbers)} workers, but nothing arrives"
        if self._links.is_refused:
            return f"{self._servers.status} breaks off every connection: is that the key of these servers?"
        if self.status is None:
            return f"nobody answers at {self._servers.status}: is msd serve running there?"
        if not self.status.catalogue:
            return "the servers are still indexing their files"
        states = [worker.state for worker in self.status.workers]
        if WorkerState.AWAKE in states:
            return f"none of the {states.count(WorkerState.AWAKE)} workers that server 5 called alive can be reached"
        named = ", ".join(f"{w.number} {w.state}" for w in self.status.workers)
        return f"0 of {len(states)} workers alive ({named})"

    def _why_refused(self, refused: ConnectionRefusal) -> str:
        if refused is ConnectionRefusal.VERSION:
            spoken = ", ".join(f"worker {number} version {version}" for number, version in self._foreign.items())
            return f"this client speaks version {PROTOCOL_VERSION} of the protocol, but {spoken}: update the older side"
        return refused.explained(self._servers.status, encrypted=self._servers.credentials is not None)

    def _follow(self, event: SnapshotReceived | LinkOpened | LinkClosed | StatusRefused) -> None:
        match event:
            case SnapshotReceived(status):
                self._control = status.control
                self._apply(connection_policy.SnapshotArrived(status))
            case LinkOpened(worker):
                self.ready[worker] = event
                self._apply(connection_policy.LinkUp(worker))
            case LinkClosed(worker, refused):
                self.ready.pop(worker, None)
                self._apply(connection_policy.LinkDown(worker, refused))
            case StatusRefused(why):
                self._apply(connection_policy.StatusRefused(why))

    def _apply(self, event: connection_policy.Event, now: float | None = None) -> None:
        for action in self._links.handle(event, time.monotonic() if now is None else now):
            match action:
                case connection_policy.OpenConnection(worker, endpoint):
                    self.transport.open(worker, endpoint)
                case connection_policy.CloseConnection(worker):
                    self.transport.close_link(worker)
                case connection_policy.Resubscribe():
                    self.transport.renew_status()
