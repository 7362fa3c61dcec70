"""An operator's side of the control socket: one request, one reply, within a deadline.

Finds the control socket through server 5's snapshot, so that one port is all it has to know.
"""

from __future__ import annotations

import math
import secrets
import time
from types import TracebackType
from typing import TypeVar

import zmq

from wire.codec import STATUS_TOPIC, decode, encode
from wire.config import Servers
from wire.endpoints import Endpoint
from wire.errors import NoAnswerError, ProtocolError, UsageError
from wire.messages import (
    AskStatus,
    ControlReply,
    Message,
    Quit,
    Rejected,
    Report,
    Status,
    Toggle,
    Toggled,
)
from wire.sockets import receive, tune
from wire.states import Wanted

#: Seconds after which nobody is taken to answer any more.
PATIENCE = 5.0

R = TypeVar("R", bound=Message)


class Operator:
    """Gives orders to the broker of ``servers``. A context manager; raises ``MsdError``."""

    def __init__(self, servers: Servers, patience: float = PATIENCE) -> None:
        self._status = servers.status
        self._give_up = time.monotonic() + patience
        self._context = zmq.Context()
        try:
            self._snapshots = self._socket(zmq.SUB, self._status)
            control = Endpoint.parse(self._snapshot().control)
            self._control = self._socket(zmq.DEALER, Endpoint(self._status.host, control.port))
        except BaseException:
            self._context.destroy(0)
            raise

    def __enter__(self) -> Operator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.destroy(0)

    def status(self) -> Status:
        return self._ask(AskStatus(rid=_rid()), Report).status

    def toggle(self, number: int, want: Wanted | None) -> Toggled:
        """Toggles a worker, or sets what is wanted of it; returns when it is there, or 3 s later."""
        return self._ask(Toggle(rid=_rid(), number=number, want=want), Toggled)

    def quit(self) -> None:
        self._ask(Quit(rid=_rid()), Message)

    def next_snapshot(self) -> Status:
        """What server 5 publishes next, at the latest after its interval."""
        self._give_up = float("inf")
        return self._snapshot()

    def _snapshot(self) -> Status:
        while True:
            frames = self._next(self._snapshots)
            try:
                if len(frames) == 1:
                    status: Status = decode(frames[0].bytes.removeprefix(STATUS_TOPIC), Status)
                    return status
            except ProtocolError:
                continue

    def _socket(self, kind: int, endpoint: Endpoint) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        tune(socket, ipv6=endpoint.is_ipv6)
        socket.linger = 0
        if kind == zmq.SUB:
            socket.subscribe(STATUS_TOPIC)
        socket.connect(endpoint.url)
        return socket

    def _ask(self, request: Message, kind: type[R]) -> R:
        self._control.send(encode(request))
        while True:
            frames = self._next(self._control)
            try:
                reply: Message = decode(frames[0].buffer, ControlReply) if len(frames) == 1 else request
            except ProtocolError:
                continue
            if getattr(reply, "rid", None) != getattr(request, "rid", None):
                continue
            if isinstance(reply, Rejected):
                raise UsageError(reply.message)
            if isinstance(reply, kind) and reply is not request:
                return reply

    def _next(self, socket: zmq.Socket[bytes]) -> list[zmq.Frame]:
        left = self._give_up - time.monotonic()
        if left <= 0 or not socket.poll(None if math.isinf(left) else int(left * 1000)):
            raise NoAnswerError(f"server 5 at {self._status} does not answer: is msd serve running there?")
        return receive(socket) or []


def _rid() -> int:
    return secrets.randbits(62)
