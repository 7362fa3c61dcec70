"""Nothing of the hosts is left, however the process ends that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.engine.base_image import ROOT, write_base_image
from tests.engine.docker_hosts import DockerHosts, skip_unless_possible
from tests.environments.recipes import process_state
from tests.processes import wait_for

pytestmark = pytest.mark.engine


def main() -> None:
    """Starts a host with a container, prints a line, and waits."""
    folder = Path(sys.argv[1])
    with DockerHosts(folder / "hosts", 1) as hosts:
        hosts.docker(1, "import", str(folder / "base.tar"), "base")
        hosts.docker(1, "run", "--detach", "--interactive", "base", "/bin/cat")
        print("ready", flush=True)
        sys.stdin.read()


def descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            for child in map(int, (task / "children").read_text().split()):
                yield child
                yield from descendants(child)


def cgroups(pid: int) -> list[Path]:
    return [*Path("/sys/fs/cgroup").glob(f"*/msd-engine-{pid}*"), *Path("/sys/fs/cgroup").glob(f"msd-engine-{pid}*")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_hosts_end_with_the_process_that_started_them(number: signal.Signals, tmp_path: Path) -> None:
    skip_unless_possible()
    write_base_image(tmp_path / "base.tar")
    command = [sys.executable, "-c", f"from {__name__} import main; main()", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        started = [*descendants(process.pid)]
        names = {(Path("/proc") / str(pid) / "comm").read_text().strip() for pid in started}
        assert names >= {"unshare", "dockerd", "containerd", "cat"}
        assert cgroups(process.pid)
        os.kill(process.pid, number)
    wait_for("the end of all processes", lambda: all(process_state(pid) in ("", "Z") for pid in started))
    wait_for("the end of the cgroups", lambda: not cgroups(process.pid))
