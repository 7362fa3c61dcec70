"""Server 5's status socket.

Always publishes the whole state, never a difference: a client that subscribes late, or lost a message, has the
complete state after the next one. Each new subscriber gets the latest snapshot at once (``XPUB_WELCOME_MSG``).
"""

from __future__ import annotations

from collections.abc import Callable

import zmq

from msd.wire.net.endpoints import Endpoint
from msd.wire.net.sockets import bind, receive, tune
from msd.wire.protocol.codec import STATUS_TOPIC, encode
from msd.wire.protocol.messages import Status

#: Subscriptions read in one turn of the loop, so that a flood cannot keep it from anything else.
READS_PER_TURN = 256
#: Bytes of subscriptions to what is not told here that a socket may have.
MAX_FOREIGN = 16384
#: How ZeroMQ hands over a subscription: this byte, and the topic.
SUBSCRIBE = b"\x01"


class Publisher:
    """The XPUB socket. Raises ``zmq.ZMQError`` where it cannot be bound."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: Endpoint,
        *,
        protect: Callable[[zmq.Socket[bytes]], None] = lambda socket: None,
        patience: float = 0.0,
    ) -> None:
        self.socket = context.socket(zmq.XPUB)
        tune(self.socket, ipv6=endpoint.is_ipv6)
        self.socket.xpub_verbose = 1
        self.socket.sndhwm = 4
        self.socket.linger = 0
        # Subscriptions are short. Not below 1024: the limit holds for CURVE handshakes, too.
        self.socket.maxmsgsize = 1024
        # ZeroMQ takes in whatever has arrived before it lets anybody look.
        self.socket.rcvhwm = 4
        self._foreign = 0
        protect(self.socket)
        try:
            bind(self.socket, endpoint.url, patience)
        except zmq.ZMQError:
            self.socket.close(0)
            raise

    def publish(self, status: Status) -> None:
        frame = STATUS_TOPIC + encode(status)
        self.socket.setsockopt(zmq.XPUB_WELCOME_MSG, frame)
        self.socket.send(frame, zmq.NOBLOCK)

    def drain(self) -> None:
        """Reads subscriptions, some of them: the welcome message is sent by reading them."""
        for _ in range(READS_PER_TURN):
            frames = receive(self.socket)
            if frames is None or self.is_crowded:
                return
            said = frames[0].bytes if frames else b""
            if said[:1] == SUBSCRIBE and not STATUS_TOPIC.startswith(said[1:]):
                self._foreign += len(said)

    @property
    def is_crowded(self) -> bool:
        """True if this socket is to be replaced: ZeroMQ keeps what it is subscribed to, at some 40 bytes for
        each byte of it, and lets nobody refuse.
        """
        return self._foreign > MAX_FOREIGN

    def close(self) -> None:
        self.socket.close(0)
