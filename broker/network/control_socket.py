"""The control sockets for heartbeats from workers, orders from operators, and messages from clients.

Converts frames to requests and replies to frames, and drops the requests of revoked keys. Does not handle the requests
(see ``broker/server.py``) and does not authenticate the peers (see ``wire/security/zap.py``).
"""

from __future__ import annotations

from collections.abc import Iterator

import zmq
from msgspec import Struct

from msd.wire.errors import ProtocolError
from msd.wire.net.accepted_connections import AcceptedConnections
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.sockets import bind, limit_frames, receive, tcp_socket
from msd.wire.protocol.codec import MAX_REQUEST_FRAME, decode, encode
from msd.wire.protocol.messages import PROTOCOL_VERSION, ControlCommand, ControlRequest, Message, Rejected
from msd.wire.security.keys import Role
from msd.wire.security.zap import ZapHandler
from msd.wire.support.presentable_names import presentable

#: Requests read per iteration of the event loop, so that a flood does not block it.
READS_PER_TURN = 256


class Sender(Struct, frozen=True):
    """Who sent a request. ``key`` is the peer's public key, empty if it has none. ``name`` is the name of the key, or
    the peer's IP address; ``host`` is that address, empty for a process that the broker has started.
    """

    role: Role
    key: bytes = b""
    name: str = ""
    host: str = ""


class ControlSocket:
    """A ROUTER socket, bound to ``endpoint``: a TCP endpoint with the connections that ``zap`` admits, or the URL of
    another transport. Without ``zap``, every peer counts as a worker, so ``endpoint`` must be accessible to this user
    only. Raises ``zmq.ZMQError`` if binding fails.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], endpoint: Endpoint | str, zap: ZapHandler | None = None
    ) -> None:
        self._zap = zap
        #: None without ``zap``.
        self._connections: AcceptedConnections[bytes] | None = AcceptedConnections(zap) if zap is not None else None
        if isinstance(endpoint, Endpoint):
            self.socket, url = tcp_socket(context, zmq.ROUTER, endpoint), endpoint.url
        else:
            self.socket, url = context.socket(zmq.ROUTER), endpoint
        self.socket.router_mandatory = 1
        self.socket.linger = 500
        self.socket.sndhwm = 64
        self.malformed_messages = 0
        if zap is not None:
            zap.protect(self.socket)
        limit_frames(self.socket, MAX_REQUEST_FRAME)
        bind(self.socket, url)

    def requests(self) -> Iterator[tuple[Route, Sender, ControlRequest]]:
        """The requests received, each with its sender. Counts and rejects malformed messages, and rejects requests of
        other versions of the protocol.
        """
        for _ in range(READS_PER_TURN):
            # Asking first takes a tenth of the time of the exception that an empty socket raises.
            if not int(self.socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN or (frames := receive(self.socket)) is None:
                return
            if len(frames) != 2:
                self.malformed_messages += 1
                continue
            ident = frames[0].bytes
            if (sender := self._sender(frames[1], ident)) is None:
                continue
            try:
                request: ControlRequest = decode(frames[1].buffer, ControlRequest)
            except ProtocolError as error:
                self.malformed_messages += 1
                if error.rid is not None:
                    self.send(ident, Rejected(rid=error.rid, message=presentable(str(error)[:1024])[:1024]))
                continue
            if isinstance(request, ControlCommand) and request.version != PROTOCOL_VERSION:
                self.send(ident, _rejection(request))
                continue
            yield Route(self, ident), sender, request

    def _sender(self, frame: zmq.Frame, ident: bytes) -> Sender | None:
        """Returns the sender of ``frame``, None if its key is revoked."""
        if self._zap is None or self._connections is None:
            return Sender(Role.WORKER)
        connection = self._connections.sender(frame, ident)
        if connection is None or (role := self._zap.role_of(connection.key)) is None:
            return None
        return Sender(role, connection.key, self._zap.name_of(connection.key) or connection.host, connection.host)

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

    def disconnect_revoked(self) -> None:
        """Disconnects the peers whose keys were revoked."""
        if self._connections is not None:
            self._connections.close_revoked()

    def close(self) -> None:
        self.socket.close()


def _rejection(request: ControlCommand) -> Rejected:
    """Returns the reply to a request of another version of the protocol."""
    message = f"server 5 speaks protocol version {PROTOCOL_VERSION}, not {request.version}: update the older side"
    return Rejected(rid=request.rid, message=message, versions=[PROTOCOL_VERSION])


class Route(Struct, frozen=True):
    """The address of a connected peer."""

    socket: ControlSocket
    ident: bytes

    def send(self, message: Message) -> None:
        self.socket.send(self.ident, message)
