"""Keeps an operator's console up to date: a thread that receives server 5's status and sends toggles.

Besides receiving the published snapshots it requests the status every second, because rates and totals change faster
than the status interval, and because missing replies reveal a frozen broker. Does not display anything: the console
fetches the received events with ``poll()``.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from typing import Protocol

import zmq
from msgspec import Struct

from msd.broker.operator.operator_client import OperatorClient, parse_reply, parse_snapshot
from msd.wire.config.servers import Servers
from msd.wire.errors import MsdError, NotAllowedError
from msd.wire.net.monitor import ConnectionEvent
from msd.wire.net.sockets import receive
from msd.wire.protocol.codec import encode
from msd.wire.protocol.messages import Accepted, Message, Rejected, Status, StatusReport, StatusRequest, Toggle, Toggled
from msd.wire.protocol.request_ids import new_rid

#: Seconds between two status requests.
REQUEST_INTERVAL_S = 1.0
#: Seconds without any message from server 5 after which the connection counts as lost.
SILENCE_TIMEOUT_S = 3.0
#: Seconds that one attempt to connect may take.
CONNECT_TIMEOUT_S = 1.0
#: Seconds between two attempts; a refused attempt fails at once and would otherwise be repeated in a busy loop.
RETRY_DELAY_S = 0.3
#: Seconds that ``close()`` waits for a connection attempt in progress.
CLOSE_TIMEOUT_S = 0.2
#: Maximum number of events that wait to be fetched, and of toggles that wait to be sent; the oldest are dropped.
MAX_QUEUED = 1000


class Server5Lost(Struct, frozen=True):
    """Server 5 does not answer, or refuses this operator's connection (``refused``)."""

    reason: str
    refused: bool = False


class OrderFailed(Struct, frozen=True):
    """An order failed; ``text`` names the order and the cause."""

    text: str


FeedEvent = Status | StatusReport | Server5Lost | OrderFailed


class Feed(Protocol):
    """The interface between a console and server 5."""

    def poll(self) -> list[FeedEvent]:
        """Returns the events received since the last call."""

    def toggle(self, number: int) -> None:
        """Toggles a worker without waiting for the reply; a failure becomes an ``OrderFailed`` event."""

    def close(self) -> None: ...


class StatusFeed:
    """A ``Feed`` connected to server 5 of ``servers``. Never raises; reconnects until it is closed."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._events: deque[FeedEvent] = deque(maxlen=MAX_QUEUED)
        #: Numbers of the workers to toggle.
        self._toggles: deque[int] = deque(maxlen=MAX_QUEUED)
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self._thread.start()

    def poll(self) -> list[FeedEvent]:
        # The thread only appends, so at least this many events are in the queue.
        return [self._events.popleft() for _ in range(len(self._events))]

    def toggle(self, number: int) -> None:
        self._toggles.append(number)
        os.eventfd_write(self._wakeup, 1)

    def close(self) -> None:
        self._is_closing = True
        os.eventfd_write(self._wakeup, 1)
        self._thread.join(CLOSE_TIMEOUT_S)
        if not self._thread.is_alive():
            os.close(self._wakeup)

    def _run(self) -> None:
        while not self._is_closing:
            try:
                with _FeedConnection(self._servers, CONNECT_TIMEOUT_S) as connection:
                    self._events.append(connection.latest)
                    self._follow(connection)
            except MsdError as error:
                refused = isinstance(error, NotAllowedError)
                cause = "refuses this operator" if refused else "does not answer"
                while self._toggles:
                    self._events.append(OrderFailed(f"worker {self._toggles.popleft()} not toggled: server 5 {cause}"))
                self._events.append(Server5Lost(str(error), refused))
                self._wait_before_retry()

    def _follow(self, connection: _FeedConnection) -> None:
        """Receives and sends until the connection is lost or the feed is closed."""
        next_request_at = last_message_at = time.monotonic()
        while not self._is_closing:
            while self._toggles:
                connection.send_toggle(self._toggles.popleft())
            if (now := time.monotonic()) >= next_request_at:
                connection.request_status()
                next_request_at = now + REQUEST_INTERVAL_S
            events = connection.receive_events(next_request_at - now, self._wakeup)
            if events is None:
                return
            self._clear_wakeup()
            self._events.extend(events)
            # If this process was suspended, the elapsed time says nothing about server 5.
            was_suspended = time.monotonic() > next_request_at + REQUEST_INTERVAL_S
            if events or was_suspended:
                last_message_at = time.monotonic()
            elif time.monotonic() > last_message_at + SILENCE_TIMEOUT_S:
                return

    def _wait_before_retry(self) -> None:
        poller = zmq.Poller()
        poller.register(self._wakeup, zmq.POLLIN)
        poller.poll(int(RETRY_DELAY_S * 1000))
        if not self._is_closing:
            self._clear_wakeup()

    def _clear_wakeup(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wakeup)


class _FeedConnection(OperatorClient):
    """An operator client that sends requests without waiting for their replies."""

    def request_status(self) -> None:
        self._send(StatusRequest(rid=new_rid()))

    def send_toggle(self, number: int) -> None:
        self._send(Toggle(rid=new_rid(), number=number))

    def receive_events(self, timeout: float, wakeup: int) -> list[FeedEvent] | None:
        """Waits at most ``timeout`` seconds until messages arrive or the descriptor ``wakeup`` is readable. Returns the
        events of the messages, None if the connection is lost.
        """
        poller = zmq.Poller()
        for source in (self._status_socket, self._control_socket, *(m.socket for m in self._monitors), wakeup):
            poller.register(source, zmq.POLLIN)
        poller.poll(max(0, int(timeout * 1000) + 1))
        events: list[FeedEvent] = []
        while (frames := receive(self._status_socket)) is not None:
            if status := parse_snapshot(frames):
                events.append(status)
        while (frames := receive(self._control_socket)) is not None:
            if event := _to_event(parse_reply(frames)):
                events.append(event)
        for monitor in self._monitors:
            if any(event is ConnectionEvent.CLOSED for event in monitor.read()):
                return None
        return events

    def _send(self, request: Message) -> None:
        # If the socket accepts no more messages, the silence timeout ends the connection.
        with contextlib.suppress(zmq.Again):
            self._control_socket.send(encode(request), zmq.NOBLOCK)


def _to_event(reply: Accepted | Toggled | StatusReport | Rejected | None) -> FeedEvent | None:
    match reply:
        case StatusReport():
            return reply
        case Toggled(number=number, state=state, reached=False):
            return OrderFailed(f"worker {number} did not change state within 3 s: it is {state}")
        case Rejected(message=message):
            return OrderFailed(f"order rejected: {message}")
        case _:
            return None
