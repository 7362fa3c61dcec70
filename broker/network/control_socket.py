"""The control sockets: heartbeats from workers, orders from operators, notes from clients.

FairQueue frames into requests and replies into frames; what a request does is decided in
``broker/server.py``, who may connect in ``wire/security/zap.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import zmq
from msgspec import Struct

from msd.wire.errors import ProtocolError
from msd.wire.net.sockets import bind, receive, tune
from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import ControlRequest, Message
from msd.wire.security.keys import Role
from msd.wire.security.zap import role_of

#: Requests read in one turn of the loop, so that a flood cannot keep it from anything else.
READS_PER_TURN = 256


class Control:
    """A ROUTER socket, bound to ``url``. ``guard`` is given the socket before that; without one, only
    this user must be able to reach it. A peer is known by the ``Route`` that its requests came by.
    Raises ``zmq.ZMQError`` where it cannot be bound.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        url: str,
        *,
        ipv6: bool = False,
        protect: Callable[[zmq.Socket[bytes]], None] | None = None,
        patience: float = 0.0,
    ) -> None:
        self._is_guarded = protect is not None
        self.socket = context.socket(zmq.ROUTER)
        tune(self.socket, ipv6=ipv6)
        self.socket.router_mandatory = 1
        self.socket.linger = 500
        self.socket.sndhwm = 64
        self.socket.maxmsgsize = 65536
        self.malformed_messages = 0
        if protect is not None:
            protect(self.socket)
        try:
            bind(self.socket, url, patience)
        except zmq.ZMQError:
            self.socket.close(0)
            raise

    def requests(self) -> Iterator[tuple[Route, Role, ControlRequest]]:
        """What has arrived, each with the way to its sender and the role of that; malformed_messages is counted."""
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
            # Whoever reaches a socket without a doorkeeper is of this very user.
            role = role_of(frames[1]) if self._is_guarded else Role.OPERATOR
            yield Route(self, frames[0].bytes), role, request

    def send(self, ident: bytes, message: Message) -> None:
        """Sends without waiting; a peer that is gone or does not read gets nothing."""
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
    """The way to a peer."""

    control: Control
    ident: bytes

    def send(self, message: Message) -> None:
        self.control.send(self.ident, message)
