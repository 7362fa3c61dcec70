"""What operators see of the clients: in the status, in the access log and in the last line of the servers."""

from __future__ import annotations

import os
import re
import shlex
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import zmq

from msd.broker.operator.operator_client import OperatorClient
from msd.wire.protocol.codec import encode
from msd.wire.protocol.messages import DownloadProgress, DownloadStatus
from msd.wire.protocol.states import DownloadState
from tests.processes import MIB, MSD, Process, Serve, Source, System, wait_for
from tests.terminal import OnTerminal

#: Clients that report at the same time, and seconds between two reports of each.
CLIENTS, INTERVAL_S = 300, 2.0
#: Seconds of a measurement, and the largest part of a core that the broker may use.
MEASURED_S, MAX_LOAD = 10.0, 0.02


def fields(line: str) -> dict[str, str]:
    """The fields of a line of the access log."""
    return dict(word.split("=", 1) for word in shlex.split(line)[1:])


def configure(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "config.toml").write_text(text)
    return folder


def test_an_operator_sees_who_downloads_and_how_each_download_ended(
    serve: Serve, source: Source, tmp_path: Path
) -> None:
    path = source(16 * MIB)
    servers_folder = configure(tmp_path / "servers", "[broker]\naccess_log = 'access.log'\n")
    client = configure(tmp_path / "client", "[client]\nname = 'Zoë@attic'\n")
    log = servers_folder / "access.log"
    servers = serve(path, "-c", str(servers_folder / "config.toml"), "--rate", "1MiB")

    def lines(count: int) -> list[str] | None:
        found = log.read_text().splitlines()
        return found if len(found) == count else None

    with servers.download("-o", "copy.bin", cwd=client) as broken, OperatorClient(servers.servers) as operator:

        def listed() -> DownloadStatus | None:
            return next((each for each in operator.report().downloads if each.bytes), None)

        download = wait_for("the client in the status", listed)
        assert (download.client, download.host, download.selection) == ("Zoë@attic", "127.0.0.1", path.name)
        assert (download.state, download.total) == (DownloadState.DOWNLOADING, 16 * MIB)
        assert download.bytes < 16 * MIB
        broken.signal(signal.SIGINT)
        assert broken.wait() == 130
    (line,) = wait_for("a line for the broken download", lambda: lines(1))
    assert (
        fields(line).items() >= {"client": "Zoë@attic", "what": path.name, "end": "broken", "exit_code": "130"}.items()
    )
    with servers.download("-o", "copy.bin", cwd=client) as resumed:
        done = resumed.wait_until_done()
    _, line = wait_for("a line for the download that is done", lambda: lines(2))
    found = fields(line)
    assert (found["end"], found["bytes"], found["files"]) == ("done", str(16 * MIB), "1")
    assert int(found["received"]) == done["received_bytes"] < 16 * MIB
    servers.signal(signal.SIGTERM)
    servers.wait()
    assert re.search(r"MiB sent, 1 download done, 1 download broken$", servers.out.text.strip())


@contextmanager
def reporting_clients(servers: System) -> Iterator[None]:
    """300 clients that send a report every two seconds, evenly spread."""
    control = f"tcp://127.0.0.1:{servers.ports[4] + 1}"
    is_over = threading.Event()

    def run() -> None:
        with zmq.Context() as context, ExitStack() as opened:
            context.max_sockets = 2 * CLIENTS
            sockets = [opened.enter_context(context.socket(zmq.DEALER)) for _ in range(CLIENTS)]
            for socket in sockets:
                socket.linger = 0
                socket.connect(control)
            began = time.monotonic()
            turn = 0
            while not is_over.wait(max(0.0, began + turn * INTERVAL_S / CLIENTS - time.monotonic())):
                number, round_number = turn % CLIENTS, turn // CLIENTS
                report = DownloadProgress(
                    session=number + 1,
                    state=DownloadState.DOWNLOADING,
                    selection=f"photos/2026/holiday {number:03}.mkv",
                    bytes=round_number * MIB,
                    total=1 << 40,
                    name=f"user{number:03}@host{number:03}",
                    received=round_number * MIB,
                    files=1,
                    rate=MIB / INTERVAL_S,
                    seconds=round_number * INTERVAL_S,
                    workers=4,
                )
                sockets[number].send(encode(report), zmq.NOBLOCK)
                turn += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def processor_seconds(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def load_of(pid: int) -> float:
    """The part of a core that the process uses."""
    before, began = processor_seconds(pid), time.monotonic()
    time.sleep(MEASURED_S)
    return (processor_seconds(pid) - before) / (time.monotonic() - began)


@pytest.mark.soak
@pytest.mark.parametrize("observer", ["status", "console"])
def test_many_clients_that_report_cost_the_broker_little(
    observer: str, serve: Serve, source: Source, on_terminal: OnTerminal, capsys: pytest.CaptureFixture[str]
) -> None:
    servers = serve(source(MIB))
    with ExitStack() as observers, OperatorClient(servers.servers) as operator:
        if observer == "status":
            for _ in range(2):
                observers.enter_context(Process([*MSD, "status", "--watch", "--json", *servers.server_flags]))
        else:
            consoles = [on_terminal("console", *servers.server_flags, size=(120, 40)) for _ in range(2)]
            for console in consoles:
                console.expect("4 of 4 alive")
        idle = load_of(servers.pid)
        with reporting_clients(servers):
            wait_for("all clients", lambda: len(operator.report().downloads) == CLIENTS)
            busy = load_of(servers.pid)
            assert len(operator.report().downloads) == CLIENTS
    with capsys.disabled():
        print(f"\n{CLIENTS} clients and two msd {observer}: {busy:.1%} of a core, {idle:.1%} without the clients")
    assert busy <= MAX_LOAD
