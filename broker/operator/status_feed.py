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
from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from msd.broker.operator.operator_client import OperatorClient, Reply
from msd.broker.status.worker_names import worker_label
from msd.wire.config.servers import Servers
from msd.wire.errors import MsdError, NotAllowedError
from msd.wire.net.poll_loop import PollLoop
from msd.wire.protocol.messages import Rejected, Status, StatusReport, StatusRequest, Toggle, Toggled, new_rid
from msd.wire.protocol.states import WantedState, WorkerState

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
#: Maximum number of events waiting to be fetched, and of toggles waiting to be sent; the oldest are dropped.
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
        #: What texts call each worker, by number.
        self._labels: dict[int, str] = {}
        #: The number, the state and the wanted state of each worker in the last snapshot.
        self._states: list[tuple[int, WorkerState, WantedState]] = []
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
                with OperatorClient(self._servers, CONNECT_TIMEOUT_S) as operator:
                    self._events += filter(None, [self._to_event(operator.latest)])
                    self._follow(operator)
            except MsdError as error:
                refused = isinstance(error, NotAllowedError)
                cause = "refuses this operator" if refused else "does not answer"
                while self._toggles:
                    label = self._label(self._toggles.popleft())
                    self._events.append(OrderFailed(f"worker {label} not toggled: server 5 {cause}"))
                self._events.append(Server5Lost(str(error), refused))
                self._wait_before_retry()

    def _follow(self, operator: OperatorClient) -> None:
        """Receives and sends until the connection is lost or the feed is closed."""
        next_request_at = last_message_at = time.monotonic()
        operator.loop.register(self._wakeup, self._clear_wakeup)
        while not self._is_closing:
            while self._toggles:
                operator.send(Toggle(rid=new_rid(), number=self._toggles.popleft()))
            if (now := time.monotonic()) >= next_request_at:
                operator.send(StatusRequest(rid=new_rid()))
                next_request_at = now + REQUEST_INTERVAL_S
            # If this process was suspended, the elapsed time says nothing about server 5.
            last_message_at += operator.loop.wait([next_request_at]) + operator.loop.dispatch()
            messages = operator.take_messages()
            if self._has_change(messages):
                # Request the events that say why.
                next_request_at = 0.0
            self._events += filter(None, map(self._to_event, messages))
            if messages:
                last_message_at = time.monotonic()
            if operator.is_lost or time.monotonic() > last_message_at + SILENCE_TIMEOUT_S:
                return

    def _has_change(self, messages: Sequence[Status | Reply]) -> bool:
        """True if a worker has another state, or its wanted state has changed, in one of ``messages``. Most snapshots
        are published only because it is time.
        """
        before = self._states
        for message in messages:
            if isinstance(message, Status):
                self._states = [(worker.number, worker.state, worker.wanted) for worker in message.workers]
        return self._states != before

    def _wait_before_retry(self) -> None:
        loop = PollLoop()
        loop.register(self._wakeup, self._clear_wakeup)
        loop.wait([time.monotonic() + RETRY_DELAY_S])
        loop.dispatch()

    def _clear_wakeup(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wakeup)

    def _to_event(self, message: Status | Reply) -> FeedEvent | None:
        match message:
            case Status(workers=workers) | StatusReport(status=Status(workers=workers)):
                self._labels = {worker.number: worker_label(worker.number, worker.name) for worker in workers}
                return message
            case Toggled(number=number, state=WorkerState.LOST, reached=False):
                return OrderFailed(f"worker {self._label(number)} is lost, and gets the order when it returns")
            case Toggled(number=number, state=state, reached=False):
                return OrderFailed(f"worker {self._label(number)} did not change state within 3 s: it is {state}")
            case Rejected(message=text):
                return OrderFailed(f"order rejected: {text}")
            case _:
                return None

    def _label(self, number: int) -> str:
        return self._labels.get(number, str(number))
