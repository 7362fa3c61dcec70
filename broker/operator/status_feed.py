"""What keeps an operator's console up to date: follows server 5 and sends toggles, in a thread of its own.

Asks for the status every second, besides what server 5 publishes: rates and totals move faster than
its interval, and one that is frozen is found out. Shows nothing; what it hears is fetched with ``heard()``.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections import deque
from typing import Protocol

import zmq
from msgspec import Struct

from msd.broker.operator.operator_client import OperatorClient, answered, published
from msd.wire.config.settings import Servers
from msd.wire.errors import MsdError, NotAllowedError
from msd.wire.net.monitor import Handshake
from msd.wire.net.sockets import receive
from msd.wire.protocol.codec import encode
from msd.wire.protocol.messages import Accepted, Message, Rejected, Status, StatusReport, StatusRequest, Toggle, Toggled

#: Seconds between two questions for the status.
ASK = 1.0
#: Seconds without a word from server 5 after which it is taken to be lost.
SILENCE = 3.0
#: Seconds for one attempt to find it again.
RETRY = 1.0
#: Seconds between two of them, for a refusal comes at once.
REST = 0.3
#: Seconds that closing waits for an attempt that is under way.
CLOSE = 0.2
#: Things heard that nobody has fetched yet; the oldest are dropped.
MOST = 1000


class Lost(Struct, frozen=True):
    """Server 5 does not answer; ``refused``: it does not let this operator in."""

    why: str
    refused: bool = False


class Note(Struct, frozen=True):
    """What became of an order, where that was not what it should."""

    text: str


Heard = Status | StatusReport | Lost | Note


class Source(Protocol):
    """Where a console has its knowledge from."""

    def heard(self) -> list[Heard]:
        """What has come since the last call."""

    def toggle(self, number: int) -> None:
        """Orders it; does not wait. What becomes of it is heard."""

    def close(self) -> None: ...


class StatusFeed:
    """A ``Source``: server 5 of ``servers``. Never raises; tries again for as long as it is open."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._heard: deque[Heard] = deque(maxlen=MOST)
        self._orders: deque[int] = deque(maxlen=MOST)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self._thread.start()

    def heard(self) -> list[Heard]:
        # The thread only appends: what is there now stays there.
        return [self._heard.popleft() for _ in range(len(self._heard))]

    def toggle(self, number: int) -> None:
        self._orders.append(number)
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        self._is_closing = True
        os.eventfd_write(self._wake, 1)
        self._thread.join(CLOSE)
        if not self._thread.is_alive():
            os.close(self._wake)

    def _run(self) -> None:
        while not self._is_closing:
            try:
                with _Follower(self._servers, RETRY) as follower:
                    self._heard.append(follower.latest)
                    self._follow(follower)
            except MsdError as error:
                refused = isinstance(error, NotAllowedError)
                how = "refuses" if refused else "is lost"
                while self._orders:
                    self._heard.append(Note(f"worker {self._orders.popleft()} not toggled: server 5 {how}"))
                self._heard.append(Lost(str(error), refused))
                self._rest()

    def _follow(self, follower: _Follower) -> None:
        """Returns when the connection is lost, or when closing."""
        ask_at = heard_at = time.monotonic()
        while not self._is_closing:
            while self._orders:
                follower.toggle_later(self._orders.popleft())
            if (now := time.monotonic()) >= ask_at:
                follower.ask()
                ask_at = now + ASK
            heard = follower.hear(ask_at - now, self._wake)
            if heard is None:
                return
            self._awoken()
            self._heard.extend(heard)
            # If this process itself was stopped, that was not server 5's silence.
            if heard or time.monotonic() > ask_at + ASK:
                heard_at = time.monotonic()
            elif time.monotonic() > heard_at + SILENCE:
                return

    def _rest(self) -> None:
        """Before the next attempt."""
        poller = zmq.Poller()
        poller.register(self._wake, zmq.POLLIN)
        poller.poll(int(REST * 1000))
        if not self._is_closing:
            self._awoken()

    def _awoken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)


class _Follower(OperatorClient):
    """An operator who waits for nothing in particular."""

    def ask(self) -> None:
        self._send(StatusRequest(rid=secrets.randbits(62)))

    def toggle_later(self, number: int) -> None:
        self._send(Toggle(rid=secrets.randbits(62), number=number))

    def hear(self, seconds: float, wake: int) -> list[Heard] | None:
        """What comes within so many seconds, as soon as something does or ``wake`` is readable; None if
        the connection is lost.
        """
        poller = zmq.Poller()
        for source in (self._snapshots, self._control, *(monitor.socket for monitor in self._monitors), wake):
            poller.register(source, zmq.POLLIN)
        poller.poll(max(0, int(seconds * 1000) + 1))
        heard: list[Heard] = []
        while (frames := receive(self._snapshots)) is not None:
            if status := published(frames):
                heard.append(status)
        while (frames := receive(self._control)) is not None:
            if told := _told(answered(frames)):
                heard.append(told)
        for monitor in self._monitors:
            if any(event is Handshake.DOWN for event in monitor.read()):
                return None
        return heard

    def _send(self, request: Message) -> None:
        # A server that takes nothing any more is found out by its silence.
        with contextlib.suppress(zmq.Again):
            self._control.send(encode(request), zmq.NOBLOCK)


def _told(reply: Accepted | Toggled | StatusReport | Rejected | None) -> Heard | None:
    match reply:
        case StatusReport():
            return reply
        case Toggled(number=number, state=state, reached=False):
            return Note(f"worker {number} did not get there within 3 s: it is {state}")
        case Rejected(message=message):
            return Note(f"not done: {message}")
        case _:
            return None
