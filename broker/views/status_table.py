"""The text of the plain console: the report's status table, and the line with the command for a client.

Formats only, does not print.
"""

from __future__ import annotations

from collections.abc import Sequence

from msd.broker.views.console_lines import failure_counts
from msd.wire.config.servers import Servers
from msd.wire.config.settings import LOOPBACK, Config
from msd.wire.net.endpoints import ANY_HOSTS, Endpoint
from msd.wire.protocol.messages import Status, WorkerStatus
from msd.wire.protocol.states import WorkerState
from msd.wire.support.units import format_count

RULE = "-----"


def status_table(status: Status) -> str:
    """Returns the report's status table. A row ends with a remark if the worker is neither awake nor asleep, or if
    failures were counted.
    """
    rows = [RULE, "MultiServer Downloader", RULE]
    for worker in status.workers:
        alive = "Alive" if worker.state is WorkerState.AWAKE else "Dead"
        port = Endpoint.parse(worker.endpoint).port
        row = f"Server {worker.number} at Port: {port} Status: {alive}"
        rows.append(f"{row} To shut down/wake up enter {worker.number}{_remark(worker)}")
    rows += ["To quit, enter -1:", "", "Enter your Choice:"]
    return "\n".join(rows)


def ready_line(config: Config, files: int, key: bytes | None = None, hosts: Sequence[str] = ()) -> str:
    """Returns the line printed once all workers are awake, with the command for a client. ``key`` is the servers'
    public key, None if they use no keys. ``hosts`` are the addresses at which other machines may reach the servers.
    """
    server5 = config.status.replace_wildcard(hosts[0] if hosts else LOOPBACK)
    if not config.workers:
        return f"ready: server 5 without workers of its own; {join_command(server5, key)}"
    workers = [worker.endpoint.replace_wildcard(server5.host) for worker in config.workers]
    sharing = f"{format_count(len(workers), 'worker')} {'shares' if len(workers) == 1 else 'share'}"
    return f"ready: {sharing} {format_count(files, 'file')}; {_download_command(server5, workers, files, key)}"


def join_command(server5: Endpoint, key: bytes | None) -> str:
    """Returns the command that starts a worker on any machine."""
    return f"msd worker --join {server5}{f' --server-key {key.hex()}' if key is not None else ''} PATH"


def address_line(config: Config, hosts: Sequence[str]) -> str:
    """Returns the line that follows the ready line if servers listen on all addresses of the machine: the other
    ``hosts`` at which clients may reach them, or a warning if there is none. Empty if there is nothing to say.
    """
    if config.host not in ANY_HOSTS or len(hosts) == 1:
        return ""
    if not hosts:
        return "other machines cannot reach these servers: this machine has no address for them"
    return f"other addresses of these servers: {', '.join(hosts[1:])}"


def client_command(servers: Servers, status: Status, hosts: Sequence[str] = ()) -> str:
    """Returns the command that downloads a file from ``servers``. ``hosts`` are the addresses at which other machines
    may reach a server on all addresses of this machine: they replace loopback addresses, which only this machine can
    use.
    """
    server5 = servers.status
    published = [Endpoint.parse(worker.endpoint) for worker in status.workers]
    workers = [endpoint.replace_wildcard(server5.host) for endpoint in published]
    if servers.pinned:
        workers = list(servers.workers.values())
    shared_ports = {endpoint.port for endpoint in published if endpoint.host in ANY_HOSTS}
    if hosts and server5.is_loopback and all(worker.is_loopback and worker.port in shared_ports for worker in workers):
        server5, *workers = [Endpoint(hosts[0], endpoint.port) for endpoint in (server5, *workers)]
    key = servers.credentials.server if servers.credentials else None
    return _download_command(server5, workers, status.files, key)


def _download_command(server5: Endpoint, workers: Sequence[Endpoint], files: int, key: bytes | None) -> str:
    flags = f"--server5 {server5}"
    if len(workers) == 4 and all(worker.host == server5.host for worker in workers):
        flags = f"-a {server5.host} -p {' '.join(str(worker.port) for worker in workers)} {server5.port}"
    if key is not None:
        flags += f" --server-key {key.hex()}"
    # The name is optional if only one file is shared.
    return f"msd download {'' if files == 1 else 'NAME '}{flags}"


def _remark(worker: WorkerStatus) -> str:
    remarks = [f"{worker.name} on {worker.host}"] if worker.host else []
    if worker.state not in (WorkerState.AWAKE, WorkerState.ASLEEP):
        remarks.append(f"{worker.state}: {worker.reason}" if worker.reason else worker.state.value)
    remarks += failure_counts(worker)
    return f" ({', '.join(remarks)})" if remarks else ""
