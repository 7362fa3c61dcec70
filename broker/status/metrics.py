"""Prometheus metrics of the servers, over plain HTTP on a port of their own.

Everything is read from the broker's last snapshot when somebody asks, in a thread of its own: the
broker's loop does nothing for it. Names no file. The one module that knows prometheus_client.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from socketserver import TCPServer
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from msd.broker.network.ports import cannot_listen
from msd.wire.errors import UsageError
from msd.wire.net.endpoints import ANY_HOSTS, Endpoint
from msd.wire.protocol.messages import Status, WorkerStatus
from msd.wire.protocol.states import WantedState, WorkerState
from msd.wire.support.install_command import install_command

try:
    from prometheus_client import CollectorRegistry, make_wsgi_app
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
except ImportError:
    raise UsageError(
        f"metrics_port needs prometheus_client: {install_command('prometheus_client')}, or leave the key out"
    ) from None

#: Seconds that a request may take: they are answered one after another.
PATIENCE = 2.0

#: Metrics of each worker: what they are, what they tell, and where it is taken from. Counters start
#: again with the worker's process, which Prometheus expects of counters.
WORKER_GAUGES: dict[str, tuple[str, Callable[[WorkerStatus], float]]] = {
    "msd_worker_up": ("Whether the worker is awake and serves.", lambda w: w.state is WorkerState.AWAKE),
    "msd_worker_wanted": ("Whether the operator wants the worker awake.", lambda w: w.wanted is WantedState.AWAKE),
    "msd_worker_clients": ("Clients connected to the worker.", lambda w: w.clients),
    "msd_worker_uptime_seconds": ("How long the worker's process has run.", lambda w: w.uptime),
}
WORKER_COUNTERS: dict[str, tuple[str, Callable[[WorkerStatus], float]]] = {
    "msd_worker_sent_bytes": ("Bytes of files sent by the worker's process.", lambda w: w.bytes_sent),
    "msd_worker_restarts": ("Starts of the worker's process after its first.", lambda w: w.restarts),
    "msd_worker_complaints": ("Corrupt segments from the worker that clients reported.", lambda w: w.complaints),
    "msd_worker_garbage_messages": ("Messages to the worker's process that were none.", lambda w: w.malformed_messages),
    "msd_worker_refused_connections": (
        "Connections that the worker's process did not let in.",
        lambda w: w.rejected_connections,
    ),
}
#: Metrics of the servers as a whole.
GAUGES: dict[str, tuple[str, Callable[[Status], float]]] = {
    "msd_files": ("Shared files.", lambda status: status.files),
    "msd_clients": ("Downloads being served, each once.", lambda status: status.clients),
}
COUNTERS: dict[str, tuple[str, Callable[[Status], float]]] = {
    "msd_broker_garbage_messages": ("Messages to the broker that were none.", lambda status: status.malformed_messages),
    "msd_broker_refused_connections": (
        "Connections the broker did not let in.",
        lambda status: status.rejected_connections,
    ),
}


class Metrics:
    """Serves metrics at ``endpoint`` until ``close()``. ``latest`` gives the last snapshot, None
    before the first; it is called from another thread.

    Raises ``UsageError`` where it cannot listen.
    """

    def __init__(self, endpoint: Endpoint, latest: Callable[[], Status | None]) -> None:
        registry = CollectorRegistry()
        registry.register(SnapshotCollector(latest))
        try:
            self._server = _Server(endpoint)
        except OSError as error:
            raise cannot_listen(endpoint, "metrics", error.errno or 0) from None
        self._server.set_app(make_wsgi_app(registry))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Frees the port. Whoever is being answered is cut off."""
        self._server.hang_up()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class SnapshotCollector:
    """Turns the last snapshot into metrics: a collector of prometheus_client's."""

    def __init__(self, latest: Callable[[], Status | None]) -> None:
        self._latest = latest

    def describe(self) -> Iterable[Metric]:
        """The names, for who asks for some of them only. Nothing is collected for that."""
        return _families(None)

    def collect(self) -> Iterable[Metric]:
        return _families(self._latest())


def _families(status: Status | None) -> Iterator[Metric]:
    """All metrics, without values if there is no snapshot."""
    workers = status.workers if status is not None else []
    for name, (about, value) in WORKER_GAUGES.items():
        yield _filled(GaugeMetricFamily(name, about, labels=["worker"]), workers, value)
    for name, (about, value) in WORKER_COUNTERS.items():
        yield _filled(CounterMetricFamily(name, about, labels=["worker"]), workers, value)
    states = GaugeMetricFamily("msd_worker_state", "1 for the state the worker is in.", labels=["worker", "state"])
    for worker in workers:
        for state in WorkerState:
            states.add_metric([str(worker.number), state.value], worker.state is state)
    yield states
    for name, (about, total) in GAUGES.items():
        yield GaugeMetricFamily(name, about, value=None if status is None else total(status))
    for name, (about, total) in COUNTERS.items():
        yield CounterMetricFamily(name, about, value=None if status is None else total(status))
    catalogue = InfoMetricFamily("msd_catalogue", "The catalogue of the shared files, by its digest.")
    if status is not None:
        catalogue.add_metric([], {"id": status.catalogue.hex()})
    yield catalogue


def _filled(
    family: GaugeMetricFamily | CounterMetricFamily,
    workers: list[WorkerStatus],
    value: Callable[[WorkerStatus], float],
) -> Metric:
    for worker in workers:
        family.add_metric([str(worker.number)], value(worker))
    return family


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Whoever asks, and how badly, is nobody's concern."""


class _Server(WSGIServer):
    """Answers one request at a time, so that nobody can make it hold more than one connection."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.address_family = socket.AF_INET6 if endpoint.is_ipv6 else socket.AF_INET
        self._asking: socket.socket | None = None
        self._hung_up = False
        super().__init__(("" if endpoint.host in ANY_HOSTS else endpoint.host, endpoint.port), _Handler)

    def server_bind(self) -> None:
        # Not that of ``HTTPServer``, which asks the network for this host's name.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def finish_request(self, request: Any, client_address: Any) -> None:
        self._asking = request
        limit = threading.Timer(PATIENCE, _cut, [request])
        limit.start()
        try:
            if not self._hung_up:
                super().finish_request(request, client_address)
        finally:
            limit.cancel()
            limit.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """They went away, or took too long."""

    def hang_up(self) -> None:
        """Ends the present request, and does not begin another; from another thread."""
        self._hung_up = True
        if (asking := self._asking) is not None:
            _cut(asking)


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
