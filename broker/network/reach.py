"""Connects to workers that the broker did not start, and to receivers, as a client would, to see that clients can.

Checks that the right one answers: with keys, by its own key; in any case by its ``welcome``. Decides nothing: see
``broker/supervision/supervisor.py`` and ``broker/tracking/tracker.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import zmq

from msd.wire.errors import ProtocolError
from msd.wire.net.contacts import Probed
from msd.wire.net.diagnosis import Outcome
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.monitor import ConnectionEvent, Monitor
from msd.wire.net.poll_loop import PollLoop
from msd.wire.net.probe import Prober
from msd.wire.net.sockets import limit_frames, receive, tcp_socket
from msd.wire.protocol.codec import MAX_REQUEST_FRAME, decode, encode
from msd.wire.protocol.messages import PROTOCOL_VERSION, DataReply, Hello, Welcome, new_rid
from msd.wire.protocol.states import ConnectionRefusal
from msd.wire.security.keys import Credentials, KeyPair

#: Seconds that an attempt may take, unless the caller says otherwise.
TIMEOUT_S = 1.0

K = TypeVar("K", bound=Hashable)


class Reaching(Generic[K]):
    """The attempts that are in progress, by what the caller calls them. ``keys`` is the broker's pair, None without
    keys. ``on_result`` is called with that name, and why the worker was not reached; empty if it was. Call ``close()``.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        keys: KeyPair | None,
        poll_loop: PollLoop,
        on_result: Callable[[K, str], None],
    ) -> None:
        self._context = context
        self._keys = keys
        self._poll_loop = poll_loop
        self._on_result = on_result
        self._attempts: dict[K, _Attempt] = {}

    def start(
        self,
        name: K,
        endpoint: Endpoint,
        key: bytes,
        is_right: Callable[[Welcome], bool],
        timeout: float = TIMEOUT_S,
    ) -> None:
        """Tries to reach the worker whose own public key is ``key`` at ``endpoint``, for up to ``timeout`` seconds.
        ``is_right`` says whether a ``welcome`` is its own.
        """
        self._end(name)
        credentials = Credentials(self._keys, key) if self._keys is not None and key else None
        attempt = _Attempt(self._context, endpoint, credentials, is_right, timeout)
        self._attempts[name] = attempt
        for source, read in attempt.sources.items():
            self._poll_loop.register(source, lambda read=read: self._read(name, read))  # type: ignore[misc]

    def pass_time(self, now: float) -> None:
        """Ends the attempts that take too long."""
        for name, attempt in [*self._attempts.items()]:
            if now >= attempt.deadline:
                self._conclude(name, attempt.failure())

    def next_deadline(self, now: float) -> float | None:  # noqa: ARG002
        return min((attempt.deadline for attempt in self._attempts.values()), default=None)

    def close(self) -> None:
        for name in [*self._attempts]:
            self._end(name)

    def _read(self, name: K, read: Callable[[], str | None]) -> None:
        # An earlier source of the same attempt may have concluded it.
        if name in self._attempts and (reason := read()) is not None:
            self._conclude(name, reason)

    def _conclude(self, name: K, reason: str) -> None:
        self._end(name)
        self._on_result(name, reason)

    def _end(self, name: K) -> None:
        if (attempt := self._attempts.pop(name, None)) is not None:
            for source in attempt.sources:
                self._poll_loop.unregister(source)
            attempt.close()


class _Attempt:
    """One attempt. Each function in ``sources`` is to be called when its source is readable; it returns why the worker
    was not reached, empty if it was, None if that is not known yet.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: Endpoint,
        credentials: Credentials | None,
        is_right: Callable[[Welcome], bool],
        timeout: float,
    ) -> None:
        self._is_right = is_right
        self.deadline = time.monotonic() + timeout
        self._refusal: ConnectionRefusal | None = None
        self._socket = tcp_socket(context, zmq.DEALER, endpoint, credentials)
        limit_frames(self._socket, MAX_REQUEST_FRAME)
        self._monitor = Monitor(self._socket, encrypted=credentials is not None)
        self._prober = Prober()
        self.sources: dict[zmq.Socket[bytes] | int, Callable[[], str | None]] = {
            self._socket: self._read_reply,
            self._monitor.socket: self._read_monitor,
            self._prober.fd: self._read_probe,
        }
        self._probed: list[Probed] = [*self._prober.start(endpoint)]
        self._monitor.connect(endpoint)

    def failure(self) -> str:
        """Why the worker was not reached, now that the time is over."""
        probed = [*self._probed, *self._prober.stop()]
        return failure_text(self._refusal, probed[0].outcome if probed else Outcome.NO_REPLY)

    def close(self) -> None:
        self._prober.close()
        self._monitor.close()
        self._socket.close(0)

    def _read_reply(self) -> str | None:
        frames = receive(self._socket)
        if frames is None:
            return None
        try:
            reply = decode(frames[0].buffer, DataReply) if frames else None
        except ProtocolError:
            reply = None
        return "" if isinstance(reply, Welcome) and self._is_right(reply) else ANOTHER_ANSWERS

    def _read_monitor(self) -> str | None:
        for event in self._monitor.read():
            if event is ConnectionEvent.OPENED:
                self._socket.send(encode(Hello(rid=new_rid(), version=PROTOCOL_VERSION)), zmq.NOBLOCK)
            elif isinstance(event, ConnectionRefusal):
                self._refusal = event
                return failure_text(event, Outcome.NO_REPLY)
        return None

    def _read_probe(self) -> str | None:
        self._probed += self._prober.read()
        # Only what ZeroMQ does not report: it would try again until the end.
        failed = [probed for probed in self._probed if probed.outcome in (Outcome.REFUSED, Outcome.UNREACHABLE)]
        return failure_text(None, failed[0].outcome) if failed else None


ANOTHER_ANSWERS = "another worker or program answers there: check --advertise"


def failure_text(refusal: ConnectionRefusal | None, outcome: Outcome) -> str:
    """Returns why a worker was not reached: from the refusal of the handshake, if there was one, and what a probe of
    the address found. Quotes nothing that was received: a worker could otherwise explore other machines.
    """
    if refusal is ConnectionRefusal.KEY:
        return "it does not admit server 5: is its --server-key the one that msd serve prints?"
    if refusal is not None:
        return ANOTHER_ANSWERS
    match outcome:
        case Outcome.REFUSED:
            return "nothing listens there: check --advertise, and that the port is forwarded"
        case Outcome.UNREACHABLE:
            return "the network has no way there: check --advertise"
        case Outcome.NO_ANSWER:
            return "no answer within 1 s: check --advertise, and that no firewall drops the connection"
        case Outcome.NO_REPLY | Outcome.SILENT:
            return "no reply within 1 s"
        case _:
            return ANOTHER_ANSWERS
