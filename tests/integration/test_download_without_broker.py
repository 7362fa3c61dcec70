"""Downloads use the status of server 5 but do not depend on it."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import zmq

from msd.broker.operator.operator_client import OperatorClient
from msd.wire.protocol.codec import STATUS_TOPIC, decode
from msd.wire.protocol.messages import Status
from tests.processes import MIB, TIMEOUT, Download, Serve, Source, System, files_equal, free_ports, wait_for


def states_of_server_5(client: Download) -> list[str]:
    return [event["state"] for event in client.events_of("worker") if event["name"] == "server 5"]


def test_a_frozen_broker_does_not_stop_a_download_and_a_killed_worker_is_noticed(
    serve: Serve, source: Source, tmp_path: Path
) -> None:
    path = source(48 * MIB)
    system = serve(path, "--rate", "4MiB", "-i", "0.1")
    victim = system.worker(2).pid
    with system.download("-o", "copy.bin", cwd=tmp_path) as client:
        client.wait_until_verified(0.1)
        system.signal(signal.SIGSTOP)
        wait_for("server 5 to be lost", lambda: states_of_server_5(client))
        client.wait_until_verified(0.7)
        # Nothing on a machine that is not busy.
        assert client.events_of("progress")[-1]["wasted_bytes"] <= 2 * MIB
        os.kill(victim, signal.SIGKILL)
        done = client.wait_until_done()
    system.signal(signal.SIGCONT)
    assert files_equal(path, tmp_path / "copy.bin")
    assert states_of_server_5(client) == ["lost"]
    assert done["workers"]["2"]["failures"] == 1


def test_a_download_needs_only_the_worker_ports_without_server_5(serve: Serve, source: Source, tmp_path: Path) -> None:
    """Nothing listens on the fifth port: the client reports that it continues without the status of server 5."""
    path = source(8 * MIB)
    system = serve(path)
    server_flags = ["-a", "127.0.0.1", "-p", *map(str, [*system.ports[:4], free_ports()[4]])]
    with Download(server_flags, "-o", "copy.bin", cwd=tmp_path) as client:
        client.wait_until_done()
    assert files_equal(path, tmp_path / "copy.bin")
    lost = [event for event in client.events_of("worker") if event["name"] == "server 5"]
    assert lost[0]["state"] == "lost"
    assert "without its status" in lost[0]["detail"]


def test_a_download_resumes_when_killed_servers_are_restarted(serve: Serve, source: Source, tmp_path: Path) -> None:
    """
    1. The broker is killed together with its workers: the client reports that no server answers, and waits.
    2. The servers are restarted 3 s later: the download resumes and loses no verified segment.
    """
    path = source(48 * MIB)
    system = serve(path, "--rate", "8MiB")
    with system.download("-o", "copy.bin", cwd=tmp_path) as client:
        client.wait_until_verified(0.3)
        system.signal(signal.SIGKILL)
        killed = time.monotonic()
        wait_for("the client to wait", lambda: client.events_of("waiting"))
        wait_for("3 s to pass", lambda: client.events[-1]["at"] - killed > 3)
        before = client.verified_bytes
        with System(path, "--rate", "8MiB", ports=system.ports):
            done = client.wait_until_done()
    assert files_equal(path, tmp_path / "copy.bin")
    assert before > 0
    assert done["received_bytes"] - done["wasted_bytes"] == path.stat().st_size


def test_a_download_may_start_before_the_servers(runtime_folder: Path, source: Source, tmp_path: Path) -> None:
    path = source(MIB)
    *_, worker_port, status_port = free_ports()
    ports = (worker_port, status_port)
    with Download(["-p", *map(str, ports)], "-o", "copy.bin", cwd=tmp_path) as client:
        wait_for("the client to wait", lambda: client.events_of("waiting"))
        with System(path, ports=ports, workers=1):
            client.wait_until_done()
    assert files_equal(path, tmp_path / "copy.bin")


def test_rates_are_recorded_every_second_whatever_the_snapshot_interval(serve: Serve, source: Source) -> None:
    system = serve(source(1000), "-i", "60", workers=1)
    with OperatorClient(system.servers) as operator:
        first = len(operator.report().rates[0])
        wait_for("two more rates", lambda: len(operator.report().rates[0]) >= first + 2)


@pytest.mark.parametrize("count", [200, pytest.param(3000, marks=pytest.mark.soak)])
def test_new_subscribers_receive_the_current_state_at_once(serve: Serve, source: Source, count: int) -> None:
    """The snapshot interval is a minute, so the first snapshot is the one sent on subscription."""
    system = serve(source(1000), "-i", "60")
    system.put_to_sleep(3)
    with ExitStack() as stack:
        sockets = []
        for number in range(count):
            if number % 500 == 0:
                context = stack.enter_context(zmq.Context())
            socket = stack.enter_context(context.socket(zmq.SUB))
            socket.linger = 0
            socket.subscribe(STATUS_TOPIC)
            socket.connect(f"tcp://127.0.0.1:{system.ports[4]}")
            sockets.append(socket)
        for socket in sockets:
            assert socket.poll(int(TIMEOUT * 1000))
            status: Status = decode(socket.recv().removeprefix(STATUS_TOPIC), Status)
            assert [worker.state for worker in status.workers] == ["awake", "awake", "asleep", "awake"]
