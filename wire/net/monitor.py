"""Reads the monitor of a connecting socket: connection opened, closed or refused.

Only parses monitor events; the caller decides how to react to them.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from enum import Enum, auto

import zmq

from msd.wire.net.endpoints import Endpoint
from msd.wire.net.sockets import receive
from msd.wire.protocol.states import OTHER_ROLE, ConnectionRefusal


class ConnectionEvent(Enum):
    """A change in the state of a socket's connection."""

    OPENED = auto()  #: the handshake succeeded
    CLOSED = auto()  #: the connection was closed, or an attempt to connect failed


#: The peer uses another security mechanism (zmq.h: ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH).
_MECHANISM_MISMATCH = 0x11000002
_HANDSHAKE_FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
_MONITORED_EVENTS = (
    _HANDSHAKE_FAILED | zmq.EVENT_CONNECTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_CLOSED
)
#: A server that rejects a handshake closes the connection within this many seconds. If the connection closes later,
#: the handshake may have timed out because the server is frozen, which is not a refusal.
REFUSAL_TIMEOUT_S = 1.0


#: While some addresses of a host fail and none succeeds, the failure is reported after this many seconds.
FAILURE_DELAY_S = 1.0


class Monitor:
    """Monitors the connection of a socket; create it before the socket connects. ``encrypted`` is True if the socket
    uses CURVE.

    Poll ``socket`` and always read it: an unread monitor blocks ZeroMQ's I/O thread. Call ``close()`` before closing
    the monitored socket.
    """

    def __init__(self, monitored: zmq.Socket[bytes], *, encrypted: bool) -> None:
        self._monitored = monitored
        #: The addresses of a host that are being tried, by the URL in the monitor's events.
        self._attempts: dict[str, Endpoint] = {}
        #: The descriptor of the last connection to each of several addresses.
        self._descriptors: dict[str, int] = {}
        #: The refusal of each of several addresses that has failed, and when the first one has.
        self._failures: dict[str, ConnectionRefusal | None] = {}
        self._failed_at = 0.0
        self._encrypted = encrypted
        self._connected_at = 0.0
        self.socket = monitored.get_monitor_socket(_MONITORED_EVENTS)
        self.is_connected = False
        #: The descriptor of the last connection; it may be closed.
        self.descriptor = -1

    def connect(self, endpoint: Endpoint) -> None:
        """Connects the socket. If the host has several addresses, connects to all and keeps the connection that opens
        first.
        """
        #: The endpoint with the address that was kept; with all addresses until then.
        self.endpoint = endpoint
        self._attempts = {address.url: address for address in endpoint.addresses}
        for address in endpoint.addresses:
            self._monitored.ipv6 = address.is_ipv6
            self._monitored.connect(address.url)

    def read(self) -> Iterator[ConnectionEvent | ConnectionRefusal]:
        """Yields the events since the last call, oldest first. ``CLOSED`` follows every refusal.

        If ZeroMQ uses several I/O threads, EVENT_CONNECTED may arrive late. A refusal for which ZeroMQ gives no reason
        is then missed, but it is reported at the next attempt to connect.
        """
        while (frames := receive(self.socket)) is not None:
            event, value = struct.unpack("=HI", frames[0].bytes)
            url = frames[1].bytes.decode()
            if len(self._attempts) > 1:
                yield from self._read_attempt(event, value, url)
                continue
            if self._attempts and url not in self._attempts:
                continue  # Of an address that was not kept.
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.is_connected = True
                yield ConnectionEvent.OPENED
            elif event == zmq.EVENT_CONNECTED:
                self._connected_at = time.monotonic()
                self.descriptor = value
            elif event & _HANDSHAKE_FAILED:
                if refusal := self._refusal(event, value):
                    yield refusal
                yield ConnectionEvent.CLOSED
            elif event == zmq.EVENT_DISCONNECTED or self.is_connected:
                # While there is no connection, EVENT_CLOSED only means that another attempt to connect to a closed port
                # failed.
                self.is_connected = False
                yield ConnectionEvent.CLOSED

    def _read_attempt(self, event: int, value: int, url: str) -> Iterator[ConnectionEvent | ConnectionRefusal]:
        """Handles an event of one of several addresses. If all have failed, or some long ago, the attempt has failed:
        ZeroMQ does not retry every kind of failure itself.
        """
        now = time.monotonic()
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            for other in self._attempts.keys() - {url}:
                self._monitored.disconnect(other)
            self.endpoint = self._attempts[url]
            self._attempts = {url: self.endpoint}
            self.descriptor = self._descriptors.get(url, -1)
            self.is_connected = True
            yield ConnectionEvent.OPENED
            return
        if event == zmq.EVENT_CONNECTED:
            self._connected_at = now
            self._descriptors[url] = value
        elif event & _HANDSHAKE_FAILED:
            self._failed_at = self._failed_at or now
            self._failures[url] = self._refusal(event, value)
        if self._failures and (len(self._failures) == len(self._attempts) or now >= self._failed_at + FAILURE_DELAY_S):
            refusals = [refusal for refusal in self._failures.values() if refusal is not None]
            self._failures.clear()
            self._failed_at = 0.0
            yield from refusals[:1]
            yield ConnectionEvent.CLOSED

    @property
    def silent_seconds(self) -> float:
        """How long no packet has arrived from the peer's machine; 0 without a connection. If this is much longer than
        ``KEEPALIVE_S``, the machine is unreachable on this connection; the state of the peer's process makes no
        difference.
        """
        from msd.wire.net.tcp_state import seconds_since_packet  # Not needed by a short download.

        return seconds_since_packet(self.descriptor) if self.is_connected else 0.0

    def close(self) -> None:
        """Stops monitoring."""
        self._monitored.disable_monitor()
        # Without this, terminating the context hangs.
        self.socket.close(0)

    def _refusal(self, event: int, value: int) -> ConnectionRefusal | None:
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            return ConnectionRefusal.ROLE if value == OTHER_ROLE else ConnectionRefusal.KEY
        if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL and value == _MECHANISM_MISMATCH:
            return ConnectionRefusal.MECHANISM
        is_prompt = time.monotonic() < self._connected_at + REFUSAL_TIMEOUT_S
        return ConnectionRefusal.HANDSHAKE if self._encrypted and is_prompt else None
