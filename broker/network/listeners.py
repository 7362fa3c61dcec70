"""The broker's sockets: status and control for everyone who is admitted, control for its own workers.

Opens them behind a doorkeeper, and anew when a key may do less than before, or when ZeroMQ keeps too many
subscriptions: that is how connections end, and everybody else's come back by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import zmq

from msd.broker.network.control_socket import Control, Route
from msd.broker.network.ports import cannot_listen
from msd.broker.network.publisher import Publisher
from msd.wire.config.settings import Config
from msd.wire.protocol.messages import ControlRequest, Status
from msd.wire.security.keys import Role
from msd.wire.security.zap import ZapHandler

#: Seconds between two looks at the admitted keys.
LOOK = 0.5
#: Seconds for which a port that was just closed is tried again.
PATIENCE = 2.0

Listen = Callable[[zmq.Socket[bytes], Callable[[], None]], None]
Ignore = Callable[[zmq.Socket[bytes]], None]


class Listeners:
    """All sockets of a broker. ``listen`` is told which of them to watch, and what to call when one is
    readable; ``on_requests`` is called when there may be some. ``close()`` them.

    Raises ``MsdError`` where one cannot be opened.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        config: Config,
        *,
        listen: Listen,
        ignore: Ignore,
        on_requests: Callable[[], None],
    ) -> None:
        self._context = context
        self._config = config
        self._listen = listen
        self._ignore = ignore
        self._on_requests = on_requests
        self._local: Control | None = None
        self._malformed_before = 0
        self._look_at = 0.0
        self._open_ones: list[Publisher | Control] = []
        #: The servers' pair; None where no keys are taken.
        self.keys = config.server_keys()
        self._zap = ZapHandler(context, self.keys, config.key_folder.path if self.keys else None)
        listen(self._zap.socket, self._zap.handle)
        try:
            self._open()
        except BaseException:
            self._close()
            self._zap.close()
            raise

    @property
    def malformed_messages(self) -> int:
        """Messages that were none."""
        local = self._local.malformed_messages if self._local else 0
        return self._malformed_before + self._control.malformed_messages + local

    @property
    def rejected_connections(self) -> int:
        """Connections that were not let in."""
        return self._zap.rejected_connections

    def open_local(self, folder: Path) -> str:
        """Opens the control socket for the workers in a folder of this user's alone; its endpoint."""
        endpoint = f"ipc://{folder / 'control'}"
        self._local = Control(self._context, endpoint)
        self._listen(self._local.socket, self._on_requests)
        return endpoint

    def requests(self) -> Iterator[tuple[Route, Role, ControlRequest]]:
        """What has arrived."""
        yield from self._control.requests()
        if self._local is not None:
            yield from self._local.requests()

    def publish(self, status: Status) -> None:
        self._publisher.publish(status)

    def look(self, now: float) -> bool:
        """Looks for subscriptions too many, and at the admitted keys, if it is time; True if sockets are new ones."""
        if self._publisher.is_crowded:
            self._close_one(self._publisher)
            self._open_publisher(PATIENCE)
            return True
        if now < self._look_at:
            return False
        self._look_at = now + LOOK
        if not self._zap.reload():
            return False
        self._malformed_before += self._control.malformed_messages
        self._close()
        self._open(PATIENCE)
        return True

    def close(self) -> None:
        self._close()
        if self._local is not None:
            self._local.close()
        self._zap.close()

    def _open(self, patience: float = 0.0) -> None:
        self._open_publisher(patience)
        config = self._config
        try:
            self._control = Control(
                self._context,
                config.control.url,
                ipv6=config.control.is_ipv6,
                protect=self._zap.protect,
                patience=patience,
            )
        except zmq.ZMQError as error:
            raise cannot_listen(config.control, "control", error.errno or 0) from None
        self._opened(self._control, self._on_requests)

    def _open_publisher(self, patience: float) -> None:
        status = self._config.status
        try:
            self._publisher = Publisher(self._context, status, protect=self._zap.protect, patience=patience)
        except zmq.ZMQError as error:
            raise cannot_listen(status, "server 5", error.errno or 0) from None
        self._opened(self._publisher, self._publisher.drain)

    def _opened(self, door: Publisher | Control, on_readable: Callable[[], None]) -> None:
        self._listen(door.socket, on_readable)
        self._open_ones.append(door)

    def _close(self) -> None:
        while self._open_ones:
            self._close_one(self._open_ones[-1])

    def _close_one(self, door: Publisher | Control) -> None:
        self._open_ones.remove(door)
        self._ignore(door.socket)
        door.close()
