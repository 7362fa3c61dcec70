"""Environments for commands under test: shells, signals, limits, namespaces, mounts.

A recipe is a context manager or a function. It returns a *wrapper* (words in front of a command: pass it to
``System``, ``Process`` or ``run_msd`` as ``wrapper=…``), a folder, or a terminal. It removes what it created, and skips
the test with a reason where the environment cannot be created::

    with mounted_tmpfs(tmp_path / "disk", "size=8k") as disk:
        ended = run_msd("download", *flags, "-o", str(disk / "copy"), wrapper=limited("--nofile=24"))
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import pytest

from tests.processes import MSD, TIMEOUT, wait_for
from tests.terminal import Terminal

Wrapper = list[str]

SHARED_MEMORY = Path("/dev/shm")
#: Where version 1 and version 2 of the kernel's interface have the cgroups that limit processes.
PIDS_CGROUPS = (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup"))


# Signals, streams, variables, users.


def with_signals_ignored(*names: str) -> Wrapper:
    """The command starts with these signals ignored, such as "INT" for a background job of a script."""
    return ["sh", "-c", f"trap '' {' '.join(names)}; exec \"$@\"", "sh"]


def with_signals_blocked(*numbers: signal.Signals) -> Wrapper:
    """The command starts with these signals blocked, as a program that starts it from a thread may leave them."""
    block = f"import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, {[*map(int, numbers)]})"
    return [sys.executable, "-S", "-E", "-c", f"{block}; os.execvp(sys.argv[1], sys.argv[1:])"]


def with_streams_closed(*descriptors: int) -> Wrapper:
    closed = " ".join(f"{descriptor}>&-" for descriptor in descriptors)
    return ["sh", "-c", f'exec "$@" {closed}', "sh"]


def with_non_blocking_streams() -> Wrapper:
    """Writes to the standard streams of the command fail while their reader is slow, as some programs leave them."""
    code = "import os, sys; [os.set_blocking(n, False) for n in (0, 1, 2)]; os.execvp(sys.argv[1], sys.argv[1:])"
    return [sys.executable, "-S", "-E", "-c", code]


def with_umask(mask: str) -> Wrapper:
    return ["sh", "-c", f'umask {mask}; exec "$@"', "sh"]


def in_removed_folder(folder: Path) -> Wrapper:
    """The current folder of the command, one in ``folder``, exists no more."""
    return ["sh", "-c", 'mkdir "$0/$$" && cd "$0/$$" && rmdir "$0/$$" && exec "$@"', str(folder)]


def without_new_privileges() -> Wrapper:
    return [_program("setpriv"), "--no-new-privs"]


def without_rights_to_files() -> Wrapper:
    """The command may read only what permissions let it read, also if root runs it."""
    rights = "-dac_override,-dac_read_search"
    return [_program("setpriv"), f"--bounding-set={rights}", f"--inh-caps={rights}"] if os.geteuid() == 0 else []


def with_variables(**variables: str) -> Wrapper:
    """The command sees these environment variables only; without any, its environment is empty."""
    return [_program("env"), "-i", *(f"{name}={value}" for name, value in variables.items())]


def as_unknown_user() -> Wrapper:
    """The command runs as a user without an account or a home folder, as in many containers."""
    _need_root()
    wrapper = [_program("setpriv"), "--reuid", "54321", "--regid", "54321", "--clear-groups", "env", "-u", "HOME"]
    _check([*wrapper, *MSD, "--version"])  # The checkout may be in a folder that only its owner can enter.
    return wrapper


def with_encoding(folder: Path, charmap: str) -> Wrapper:
    """The command runs in a locale with this encoding, such as "ISO-8859-1"; the locale is made in ``folder``."""
    locale = folder / f"test.{charmap}"
    # The exit code is 1 for a mere warning.
    subprocess.run([_program("localedef"), "--no-archive", "-i", "en_US", "-f", charmap, str(locale)], check=False)
    if not locale.exists():
        pytest.skip(f"localedef cannot make a locale for {charmap}")
    return ["env", f"LOCPATH={folder}", f"LC_ALL={locale.name}"]


def remove_clock_files() -> None:
    """Removes what libfaketime has left in /dev/shm of processes that have ended without running their destructors."""
    for path in SHARED_MEMORY.glob("*faketime_s[he]m_*"):
        if not Path("/proc", path.name.rpartition("_")[2]).exists():
            path.unlink(missing_ok=True)


def with_clock(file: Path) -> Wrapper:
    """The command's time of day is as far from the real one as ``file`` says, such as "+3d", also after a change of the
    file. The monotonic clock is the real one. Call ``remove_clock_files`` after the end of the command.
    """
    libraries = [*Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")]
    if not libraries:
        pytest.skip("libfaketime is not installed")
    return [
        "env",
        f"LD_PRELOAD={libraries[0]}",
        f"FAKETIME_TIMESTAMP_FILE={file}",
        "FAKETIME_NO_CACHE=1",
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
    ]


# Limits.


def limited(*limits: str) -> Wrapper:
    """The command has resource limits, such as "--nofile=24", in the syntax of ``prlimit``."""
    return [_program("prlimit"), *limits]


@contextlib.contextmanager
def limited_processes(count: int) -> Iterator[Wrapper]:
    """The command and its children together may have ``count`` processes and threads (the cgroup's ``pids.max``)."""
    _need_root()
    root = next((root for root in PIDS_CGROUPS if (root / "cgroup.procs").exists()), None)
    group = None if root is None else root / f"msd-test-{os.getpid()}-{time.monotonic_ns()}"
    try:
        if group is None:
            raise FileNotFoundError(2, "no cgroup file system")
        group.mkdir()
        (group / "pids.max").write_text(str(count))
    except OSError as error:
        if group is not None and group.exists():
            group.rmdir()
        pytest.skip(f"cannot limit processes here: {error}")
    try:
        yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
    finally:
        wait_for("the end of the limited processes", lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


# Namespaces.


def in_pid_namespace() -> Wrapper:
    """The command is process 1 of its own PID namespace, as in a container."""
    _need_root()
    wrapper = [_program("unshare"), "--pid", "--fork", "--kill-child", "--mount-proc"]
    _check([*wrapper, "true"])
    return wrapper


@contextlib.contextmanager
def network_namespace(*commands: str) -> Iterator[Wrapper]:
    """The command has its own network with a loopback interface. ``commands`` are run in it first, such as
    ``"ip address add …"``.
    """
    _need_root()
    name = f"msd-test-{os.getpid()}-{time.monotonic_ns()}"
    _check([_program("ip"), "netns", "add", name])
    try:
        wrapper = ["ip", "netns", "exec", name]
        for command in ("ip link set lo up", *commands):
            _check([*wrapper, *command.split()])
        yield wrapper
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


#: The addresses of the two machines of ``two_machines``; both are on the interface ``e0``.
SERVER, CLIENT = "192.0.2.1", "192.0.2.2"


@contextlib.contextmanager
def two_machines() -> Iterator[tuple[Wrapper, Wrapper]]:
    """A machine for the servers and one for the client, in one network."""
    with network_namespace() as server:
        link = f"ip link add e0 type veth peer name e0 netns {server[-1]}"
        with network_namespace(link, f"ip address add {CLIENT}/24 dev e0", "ip link set e0 up") as client:
            run_in(server, f"ip address add {SERVER}/24 dev e0")
            run_in(server, "ip link set e0 up")
            yield server, client


@contextlib.contextmanager
def hosts(count: int, rate: str = "", *, both_ways: bool = False) -> Iterator[list[Wrapper]]:
    """``count`` machines in one network: machine N has the address 192.0.2.N. All but the first and the last can send
    at most ``rate``, such as "160mbit", if it is not empty; with ``both_ways`` all but the first, and receive no more.
    """
    with contextlib.ExitStack() as stack:
        bridge = stack.enter_context(network_namespace("ip link add sw type bridge", "ip link set sw up"))
        machines = []
        for number in range(1, count + 1):
            machine = stack.enter_context(network_namespace())
            machines.append(machine)
            run_in(machine, f"ip link add e0 type veth peer name p{number} netns {bridge[-1]}")
            run_in(bridge, f"ip link set p{number} master sw up")
            run_in(machine, f"ip address add 192.0.2.{number}/24 dev e0")
            run_in(machine, "ip link set e0 up")
            if rate and 1 < number < count + both_ways:
                run_in(machine, f"tc qdisc add dev e0 root tbf rate {rate} burst 64kb latency 50ms")
                if both_ways:
                    run_in(bridge, f"tc qdisc add dev p{number} root tbf rate {rate} burst 64kb latency 50ms")
        yield machines


def run_in(wrapper: Wrapper, command: str) -> None:
    """Runs a command in an environment, and fails the test if the command fails."""
    subprocess.run([*wrapper, *command.split()], check=True)


def filter_port(server: Wrapper, port: int) -> None:
    """No answer from this TCP port of a machine leaves it, as if a firewall dropped the packets."""
    run_in(server, f"ip rule add ipproto tcp sport {port} blackhole")


@contextlib.contextmanager
def slow_link(rate: str) -> Iterator[Wrapper]:
    """The command has its own network, whose loopback interface carries ``rate``, such as "1mbit"."""
    bucket = f"tc qdisc add dev lo root tbf rate {rate} burst 16kb latency 400ms"
    with network_namespace("ip link set lo mtu 1500", bucket) as wrapper:
        yield wrapper


def with_files_replaced(**paths: Path) -> Wrapper:
    """The command sees other files in place of those in /etc, such as ``hosts=tmp_path / "hosts"``; underscores stand
    for dots. Later changes of these files are seen, too.
    """
    _need_root()
    mounts = [f"mount --bind {path} /etc/{name.replace('_', '.')} && " for name, path in paths.items()]
    wrapper = [_program("unshare"), "--mount", "sh", "-c", f'{"".join(mounts)}exec "$@"', "sh"]
    _check([*wrapper, "true"])
    return wrapper


# File systems.


@contextlib.contextmanager
def mounted_tmpfs(folder: Path, options: str = "size=16m") -> Iterator[Path]:
    """A file system in memory with these mount options, mounted at ``folder``."""
    with _mounted(folder, ["-t", "tmpfs", "-o", options, "none"]):
        yield folder


@contextlib.contextmanager
def mounted_image(folder: Path, make: Sequence[str], size: int) -> Iterator[Path]:
    """A file system of ``size`` bytes in a file, made by a command such as ``["mkfs.ext4", "-q"]``."""
    image = folder.with_suffix(".image")
    with image.open("wb") as file:
        file.truncate(size)
    try:
        _check([_program(make[0]), *make[1:], str(image)])
        with _mounted(folder, ["-o", "loop", str(image)]):
            yield folder
    finally:
        image.unlink()


@contextlib.contextmanager
def mounted_overlay(folder: Path, lower: Path, writable: Path) -> Iterator[Path]:
    """The read-only folder ``lower`` with changes on top, as in a container. ``writable`` receives the changes."""
    for name in ("upper", "work"):
        (writable / name).mkdir()
    options = f"lowerdir={lower},upperdir={writable / 'upper'},workdir={writable / 'work'}"
    with _mounted(folder, ["-t", "overlay", "-o", options, "none"]):
        yield folder


@contextlib.contextmanager
def mounted_fuse(folder: Path, *lacking: str) -> Iterator[Path]:
    """A FUSE file system that lacks these properties: see ``tests/environments/fuse_file_system.py``."""
    _need_root()
    content = folder.with_suffix(".content")
    for path in (content, folder):
        path.mkdir()
    command = [sys.executable, "-m", "tests.environments.fuse_file_system", str(content), str(folder), *lacking]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        if not server.stdout.readline():
            pytest.skip(f"no FUSE file system here: {server.stderr.read().strip()}")
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def _mounted(folder: Path, arguments: list[str]) -> Iterator[None]:
    _need_root()
    folder.mkdir(parents=True, exist_ok=True)
    _check([_program("mount"), *arguments, str(folder)])
    try:
        yield
    finally:
        if folder.is_mount():
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


# Terminals.


class JobShell(Terminal):
    """An interactive bash on a terminal, with job control. Leaving the ``with`` block ends it and its jobs."""

    def __init__(self, env: dict[str, str] | None = None) -> None:
        super().__init__(
            "--norc",
            "--noprofile",
            "-i",
            program=[_program("bash")],
            leads_session=True,
            env={"PS1": "$ ", "HISTFILE": "", **(env or {})},
        )
        self._jobs: list[int] = []

    def enter(self, line: str) -> int:
        """Types a line. Returns the previous length of ``text``, to be passed to ``expect`` as ``after``."""
        return self.press(line + "\n")

    def start_msd(self, *arguments: str) -> int:
        """Runs ``msd`` in the background and returns its pid."""
        after = self.enter(" ".join([*MSD, *arguments, "&"]) + " echo started=$!.")

        def started() -> re.Match[str] | None:
            return re.search(r"started=(\d+)\.", self.text[after:])

        self._jobs.append(int(wait_for("the pid", started)[1]))
        return self._jobs[-1]

    def run_msd(self, *arguments: str) -> int:
        """Runs ``msd`` in the foreground and returns its pid."""
        self.expect("$ ")
        self.enter(" ".join([*MSD, *arguments]))
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        self._jobs.append(int(wait_for("the process", children.read_text)))
        return self._jobs[-1]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Not SIGHUP: under ``nohup``, the shell and its jobs ignore it.
        for pid in self._jobs:
            for number in (signal.SIGTERM, signal.SIGCONT):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        super().__exit__(kind, error, trace)
        wait_for("the end of the jobs", lambda: all(process_state(pid) in ("", "Z") for pid in self._jobs))


def process_state(pid: int) -> str:
    """The state of a process as one letter, such as S (sleeping) or T (stopped); "" if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


# Whether an environment can be created.


def _need_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can create this environment")


def _program(name: str) -> str:
    if (path := shutil.which(name)) is None:
        pytest.skip(f"{name} is not installed")
    return path


def _check(command: list[str]) -> None:
    """Runs a command that creates an environment; skips the test with its output if the command fails."""
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if ended.returncode:
        pytest.skip(f"{' '.join(command)}: {' '.join(ended.stderr.split()) or f'exit code {ended.returncode}'}")
