"""The status socket: publishes server 5's snapshots.

Publishes complete snapshots only, never differences: a client that subscribes late or misses a message has the
complete state after the next one. A new subscriber receives the latest snapshot at once (``XPUB_WELCOME_MSG``).
Does not build the snapshots: see ``broker/status/snapshot.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import zmq

from msd.wire.net.endpoints import Endpoint
from msd.wire.net.sockets import bind, receive, tcp_socket
from msd.wire.protocol.codec import MAX_SUBSCRIPTION_FRAME, STATUS_TOPIC, encode
from msd.wire.protocol.messages import Status

#: Subscriptions read per iteration of the event loop, so that a flood does not block it.
READS_PER_TURN = 256
#: The socket is replaced once the subscriptions to unknown topics exceed this many bytes in total.
MAX_UNKNOWN_TOPIC_BYTES = 16384
#: First byte of a subscription message; the topic follows.
SUBSCRIBE = b"\x01"


class Publisher:
    """The XPUB socket. ``protect`` is called with the socket before it is bound. If the port is in use, binding is
    retried for ``retry_timeout`` seconds. Raises ``zmq.ZMQError`` if binding fails.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: Endpoint,
        *,
        protect: Callable[[zmq.Socket[bytes]], None] = lambda socket: None,
        retry_timeout: float = 0.0,
    ) -> None:
        self.socket = tcp_socket(context, zmq.XPUB, endpoint)
        self.socket.xpub_verbose = 1
        self.socket.sndhwm = 4
        self.socket.maxmsgsize = MAX_SUBSCRIPTION_FRAME
        # ZeroMQ applies all queued subscriptions before the application can see them, so keep the queue short.
        self.socket.rcvhwm = 4
        self._unknown_topic_bytes = 0
        protect(self.socket)
        bind(self.socket, endpoint.url, retry_timeout)

    def publish(self, status: Status) -> None:
        frame = STATUS_TOPIC + encode(status)
        self.socket.setsockopt(zmq.XPUB_WELCOME_MSG, frame)
        self.socket.send(frame, zmq.NOBLOCK)

    def drain(self) -> None:
        """Reads queued subscriptions, up to a limit. ZeroMQ sends the welcome message only when they are read."""
        for _ in range(READS_PER_TURN):
            frames = receive(self.socket)
            if frames is None or self.has_too_many_topics:
                return
            message = frames[0].bytes if frames else b""
            if message[:1] == SUBSCRIBE and not STATUS_TOPIC.startswith(message[1:]):
                self._unknown_topic_bytes += len(message)

    @property
    def has_too_many_topics(self) -> bool:
        """True if this socket must be replaced. ZeroMQ stores every subscription, at about 40 bytes of memory per
        byte of topic, and offers no way to reject one.
        """
        return self._unknown_topic_bytes > MAX_UNKNOWN_TOPIC_BYTES

    def close(self) -> None:
        self.socket.close(0)
