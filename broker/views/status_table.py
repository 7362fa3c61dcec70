"""The text of the plain console: the report's status table, and the line with the command for a client.

Formats only, does not print.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from msd.wire.config.servers import Servers
from msd.wire.config.settings import LOOPBACK, Config
from msd.wire.net.endpoints import ANY_HOSTS, Endpoint
from msd.wire.protocol.messages import Status, WorkerStatus
from msd.wire.protocol.states import WorkerState
from msd.wire.support.presentable_names import presentable
from msd.wire.support.units import format_count

RULE = "-----"


class SuggestedCommand(Struct, frozen=True):
    """A command that the operator may pass on, the title above it, and what must be known about it."""

    title: str
    command: str
    notes: tuple[str, ...] = ()


def status_table(status: Status, *, asks: bool = True) -> str:
    """Returns the report's status table. A row ends with a remark if the worker is neither awake nor asleep, or if
    failures were counted. The table asks for a choice only if ``asks``.
    """
    rows = [RULE, "MultiServer Downloader", RULE]
    for worker in status.workers:
        alive = "Alive" if worker.state is WorkerState.AWAKE else "Dead"
        port = Endpoint.parse(worker.endpoint).port
        row = f"Server {worker.number} at Port: {port} Status: {alive}"
        choice = f" To shut down/wake up enter {worker.number}" if asks else ""
        rows.append(f"{row}{choice}{_remark(worker)}")
    if asks:
        rows += ["To quit, enter -1:", "", "Enter your Choice:"]
    return "\n".join(rows)


def ready_line(config: Config, files: int, key: bytes | None = None, hosts: Sequence[str] = ()) -> str:
    """Returns the line printed once all workers are awake, with the command for a client. ``key`` is the servers'
    public key, None if they use no keys. ``hosts`` are the addresses at which other machines may reach the servers.
    """
    server5 = config.status.replace_wildcard(hosts[0] if hosts else LOOPBACK)
    if not config.workers:
        return f"ready: server 5 without workers of its own; {join_command(server5, key, config.control.port)}"
    workers = [worker.endpoint.replace_wildcard(server5.host) for worker in config.workers]
    sharing = f"{format_count(len(workers), 'worker')} {'shares' if len(workers) == 1 else 'share'}"
    return f"ready: {sharing} {format_count(files, 'file')}; {_download_command(server5, workers, files, key)}"


def join_command(server5: Endpoint, key: bytes | None, control_port: int) -> str:
    """Returns the command that starts a worker on any machine. An unusual control port is named: it has no flag."""
    command = f"msd worker --join {server5}{f' --server-key {key.hex()}' if key is not None else ''} PATH"
    is_usual = control_port == server5.port + 1
    return command if is_usual else f"{command} (with control_port = {control_port} under [broker] in its config.toml)"


def address_line(config: Config, hosts: Sequence[str]) -> str:
    """Returns the line that follows the ready line if servers listen on all addresses of the machine: the other
    ``hosts`` at which clients may reach them, or a warning if there is none. Empty if there is nothing to say.
    """
    if config.host not in ANY_HOSTS or len(hosts) == 1:
        return ""
    if not hosts:
        return "other machines cannot reach these servers: this machine has no address for them"
    return f"other addresses of these servers: {', '.join(hosts[1:])}"


def suggested_command(servers: Servers, status: Status, hosts: Sequence[str] = ()) -> SuggestedCommand:
    """Returns the command that downloads a file from ``servers`` or, if they have no workers, the one that starts a
    worker. ``hosts`` are the addresses at which other machines may reach a server on all addresses of this machine:
    they replace loopback addresses, which only this machine can use.
    """
    server5 = servers.status
    key = servers.credentials.server if servers.credentials else None
    own = [worker for worker in status.workers if not worker.host]
    published = [Endpoint.parse(worker.endpoint) for worker in own]
    workers = [endpoint.replace_wildcard(server5.host) for endpoint in published]
    if servers.pinned:
        workers = list(servers.workers.values())
    shared_ports = {endpoint.port for endpoint in published if endpoint.host in ANY_HOSTS}
    control = Endpoint.parse(status.control)
    is_shared = control.host in ANY_HOSTS
    if hosts and server5.is_loopback and is_shared and all(w.is_loopback and w.port in shared_ports for w in workers):
        server5, *workers = [Endpoint(hosts[0], endpoint.port) for endpoint in (server5, *workers)]
    if all(worker.state is WorkerState.LOST for worker in status.workers):
        return SuggestedCommand(
            f"Command for a worker on {'this' if server5.is_loopback else 'any'} machine",
            join_command(server5, key, control.port),
        )
    # Only server 5 knows the addresses of workers that have joined.
    has_only_own = len(own) == len(status.workers)
    notes = []
    if status.files != 1:
        notes.append("NAME stands for a shared file or folder; msd list shows them.")
    if server5.is_loopback:
        notes.append("Only clients on this machine can use the address; for others, start msd serve with -a.")
    if key is not None:
        notes.append("The client needs a key that is admitted. For one without, run msd invite NAME: it makes a link.")
    command = _download_command(server5, workers if has_only_own else (), status.files, key)
    title = f"Command for a client{' on this machine' if server5.is_loopback else ''}"
    return SuggestedCommand(title, command, tuple(notes))


def quit_line(status: Status) -> str:
    """Returns the line that says which workers end with the broker, and which ones keep running."""
    noun = "worker"
    own = sum(not worker.host for worker in status.workers)
    joined = sum(bool(worker.host) and worker.state is not WorkerState.LOST for worker in status.workers)
    line = f"shutting down the broker{f' and {format_count(own, noun)}' if own else ''}"
    if joined:
        verb = "keeps" if joined == 1 else "keep"
        line += f"; {format_count(joined, noun)} that joined {verb} running: stop such a worker on its own host"
    return line


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
    elif worker.state is WorkerState.AWAKE and worker.reason:
        remarks.append(f"cannot read some files: {worker.reason}")
    remarks += failure_counts(worker)
    return f" ({', '.join(remarks)})" if remarks else ""


def failure_counts(worker: WorkerStatus) -> list[str]:
    """Returns each kind of failure counted for a worker; kinds with a count of 0 are left out."""
    clients = f" (reported by {', '.join(map(presentable, worker.complainants))})" if worker.complainants else ""
    counts = (
        (worker.complaints, "corrupt segment", clients),
        (worker.malformed_messages, "malformed message", ""),
        (worker.rejected_connections, "refused connection", ""),
    )
    return [format_count(count, noun) + detail for count, noun, detail in counts if count]
