"""The control sockets for heartbeats from workers, orders from operators, and messages from clients.

Converts frames to requests and replies to frames. Does not handle the requests (see ``broker/server.py``) and does
not authenticate the peers (see ``wire/security/zap.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import zmq
from msgspec import Struct

from msd.wire.errors import ProtocolError
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.sockets import bind, receive, tcp_socket
from msd.wire.protocol.codec import MAX_REQUEST_FRAME, decode, encode
from msd.wire.protocol.messages import ControlRequest, Message
from msd.wire.security.keys import Role
from msd.wire.security.zap import role_of

#: Requests read per iteration of the event loop, so that a flood does not block it.
READS_PER_TURN = 256


class ControlSocket:
    """A ROUTER socket, bound to ``endpoint``: a TCP endpoint, or the URL of another transport. ``protect`` is called
    with the socket before it is bound; without ``protect``, every peer counts as a worker, so ``endpoint`` must be
    accessible to this user only. If the port is in use, binding is retried for ``retry_timeout`` seconds. Raises
    ``zmq.ZMQError`` if binding fails.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: Endpoint | str,
        *,
        protect: Callable[[zmq.Socket[bytes]], None] | None = None,
        retry_timeout: float = 0.0,
    ) -> None:
        self._is_protected = protect is not None
        if isinstance(endpoint, Endpoint):
            self.socket, url = tcp_socket(context, zmq.ROUTER, endpoint), endpoint.url
        else:
            self.socket, url = context.socket(zmq.ROUTER), endpoint
        self.socket.router_mandatory = 1
        self.socket.linger = 500
        self.socket.sndhwm = 64
        self.socket.maxmsgsize = MAX_REQUEST_FRAME
        self.malformed_messages = 0
        if protect is not None:
            protect(self.socket)
        bind(self.socket, url, retry_timeout)

    def requests(self) -> Iterator[tuple[Route, Role, ControlRequest]]:
        """The requests received, each with its sender's address and role. Counts and skips malformed messages."""
        for _ in range(READS_PER_TURN):
            frames = receive(self.socket)
            if frames is None:
                return
            try:
                if len(frames) != 2:
                    raise ProtocolError(f"{len(frames)} frames")
                request: ControlRequest = decode(frames[1].buffer, ControlRequest)
            except ProtocolError:
                self.malformed_messages += 1
                continue
            role = role_of(frames[1]) if self._is_protected else Role.WORKER
            yield Route(self, frames[0].bytes), role, request

    def send(self, ident: bytes, message: Message) -> None:
        """Sends without blocking. Drops the message if the peer has disconnected or does not read."""
        if self.socket.closed:
            return
        try:
            self.socket.send_multipart([ident, encode(message)], zmq.NOBLOCK)
        except zmq.Again:
            pass
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise

    def close(self) -> None:
        self.socket.close()


class Route(Struct, frozen=True):
    """The address of a connected peer."""

    socket: ControlSocket
    ident: bytes

    def send(self, message: Message) -> None:
        self.socket.send(self.ident, message)
