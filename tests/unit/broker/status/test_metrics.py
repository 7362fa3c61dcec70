"""The metrics: their values, their names by the Prometheus conventions, and an HTTP server that no client can block."""

from __future__ import annotations

import importlib
import re
import socket
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing

import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from msd.broker.status.downloads import DownloadTotals
from msd.broker.status.metrics import (
    COUNTERS,
    DOWNLOAD_COUNTERS,
    GAUGES,
    WORKER_COUNTERS,
    WORKER_GAUGES,
    Metrics,
    SnapshotCollector,
)
from msd.wire.errors import UsageError
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.messages import PROTOCOL_VERSION, Status, WorkerStatus
from msd.wire.protocol.states import DownloadState, WantedState, WorkerState
from tests.processes import is_free, wait_for

#: The base units in use, as the Prometheus conventions spell them.
UNITS = {"bytes", "seconds"}


def worker(number: int, state: WorkerState, wanted: WantedState = WantedState.AWAKE) -> WorkerStatus:
    return WorkerStatus(
        number=number,
        endpoint=f"tcp://127.0.0.1:{5000 + number}",
        state=state,
        wanted=wanted,
        epoch=1,
        pid=100,
        restarts=2,
        clients=3,
        bytes_sent=1 << 40,
        rate=5.0,
        complaints=4,
        malformed_messages=5,
        rejected_connections=6,
        uptime=7.5,
        reason="secret-name.mp4",
    )


STATUS = Status(
    version=PROTOCOL_VERSION,
    epoch=1,
    seq=1,
    interval=2.0,
    control="tcp://127.0.0.1:39224",
    catalogue=bytes(range(32)),
    files=9,
    clients=8,
    malformed_messages=10,
    rejected_connections=11,
    workers=[
        worker(1, WorkerState.AWAKE),
        worker(2, WorkerState.ASLEEP, WantedState.ASLEEP),
        worker(3, WorkerState.DEAD),
    ],
)

TOTALS = DownloadTotals(5, 6, 7, 8, {DownloadState.DOWNLOADING: 3, DownloadState.FINISHING: 0}, receivers=9)


@pytest.fixture
def endpoint() -> Endpoint:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        return Endpoint("127.0.0.1", free.getsockname()[1])


@pytest.fixture
def metrics(endpoint: Endpoint) -> Iterator[Endpoint]:
    """The endpoint that serves the metrics of ``STATUS``."""
    with closing(Metrics(endpoint, lambda: (STATUS, TOTALS))):
        yield endpoint


def fetch(endpoint: Endpoint, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://{endpoint.host}:{endpoint.port}{path}", timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def is_closed(connection: socket.socket) -> bool:
    """Reads from ``connection``; True if the server has closed it."""
    try:
        return not connection.recv(65536)
    except ConnectionResetError:
        return True


def samples(text: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Parses the text format into values by metric name and labels."""
    values: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        sample: Sample
        for sample in family.samples:
            values.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return values


def worker_values(text: str, name: str) -> list[float]:
    return [samples(text)[name][("worker", str(number)),] for number in (1, 2, 3)]


def test_the_metrics_of_each_worker(metrics: Endpoint) -> None:
    text = fetch(metrics)
    assert worker_values(text, "msd_worker_up") == [1, 0, 0]
    assert worker_values(text, "msd_worker_wanted") == [1, 0, 1]
    assert worker_values(text, "msd_worker_clients") == [3] * 3
    assert worker_values(text, "msd_worker_uptime_seconds") == [7.5] * 3
    assert worker_values(text, "msd_worker_sent_bytes_total") == [1 << 40] * 3
    assert worker_values(text, "msd_worker_restarts_total") == [2] * 3
    assert worker_values(text, "msd_worker_complaints_total") == [4] * 3
    assert worker_values(text, "msd_worker_garbage_messages_total") == [5] * 3
    assert worker_values(text, "msd_worker_refused_connections_total") == [6] * 3


def test_the_metrics_of_the_broker(metrics: Endpoint) -> None:
    values = samples(fetch(metrics))
    assert values["msd_files"] == {(): 9}
    assert values["msd_clients"] == {(): 8}
    assert values["msd_broker_garbage_messages_total"] == {(): 10}
    assert values["msd_broker_refused_connections_total"] == {(): 11}
    assert values["msd_catalogue_info"] == {(("id", bytes(range(32)).hex()),): 1}


def test_the_metrics_of_the_downloads_have_no_label_for_a_client(metrics: Endpoint) -> None:
    values = samples(fetch(metrics))
    assert values["msd_downloads_done_total"] == {(): 5}
    assert values["msd_downloads_broken_total"] == {(): 6}
    assert values["msd_downloads_received_bytes_total"] == {(): 7}
    assert values["msd_downloads_peer_bytes_total"] == {(): 8}
    assert values["msd_receivers"] == {(): 9}
    assert values["msd_downloads"] == {(("state", "downloading"),): 3, (("state", "finishing"),): 0}


def test_the_name_host_and_files_of_each_worker(endpoint: Endpoint) -> None:
    joined = replace(
        worker(5, WorkerState.UNREACHABLE), name="attic", host="10.0.0.7", files=3, catalogue=bytes(range(32))
    )
    with closing(
        Metrics(endpoint, lambda: (replace(STATUS, workers=[joined, replace(joined, number=6, catalogue=b"")]), TOTALS))
    ):
        values = samples(fetch(endpoint))
    labels = [("host", "10.0.0.7"), ("name", "attic")]
    assert values["msd_worker_info"] == {(*labels, ("worker", "5")): 1, (*labels, ("worker", "6")): 1}
    assert values["msd_worker_catalogue_info"] == {(("id", bytes(range(32)).hex()), ("worker", "5")): 1}
    assert values["msd_worker_files"][("worker", "5"),] == 3
    assert values["msd_worker_state"][("state", "unreachable"), ("worker", "5")] == 1


def test_a_catalogue_for_which_server_5_does_not_vouch_has_no_digest(endpoint: Endpoint) -> None:
    with closing(Metrics(endpoint, lambda: (replace(STATUS, catalogue=b""), TOTALS))):
        assert "msd_catalogue_info" not in samples(fetch(endpoint))


def test_each_worker_is_in_exactly_one_state(metrics: Endpoint) -> None:
    states = samples(fetch(metrics))["msd_worker_state"]
    assert len(states) == 3 * len(WorkerState)
    assert [dict(labels)["state"] for labels, value in states.items() if value] == ["awake", "asleep", "dead"]


def test_no_file_name_is_exported(metrics: Endpoint) -> None:
    assert "secret-name" not in fetch(metrics)


def test_the_names_follow_the_prometheus_conventions(metrics: Endpoint) -> None:
    """
    1. Names have the prefix msd_ and are lower case.
    2. Counters end in _total, gauges do not.
    3. Units are base units, at the end of the name or directly before _total.
    4. Every metric has a help text, and the same labels on all its samples.
    """
    text = fetch(metrics)
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert kinds.keys() == {name for name, _ in re.findall(r"^# HELP (\S+) (\S.*\.)$", text, re.MULTILINE)}
    for name, kind in kinds.items():
        assert re.fullmatch(r"msd_[a-z]+(_[a-z]+)*", name)
        assert name.endswith("_total") == (kind == "counter")
        assert kind in ("counter", "gauge")
        words = name.removesuffix("_total").split("_")
        assert not UNITS & {*words[:-1]}, f"{name}: the unit does not come last"
        assert not {"kilobytes", "mb", "ms", "milliseconds", "minutes", "rate", "count"} & {*words}
    for values in samples(text).values():
        assert len({tuple(name for name, _ in labels) for labels in values}) == 1


def test_before_the_first_snapshot_metrics_have_no_values(endpoint: Endpoint) -> None:
    with closing(Metrics(endpoint, lambda: (None, TOTALS))):
        text = fetch(endpoint)
    assert samples(text) == {}
    names = {*WORKER_GAUGES, *GAUGES, *(f"{name}_total" for name in (*WORKER_COUNTERS, *COUNTERS, *DOWNLOAD_COUNTERS))}
    assert {name for name in names if f"# TYPE {name} " in text} == names


def test_metrics_can_be_requested_by_name(metrics: Endpoint) -> None:
    assert samples(fetch(metrics, "/metrics?name[]=msd_files")) == {"msd_files": {(): 9}}


def test_describing_the_metrics_does_not_read_a_snapshot() -> None:
    def latest() -> tuple[Status | None, DownloadTotals]:
        raise AssertionError("a snapshot was read")

    assert [*SnapshotCollector(latest).describe()]


def test_the_error_names_the_port_in_use(endpoint: Endpoint) -> None:
    with (
        closing(socket.create_server((endpoint.host, endpoint.port))),
        pytest.raises(UsageError, match=rf"port {endpoint.port} \(metrics\) is in use"),
    ):
        Metrics(endpoint, lambda: (STATUS, TOTALS))


def test_closing_frees_the_port_and_ends_the_thread(endpoint: Endpoint) -> None:
    before = threading.active_count()
    for _ in range(3):
        with closing(Metrics(endpoint, lambda: (STATUS, TOTALS))):
            fetch(endpoint)
            assert not is_free(endpoint.port)
        assert is_free(endpoint.port)
    assert threading.active_count() == before


def test_a_silent_client_is_disconnected_and_the_next_client_is_served(
    metrics: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msd.broker.status.metrics.REQUEST_TIMEOUT_S", 0.05)
    with closing(socket.create_connection((metrics.host, metrics.port))) as silent:
        silent.sendall(b"GET /metr")
        assert "msd_files" in fetch(metrics)
        assert is_closed(silent)


def test_closing_does_not_wait_for_a_silent_client(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msd.broker.status.metrics.REQUEST_TIMEOUT_S", 600.0)
    metrics = Metrics(endpoint, lambda: (STATUS, TOTALS))
    with closing(socket.create_connection((endpoint.host, endpoint.port))) as silent:
        silent.sendall(b"GET /metr")
        wait_for("the request", lambda: any(thread.name.startswith("Thread-") for thread in threading.enumerate()))
        metrics.close()
        assert is_closed(silent)
    assert is_free(endpoint.port)


@pytest.mark.parametrize("request_line", ["POST / HTTP/1.1", "nonsense", "GET / HTTP/9.9", "GET /" + "x" * 70_000])
def test_malformed_requests_do_no_harm(metrics: Endpoint, request_line: str, capfd: pytest.CaptureFixture[str]) -> None:
    with closing(socket.create_connection((metrics.host, metrics.port), timeout=10)) as client:
        client.sendall(f"{request_line}\r\n\r\n".encode())
        client.shutdown(socket.SHUT_WR)
        while not is_closed(client):
            pass
    assert "msd_files" in fetch(metrics)
    assert capfd.readouterr() == ("", "")


def test_metrics_on_an_ipv6_address(endpoint: Endpoint) -> None:
    with closing(Metrics(Endpoint("::1", endpoint.port), lambda: (STATUS, TOTALS))):
        assert "msd_files" in fetch(Endpoint("[::1]", endpoint.port))


def test_without_prometheus_client_the_error_names_the_command_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "msd.broker.status.metrics")
    with pytest.raises(UsageError, match=r"^metrics_port requires .* -m pip install prometheus_client$"):
        importlib.import_module("msd.broker.status.metrics")
