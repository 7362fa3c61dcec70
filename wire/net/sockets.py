"""What all sockets of the project share: their ZeroMQ options, the one way of receiving, and how
many a process may have.

Several defaults of ZeroMQ lose data, hang or crash; each value here has its reason beside it.
Nothing in this module decides anything about a message.
"""

from __future__ import annotations

import contextlib
import resource
import time

import zmq

from msd.wire.security.keys import Credentials

#: How long a stranger may take over the ZMTP handshake, in milliseconds. The default of 30 s would
#: let a few hundred idle connections hold every file descriptor.
HANDSHAKE_MS = 5000
#: Parts of one message that are looked at; the protocol uses three. The rest is read and dropped.
MAX_PARTS = 4

Frames = list[zmq.Frame]


def tune(socket: zmq.Socket[bytes], *, ipv6: bool = False, credentials: Credentials | None = None) -> None:
    """Sets what every TCP socket of the project needs, before it binds or connects. With
    ``credentials`` it connects to servers that take keys.

    No ``ZMQ_HEARTBEAT_*`` anywhere: on a connection whose inbound pipe is full they abort the
    process (libzmq #3937), and they cut links that are merely slow (libzmq #2709). TCP keepalive
    and the retransmission limit find a vanished peer within a minute.
    """
    socket.handshake_ivl = HANDSHAKE_MS
    socket.tcp_keepalive = 1
    socket.tcp_keepalive_idle = 30
    socket.tcp_keepalive_intvl = 10
    socket.tcp_keepalive_cnt = 3
    socket.tcp_maxrt = 60_000
    # Only where needed: a socket with ipv6=1 binds [::] for "*", which fails on hosts without it.
    socket.ipv6 = ipv6
    if credentials is not None:
        socket.curve_publickey = credentials.own.public
        socket.curve_secretkey = credentials.own.secret
        socket.curve_serverkey = credentials.server


def bind(socket: zmq.Socket[bytes], url: str, patience: float = 0.0) -> None:
    """Binds ``socket``. A port that was closed a moment ago may be busy for some milliseconds: it is
    tried again for ``patience`` seconds. Raises ``zmq.ZMQError``.
    """
    give_up = time.monotonic() + patience
    while True:
        try:
            socket.bind(url)
            return
        except zmq.ZMQError as error:
            if error.errno != zmq.EADDRINUSE or time.monotonic() >= give_up:
                raise
        time.sleep(0.002)


def receive(socket: zmq.Socket[bytes]) -> Frames | None:
    """The next message as at most ``MAX_PARTS`` frames, or None if there is none.

    A longer message is read to its end and returned as the empty list: keeping a hundred thousand
    parts would cost as many objects.
    """
    try:
        frame = socket.recv(zmq.NOBLOCK, copy=False)
    except zmq.Again:
        return None
    frames = [frame]
    while frame.more:
        frame = socket.recv(zmq.NOBLOCK, copy=False)
        if len(frames) <= MAX_PARTS:
            frames.append(frame)
    return frames if len(frames) <= MAX_PARTS else []


def raise_descriptor_limit() -> None:
    """Lets this process open as many files and sockets as it may without asking anybody.

    Each connection is a descriptor, and the usual limit of 1024 is for the sake of ``select``, which
    nobody here uses. Where the limit cannot be raised, it stays.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
