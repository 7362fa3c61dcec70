"""Opens the broker's sockets: status and control for admitted peers, local control for its own workers.

Closes the connections of revoked keys, and those of subscribers that misuse the status socket. All other connections
stay open.

Does not handle the requests: see ``broker/server.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import zmq

from msd.broker.network.control_socket import ControlSocket, Route, Sender
from msd.broker.network.publisher import Publisher
from msd.wire.config.settings import Config
from msd.wire.net.accepted_connections import Connection
from msd.wire.net.poll_loop import PollLoop
from msd.wire.net.ports import listen_error
from msd.wire.protocol.messages import Admitted, ControlRequest, Status
from msd.wire.security.admitted_list import admitted_message
from msd.wire.security.keys import KEY_ROLES
from msd.wire.security.zap import ZapHandler

#: Seconds between two checks of the admitted keys.
KEY_CHECK_INTERVAL_S = 0.5


class Listeners:
    """All sockets of a broker, polled by ``poll_loop``. ``on_requests`` is called when requests may be waiting,
    ``on_misuse`` with the name or address of each subscriber that was disconnected, ``on_admitted`` when other keys are
    admitted than before, ``on_revoked`` when keys were revoked. Call ``close()`` when done.

    Raises ``MsdError`` if a socket cannot be opened.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        config: Config,
        poll_loop: PollLoop,
        *,
        on_requests: Callable[[], None],
        on_misuse: Callable[[str], None],
        on_admitted: Callable[[], None],
        on_revoked: Callable[[], None],
    ) -> None:
        self._context = context
        self._poll_loop = poll_loop
        self._on_requests = on_requests
        self._on_misuse = on_misuse
        self._on_admitted = on_admitted
        self._on_revoked = on_revoked
        self._local_control: ControlSocket | None = None
        self._local_bindings = 1
        self._next_key_check = 0.0
        self._misuses = 0
        #: The servers' key pair; None if the servers do not use keys.
        self.keys = config.load_server_keys()
        with ExitStack() as opened:
            folder = config.key_folder.path if self.keys else None
            self._zap = ZapHandler(context, self.keys, folder, KEY_ROLES)
            opened.callback(self._zap.close)
            self._admitted = self._current_admitted()
            #: The last scope of a receiver, with what it must know.
            self._admitted_of_scope: dict[str, Admitted] = {}
            poll_loop.register(self._zap.socket, self._on_connecting)
            try:
                self._publisher = Publisher(context, config.status, self._zap, self._on_disconnected)
            except zmq.ZMQError as error:
                raise listen_error(config.status, "server 5", error.errno or 0) from None
            opened.callback(self._publisher.close)
            poll_loop.register(self._publisher.socket, self._publisher.drain)
            try:
                self._control = ControlSocket(context, config.control, self._zap)
            except zmq.ZMQError as error:
                raise listen_error(config.control, "control", error.errno or 0) from None
            opened.callback(self._control.close)
            poll_loop.register(self._control.socket, on_requests)
            self._opened = opened.pop_all()

    @property
    def malformed_messages(self) -> int:
        local = self._local_control.malformed_messages if self._local_control else 0
        return self._control.malformed_messages + local

    @property
    def rejected_connections(self) -> int:
        """Connections that were not admitted, and subscribers that were disconnected."""
        return self._zap.rejected_connections + self._misuses

    def open_local_control(self, folder: Path) -> str:
        """Opens the workers' control socket in ``folder``, which must be private to this user. Returns its endpoint."""
        self._local_path = folder / "control"
        self._local_control = ControlSocket(self._context, f"ipc://{self._local_path}")
        self._opened.callback(self._local_control.close)
        self._poll_loop.register(self._local_control.socket, self._on_requests)
        return f"ipc://{self._local_path}"

    def restore_local_control(self) -> str | None:
        """If another program has removed the file of the workers' control socket, binds the socket to another file, and
        returns its endpoint. Connected workers stay connected. Raises ``zmq.ZMQError``.
        """
        if self._local_control is None or self._local_path.exists():
            return None
        # Another name, not longer than the first one: ZeroMQ removes the file of an endpoint that it unbinds, and does
        # so later.
        self._local_bindings += 1
        path = self._local_path.with_name(f"c-{self._local_bindings}")
        self._local_control.socket.bind(f"ipc://{path}")
        self._local_path = path
        return f"ipc://{path}"

    def requests(self) -> Iterator[tuple[Route, Sender, ControlRequest]]:
        """The requests received on all control sockets, each with its sender."""
        yield from self._control.requests()
        if self._local_control is not None:
            yield from self._local_control.requests()

    def publish(self, status: Status) -> None:
        self._publisher.publish(status)

    def check_keys(self, now: float) -> None:
        """Reloads the admitted keys if it is time, and disconnects the peers whose keys are not admitted any more."""
        if now < self._next_key_check:
            return
        self._next_key_check = now + KEY_CHECK_INTERVAL_S
        self._reload_keys()

    def is_admitted(self, key: bytes) -> bool:
        """True if a peer with this key may connect."""
        return self._zap.role_of(key) is not None

    def admitted(self) -> Admitted:
        """Returns the admitted keys, for workers on other machines, as they were at the last check."""
        return self._admitted

    def admitted_for(self, key: bytes) -> Admitted:
        """Returns those of the admitted keys that the receiver with this key must know."""
        scope = self._zap.scope_of(key)
        if not scope:
            return self._admitted
        if scope not in self._admitted_of_scope:
            self._admitted_of_scope = {scope: self._current_admitted(scope)}
        return self._admitted_of_scope[scope]

    def _on_connecting(self) -> None:
        before = self._zap.admitted_keys
        self._zap.handle()
        if self._zap.admitted_keys is not before:
            # A client with a new key connects to server 5 first: the workers must know the key before the client does.
            self._reload_keys()

    def _reload_keys(self) -> None:
        is_revoked = self._zap.reload()
        admitted = self._current_admitted()
        is_changed = admitted.digest != self._admitted.digest
        # It says for how long keys remain admitted.
        self._admitted, self._admitted_of_scope = admitted, {}
        if is_changed:
            self._on_admitted()
        if is_revoked:
            self._publisher.disconnect_revoked()
            self._control.disconnect_revoked()
            self._on_revoked()

    def _current_admitted(self, scope: str = "") -> Admitted:
        public = self.keys.public if self.keys is not None else b""
        return admitted_message(self._zap.admitted_keys, public, time.time(), scope)

    def close(self) -> None:
        self._opened.close()

    def _on_disconnected(self, subscriber: Connection[None]) -> None:
        self._misuses += 1
        self._zap.ban(subscriber.key)
        self._on_misuse(self._zap.name_of(subscriber.key) or subscriber.host)
