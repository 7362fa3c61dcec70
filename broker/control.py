"""The control socket: heartbeats from workers, orders from operators, notes from clients.

Turns frames into requests and replies into frames; what a request does is decided in
``broker/server.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import zmq

from broker.processes import cannot_listen
from wire.codec import decode, encode
from wire.config import Config
from wire.errors import ProtocolError
from wire.messages import ControlRequest, Message
from wire.sockets import receive, tune

#: Requests read in one turn of the loop, so that a flood cannot keep it from anything else.
READS_PER_TURN = 256


class Control:
    """The ROUTER socket, bound to TCP for everyone and to a Unix socket for the workers.

    Raises ``UsageError`` where the TCP port cannot be bound.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], config: Config) -> None:
        self.socket = context.socket(zmq.ROUTER)
        tune(self.socket, ipv6=config.control.is_ipv6)
        self.socket.router_mandatory = 1
        self.socket.linger = 500
        self.socket.sndhwm = 64
        self.socket.maxmsgsize = 65536
        self.garbage = 0
        try:
            self.socket.bind(config.control.url)
        except zmq.ZMQError as error:
            self.socket.close(0)
            raise cannot_listen(config.control, "control", error.errno or 0) from None

    def bind_local(self, folder: Path) -> str:
        """Binds the Unix socket in ``folder`` too; its endpoint."""
        endpoint = f"ipc://{folder / 'control'}"
        self.socket.bind(endpoint)
        return endpoint

    def requests(self) -> Iterator[tuple[bytes, ControlRequest]]:
        """What has arrived, each with the routing id of its sender; garbage is counted."""
        for _ in range(READS_PER_TURN):
            frames = receive(self.socket)
            if frames is None:
                return
            try:
                if len(frames) != 2:
                    raise ProtocolError(f"{len(frames)} frames")
                request: ControlRequest = decode(frames[1].buffer, ControlRequest)
            except ProtocolError:
                self.garbage += 1
                continue
            yield frames[0].bytes, request

    def send(self, peer: bytes, message: Message) -> None:
        """Sends without waiting; a peer that is gone or does not read gets nothing."""
        try:
            self.socket.send_multipart([peer, encode(message)], zmq.NOBLOCK)
        except zmq.Again:
            pass
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise

    def close(self) -> None:
        self.socket.close()
