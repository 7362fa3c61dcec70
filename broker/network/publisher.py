"""The status socket: publishes server 5's snapshots.

Publishes complete snapshots only, never differences: a client that subscribes late or misses a message has the
complete state after the next one. A new subscriber receives the latest snapshot at once (``XPUB_WELCOME_MSG``).
A subscriber of too many other topics is disconnected: ZeroMQ stores every subscription, at about 40 bytes of memory per
byte of topic, and offers no way to reject one. Does not build the snapshots: see ``broker/status/snapshot.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import zmq

from msd.wire.net.accepted_connections import AcceptedConnections, Connection
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.sockets import bind, limit_frames, receive, tcp_socket
from msd.wire.protocol.codec import MAX_SUBSCRIPTION_FRAME, STATUS_TOPIC, encode
from msd.wire.protocol.messages import Status
from msd.wire.security.zap import DATA_ROLES, ZapHandler

#: Subscriptions read per iteration of the event loop, so that a flood does not block it.
READS_PER_TURN = 256
#: A subscriber is disconnected once its subscriptions to unknown topics exceed this many bytes.
MAX_UNKNOWN_TOPIC_BYTES = 1024
#: Size in bytes of the kernel's receive buffer for each subscriber. Subscribers send little, and ZeroMQ may read the
#: whole buffer before the broker can disconnect a subscriber.
RECEIVE_BUFFER = 8192
#: First byte of a subscription message; the topic follows.
SUBSCRIBE = b"\x01"


class Publisher:
    """The XPUB socket, with the connections that ``zap`` admits. ``on_misuse`` is called with each subscriber that was
    disconnected. Raises ``zmq.ZMQError`` if binding fails.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: Endpoint,
        zap: ZapHandler,
        on_misuse: Callable[[Connection[None]], None],
    ) -> None:
        self.socket = tcp_socket(context, zmq.XPUB, endpoint)
        self.socket.xpub_verbose = 1
        self.socket.sndhwm = 4
        # ZeroMQ applies all queued subscriptions before the application can see them, so keep the queue short.
        self.socket.rcvhwm = 4
        self.socket.rcvbuf = RECEIVE_BUFFER
        self._on_misuse = on_misuse
        self._connections: AcceptedConnections[None] = AcceptedConnections(zap)
        zap.protect(self.socket, DATA_ROLES)
        limit_frames(self.socket, MAX_SUBSCRIPTION_FRAME)
        bind(self.socket, endpoint.url)

    def publish(self, status: Status) -> None:
        frame = STATUS_TOPIC + encode(status)
        self.socket.setsockopt(zmq.XPUB_WELCOME_MSG, frame)
        self.socket.send(frame, zmq.NOBLOCK)

    def drain(self) -> None:
        """Reads queued subscriptions, up to a limit. ZeroMQ sends the welcome message only when they are read."""
        for _ in range(READS_PER_TURN):
            frames = receive(self.socket)
            if frames is None:
                return
            if not frames or frames[0].bytes[:1] != SUBSCRIBE:
                continue
            # Every subscriber sends a subscription, so every subscriber is known and can be disconnected.
            subscriber = self._connections.sender(frames[0], None)
            if subscriber is not None and not STATUS_TOPIC.startswith(frames[0].bytes[1:]):
                subscriber.unwanted_bytes += len(frames[0])
                # A subscriber that is already disconnected may have further subscriptions in the queue.
                if subscriber.unwanted_bytes > MAX_UNKNOWN_TOPIC_BYTES and subscriber.close():
                    self._on_misuse(subscriber)

    def disconnect_revoked(self) -> None:
        """Disconnects the subscribers whose keys were revoked."""
        self._connections.close_revoked()

    def close(self) -> None:
        self.socket.close(0)
