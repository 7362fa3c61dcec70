"""The connection of a client to the control socket of server 5: opened for the first message, and kept.

ZeroMQ connects again by itself, for the messages are self-contained. Only the answers to announcements are of interest
to others. Does not decide what to send, and only ``request`` waits.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import zmq

from msd.client.network_events import AnnounceAnswered, KeysAdmitted
from msd.wire.errors import ProtocolError
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.sockets import limit_frames, receive, tcp_socket
from msd.wire.protocol.codec import MAX_HEADER, decode, encode
from msd.wire.protocol.messages import Admitted, ControlReply, Correlated, Holders, Message
from msd.wire.security.keys import Credentials

#: The number of messages that are kept while server 5 cannot be reached. Old ones are of little use when it returns.
MAX_UNSENT = 16


class ControlConnection:
    """A DEALER, in ``context`` and ``poller``, for the messages of one client. Call ``read()`` if it is readable, and
    ``close()`` when done.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], poller: zmq.Poller, credentials: Credentials | None
    ) -> None:
        self._context = context
        self._poller = poller
        self._credentials = credentials
        self._endpoint: Endpoint | None = None
        self._socket: zmq.Socket[bytes] | None = None

    @property
    def source(self) -> object:
        """What the poller finds readable; None if there is no connection."""
        return self._socket

    def read(self) -> Iterator[AnnounceAnswered | KeysAdmitted]:
        """Yields the answers to announcements, and takes all others."""
        while self._socket is not None and (frames := receive(self._socket)) is not None:
            with contextlib.suppress(ProtocolError):
                match decode(frames[0].buffer, ControlReply | Admitted) if len(frames) == 1 else None:
                    case Holders() as answer:
                        yield AnnounceAnswered(answer)
                    case Admitted() as admitted:
                        yield KeysAdmitted(admitted)

    def send(self, endpoint: Endpoint, message: Message) -> None:
        """Sends a message to server 5 at ``endpoint``, or drops it if too many are unsent."""
        with contextlib.suppress(zmq.Again):
            self._connected(endpoint).send(encode(message), zmq.NOBLOCK)

    def request(self, endpoint: Endpoint, request: Correlated, timeout: float) -> bool:
        """Sends a request; True if it is answered within ``timeout`` seconds."""
        self.send(endpoint, request)
        socket, deadline = self._connected(endpoint), time.monotonic() + timeout
        while socket.poll(max(0, int((deadline - time.monotonic()) * 1000))):
            with contextlib.suppress(ProtocolError):
                # Other replies are those to complaints.
                frames = receive(socket) or []
                if len(frames) == 1 and decode(frames[0].buffer, ControlReply).rid == request.rid:
                    return True
        return False

    def close(self) -> None:
        """Closes the connection once the messages are sent, or after half a second. The next message opens it again."""
        if self._socket is not None:
            self._poller.unregister(self._socket)
            self._socket.close()
            self._socket = None

    def _connected(self, endpoint: Endpoint) -> zmq.Socket[bytes]:
        if self._socket is None or endpoint != self._endpoint:
            self.close()
            self._endpoint = endpoint
            self._socket = tcp_socket(self._context, zmq.DEALER, endpoint, self._credentials)
            self._socket.linger = 500
            self._socket.sndhwm = MAX_UNSENT
            self._socket.reconnect_ivl, self._socket.reconnect_ivl_max = 250, 4000
            limit_frames(self._socket, MAX_HEADER)
            self._socket.connect(endpoint.url)
            self._poller.register(self._socket, zmq.POLLIN)
        return self._socket
