"""A subscription to server 5: the SUB socket, its monitor, and the snapshots that arrive.

Does not decide what silence, a refusal or another protocol version means, and does not replace its socket: for that,
close the subscriber and create a new one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import zmq

from msd.wire.errors import ProtocolError
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.monitor import ConnectionEvent, Monitor
from msd.wire.net.sockets import exchange_packets, limit_frames, receive, tcp_socket
from msd.wire.protocol.codec import MAX_SNAPSHOT_FRAME, STATUS_TOPIC, decode
from msd.wire.protocol.messages import PROTOCOL_VERSION, Message, Natural, Status
from msd.wire.protocol.states import ConnectionRefusal
from msd.wire.security.keys import Credentials

#: ZeroMQ's first and longest delays before it reconnects, in milliseconds.
RECONNECT_MS, MAX_RECONNECT_MS = 100, 1000


class OtherVersion(Message, frozen=True, tag="status"):
    """What a snapshot of another protocol version has for certain."""

    version: Natural


class StatusSubscriber:
    """Subscribes to the snapshots at ``endpoint``. Poll ``sources`` for reading. Call ``close()`` when done.

    A slow reader receives only the latest snapshot, not all the snapshots that it has missed.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: Endpoint,
        credentials: Credentials | None,
    ) -> None:
        self._socket = tcp_socket(context, zmq.SUB, endpoint, credentials)
        self._socket.conflate = True
        limit_frames(self._socket, MAX_SNAPSHOT_FRAME)
        self._socket.reconnect_ivl = RECONNECT_MS
        self._socket.reconnect_ivl_max = MAX_RECONNECT_MS
        exchange_packets(self._socket)
        self._socket.subscribe(STATUS_TOPIC)
        self._monitor = Monitor(self._socket, encrypted=credentials is not None)
        self._monitor.connect(endpoint)
        #: The sockets to poll.
        self.sources = (self._socket, self._monitor.socket)

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint, with the address that answers once one does."""
        return self._monitor.endpoint

    @property
    def silent_seconds(self) -> float:
        """See ``Monitor.silent_seconds``."""
        return self._monitor.silent_seconds

    def read_connection(self) -> Iterator[ConnectionEvent | ConnectionRefusal]:
        """Yields the events of the connection since the last call, oldest first."""
        return self._monitor.read()

    def read_snapshots(self) -> Iterator[Status | OtherVersion]:
        """Yields the snapshots that have arrived. Skips malformed snapshots: the next one has the complete state."""
        while (frames := receive(self._socket)) is not None:
            if len(frames) == 1:
                with contextlib.suppress(ProtocolError):
                    header = frames[0].bytes.removeprefix(STATUS_TOPIC)
                    # The rest of a snapshot of another version may have other keys.
                    other: OtherVersion = decode(header, OtherVersion)
                    yield decode(header, Status) if other.version == PROTOCOL_VERSION else other

    def close(self) -> None:
        self._monitor.close()
        self._socket.close(0)
