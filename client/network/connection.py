"""One connection to a worker: a DEALER socket and its monitor, from the handshake to the first fault.

Does not reconnect. A connection is never used again after a fault: some faults leave a DEALER permanently dead, and
after others ZeroMQ would send the old requests to the worker's next process.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import zmq

from msd.client.network.reply_check import check_reply
from msd.client.network_events import ConnectionOpened, ReplyReceived
from msd.wire.errors import ProtocolError
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.monitor import ConnectionEvent, Monitor
from msd.wire.net.sockets import exchange_packets, limit_frames, tcp_socket
from msd.wire.protocol.codec import MAX_REPLY_FRAME, decode, encode
from msd.wire.protocol.messages import (
    PROTOCOL_VERSION,
    Bye,
    Correlated,
    DataReply,
    Hello,
    Message,
    Refusal,
    Welcome,
    new_rid,
)
from msd.wire.protocol.states import ConnectionRefusal, RefusalReason
from msd.wire.security.keys import Credentials


class Connection:
    """A connection to ``worker`` at ``endpoint``. The caller polls ``dealer`` and ``monitor.socket``."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], worker: int, endpoint: Endpoint, credentials: Credentials | None
    ) -> None:
        self._worker = worker
        #: Requests that are not answered yet, by request id.
        self._outstanding: dict[int, Correlated] = {}
        #: The epoch of the worker's ``welcome``; None until the ``welcome`` arrives.
        self._epoch: int | None = None
        self._hello_sent_at = 0.0
        dealer = tcp_socket(context, zmq.DEALER, endpoint, credentials)
        # More than the requests of any window, so that ZeroMQ never reaches this mark: it would stop reading, and TCP
        # would mistake the pause for a dead peer.
        dealer.sndhwm = dealer.rcvhwm = 1024
        limit_frames(dealer, MAX_REPLY_FRAME)
        # With 1, a disconnect would discard replies that were received but not read yet.
        dealer.immediate = 0
        dealer.reconnect_ivl = 250
        dealer.reconnect_ivl_max = 4000
        dealer.connect_timeout = 5000
        exchange_packets(dealer)
        self.dealer = dealer
        self.monitor = Monitor(dealer, encrypted=credentials is not None)
        #: Why the connection was refused; None if it was not.
        self.refusal: ConnectionRefusal | None = None
        #: The worker's version of the protocol, if that is the reason and the version is known.
        self.other_version: int | None = None
        self.monitor.connect(endpoint)

    def read_monitor(self, session: int, features: Sequence[str] = ()) -> bool:
        """Reads the monitor and sends ``hello`` with ``features`` once the connection is open. Returns True if the
        connection is dead.
        """
        dead = False
        for event in self.monitor.read():
            match event:
                case ConnectionEvent.OPENED:
                    self._hello_sent_at = time.monotonic()
                    self.send(Hello(rid=new_rid(), version=PROTOCOL_VERSION, session=session, features=[*features]))
                case ConnectionEvent.CLOSED:
                    dead = True
                case ConnectionRefusal() as refusal:
                    self.refusal = self.refusal or refusal
        return dead

    @property
    def silent_seconds(self) -> float:
        """See ``Monitor.silent_seconds``."""
        return self.monitor.silent_seconds

    def send(self, request: Correlated) -> None:
        """Sends a request without blocking."""
        self._outstanding[request.rid] = request
        self._send(request)

    def handle_message(self, frames: list[zmq.Frame]) -> ConnectionOpened | ReplyReceived | None:
        """Returns the event for a received message; None if it answers no outstanding request.

        Raises ``ProtocolError`` if the message cannot be a valid reply. The connection is then unusable, because the
        request will never be answered. For example, a socket connected to itself receives its own ``hello``.
        """
        if not 1 <= len(frames) <= 2:
            raise ProtocolError(f"a reply with {len(frames)} frames")
        reply: DataReply = decode(frames[0].buffer, DataReply)
        request = self._outstanding.pop(reply.rid, None)
        if request is None:
            return None
        if reply.epoch != self._epoch and self._epoch is not None:
            raise ProtocolError("the reply and the welcome are from different processes")
        payload = frames[1] if len(frames) == 2 else None
        check_reply(request, reply, len(payload) if payload is not None else 0)
        if isinstance(request, Hello):
            self._check_version(reply)
            if not isinstance(reply, Welcome):
                raise ProtocolError("the worker refuses this client")
            self._epoch = reply.epoch
            return ConnectionOpened(self._worker, reply, time.monotonic() - self._hello_sent_at)
        return ReplyReceived(self._worker, request, reply, payload)

    def _check_version(self, reply: DataReply) -> None:
        """Raises ``ProtocolError`` if the reply to ``hello`` is from a worker of another version."""
        match reply:
            case Refusal(reason=RefusalReason.VERSION, versions=[_, *_] as versions):
                self.other_version = max(versions)
            case Welcome(version=version) if version != PROTOCOL_VERSION:
                self.other_version = version
            case _:
                return
        self.refusal = ConnectionRefusal.VERSION
        raise ProtocolError("the worker uses another version of the protocol")

    def send_bye(self, session: int) -> None:
        """Sends ``bye`` to the worker, if the connection is open."""
        if self.monitor.is_connected:
            self._send(Bye(session=session))

    def _send(self, message: Message) -> None:
        try:
            self.dealer.send(encode(message), zmq.NOBLOCK)
        except zmq.Again:
            return  # The queue is full: drop the message. The monitor will report the dead connection.

    def close(self, linger_ms: int = 0) -> None:
        """Closes the sockets. ZeroMQ may send queued messages for another ``linger_ms`` milliseconds."""
        self.monitor.close()
        self.dealer.close(linger_ms)
