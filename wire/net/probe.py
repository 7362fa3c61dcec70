"""Probes addresses with plain TCP: does something listen there, does it speak ZeroMQ, and does it use keys?

Tells apart what ZeroMQ hides: it retries a refused, a dropped and a failed connection alike, and takes the first bytes
of any other protocol for those of an old version of its own. If only one side uses keys, the side that reads this first
closes the connection, so ZeroMQ may not read it on this side. Decides nothing: ``wire/net/contacts.py`` starts the
probes and interprets their results.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterator
from typing import TYPE_CHECKING

from msgspec import Struct

from msd.wire.net.contacts import Probed
from msd.wire.net.diagnosis import Outcome
from msd.wire.net.endpoints import Endpoint

if TYPE_CHECKING:
    import socket

#: The first bytes of every ZeroMQ connection (ZMTP 3: signature). The eight bytes between the first and the last are
#: not significant; the line breaks make an HTTP server answer.
SIGNATURE = b"\xff\r\n\r\n\0\0\0\x01\x7f"
#: The version that follows: a peer then sends the rest of its greeting. The length of a greeting, and where it has the
#: name of the peer's security mechanism.
VERSION, GREETING_SIZE, MECHANISM = b"\x03\x01", 64, slice(12, 32)
#: Characters of another protocol's first line that are quoted.
MAX_QUOTED = 40
#: Errors of an attempt to connect that have an outcome of their own.
_OUTCOMES = {errno.ECONNREFUSED: Outcome.REFUSED, errno.ETIMEDOUT: Outcome.NO_ANSWER, errno.ECONNRESET: Outcome.CLOSED}


class _Attempt(Struct):
    """A connection to ``endpoint`` that is not concluded yet."""

    endpoint: Endpoint
    socket: socket.socket
    connected: bool = False
    received: bytes = b""


class Prober:
    """Probes endpoints. Poll ``fd`` for reading and then call ``read``. Call ``close()`` when done."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.fd = self._epoll.fileno()
        self._attempts: dict[int, _Attempt] = {}

    def start(self, endpoint: Endpoint) -> Iterator[Probed]:
        """Connects to an endpoint; yields the result if the attempt fails at once."""
        import socket  # Slow to import, and not needed if all servers answer.

        family = socket.AF_INET6 if endpoint.is_ipv6 else socket.AF_INET
        try:
            connecting = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            yield _failed(endpoint, error.errno)
            return
        # ``Endpoint.resolve`` has made the host numeric, so this does not ask a name server.
        try:
            code = connecting.connect_ex((endpoint.host, endpoint.port))
        except OSError:  # The scope of a link-local address is no interface of this machine.
            code = errno.EADDRNOTAVAIL
        if code not in (0, errno.EINPROGRESS):
            connecting.close()
            yield _failed(endpoint, code)
            return
        self._attempts[connecting.fileno()] = _Attempt(endpoint, connecting)
        self._epoll.register(connecting, select.EPOLLOUT | select.EPOLLIN)

    def read(self) -> list[Probed]:
        """Continues the probes; returns the results since the last call."""
        results = []
        for fd, _ in self._epoll.poll(0):
            attempt = self._attempts[fd]
            if (result := self._advance(attempt)) is not None:
                self._end(attempt)
                results.append(result)
        return results

    def stop(self) -> list[Probed]:
        """Ends all probes and returns the results of those that were not concluded."""
        attempts = list(self._attempts.values())
        for attempt in attempts:
            self._end(attempt)
        return [_unfinished(attempt) for attempt in attempts]

    def close(self) -> None:
        self.stop()
        self._epoll.close()

    def _advance(self, attempt: _Attempt) -> Probed | None:
        import socket

        try:
            if not attempt.connected:
                if code := attempt.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    return _failed(attempt.endpoint, code)
                attempt.connected = True
                self._epoll.modify(attempt.socket, select.EPOLLIN)
                attempt.socket.send(SIGNATURE + VERSION)
            data = attempt.socket.recv(256)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        attempt.received += data
        return interpret(attempt.endpoint, attempt.received, is_closed=not data)

    def _end(self, attempt: _Attempt) -> None:
        del self._attempts[attempt.socket.fileno()]
        self._epoll.unregister(attempt.socket)
        attempt.socket.close()


def interpret(endpoint: Endpoint, received: bytes, *, is_closed: bool) -> Probed | None:
    """Returns what the first bytes from an endpoint mean; None if more are needed."""
    if received.startswith(SIGNATURE[:1]):
        if len(received) < len(SIGNATURE) and not is_closed:
            return None
        if received[len(SIGNATURE) - 1 : len(SIGNATURE)] == SIGNATURE[-1:]:
            if len(received) < GREETING_SIZE and not is_closed:
                return None
            mechanism = received[MECHANISM].rstrip(b"\0").decode("ascii", "ignore")
            return Probed(endpoint, Outcome.NO_REPLY, mechanism=mechanism)
    elif not received:
        return Probed(endpoint, Outcome.CLOSED) if is_closed else None
    line = received.decode("ascii", "ignore").splitlines()[:1]
    return Probed(endpoint, Outcome.NOT_MSD, "".join(filter(str.isprintable, "".join(line)))[:MAX_QUOTED].strip())


def _unfinished(attempt: _Attempt) -> Probed:
    """Returns the result of a probe that ends before all bytes have arrived that it waits for."""
    if not attempt.connected:
        return Probed(attempt.endpoint, Outcome.NO_ANSWER)
    received = attempt.received
    result = interpret(attempt.endpoint, received, is_closed=True) if received else None
    return result or Probed(attempt.endpoint, Outcome.SILENT)


def _failed(endpoint: Endpoint, code: int | None) -> Probed:
    outcome = _OUTCOMES.get(code or 0, Outcome.UNREACHABLE)
    return Probed(endpoint, outcome, os.strerror(code or 0).lower() if outcome is Outcome.UNREACHABLE else "")
