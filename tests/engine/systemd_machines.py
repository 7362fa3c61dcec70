"""Machines with a systemd of their own: namespaces whose root file system is this one, with a layer above it in memory.

They share the kernel of this machine, so its settings and devices are read-only there.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import pytest

from tests.environments.recipes import Wrapper
from tests.processes import TIMEOUT, Process, wait_for

#: The oldest version of systemd that has all settings of the units.
OLDEST_SYSTEMD = 247
SYSTEMD = "/lib/systemd/systemd"
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
#: Rights to the clock, the modules and the power of this machine.
RIGHTS = "-sys_module,-sys_time,-sys_boot"


class Machine:
    """A machine called ``name`` in the network of ``wrapper``. ``mounts`` are folders of this machine that it has, too,
    read-only. A context manager: leaving it ends all its processes; nothing that it wrote remains.
    """

    def __init__(self, folder: Path, name: str, wrapper: Wrapper, mounts: Mapping[str, Path]) -> None:
        self._cgroup = _cgroup_root() / f"msd-test-{os.getpid()}-{name}"
        self._cgroup.mkdir()
        top = folder / name
        top.mkdir()
        binds = [
            f"mkdir -p .{path} && mount --bind {source} .{path} && mount -o remount,bind,ro .{path}"
            for path, source in mounts.items()
        ]
        lines = [
            f"mount -t tmpfs -o mode=755 none {top} && cd {top} && mkdir upper work root",
            "mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work none root && cd root",
            "mount -t proc proc proc && mount --bind proc/sys proc/sys && mount -o remount,bind,ro proc/sys",
            "mount -t sysfs -o ro sys sys && mount -t cgroup2 none sys/fs/cgroup",
            "for one in run dev; do mount -t tmpfs -o mode=755 none $one; done",
            f"for one in {' '.join(DEVICES)}; do touch dev/$one && mount --bind /dev/$one dev/$one; done",
            "mkdir dev/shm dev/pts && mount -t devpts -o newinstance,ptmxmode=666 none dev/pts && ln -s pts/ptmx dev",
            "for one in tmp dev/shm; do mount -t tmpfs -o mode=1777 none $one; done",
            *binds,
            f"echo {name} > etc/hostname && : > etc/fstab && tr -d - < proc/sys/kernel/random/uuid > etc/machine-id",
            "mkdir tmp/old && pivot_root . tmp/old && umount -l /tmp/old && mount --make-rshared /",
            f"exec setpriv --bounding-set={RIGHTS} env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin"
            f" {SYSTEMD} --system --unit=basic.target --show-status=no",
        ]
        # ``ip netns exec`` would hide the cgroups.
        enter = f'echo $$ > {self._cgroup}/cgroup.procs && exec nsenter --net=/run/netns/{wrapper[-1]} "$@"'
        isolate = ["unshare", "--mount", "--pid", "--fork", "--uts", "--ipc", "--cgroup", "--kill-child"]
        self._process = Process(["sh", "-ec", enter, "sh", *isolate, "sh", "-ec", "\n".join(lines)])
        try:
            wait_for(f"the start of {name}", self._is_running)
        except BaseException:
            print(self._process.err.text)
            self._end()
            raise

    def run(self, script: str, **variables: str) -> str:
        """Runs lines of a shell as root, in the checkout. Returns their output; fails the test if a line fails."""
        ended = self._run(script, variables)
        assert ended.returncode == 0, f"{script}\n{ended.stdout}{ended.stderr}"
        return ended.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is not None:
            print(self._run("journalctl --no-pager -n 30 -u 'msd-*'", {}).stdout)
        self._end()

    def _is_running(self) -> bool:
        assert self._process.process.poll() is None, self._process.err.text
        return self._run("systemctl is-system-running", {}).stdout.strip() in ("running", "degraded")

    def _run(self, script: str, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        enter = ["nsenter", f"--target={children[0] if children else pid}", "--all", "--root", "--wd"]
        env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", **variables}
        words = [*enter, "env", "-i", *(f"{name}={value}" for name, value in env.items()), "bash", "-es"]
        script = f"shopt -s expand_aliases\ncd /opt/checkout\n{script}\n"
        return subprocess.run(words, input=script, capture_output=True, text=True, timeout=TIMEOUT, check=False)

    def _end(self) -> None:
        self._process.process.kill()  # The kernel ends systemd, the first process of the namespace, and with it all.
        self._process.wait()
        wait_for("the end of the machine", lambda: "populated 0" in (self._cgroup / "cgroup.events").read_text())
        for folder in sorted(self._cgroup.rglob("*/"), reverse=True):
            with contextlib.suppress(NotADirectoryError):
                folder.rmdir()
        self._cgroup.rmdir()


def need_systemd() -> None:
    """Skips the test where no machine with systemd can be made."""
    if os.geteuid() != 0 or not Path(SYSTEMD).exists():
        pytest.skip("systemd cannot be run: this needs root and systemd")
    missing = [name for name in ("unshare", "nsenter", "setpriv", "pivot_root") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"systemd cannot be run: {', '.join(missing)} missing")
    printed = subprocess.run([SYSTEMD, "--version"], capture_output=True, text=True, check=True).stdout
    version = re.match(r"systemd (\d+)", printed)
    if version is None or int(version[1]) < OLDEST_SYSTEMD:
        pytest.skip(f"systemd is older than version {OLDEST_SYSTEMD}")
    layer = "mkdir upper work root && mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work none root"
    command = ["unshare", "--mount", "sh", "-c", f"mount -t tmpfs none /mnt && cd /mnt && {layer}"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        pytest.skip(f"systemd cannot be run: no layer above the root file system: {ended.stderr.strip()}")
    _cgroup_root()


def _cgroup_root() -> Path:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup2 " in line:
            return Path(line.split()[4])
    pytest.skip("systemd cannot be run: no cgroups of version 2")
