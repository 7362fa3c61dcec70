"""A worker's connection to its broker, and that to a broker that has started the worker: a Unix socket.

Carries messages. Does not decide when to join or what to send: see ``workers/serving/worker_life.py``. The connection
to a broker elsewhere is in ``workers/serving/remote_broker.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Protocol

import zmq

from msd.wire.errors import ProtocolError
from msd.wire.net.poll_loop import PollLoop
from msd.wire.net.sockets import receive
from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import Message, WorkerMessage

#: Messages that may wait to be sent.
SEND_QUEUE = 8


class BrokerConnection(Protocol):
    """What a worker needs of the connection to its broker."""

    def start(self, poll_loop: PollLoop, on_readable: Callable[[], None]) -> None:
        """Connects. ``on_readable`` is called when messages may be waiting."""

    def send(self, message: Message) -> bool:
        """Sends a message. Returns False if there is no connection, or if the broker does not read."""

    def receive(self) -> Iterator[WorkerMessage]:
        """Yields the messages that have arrived."""

    def pass_time(self, now: float) -> float:
        """Does what is due, and returns when something is due again: monotonic seconds, or infinity."""

    def close(self) -> None:
        """Closes the connection."""


class LocalBroker:
    """The broker that has started this process. ``url`` is that of its Unix socket."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], url: str) -> None:
        self._socket = prepare(context.socket(zmq.DEALER))
        self._url = url

    def start(self, poll_loop: PollLoop, on_readable: Callable[[], None]) -> None:
        self._socket.connect(self._url)
        poll_loop.register(self._socket, on_readable)

    def send(self, message: Message) -> bool:
        return send(self._socket, message)

    def receive(self) -> Iterator[WorkerMessage]:
        return received(self._socket)

    def pass_time(self, now: float) -> float:  # noqa: ARG002
        """Does nothing: this process ends with its broker."""
        return math.inf

    def close(self) -> None:
        self._socket.close(0)


def prepare(socket: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
    """Sets the options of a socket for heartbeats, and returns it. Call this before the socket connects."""
    socket.linger = 0
    socket.sndhwm = SEND_QUEUE
    # Do not queue messages while disconnected: a later broker process must not receive old heartbeats.
    socket.immediate = 1
    return socket


def send(socket: zmq.Socket[bytes], message: Message) -> bool:
    """Sends a message without blocking. Returns False if that is not possible now."""
    try:
        socket.send(encode(message), zmq.NOBLOCK)
    except zmq.Again:
        return False
    return True


def received(socket: zmq.Socket[bytes]) -> Iterator[WorkerMessage]:
    """Yields the messages that have arrived, except malformed ones."""
    # The caller may close the socket while it handles a message.
    while not socket.closed and (frames := receive(socket)) is not None:
        if len(frames) == 1:
            with suppress(ProtocolError):
                yield decode(frames[0].buffer, WorkerMessage)
