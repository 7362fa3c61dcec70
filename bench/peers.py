"""The sides of a comparison: msd and other programs that copy or download the same file or folder.

Servers started for a side run until their context manager exits. A side runs one transfer at a time. Processor times
include the servers.
"""

from __future__ import annotations

import hashlib
import os
import select
import shutil
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.ours import RunningServers
from tests.processes import MIB, MSD, Download, free_ports, wait_for

TICK = os.sysconf("SC_CLK_TCK")
#: Milliseconds between two samples of a client's memory.
SAMPLE_INTERVAL_MS = 10


@dataclass(frozen=True)
class Sample:
    """One transfer: wall-clock seconds, processor seconds of all processes, and the peak memory (MiB) of the client and
    of the largest server process. ``transfer`` is the duration in seconds reported by the program, 0 if none.
    """

    seconds: float
    cpu: float
    client_mib: float
    server_mib: float
    transfer: float = 0.0


@dataclass
class Side:
    """A command that writes ``copy`` into ``folder``, and the pids of its servers. ``copy`` is a file, or a folder that
    contains the copied folder. ``parse_seconds`` extracts the duration of the transfer from the output of the command.
    ``copy`` does not exist before the command, unless ``previous`` names a folder whose contents it has.
    """

    name: str
    command: list[str]
    folder: Path
    servers: list[int]
    env: dict[str, str] | None = None
    parse_seconds: Callable[[str], float] = lambda output: 0.0
    previous: Path | None = None

    def run(self, stderr: int = subprocess.STDOUT) -> Sample:
        """Runs the command once; ``stderr`` may redirect its errors. Raises ``RuntimeError`` if the command fails."""
        remove(self.folder / "copy")
        if self.previous is not None:
            subprocess.run(["cp", "-a", self.previous, self.folder / "copy"], check=True)
        clear_peak(self.servers)
        before = sum(map(cpu_seconds, self.servers))
        with tempfile.TemporaryFile("w+") as output:
            began = time.perf_counter()
            process = subprocess.Popen(self.command, cwd=self.folder, env=self.env, stdout=output, stderr=stderr)
            try:
                client_mib = _wait_and_sample(process.pid)
            except BaseException:
                process.kill()
                process.wait()
                raise
            _, status, used = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - began
            process.returncode = os.waitstatus_to_exitcode(status)
            output.seek(0)
            text = output.read()
        if process.returncode:
            raise RuntimeError(f"{self.name} exited with code {process.returncode}: {text[-1000:]}")
        cpu = used.ru_utime + used.ru_stime + sum(map(cpu_seconds, self.servers)) - before
        server_mib = max(map(peak_mib, self.servers), default=0.0)
        return Sample(seconds, cpu, client_mib, server_mib, self.parse_seconds(text))


def _wait_and_sample(pid: int) -> float:
    """Waits for a child to end and returns its peak memory in MiB.

    ``ru_maxrss`` is useless here: it is never less than the memory of the parent at the time of the fork.
    """
    peak = 0.0
    poller = select.poll()
    ended = os.pidfd_open(pid)
    try:
        poller.register(ended, select.POLLIN)
        while not poller.poll(SAMPLE_INTERVAL_MS):
            peak = max(peak, peak_mib(pid))
    finally:
        os.close(ended)
    return peak


def cpu_seconds(pid: int) -> float:
    """Returns the processor seconds that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def clear_peak(pids: list[int]) -> None:
    """Resets the peak memory counters of these processes."""
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mib(pid: int) -> float:
    """Returns the peak resident memory of a process in MiB; 0 if it has ended."""
    value = Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()
    return int(value[0]) / 1024 if value else 0.0


def cp(source: Path, folder: Path, *, by_kernel: bool) -> Side:
    """A copy with ``cp``: by the kernel (copy_file_range), or by reads and writes of 128 KiB (--reflink=never)."""
    if by_kernel:
        return Side("cp (kernel copies)", ["cp", str(source), "copy"], folder, [])
    return Side("cp (reads and writes)", ["cp", "--reflink=never", str(source), "copy"], folder, [])


def msd(servers: RunningServers, source: Path, folder: Path, *, sync: bool = False) -> Side:
    """A download of a file or a folder with msd from all workers. With ``sync``, it waits for the disk."""
    name = "msd, encrypted" if servers.encrypted else "msd"
    command = [*MSD, "download", *servers.server_flags, *([] if sync else ["--no-sync"])]
    if source.is_dir():
        return Side(name, [*command, "--quiet", "-o", "copy/", f"{source.name}/"], folder, servers.pids, servers.env)
    command += ["--json", "-i", "60", "-o", "copy", source.name]

    def parse_seconds(output: str) -> float:
        return float(Download.parse(output)[-1]["seconds"])

    return Side(name, command, folder, servers.pids, servers.env, parse_seconds)


@contextmanager
def bare(source: Path, folder: Path, window: int, *, workers: int = 1) -> Iterator[Side]:
    """Starts ``workers`` servers of ``bench/bare.py`` and yields its client, the bare loop."""
    command = [sys.executable, "-P", str(Path(__file__).with_name("bare.py"))]
    with ExitStack() as stack:
        servers, ports = [], []
        for _ in range(workers):
            serve = [*command, "serve", str(source)]
            server = stack.enter_context(subprocess.Popen(serve, stdout=subprocess.PIPE, text=True))
            stack.callback(server.kill)
            assert server.stdout is not None
            servers.append(server)
            ports.append(server.stdout.readline().strip())
        fetch = [*command, "fetch", "copy", str(source.stat().st_size), str(window), *ports]
        name = f"bare loop, window {window}" if workers == 1 else f"bare loop, {workers} workers"
        yield Side(name, fetch, folder, [server.pid for server in servers], parse_seconds=float)


@contextmanager
def nginx(source: Path, folder: Path, *, tls: bool = False) -> Iterator[tuple[list[str], list[int]]]:
    """Starts four nginx servers, each with its own process and address; yields the URLs of the file and the pids."""
    ports = free_ports()[:4]
    lines = f"root {source.parent}; sendfile on; tcp_nopush on;"
    if tls:
        _make_certificate(folder)
        lines += f" ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;"
    with ExitStack() as stack:
        pids = []
        for number, port in enumerate(ports, 1):
            config = folder / f"nginx-{number}{'-tls' if tls else ''}.conf"
            config.write_text(
                f"daemon off; master_process off; pid {config}.pid; error_log /dev/null; events {{}} http {{"
                f" access_log off; server {{ listen 127.0.0.{number}:{port}{' ssl' if tls else ''}; {lines} }} }}"
            )
            server = subprocess.Popen(["nginx", "-c", str(config), "-p", str(folder)], stderr=subprocess.DEVNULL)
            stack.callback(server.wait)
            stack.callback(server.terminate)
            pids.append(server.pid)
        for number, port in enumerate(ports, 1):
            wait_for("nginx", partial(_listens, (f"127.0.0.{number}", port)))
        scheme = "https" if tls else "http"
        yield [f"{scheme}://127.0.0.{n}:{port}/{source.name}" for n, port in enumerate(ports, 1)], pids


def aria2(urls: list[str], pids: list[int], folder: Path, per_server: int) -> Side:
    """A download with aria2 over ``per_server`` connections to each server. aria2 verifies nothing."""
    command = ["aria2c", "-q", f"-x{per_server}", f"-s{4 * per_server}", "-k1M", "--file-allocation=none"]
    command += ["--check-certificate=false", "--allow-overwrite=true", "-o", "copy", *urls]
    secure = " over HTTPS" if urls[0].startswith("https") else ""
    return Side(f"aria2 -x{per_server} -s{4 * per_server}{secure}", command, folder, pids)


def aria2_verifying(source: Path, urls: list[str], pids: list[int], folder: Path, per_server: int) -> Side:
    """The same from a Metalink file: aria2 compares each piece of 1 MiB with its SHA-256 while it downloads."""
    secure = " over HTTPS" if urls[0].startswith("https") else ""
    metalink = folder / f"source{secure.replace(' ', '-')}.meta4"
    metalink.write_text(_metalink(source, urls))
    command = ["aria2c", "-q", f"-x{per_server}", f"-s{4 * per_server}", "-k1M", "--file-allocation=none"]
    command += ["--check-certificate=false", "--allow-overwrite=true", "--realtime-chunk-checksum=true"]
    command += ["--metalink-file", str(metalink)]
    return Side(f"aria2 -x{per_server} -s{4 * per_server}, SHA-256{secure}", command, folder, pids)


def _metalink(source: Path, urls: list[str]) -> str:
    """Returns a Metalink (RFC 5854) of a file, with the hashes of its pieces."""
    hashes = []
    with source.open("rb") as file:
        while piece := file.read(MIB):
            hashes.append(f"<hash>{hashlib.sha256(piece).hexdigest()}</hash>")
    size = source.stat().st_size
    return (
        '<?xml version="1.0" encoding="UTF-8"?><metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="copy">'
        f'<size>{size}</size><pieces length="{MIB}" type="sha-256">{"".join(hashes)}</pieces>'
        f"{''.join(f'<url>{url}</url>' for url in urls)}</file></metalink>"
    )


def curl(urls: list[str], pids: list[int], folder: Path) -> Side:
    return Side("curl, one nginx", ["curl", "-sk", "-o", "copy", urls[0]], folder, pids[:1])


def axel(urls: list[str], pids: list[int], folder: Path) -> Side:
    return Side("axel -n4", ["axel", "-q", "-n4", "-k", "-o", "copy", *urls], folder, pids)


@contextmanager
def rsync(source: Path, folder: Path) -> Iterator[Side]:
    """Serves a folder with rsync's daemon and yields the side that copies it."""
    port = free_ports()[0]
    config = folder / "rsyncd.conf"
    config.write_text(f"use chroot = no\n[shared]\npath = {source.parent}\n")
    daemon = ["rsync", "--daemon", "--no-detach", "--port", str(port), "--address", "127.0.0.1", f"--config={config}"]
    with _running(daemon, port) as pid:
        command = ["rsync", "-a", f"rsync://127.0.0.1:{port}/shared/{source.name}", "copy/"]
        yield Side("rsync", command, folder, [pid])


@contextmanager
def rclone(source: Path, folder: Path) -> Iterator[Side]:
    """Serves a folder over HTTP and yields the side that copies it with 32 transfers at a time."""
    port = free_ports()[0]
    serve = ["rclone", "serve", "http", str(source), "--addr", f"127.0.0.1:{port}", "--read-only"]
    with _running(serve, port) as pid:
        url = f"http://127.0.0.1:{port}"
        command = ["rclone", "copy", ":http:", "--http-url", url, "--transfers", "32", "--checkers", "32"]
        yield Side("rclone", [*command, f"copy/{source.name}"], folder, [pid])


@contextmanager
def tar(source: Path, folder: Path) -> Iterator[Side]:
    """Serves a folder as the output of ``tar`` on a socket, and yields the side that unpacks it."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            subprocess.run(["tar", "-cC", source.parent, source.name], stdout=self.request.fileno(), check=True)

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        script = f"mkdir copy && exec tar -xC copy </dev/tcp/127.0.0.1/{server.server_address[1]}"
        try:
            yield Side("tar", ["bash", "-c", script], folder, [])
        finally:
            server.shutdown()
            thread.join()


def missing(*programs: str) -> list[str]:
    """Returns the names of the programs that are not installed."""
    return [name for name in programs if shutil.which(name) is None]


def remove(path: Path) -> None:
    """Removes a file or a folder with its contents, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _running(command: list[str], port: int) -> Iterator[int]:
    """Starts a server, waits until it listens, and yields its pid."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(command[0], partial(_listens, ("127.0.0.1", port)))
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def _listens(address: tuple[str, int]) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(address) == 0


def _make_certificate(folder: Path) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    names = ["-subj", "/CN=localhost", "-days", "2", "-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem"]
    subprocess.run([*command, *names], check=True, capture_output=True)
