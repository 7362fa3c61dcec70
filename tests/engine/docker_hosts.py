"""Hosts that each run a Docker daemon, and one without for clients, in namespaces of this machine.

Host N is called ``host-N`` and has the address 192.0.2.N, its own processes, mounts and interfaces. All of it is in
namespaces of one process that reads a pipe of the test: however the test ends, the pipe is closed, the process ends,
and the kernel ends the rest.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.environments.recipes import Wrapper
from tests.processes import wait_for

#: Makes the network, for as many hosts as the parameter says, and holds the namespaces until standard input is closed.
NETWORK = """
set -e
mount -t tmpfs none /run
mount -t tmpfs none /mnt
mkdir /mnt/share
ip link set lo up
ip link add sw type bridge
ip link set sw up
for n in $(seq $0); do
    ip netns add h$n
    ip link add e0 netns h$n type veth peer name p$n
    ip link set p$n master sw up
    ip -n h$n link set lo up
    ip -n h$n address add 192.0.2.$n/24 dev e0
    ip -n h$n link set e0 up
done
echo ready
exec cat
"""
#: Runs the daemon of a host, whose number and cgroup are the parameters. Its disk is a folder in memory.
HOST = """
set -e
mount -t tmpfs none /run
mount -t tmpfs none /srv
mkdir /srv/share
mount --bind /mnt/share /srv/share
mkdir -p /mnt/h$0
hostname host-$0
# The daemons cannot change the packet filter of a kernel without it, and need not.
exec docker-init -- dockerd --host unix:///mnt/h$0/docker.sock --data-root /mnt/h$0/data --exec-root /run/docker \
    --pidfile /run/docker.pid --cgroup-parent "$1" --exec-opt native.cgroupdriver=cgroupfs --log-level warn \
    --iptables=false --ip6tables=false --no-new-privileges
"""
PROGRAMS = ("unshare", "nsenter", "ip", "tc", "dockerd", "docker", "docker-init", "containerd", "runc")


class DockerHosts:
    """``count`` hosts with daemons that answer. A context manager. ``folder`` gets their logs."""

    def __init__(self, folder: Path, count: int = 3) -> None:
        self._folder = folder
        self._count = count
        self._cgroup = f"msd-engine-{os.getpid()}"
        self._hosts: dict[int, subprocess.Popen[str]] = {}

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True)
        namespaces = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        remove_cgroups = f'find /sys/fs/cgroup -depth -type d -path "*/{self._cgroup}*" -exec rmdir {{}} +'
        self._network = subprocess.Popen(
            ["sh", "-c", f'"$@"; {remove_cgroups}', "sh", *namespaces, "sh", "-c", NETWORK, str(self._count + 1)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            assert self._network.stdout is not None
            assert (line := self._network.stdout.readline()) == "ready\n", line
            # The processes are the shell, unshare, and the first one in the namespaces.
            self.first = _only_child(_only_child(self._network.pid))
            for number in range(1, self._count + 1):
                self.start(number)
            for number in range(1, self._count + 1):
                self.wait_for_daemon(number)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        assert self._network.stdin is not None
        assert self._network.stdout is not None
        self._network.stdin.close()
        self._network.wait()
        self._network.stdout.close()
        for host in self._hosts.values():
            host.wait()

    @property
    def share(self) -> Path:
        """The folder that all hosts have as /srv/share."""
        return self._disks / "share"

    @property
    def _disks(self) -> Path:
        return Path(f"/proc/{self.first}/root/mnt")

    @property
    def client(self) -> Wrapper:
        """The command runs on the host without a daemon."""
        return self.on(self._count + 1)

    def on(self, number: int) -> Wrapper:
        """The command has the network of this host, and the processes and files of this machine."""
        return ["nsenter", f"--net=/proc/{self.first}/root/run/netns/h{number}"]

    def start(self, number: int) -> None:
        """Turns on a host, with what its disk had before."""
        self._run_on(number, "ip link set e0 up")
        network = ["nsenter", f"--target={self.first}", "--mount", "--net", "--pid"]
        host = ["nsenter", f"--net=/run/netns/h{number}", "unshare", "--mount", "--uts", "--pid", "--fork"]
        host += ["--kill-child", "--mount-proc"]
        with (self._folder / f"h{number}.log").open("a") as log:
            self._hosts[number] = subprocess.Popen(
                [*network, *host, "sh", "-c", HOST, str(number), self._cgroup],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def wait_for_daemon(self, number: int) -> None:
        log = self._folder / f"h{number}.log"

        def answers() -> bool:
            assert self._hosts[number].poll() is None, log.read_text()[-2000:]
            asked = subprocess.run(["docker", "info"], env=self.env(number), capture_output=True, check=False)
            return asked.returncode == 0

        wait_for(f"the daemon of host {number}", answers)

    def kill(self, number: int) -> None:
        """Turns off a host as a power failure does: its peers get no packet that says so."""
        self._run_on(number, "ip link set e0 down")
        # The processes are nsenter, unshare, and the first one in the namespace of the host.
        os.kill(_only_child(_only_child(self._hosts[number].pid)), signal.SIGKILL)
        self._hosts.pop(number).wait()

    def limit_rates(self, rate: str) -> None:
        """Hosts with daemons send at most ``rate``, such as "8mbit", from now on; without a limit if it is empty."""
        for number in range(1, self._count + 1):
            limit = f"tbf rate {rate} burst 64kb latency 50ms" if rate else "pfifo"
            self._run_on(number, f"tc qdisc replace dev e0 root {limit}")

    def env(self, number: int) -> dict[str, str]:
        """The variables with which ``docker`` uses the daemon of this host."""
        socket = f"unix://{self._disks}/h{number}/docker.sock"
        # The daemon has no BuildKit.
        own = {"DOCKER_HOST": socket, "DOCKER_CONFIG": str(self._folder / "config"), "DOCKER_BUILDKIT": "0"}
        return {**os.environ, **own}

    def docker(self, number: int, *arguments: str) -> str:
        """Runs ``docker`` with the daemon of a host; returns its output."""
        result = subprocess.run(
            ["docker", *arguments], env=self.env(number), capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, f"docker {' '.join(arguments)}: {result.stderr}"
        return result.stdout.strip()

    def run(self, script: str, **options: Any) -> str:
        """Runs a script on host 1, where ``ssh`` runs ``docker`` for another host; returns its output."""
        programs = self._folder / "programs"
        if not programs.exists():
            programs.mkdir()
            (programs / "ssh").write_text(
                f'#!/bin/sh\nDOCKER_HOST=unix://{self._disks}/h${{1##*.}}/docker.sock\nshift\nexec sh -c "$*"\n'
            )
            (programs / "ssh").chmod(0o755)
        env = self.env(1)
        env["PATH"] = f"{programs}:{env['PATH']}"
        command = [*self.on(1), "sh", "-e", "-c", script]
        result: subprocess.CompletedProcess[str] = subprocess.run(
            command, env=env, capture_output=True, text=True, check=False, **options
        )
        assert result.returncode == 0, f"{script}\n{result.stdout}{result.stderr}"
        return result.stdout

    def _run_on(self, number: int, command: str) -> None:
        subprocess.run([*self.on(number), *command.split()], check=True)


def skip_unless_possible() -> None:
    """Skips the test if this machine cannot run such hosts."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        pytest.skip(f"{', '.join(missing)}: not installed; make test-engine installs docker.io on Debian")
    if subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "true"], check=False).returncode:
        pytest.skip("cannot make namespaces here")


def _only_child(pid: int) -> int:
    def child() -> int:
        with suppress(OSError, ValueError):
            (only,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            return int(only)
        return 0

    return wait_for(f"a child of process {pid}", child)
