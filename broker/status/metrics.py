"""Serves Prometheus metrics of the servers over plain HTTP on a separate port.

A separate thread answers each request from the broker's last snapshot, so requests cause no work in the broker's loop.
Exports no file names. The only module that imports prometheus_client.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from socketserver import TCPServer
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from msd.broker.status.downloads import DownloadTotals
from msd.wire.errors import UsageError
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.ports import listen_error
from msd.wire.protocol.messages import Status, WorkerStatus
from msd.wire.protocol.states import WantedState, WorkerState
from msd.wire.support.install_command import install_command

try:
    from prometheus_client import CollectorRegistry, make_wsgi_app
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
except ImportError:
    raise UsageError(
        "metrics_port requires prometheus_client: remove metrics_port from the configuration, or run:"
        f" {install_command('prometheus_client')}"
    ) from None

#: Seconds a request may take. Requests are answered one at a time, so a slow client delays the next one.
REQUEST_TIMEOUT_S = 2.0

#: Metrics of each worker: name, help text, value. Counters restart at 0 with the worker's process, as Prometheus
#: allows.
WORKER_GAUGES: dict[str, tuple[str, Callable[[WorkerStatus], float]]] = {
    "msd_worker_up": ("Whether the worker is awake and serving.", lambda w: w.state is WorkerState.AWAKE),
    "msd_worker_wanted": ("Whether the operator wants the worker awake.", lambda w: w.wanted is WantedState.AWAKE),
    "msd_worker_clients": ("Clients connected to the worker.", lambda w: w.clients),
    "msd_worker_files": ("Files shared by the worker.", lambda w: w.files),
    "msd_worker_uptime_seconds": ("Seconds since the worker's process started, or it joined.", lambda w: w.uptime),
}
WORKER_COUNTERS: dict[str, tuple[str, Callable[[WorkerStatus], float]]] = {
    "msd_worker_sent_bytes": ("Bytes of shared files sent by the worker's process.", lambda w: w.bytes_sent),
    "msd_worker_restarts": ("Restarts of the worker's process.", lambda w: w.restarts),
    "msd_worker_complaints": ("Corrupt segments from the worker, as reported by clients.", lambda w: w.complaints),
    "msd_worker_garbage_messages": ("Malformed messages received by the worker.", lambda w: w.malformed_messages),
    "msd_worker_refused_connections": ("Connections rejected by the worker.", lambda w: w.rejected_connections),
}
#: Metrics of the servers as a whole.
GAUGES: dict[str, tuple[str, Callable[[Status], float]]] = {
    "msd_files": ("Shared files; if server 5 vouches for none, those of the worker with most.", lambda s: s.files),
    "msd_clients": ("Clients being served, each counted once.", lambda s: s.clients),
}
COUNTERS: dict[str, tuple[str, Callable[[Status], float]]] = {
    "msd_broker_garbage_messages": ("Malformed messages received by the broker.", lambda s: s.malformed_messages),
    "msd_broker_refused_connections": ("Connections rejected by the broker.", lambda s: s.rejected_connections),
}
#: Metrics of the downloads, as the clients report them.
DOWNLOAD_COUNTERS: dict[str, tuple[str, Callable[[DownloadTotals], float]]] = {
    "msd_downloads_done": ("Downloads that clients have finished.", lambda t: t.done),
    "msd_downloads_broken": ("Downloads that ended with an error, or whose client is silent.", lambda t: t.broken),
    "msd_downloads_received_bytes": ("Bytes that clients have received.", lambda t: t.received_bytes),
    "msd_downloads_peer_bytes": ("Those of these bytes that came from other clients.", lambda t: t.peer_bytes),
}

#: Returns the last snapshot, None before the first, and the totals of the downloads at that time.
Latest = Callable[[], tuple[Status | None, DownloadTotals]]


class Metrics:
    """Serves metrics at ``endpoint`` until ``close()``. ``latest`` is called from another thread.

    Raises ``UsageError`` if it cannot listen.
    """

    def __init__(self, endpoint: Endpoint, latest: Latest) -> None:
        registry = CollectorRegistry()
        registry.register(SnapshotCollector(latest))
        try:
            self._server = _Server(endpoint)
        except OSError as error:
            raise listen_error(endpoint, "metrics", error.errno or 0) from None
        self._server.set_app(make_wsgi_app(registry))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Frees the port and aborts a request in progress."""
        self._server.abort()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class SnapshotCollector:
    """A prometheus_client collector that converts the last snapshot into metrics."""

    def __init__(self, latest: Latest) -> None:
        self._latest = latest

    def describe(self) -> Iterable[Metric]:
        """The metrics without values; prometheus_client uses the names to answer requests for single metrics."""
        return _families(None, DownloadTotals())

    def collect(self) -> Iterable[Metric]:
        return _families(*self._latest())


def _families(status: Status | None, totals: DownloadTotals) -> Iterator[Metric]:
    """All metrics, without values if there is no snapshot."""
    workers = status.workers if status is not None else []
    identities = InfoMetricFamily("msd_worker", "Name of the worker, and the host it joined from.", labels=["worker"])
    catalogues = InfoMetricFamily("msd_worker_catalogue", "Digest of the worker's catalogue.", labels=["worker"])
    for worker in workers:
        identities.add_metric([str(worker.number)], {"name": worker.name, "host": worker.host})
        if worker.catalogue:
            catalogues.add_metric([str(worker.number)], {"id": worker.catalogue.hex()})
    yield from (identities, catalogues)
    for name, (help_text, worker_value) in WORKER_GAUGES.items():
        yield _with_values(GaugeMetricFamily(name, help_text, labels=["worker"]), workers, worker_value)
    for name, (help_text, worker_value) in WORKER_COUNTERS.items():
        yield _with_values(CounterMetricFamily(name, help_text, labels=["worker"]), workers, worker_value)
    states = GaugeMetricFamily(
        "msd_worker_state", "1 for the worker's current state, 0 for all others.", labels=["worker", "state"]
    )
    for worker in workers:
        for state in WorkerState:
            states.add_metric([str(worker.number), state.value], worker.state is state)
    yield states
    for name, (help_text, value) in GAUGES.items():
        yield GaugeMetricFamily(name, help_text, value=None if status is None else value(status))
    for name, (help_text, value) in COUNTERS.items():
        yield CounterMetricFamily(name, help_text, value=None if status is None else value(status))
    for name, (help_text, total) in DOWNLOAD_COUNTERS.items():
        yield CounterMetricFamily(name, help_text, value=None if status is None else total(totals))
    running = GaugeMetricFamily("msd_downloads", "Downloads in each state at present.", labels=["state"])
    for download_state, count in totals.states.items() if status is not None else ():
        running.add_metric([download_state.value], count)
    yield running
    receivers = GaugeMetricFamily("msd_receivers", "Clients that pass on what they have received.")
    if status is not None:
        receivers.add_metric([], totals.receivers)
    yield receivers
    catalogue = InfoMetricFamily("msd_catalogue", "Digest of the catalogue of shared files.")
    if status is not None and status.catalogue:
        catalogue.add_metric([], {"id": status.catalogue.hex()})
    yield catalogue


def _with_values(
    family: GaugeMetricFamily | CounterMetricFamily,
    workers: list[WorkerStatus],
    value: Callable[[WorkerStatus], float],
) -> Metric:
    for worker in workers:
        family.add_metric([str(worker.number)], value(worker))
    return family


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Logs nothing."""


class _Server(WSGIServer):
    """Answers one request at a time, so that clients cannot make the server hold more than one connection."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.address_family = socket.AF_INET6 if endpoint.is_ipv6 else socket.AF_INET
        #: The connection of the current request.
        self._connection: socket.socket | None = None
        self._is_aborted = False
        super().__init__(endpoint.socket_address, _Handler)

    def server_bind(self) -> None:
        # ``HTTPServer.server_bind`` would look up this host's name on the network.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def finish_request(self, request: Any, client_address: Any) -> None:
        self._connection = request
        timer = threading.Timer(REQUEST_TIMEOUT_S, _shut_down, [request])
        timer.start()
        try:
            if not self._is_aborted:
                super().finish_request(request, client_address)
        finally:
            timer.cancel()
            timer.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores clients that disconnect or time out."""

    def abort(self) -> None:
        """Aborts the current request and rejects later ones. Call it from another thread."""
        self._is_aborted = True
        if (connection := self._connection) is not None:
            _shut_down(connection)


def _shut_down(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
