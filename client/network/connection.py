"""One connection to a worker: a DEALER and its monitor, from the handshake to the first fault.

A connection is never used again after a fault: some leave a DEALER dead for good, and ZeroMQ would
hand what was asked to the worker's next process.
"""

from __future__ import annotations

import contextlib
import itertools
import time

import zmq
from msgspec import Struct

from msd.wire.errors import ProtocolError
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.monitor import Handshake, Monitor
from msd.wire.net.sockets import tune
from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import PROTOCOL_VERSION, Bye, DataReply, Get, Hello, Message, Welcome
from msd.wire.protocol.segments import MAX_SEGMENT_SIZE
from msd.wire.protocol.states import ConnectionRefusal
from msd.wire.security.keys import Credentials

_RIDS = itertools.count(1)


def new_rid() -> int:
    """A request id, unique in this process: no reply can be taken for another one's."""
    return next(_RIDS)


class Opened(Struct, frozen=True):
    """The worker has said welcome, ``round_trip`` seconds after our ``hello``."""

    welcome: Welcome
    round_trip: float


class Answer(Struct, frozen=True):
    """A reply to ``request``; ``payload`` is the frame of its bytes, if it has one."""

    request: Message
    reply: DataReply
    payload: zmq.Frame | None


class Connection:
    """A connection to ``endpoint``. Register ``dealer`` and ``monitor.socket`` for reading."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], endpoint: Endpoint, credentials: Credentials | None
    ) -> None:
        #: Requests without a reply.
        self._asked: dict[int, Message] = {}
        self._epoch: int | None = None
        self._greeted_at = 0.0
        dealer = context.socket(zmq.DEALER)
        tune(dealer, ipv6=endpoint.is_ipv6, credentials=credentials)
        # More than any window: ZeroMQ must never stop reading, or TCP would take the pause for a
        # dead peer.
        dealer.sndhwm = dealer.rcvhwm = 1024
        dealer.maxmsgsize = MAX_SEGMENT_SIZE + 4096
        # With 1, replies that are here but not read yet would be thrown away at a disconnect.
        dealer.immediate = 0
        dealer.reconnect_ivl = 250
        dealer.reconnect_ivl_max = 4000
        dealer.connect_timeout = 5000
        self.dealer = dealer
        self.monitor = Monitor(dealer, encrypted=credentials is not None)
        #: Why the last handshake failed.
        self.refused: ConnectionRefusal | None = None
        dealer.connect(endpoint.url)

    def read_monitor(self, session: int) -> bool:
        """Follows the connection's state; True if it is dead."""
        dead = False
        for event in self.monitor.read():
            match event:
                case Handshake.UP:
                    self._greeted_at = time.monotonic()
                    self.send(Hello(rid=new_rid(), version=PROTOCOL_VERSION, session=session))
                case Handshake.DOWN:
                    dead = True
                case ConnectionRefusal() as why:
                    self.refused = self.refused or why
        return dead

    def send(self, request: Message) -> None:
        rid = getattr(request, "rid", None)
        if rid is not None:
            self._asked[rid] = request
        # If its queue is full nothing moves, and the connection's end will tell.
        with contextlib.suppress(zmq.Again):
            self.dealer.send(encode(request), zmq.NOBLOCK)

    def take(self, frames: list[zmq.Frame]) -> Opened | Answer | None:
        """What a message says; None for one that nobody waits for (any more).

        Raises ``ProtocolError`` for what can answer nothing: the connection is then of no use, for
        something that was asked on it will never be answered. Our own ``hello``, come back by a TCP
        self-connect, is such a message.
        """
        if not 1 <= len(frames) <= 2:
            raise ProtocolError(f"{len(frames)} frames")
        reply: DataReply = decode(frames[0].buffer, DataReply)
        request = self._asked.pop(reply.rid, None)
        if request is None:
            return None
        if self._epoch not in (None, reply.epoch):
            raise ProtocolError("a reply of another process than the one that said welcome")
        if isinstance(request, Get) and getattr(reply, "index", request.index) != request.index:
            raise ProtocolError("another segment than the one asked for")
        if isinstance(request, Hello):
            if not isinstance(reply, Welcome):
                raise ProtocolError("no welcome")
            self._epoch = reply.epoch
            return Opened(reply, time.monotonic() - self._greeted_at)
        return Answer(request, reply, frames[1] if len(frames) == 2 else None)

    def say_bye(self, session: int) -> None:
        """Takes leave of the worker, if it is there."""
        if self.monitor.is_up:
            self.send(Bye(session=session))

    def close(self, linger_ms: int = 0) -> None:
        """Closes it; what is still to be sent has ``linger_ms`` milliseconds to leave."""
        self.monitor.close()
        self.dealer.close(linger_ms)
