"""Server 5 and three workers on a real Docker Swarm. The steps of docs/deploy.md are run as they are, and so are the
Dockerfile and the stack file.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.engine.base_image import CHANGES, ROOT, write_base_image
from tests.engine.docker_hosts import DockerHosts, skip_unless_possible
from tests.processes import MIB, TIMEOUT, Download, files_equal, make_file, run_msd, wait_for

pytestmark = pytest.mark.engine

NAMES = {"host-1", "host-2", "host-3"}
#: The rate of each host while something happens to a download, and the size of the file: it lasts for 300 s.
RATE, SIZE = "4mbit", 430 * MIB
#: Seconds that an upgrade of four containers may take.
UPGRADE_TIMEOUT = 8 * TIMEOUT
BROKER, WORKER = "msd_broker", "msd_worker"


def steps(heading: str) -> str:
    """The commands below a heading of docs/deploy.md."""
    page = (ROOT / "docs" / "deploy.md").read_text()
    section = re.split(r"^##+ ", page.partition(f"# {heading}\n")[2], flags=re.MULTILINE)[0]
    section = re.sub(r"^```\n.*?^```\n", "", section, flags=re.MULTILINE | re.DOTALL)
    commands = re.findall(r"^    (.*)", section, re.MULTILINE)
    assert commands, heading
    return "\n".join(commands)


class Swarm:
    """The deployed stack, and a link to the shared file."""

    def __init__(self, hosts: DockerHosts, checkout: Path, folder: Path) -> None:
        self.hosts = hosts
        self.checkout = checkout
        self.folder = folder
        self.path = hosts.share / "Star.mp4"
        self.wait_until_awake(NAMES)
        self.link = self.on_broker("invite", "Star.mp4", "--server5", "192.0.2.1").strip()
        self.env = {
            **os.environ,
            **{f"XDG_{name}": str(folder) for name in ("RUNTIME_DIR", "CACHE_HOME", "CONFIG_HOME")},
        }
        # The workers learn of the link within a second.
        wait_for("the link", lambda: run_msd("list", self.link, wrapper=hosts.client, env=self.env).returncode == 0)

    def containers(self, number: int, service: str) -> list[str]:
        """The ids of the running containers of a service on a host."""
        return self.hosts.docker(number, "ps", "-q", "--no-trunc", "-f", f"name={service}").split()

    def absence(self, number: int, service: str) -> tuple[datetime, datetime]:
        """When the last container of the first image ended on a host, and when the first one of the second started."""
        containers = self.hosts.docker(number, "ps", "-aq", "-f", f"name={service}").split()
        line = "{{.Config.Image}} {{.State.StartedAt}} {{.State.FinishedAt}}"
        lines = self.hosts.docker(number, "inspect", f"--format={line}", *containers).splitlines()
        states = [line.split() for line in lines]
        left = max(datetime.fromisoformat(finished) for image, _, finished in states if image == "msd:1")
        return left, min(datetime.fromisoformat(started) for image, started, _ in states if image == "msd:2")

    def on_broker(self, *arguments: str) -> str:
        (container,) = wait_for("server 5", lambda: self.containers(1, BROKER))
        return self.hosts.docker(1, "exec", container, "msd", *arguments)

    def workers(self) -> dict[str, dict[str, Any]]:
        """The workers in the status, by name; empty while server 5 does not answer."""
        try:
            return {worker["name"]: worker for worker in json.loads(self.on_broker("status", "--json"))["workers"]}
        except AssertionError:
            return {}

    def wait_until_awake(self, names: set[str]) -> None:
        def awake() -> bool:
            return {name for name, worker in self.workers().items() if worker["state"] == "awake"} == names

        wait_for(f"{sorted(names)} to be awake and no other worker", awake, 2 * TIMEOUT)

    def download(self) -> Download:
        flags = ("-o", str(self.folder / "copy"), "--force")
        return Download([], self.link, *flags, wrapper=self.hosts.client, env=self.env)

    def is_downloaded(self) -> bool:
        return files_equal(self.path, self.folder / "copy")


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    skip_unless_possible()
    folder = tmp_path_factory.mktemp("swarm")
    image = folder / "base.tar"
    write_base_image(image)
    checkout = folder / "checkout"
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(".*", "tests", "docs"), symlinks=True)
    shutil.copy(ROOT / ".dockerignore", checkout)
    with DockerHosts(folder / "hosts") as hosts:
        make_file(hosts.share / "Star.mp4", SIZE, random.Random(0))
        base = (ROOT / "Dockerfile").read_text().splitlines()[1].split()[1]
        hosts.docker(1, "import", *(f"--change={change}" for change in CHANGES), str(image), base)
        print(hosts.run(steps("Three hosts with Docker Swarm"), cwd=checkout))
        yield Swarm(hosts, checkout, folder)


@pytest.fixture(autouse=True)
def _full_rates(swarm: Swarm) -> Iterator[None]:
    yield
    swarm.hosts.limit_rates("")


@pytest.fixture
def slow_download(swarm: Swarm) -> Iterator[Download]:
    """A download that lasts until the test lets it end."""
    swarm.wait_until_awake(NAMES)
    swarm.hosts.limit_rates(RATE)
    with swarm.download() as download:
        download.wait_until_verified(0.01)
        yield download


def received(download: Download) -> dict[str, int]:
    """The bytes that each worker has sent so far, by its number."""
    workers = download.events_of("progress")[-1]["workers"]
    return {name: worker["received"] for name, worker in workers.items()}


def wait_until_sending(download: Download, numbers: set[str]) -> None:
    """Waits until each of these workers has sent more than now."""
    before = received(download)

    def sent() -> bool:
        assert download.process.poll() is None, download.err.text
        now = received(download)
        return all(now.get(number, 0) > before.get(number, 0) for number in numbers)

    wait_for(f"bytes from {sorted(numbers)}", sent)


def numbers(swarm: Swarm, names: set[str]) -> set[str]:
    return {str(worker["number"]) for name, worker in swarm.workers().items() if name in names}


def finish(swarm: Swarm, download: Download) -> dict[str, Any]:
    assert download.process.poll() is None, download.err.text
    swarm.hosts.limit_rates("")
    done = download.wait_until_done()
    assert swarm.is_downloaded()
    return done


def test_a_download_comes_from_three_hosts(swarm: Swarm) -> None:
    with swarm.download() as download:
        done = download.wait_until_done()
    assert swarm.is_downloaded()
    assert all(worker["bytes"] > 0 for worker in done["workers"].values())
    assert len(done["workers"]) == 3


def test_the_containers_have_no_rights_and_write_nothing_but_their_volumes(swarm: Swarm) -> None:
    for service in (BROKER, WORKER):
        (container,) = swarm.containers(1, service)
        status = dict(
            line.split(":\t") for line in swarm.hosts.docker(1, "exec", container, "cat", "/proc/1/status").splitlines()
        )
        assert set(status["Uid"].split()) == {"10001"}
        assert {int(status[name], 16) for name in ("CapBnd", "CapEff", "CapPrm")} == {0}
        # 2: a filter of system calls.
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        mounts = swarm.hosts.docker(1, "exec", container, "cat", "/proc/1/mounts").splitlines()
        options = {line.split()[1]: line.split()[3].split(",") for line in mounts}
        assert "ro" in options["/"]
        assert service == BROKER or "ro" in options["/srv/share"]
    (worker,) = swarm.containers(1, WORKER)
    show_mode = "import os; key = os.stat('/run/secrets/worker.key'); print(oct(key.st_mode), key.st_uid)"
    assert swarm.hosts.docker(1, "exec", worker, "python", "-c", show_mode) == "0o100400 10001"


def test_a_download_goes_on_while_a_container_is_killed_and_replaced(swarm: Swarm, slow_download: Download) -> None:
    (container,) = swarm.containers(2, WORKER)
    swarm.hosts.docker(2, "kill", container)
    wait_until_sending(slow_download, numbers(swarm, NAMES - {"host-2"}))
    wait_for("another container", lambda: set(swarm.containers(2, WORKER)) - {container})
    swarm.wait_until_awake(NAMES)
    wait_until_sending(slow_download, numbers(swarm, NAMES))
    assert finish(swarm, slow_download)["workers"].keys() == numbers(swarm, NAMES)


def test_a_download_goes_on_while_a_host_dies_and_returns(swarm: Swarm, slow_download: Download) -> None:
    swarm.hosts.kill(3)
    wait_until_sending(slow_download, numbers(swarm, NAMES - {"host-3"}))

    def state() -> str:
        return swarm.hosts.docker(1, "node", "ls", "--format", "{{.Hostname}} {{.Status}}")

    wait_for("the engine to see it", lambda: "host-3 Down" in state(), 2 * TIMEOUT)
    swarm.wait_until_awake(NAMES - {"host-3"})
    wait_until_sending(slow_download, numbers(swarm, NAMES - {"host-3"}))
    swarm.hosts.start(3)
    swarm.wait_until_awake(NAMES)
    wait_until_sending(slow_download, numbers(swarm, NAMES))
    finish(swarm, slow_download)


def test_a_download_goes_on_while_all_workers_and_the_broker_are_upgraded(
    swarm: Swarm, slow_download: Download
) -> None:
    project = swarm.checkout / "pyproject.toml"
    project.write_text(re.sub('^version = ".*"', 'version = "0.1.1"', project.read_text(), flags=re.MULTILINE))
    print(swarm.hosts.run(steps("Upgrades with Docker Swarm"), cwd=swarm.checkout, timeout=UPGRADE_TIMEOUT))
    for number, service in ((1, WORKER), (2, WORKER), (3, WORKER), (1, BROKER)):
        (container,) = swarm.containers(number, service)
        assert "0.1.1" in swarm.hosts.docker(number, "exec", container, "msd", "--version")
    swarm.wait_until_awake(NAMES)
    wait_until_sending(slow_download, numbers(swarm, NAMES))
    finish(swarm, slow_download)
    absences = [*sorted(swarm.absence(number, WORKER) for number in (1, 2, 3)), swarm.absence(1, BROKER)]
    for (_, returned), (left, _) in itertools.pairwise(absences):
        assert returned < left, f"not one after another: {absences}"
