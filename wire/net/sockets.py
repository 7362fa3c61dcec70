"""ZeroMQ socket options, binding, receiving, and the limit on open file descriptors.

Several of ZeroMQ's defaults cause data loss, hangs or crashes, so comments give the reasons for the values set here.
Does not interpret messages.
"""

from __future__ import annotations

import contextlib
import resource

import zmq

from msd.wire.net.endpoints import Endpoint
from msd.wire.security.keys import Credentials

#: How long a peer may take for the ZMTP handshake, in milliseconds. With the default of 30 s, a few hundred idle
#: connections could hold every file descriptor.
HANDSHAKE_TIMEOUT_MS = 5000
#: Seconds between two packets of an idle connection whose path is watched.
KEEPALIVE_S = 1
#: Maximum number of frames kept per message; the protocol uses three. Further frames are read and dropped.
MAX_FRAMES = 4

#: Bytes that CURVE adds to each frame.
CURVE_OVERHEAD = 33

Frames = list[zmq.Frame]


def tcp_socket(
    context: zmq.Context[zmq.Socket[bytes]],
    socket_type: int,
    endpoint: Endpoint,
    credentials: Credentials | None = None,
) -> zmq.Socket[bytes]:
    """Creates a socket that will bind or connect to ``endpoint``, with the options of ``tune()`` and without linger."""
    socket = context.socket(socket_type)
    tune(socket, ipv6=endpoint.is_ipv6, credentials=credentials)
    socket.linger = 0
    return socket


def tune(socket: zmq.Socket[bytes], *, ipv6: bool = False, credentials: Credentials | None = None) -> None:
    """Sets the options that every TCP socket of the project needs. Call this before the socket binds or connects.

    With ``credentials`` the socket connects with CURVE encryption.

    No ``ZMQ_HEARTBEAT_*`` options: on a connection whose inbound pipe is full they abort the process (libzmq #3937),
    and they close connections that are only slow (libzmq #2709). TCP keepalive and the retransmission limit detect a
    vanished peer within a minute.
    """
    socket.handshake_ivl = HANDSHAKE_TIMEOUT_MS
    socket.tcp_keepalive = 1
    socket.tcp_keepalive_idle = 30
    socket.tcp_keepalive_intvl = 10
    socket.tcp_keepalive_cnt = 3
    socket.tcp_maxrt = 60_000
    # Set only if needed: with ipv6=1, binding to "*" means binding to [::], which fails on hosts without IPv6.
    socket.ipv6 = ipv6
    if credentials is not None:
        socket.curve_publickey = credentials.own.public
        socket.curve_secretkey = credentials.own.secret
        socket.curve_serverkey = credentials.server


def limit_frames(socket: zmq.Socket[bytes], size: int) -> None:
    """Makes ZeroMQ disconnect peers that send a frame of more than ``size`` bytes. Call this after the keys are set and
    before the socket binds or connects.
    """
    # ZeroMQ compares the limit with the encrypted frame.
    socket.maxmsgsize = size + (CURVE_OVERHEAD if socket.mechanism == zmq.CURVE else 0)


def exchange_packets(socket: zmq.Socket[bytes]) -> None:
    """Makes the kernels exchange a packet each second while no data is in flight. ``Monitor.silent_seconds`` then tells
    early that the peer's machine is unreachable. Call this before the socket connects.
    """
    socket.tcp_keepalive_idle = socket.tcp_keepalive_intvl = KEEPALIVE_S


def bind(socket: zmq.Socket[bytes], url: str) -> None:
    """Binds ``socket`` to ``url``. If that fails, closes the socket and raises ``zmq.ZMQError``."""
    try:
        socket.bind(url)
    except zmq.ZMQError:
        socket.close(0)
        raise


def receive(socket: zmq.Socket[bytes]) -> Frames | None:
    """Returns the frames of the next message, or None if no message is waiting.

    A message of more than ``MAX_FRAMES`` frames is read to its end but returned as an empty list, so that a message of
    a hundred thousand frames does not fill the memory with frame objects.
    """
    try:
        frame = socket.recv(zmq.NOBLOCK, copy=False)
    except zmq.Again:
        return None
    frames = [frame]
    while frame.more:
        frame = socket.recv(zmq.NOBLOCK, copy=False)
        if len(frames) <= MAX_FRAMES:
            frames.append(frame)
    return frames if len(frames) <= MAX_FRAMES else []


def raise_descriptor_limit() -> None:
    """Raises the soft limit on open file descriptors to the hard limit.

    Each connection takes a descriptor. The usual limit of 1024 exists for ``select``, which this project does not use.
    If the limit cannot be raised, it stays unchanged.
    """
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
