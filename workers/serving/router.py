"""The worker's ROUTER socket: receives requests, sends replies.

Never blocks, and drops replies that cannot be sent. Does not know which replies ZeroMQ has released
(``workers/serving/send_completions.py``) or which request is served next (``workers/serving/fair_queue.py``).
"""

from __future__ import annotations

import socket as tcp
from collections.abc import Callable

import zmq

from msd.wire.errors import ProtocolError
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.sockets import limit_frames, receive, tcp_socket
from msd.wire.protocol.codec import MAX_REQUEST_FRAME, encode
from msd.wire.protocol.messages import Message
from msd.workers.serving.send_completions import SendCompletions

#: How long (milliseconds) ZeroMQ may continue to send the replies that it already has after the port is closed.
LINGER_MS = 1000
#: Maximum number of unsent bytes that the kernel buffers per connection beyond the peer's receive window: one segment.
#: By default the kernel buffers 4 MiB, so about a hundred peers that never read exhaust its TCP memory, and it drops
#: packets of other connections. Bytes in flight on the network are not limited, so throughput over long distances is
#: unchanged.
MAX_UNSENT_BYTES = 1 << 20
# Send flags and socket options as integers: combining pyzmq's enum flags takes a microsecond per send.
_SEND_LAST = int(zmq.NOBLOCK)
_SEND_MORE = _SEND_LAST | int(zmq.SNDMORE)
_EVENTS, _READABLE = int(zmq.EVENTS), int(zmq.POLLIN)

#: Identifies a connected client: the generation of this process's ROUTER socket, and the client's routing id on that
#: socket. ZeroMQ reuses routing ids, so a routing id is valid only together with its socket.
ClientKey = tuple[int, bytes]


class Router:
    """A ROUTER socket that can be closed and reopened on the same port. Call ``close()`` when done.

    ``send_completions`` tracks the large replies in flight, tagged with their client and their size in bytes;
    replies of a closed socket stay tracked until ZeroMQ releases them. ``protect`` is called with each socket
    before it is bound, ``on_disconnected`` with each client that turns out to be disconnected.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: Endpoint,
        send_completions: SendCompletions[tuple[ClientKey, int]],
        *,
        protect: Callable[[zmq.Socket[bytes]], None] = lambda socket: None,
        on_disconnected: Callable[[ClientKey], None],
    ) -> None:
        self._context = context
        self._endpoint = endpoint
        self._send_completions = send_completions
        self._protect = protect
        self._on_disconnected = on_disconnected
        #: Readable when requests arrive; None while the port is closed.
        self.socket: zmq.Socket[bytes] | None = None
        self._generation = 0

    def open(self) -> None:
        """Binds the port. Raises ``OSError`` if that fails, ``zmq.ZMQError`` if no file descriptors are left."""
        socket = tcp_socket(self._context, zmq.ROUTER, self._endpoint)
        try:
            socket.linger = LINGER_MS
            # Sends never block: EHOSTUNREACH means the client disconnected, EAGAIN that its send queue is full.
            socket.router_mandatory = 1
            # Messages queued per client. The fair queue keeps large replies far below this; small replies may reach it.
            socket.sndhwm = 1024
            socket.rcvhwm = 64
            self._protect(socket)
            limit_frames(socket, MAX_REQUEST_FRAME)
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
        """Closes the port. For ``LINGER_MS``, ZeroMQ may still send the replies that it already has."""
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    @property
    def is_readable(self) -> bool:
        """True if a message can be received."""
        assert self.socket is not None
        return bool(int(self.socket.getsockopt(_EVENTS)) & _READABLE)

    def receive(self) -> tuple[ClientKey, zmq.Frame] | None:
        """Returns the next message with its sender, or None if none has arrived. Raises ``ProtocolError`` if
        the message does not have exactly one frame.
        """
        assert self.socket is not None
        frames = receive(self.socket)
        if frames is None:
            return None
        if len(frames) != 2:
            raise ProtocolError(f"{len(frames)} frames")
        return (self._generation, frames[0].bytes), frames[1]

    def send(self, client: ClientKey, reply: Message, payload: bytes = b"") -> None:
        """Sends a small reply; drops it if the client is disconnected or its send queue is full."""
        parts = (encode(reply), payload) if payload else (encode(reply),)
        self._send_parts(client, *parts)

    def send_large(self, client: ClientKey, head: bytes, payload: bytes, size: int) -> bool:
        """Sends a large reply without copying it; returns False if it was dropped. ``size`` is reported with its
        release.
        """
        # If there is no payload, the header is the last part. Even a short last part is sent without copying, because
        # ZeroMQ reports the release of zero-copy frames only.
        last = self._send_completions.frame(payload or head, (client, size))
        parts = (head, last) if payload else (last,)
        if not self._send_parts(client, *parts):
            self._send_completions.cancel_last()
            return False
        return True

    def _send_parts(self, client: ClientKey, *parts: bytes | zmq.Frame) -> bool:
        """Hands a reply to ZeroMQ; returns False if it was dropped."""
        generation, routing_id = client
        if self.socket is None or generation != self._generation:
            return False
        send = self.socket.send
        try:
            send(routing_id, _SEND_MORE)
            for part in parts[:-1]:
                send(part, _SEND_MORE)
            send(parts[-1], _SEND_LAST)
        except zmq.Again:
            # The client has 1024 unread replies: drop this reply. The client must request it again.
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._on_disconnected(client)
            return False
        return True


def _listen(endpoint: Endpoint) -> tcp.socket:
    """Returns a listening socket with TCP options that ZeroMQ does not offer; accepted connections inherit them."""
    listener = tcp.socket(tcp.AF_INET6 if endpoint.is_ipv6 else tcp.AF_INET)
    try:
        if endpoint.is_ipv6:
            listener.setsockopt(tcp.IPPROTO_IPV6, tcp.IPV6_V6ONLY, 0)
        # The broker reserves the port with a bound socket, and closed connections may linger on the port.
        listener.setsockopt(tcp.SOL_SOCKET, tcp.SO_REUSEADDR, 1)
        # Before the socket listens: a connection that is accepted earlier would not inherit it.
        listener.setsockopt(tcp.IPPROTO_TCP, tcp.TCP_NOTSENT_LOWAT, MAX_UNSENT_BYTES)
        listener.bind(endpoint.socket_address)
        listener.listen(512)
    except OSError:
        listener.close()
        raise
    return listener
