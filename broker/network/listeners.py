"""Opens the broker's sockets: status and control for admitted peers, local control for its own workers.

Closes and reopens sockets when a key loses rights or when ZeroMQ stores too many subscriptions: ZeroMQ offers no other
way to close the connections concerned. All other peers reconnect.

Does not handle the requests: see ``broker/server.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import zmq

from msd.broker.network.control_socket import ControlSocket, Route
from msd.broker.network.ports import listen_error
from msd.broker.network.publisher import Publisher
from msd.wire.config.settings import Config
from msd.wire.net.poll_loop import PollLoop
from msd.wire.protocol.messages import ControlRequest, Status
from msd.wire.security.keys import Role
from msd.wire.security.zap import ZapHandler

#: Seconds between two checks of the admitted keys.
KEY_CHECK_INTERVAL_S = 0.5
#: Seconds for which binding a port is retried after the previous socket on that port was closed.
REOPEN_TIMEOUT_S = 2.0


class Listeners:
    """All sockets of a broker, polled by ``poll_loop``. ``on_requests`` is called when requests may be waiting. Call
    ``close()`` when done.

    Raises ``MsdError`` if a socket cannot be opened.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        config: Config,
        poll_loop: PollLoop,
        on_requests: Callable[[], None],
    ) -> None:
        self._context = context
        self._config = config
        self._poll_loop = poll_loop
        self._on_requests = on_requests
        self._local_control: ControlSocket | None = None
        #: Malformed messages received by control sockets that have since been closed.
        self._earlier_malformed = 0
        self._next_key_check = 0.0
        self._open_sockets: list[Publisher | ControlSocket] = []
        #: The servers' key pair; None if the servers do not use keys.
        self.keys = config.load_server_keys()
        self._zap = ZapHandler(context, self.keys, config.key_folder.path if self.keys else None)
        poll_loop.register(self._zap.socket, self._zap.handle)
        try:
            self._open()
        except BaseException:
            self._close_sockets()
            self._zap.close()
            raise

    @property
    def malformed_messages(self) -> int:
        local = self._local_control.malformed_messages if self._local_control else 0
        return self._earlier_malformed + self._control.malformed_messages + local

    @property
    def rejected_connections(self) -> int:
        return self._zap.rejected_connections

    def open_local_control(self, folder: Path) -> str:
        """Opens the workers' control socket in ``folder``, which must be private to this user. Returns its endpoint."""
        endpoint = f"ipc://{folder / 'control'}"
        self._local_control = ControlSocket(self._context, endpoint)
        self._poll_loop.register(self._local_control.socket, self._on_requests)
        return endpoint

    def requests(self) -> Iterator[tuple[Route, Role, ControlRequest]]:
        """The requests received on all control sockets, each with its sender's address and role."""
        yield from self._control.requests()
        if self._local_control is not None:
            yield from self._local_control.requests()

    def publish(self, status: Status) -> None:
        self._publisher.publish(status)

    def reopen_if_needed(self, now: float) -> bool:
        """Reopens sockets if there are too many subscriptions or a key was revoked; True if any was reopened."""
        if self._publisher.has_too_many_topics:
            self._close_socket(self._publisher)
            self._open_publisher(REOPEN_TIMEOUT_S)
            return True
        if now < self._next_key_check:
            return False
        self._next_key_check = now + KEY_CHECK_INTERVAL_S
        if not self._zap.reload():
            return False
        self._earlier_malformed += self._control.malformed_messages
        self._close_sockets()
        self._open(REOPEN_TIMEOUT_S)
        return True

    def close(self) -> None:
        self._close_sockets()
        if self._local_control is not None:
            self._local_control.close()
        self._zap.close()

    def _open(self, retry_timeout: float = 0.0) -> None:
        self._open_publisher(retry_timeout)
        config = self._config
        try:
            self._control = ControlSocket(
                self._context, config.control, protect=self._zap.protect, retry_timeout=retry_timeout
            )
        except zmq.ZMQError as error:
            raise listen_error(config.control, "control", error.errno or 0) from None
        self._on_opened(self._control, self._on_requests)

    def _open_publisher(self, retry_timeout: float) -> None:
        status = self._config.status
        try:
            self._publisher = Publisher(self._context, status, protect=self._zap.protect, retry_timeout=retry_timeout)
        except zmq.ZMQError as error:
            raise listen_error(status, "server 5", error.errno or 0) from None
        self._on_opened(self._publisher, self._publisher.drain)

    def _on_opened(self, opened: Publisher | ControlSocket, on_readable: Callable[[], None]) -> None:
        self._poll_loop.register(opened.socket, on_readable)
        self._open_sockets.append(opened)

    def _close_sockets(self) -> None:
        while self._open_sockets:
            self._close_socket(self._open_sockets[-1])

    def _close_socket(self, closing: Publisher | ControlSocket) -> None:
        self._open_sockets.remove(closing)
        self._poll_loop.unregister(closing.socket)
        closing.close()
