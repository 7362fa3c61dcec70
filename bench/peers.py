"""The sides of a comparison: ``msd`` and other programs that copy or fetch the same file.

Each has its servers up for as long as it is open, and runs one transfer at a time. What is counted is
everything: the processor time and the memory of the servers, too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.system import MSD, System, free_ports, run_msd

TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Sample:
    """One transfer: wall-clock seconds, processor seconds of all processes, and the most memory that the
    client and the largest server process held at once (MiB).
    """

    seconds: float
    cpu: float
    client_mib: float
    server_mib: float


@dataclass
class Side:
    """A command that makes ``copy`` in ``folder``, and the processes that serve it."""

    name: str
    command: list[str]
    folder: Path
    servers: list[int]
    env: dict[str, str] | None = None

    def run(self) -> Sample:
        """Runs it once; raises where it fails."""
        (self.folder / "copy").unlink(missing_ok=True)
        for pid in self.servers:
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # The peak is that of this run.
        before = sum(map(cpu_seconds, self.servers))
        began = time.perf_counter()
        process = subprocess.Popen(
            self.command, cwd=self.folder, env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{self.name} ended with code {process.returncode}")
        cpu = used.ru_utime + used.ru_stime + sum(map(cpu_seconds, self.servers)) - before
        peak = max((peak_mib(pid) for pid in self.servers), default=0.0)
        return Sample(seconds, cpu, used.ru_maxrss / 1024, peak)


def cpu_seconds(pid: int) -> float:
    """Processor seconds that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def peak_mib(pid: int) -> float:
    """The peak of a process's resident memory."""
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cp(source: Path, folder: Path) -> Side:
    return Side("cp", ["cp", str(source), "copy"], folder, [])


@contextmanager
def msd(source: Path, folder: Path, *, encrypted: bool = False) -> Iterator[Side]:
    """Four workers, plain or with keys, and one download from them."""
    home = folder / ("keys" if encrypted else "no-keys")
    home.mkdir()
    env = {**os.environ, "XDG_CONFIG_HOME": str(home), "XDG_CACHE_HOME": str(home)}
    config = home / "config.toml"
    config.write_text('[broker]\nsecurity = "curve"\n' if encrypted else "")
    if encrypted:
        assert run_msd("keys", "init", env=env).returncode == 0
    with System(source, "-c", str(config), env=env) as system:
        system.wait_until_ready()
        command = [*MSD, "download", "-c", str(config), *system.where, "--quiet", "--no-sync", "-o", "copy"]
        name = "msd, encrypted" if encrypted else "msd"
        yield Side(name, command, folder, [system.pid, *children(system.pid)], env)


@contextmanager
def nginx(source: Path, folder: Path, *, tls: bool = False) -> Iterator[tuple[list[str], list[int]]]:
    """Four nginx of one process each, an address each: their URLs of the file, and their process ids."""
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
        time.sleep(0.5)  # nginx has no word for "ready".
        scheme = "https" if tls else "http"
        yield [f"{scheme}://127.0.0.{n}:{port}/{source.name}" for n, port in enumerate(ports, 1)], pids


def aria2(urls: list[str], pids: list[int], folder: Path, per_server: int) -> Side:
    """aria2 with so many connections to each server; it verifies nothing."""
    command = ["aria2c", "-q", f"-x{per_server}", f"-s{4 * per_server}", "-k1M", "--file-allocation=none"]
    command += ["--check-certificate=false", "--allow-overwrite=true", "-o", "copy", *urls]
    secure = " over HTTPS" if urls[0].startswith("https") else ""
    return Side(f"aria2 -x{per_server} -s{4 * per_server}{secure}", command, folder, pids)


def curl(urls: list[str], pids: list[int], folder: Path) -> Side:
    return Side("curl, one nginx", ["curl", "-sk", "-o", "copy", urls[0]], folder, pids[:1])


def axel(urls: list[str], pids: list[int], folder: Path) -> Side:
    return Side("axel -n4", ["axel", "-q", "-n4", "-k", "-o", "copy", *urls], folder, pids)


def missing() -> list[str]:
    """The programs to compare with that are not here."""
    return [name for name in ("nginx", "aria2c", "curl", "axel") if shutil.which(name) is None]


def _make_certificate(folder: Path) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    names = ["-subj", "/CN=localhost", "-days", "2", "-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem"]
    subprocess.run([*command, *names], check=True, capture_output=True)
