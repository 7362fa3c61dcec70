"""The ROUTER through which a worker meets its clients: requests in, replies out.

Never waits, and keeps no reply that cannot be sent. Which replies have left ZeroMQ is known to
``workers/serving/send_completions.py``; whose comes next, and how many may be inside, is decided in
``workers/serving/fair_queue.py``.
"""

from __future__ import annotations

import socket as tcp
from collections.abc import Callable

import zmq

from msd.wire.errors import ProtocolError
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.sockets import receive, tune
from msd.wire.protocol.codec import encode
from msd.wire.protocol.messages import Message
from msd.workers.serving.send_completions import SendCompletions

#: Milliseconds for which replies already handed to ZeroMQ may still leave after the port is closed.
LINGER_MS = 1000
#: Bytes of replies that the kernel keeps for a connection beyond what its peer has room for: a segment. Left to
#: itself it keeps 4 MiB: some hundred peers that never read then fill all the memory it has for TCP, and from there
#: on it drops what others send. What is on its way counts in addition, so a long link is as fast as without.
UNSENT = 1 << 20
#: How the parts of a reply are sent. As numbers, for pyzmq's flags take a microsecond to be joined.
LAST = int(zmq.NOBLOCK)
MORE = LAST | int(zmq.SNDMORE)
EVENTS, READABLE = int(zmq.EVENTS), int(zmq.POLLIN)

#: A client: which of this process's ROUTER sockets it is connected to, and its id there. ZeroMQ
#: reuses ids, so one alone must not outlive its socket.
Client = tuple[int, bytes]


class Router:
    """One ROUTER after another on the same port. ``departures`` is told of the large replies that ZeroMQ holds, each
    noted as its client's and with its size, also of those that may still leave from a former socket. ``guard`` is
    called with each socket before it is bound, ``gone`` with a client that turns out to have disconnected.
    ``close()`` it when done.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: Endpoint,
        departures: SendCompletions[tuple[Client, int]],
        *,
        protect: Callable[[zmq.Socket[bytes]], None] = lambda socket: None,
        gone: Callable[[Client], None],
    ) -> None:
        self._context = context
        self._endpoint = endpoint
        self._departures = departures
        self._protect = protect
        self._gone = gone
        #: What to poll for requests; None while the port is closed.
        self.socket: zmq.Socket[bytes] | None = None
        self._generation = 0

    def open(self) -> None:
        """Binds the port. Raises ``OSError`` where that cannot be, ``zmq.ZMQError`` where no descriptors are left."""
        socket = self._context.socket(zmq.ROUTER)
        try:
            tune(socket, ipv6=self._endpoint.is_ipv6)
            socket.linger = LINGER_MS
            # Sends never block: EHOSTUNREACH says that a client is gone, EAGAIN that it is over its credit.
            socket.router_mandatory = 1
            # Large replies take their turns; this many small ones a client may leave unread.
            socket.sndhwm = 1024
            socket.rcvhwm = 64
            socket.maxmsgsize = 65536
            self._protect(socket)
            with _listen(self._endpoint) as listener:
                socket.use_fd = listener.fileno()
                socket.bind(self._endpoint.url)
                listener.detach()
        except (OSError, zmq.ZMQError):
            socket.close(0)
            raise
        self.socket = socket
        self._generation += 1

    def close(self) -> None:
        """Closes the port; what was sent may still leave."""
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    @property
    def has_more(self) -> bool:
        """True if there is a message to be received."""
        assert self.socket is not None
        return bool(int(self.socket.getsockopt(EVENTS)) & READABLE)

    def receive(self) -> tuple[Client, zmq.Frame] | None:
        """The next message and who sent it, None if there is none. Raises ``ProtocolError`` if it is
        not of one frame.
        """
        assert self.socket is not None
        frames = receive(self.socket)
        if frames is None:
            return None
        if len(frames) != 2:
            raise ProtocolError(f"{len(frames)} frames")
        return (self._generation, frames[0].bytes), frames[1]

    def send(self, client: Client, reply: Message) -> None:
        """Sends a small reply, or drops it if the client is gone or reads none."""
        self._hand_over(client, encode(reply))

    def send_large(self, client: Client, head: bytes, payload: bytes) -> bool:
        """Sends a large reply without copying it; False if it was dropped."""
        # Of one without payload the head is the last part. However short, it is not to be copied: when
        # ZeroMQ lets go of it, it has left.
        last = self._departures.frame(payload or head, (client, len(head) + len(payload)))
        parts = (head, last) if payload else (last,)
        if not self._hand_over(client, *parts):
            self._departures.disregard()
            return False
        return True

    def _hand_over(self, client: Client, *parts: bytes | zmq.Frame) -> bool:
        """Gives a reply to ZeroMQ; False if it is dropped."""
        generation, ident = client
        if self.socket is None or generation != self._generation:
            return False
        send = self.socket.send
        try:
            send(ident, MORE)
            for part in parts[:-1]:
                send(part, MORE)
            send(parts[-1], LAST)
        except zmq.Again:
            # It has a thousand replies to read; what it asked for beyond that it has to ask again.
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._gone(client)
            return False
        return True


def _listen(endpoint: Endpoint) -> tcp.socket:
    """A socket that listens there, with what ZeroMQ has no option for; connections inherit it."""
    family = tcp.AF_INET6 if endpoint.is_ipv6 else tcp.AF_INET
    listener = tcp.socket(family, tcp.SOCK_STREAM)
    try:
        # The broker holds the port, with a socket that never listens; and its last connections may linger.
        listener.setsockopt(tcp.SOL_SOCKET, tcp.SO_REUSEADDR, 1)
        if endpoint.is_ipv6:
            listener.setsockopt(tcp.IPPROTO_IPV6, tcp.IPV6_V6ONLY, 0)
        listener.setsockopt(tcp.IPPROTO_TCP, tcp.TCP_NOTSENT_LOWAT, UNSENT)
        listener.bind(("" if endpoint.host == "*" else endpoint.host, endpoint.port))
        listener.listen(512)
    except OSError:
        listener.close()
        raise
    return listener
