"""The plain console: the report's status table, what an operator types under it, the ready line.

Text in, text out: does not read, print or carry out anything itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from msd.broker.views.table import wrongs
from msd.wire.config.settings import LOOPBACK, Config, Servers
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.messages import Status, WorkerStatus
from msd.wire.protocol.states import WorkerState

RULE = "-----"


class ToggleLine(Struct, frozen=True):
    number: int


class QuitLine(Struct, frozen=True):
    pass


class WrongLine(Struct, frozen=True):
    """``message`` says what can be entered."""

    message: str


def table(status: Status) -> str:
    """The status table as the report shows it, with the reason where a worker is not simply on or
    off.
    """
    rows = [RULE, "MultiServer Downloader", RULE]
    for worker in status.workers:
        alive = "Alive" if worker.state is WorkerState.AWAKE else "Dead"
        port = Endpoint.parse(worker.endpoint).port
        row = f"Server {worker.number} at Port: {port} Status: {alive}"
        rows.append(f"{row} To shut down/wake up enter {worker.number}{_remark(worker)}")
    rows += ["To quit, enter -1:", "", "Enter your Choice:"]
    return "\n".join(rows)


def ready_line(config: Config, files: int, key: bytes | None = None) -> str:
    """Says that all workers are awake, and what a client has to be told, to be pasted; ``key`` is the
    servers' public key, if they take keys.
    """
    server5 = config.status.seen_from(LOOPBACK)
    workers = [worker.endpoint.seen_from(server5.host) for worker in config.workers]
    shared = f"{files} file{'' if files == 1 else 's'}"
    return f"ready: {len(workers)} workers share {shared}; {_download(server5, workers, files, key)}"


def client_line(servers: Servers, status: Status) -> str:
    """What a client has to be told to find the servers that this operator has found, to be pasted."""
    workers = [Endpoint.parse(worker.endpoint).seen_from(servers.status.host) for worker in status.workers]
    if servers.pinned:
        workers = list(servers.workers.values())
    key = servers.credentials.server if servers.credentials else None
    return _download(servers.status, workers, status.files, key)


def parse(line: str, workers: int) -> ToggleLine | QuitLine | WrongLine | None:
    """What a line of an operator means; None for an empty one."""
    text = line.strip()
    if not text:
        return None
    if text == "-1":
        return QuitLine()
    # The length first: Python refuses to convert thousands of digits.
    if len(text) <= 9 and text.isascii() and text.isdigit() and 1 <= int(text) <= workers:
        return ToggleLine(int(text))
    return WrongLine(f"{text[:40]!r} is no choice: enter 1 to {workers}, or -1 to quit")


def _download(server5: Endpoint, workers: Sequence[Endpoint], files: int, key: bytes | None) -> str:
    where = f"--server5 {server5}"
    if len(workers) == 4 and all(worker.host == server5.host for worker in workers):
        where = f"-a {server5.host} -p {' '.join(str(worker.port) for worker in workers)} {server5.port}"
    if key is not None:
        where += f" --server-key {key.hex()}"
    # The name may be left out where there is just one.
    return f"msd download {'' if files == 1 else 'NAME '}{where}"


def _remark(worker: WorkerStatus) -> str:
    remarks = []
    if worker.state not in (WorkerState.AWAKE, WorkerState.ASLEEP):
        remarks.append(f"{worker.state}: {worker.reason}" if worker.reason else worker.state.value)
    remarks += wrongs(worker)
    return f" ({', '.join(remarks)})" if remarks else ""
