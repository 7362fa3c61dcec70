"""The commands of docs/deploy.md for systemd, as they stand, on three machines with a systemd of their own."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.engine.charts import ROOT
from tests.engine.installation import installed_msd
from tests.engine.systemd_machines import Machine, need_systemd
from tests.environments.recipes import Wrapper, hosts
from tests.processes import MIB, Download, files_equal, make_file, wait_for

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("runtime_folder")]

NAMES = ("host-1", "host-2", "host-3")
PREPARED = ("python3 -m venv", "PIP_CONSTRAINT=")
#: Fills the file that the administrator edits.
EDITOR = """#!/bin/sh
sed -i -e "s/^MSD_SERVER_KEY=.*/MSD_SERVER_KEY=$KEY/" -e "s/^MSD_NAME=.*/MSD_NAME=$(hostname)/" "$1"
"""


def commands(section: str) -> list[str]:
    """Returns the blocks of commands in a section of docs/deploy.md, without those that install Python packages."""
    text = (ROOT / "docs" / "deploy.md").read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    without_outputs = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    blocks = re.findall(r"(?:^    .*\n)+", without_outputs, re.MULTILINE)
    lines = [[line.strip() for line in block.splitlines() if not line.strip().startswith(PREPARED)] for block in blocks]
    return ["\n".join(block) for block in lines]


class Hosts:
    """The three hosts of the document, and a machine outside of them."""

    def __init__(self, machines: list[Machine], outside: Wrapper) -> None:
        self.machines = machines
        self.first = machines[0]
        self.outside = outside
        self._as_msd = "\n".join(commands("Three hosts with systemd")[2].splitlines()[:2])

    def as_msd(self, arguments: str) -> str:
        """Runs ``as-msd`` on the first host, as the document defines it."""
        return self.first.run(f"{self._as_msd}\nas-msd {arguments}")

    def wait_until_awake(self, count: int) -> None:
        expected = f"server 5 answers; workers: {count} awake\n"
        wait_for(expected, lambda: self._health() == expected)

    def _health(self) -> str:
        return self.first.run(f"{self._as_msd}\nas-msd health || true")


@pytest.fixture
def three_hosts(tmp_path: Path, rng: random.Random) -> Iterator[Hosts]:
    need_systemd()
    make_file(tmp_path / "share" / "Star.mp4", 40 * MIB, rng)
    editor = tmp_path / "tools" / "edit"
    editor.parent.mkdir()
    editor.write_text(EDITOR)
    editor.chmod(0o755)
    with hosts(4) as wrappers, ExitStack() as stack:
        mounts = {**installed_msd(tmp_path), "/srv/share": tmp_path / "share", "/opt/tools": editor.parent}
        machines = [
            stack.enter_context(Machine(tmp_path, name, wrapper, mounts))
            for name, wrapper in zip(NAMES, wrappers, strict=False)
        ]
        yield Hosts(machines, wrappers[3])


def test_from_nothing_to_a_download_and_an_upgrade_during_it(
    three_hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "client"))
    machines, first = three_hosts.machines, three_hosts.first
    install, start, make_key, join = commands("Three hosts with systemd")
    for machine in machines:
        machine.run(install)
    first.run(start)
    pattern = r"ready: .* --server-key ([0-9a-f]{64}) PATH"
    found = wait_for("the key in the log", lambda: re.search(pattern, first.run("journalctl -u msd-broker")))
    first.run(make_key)
    assert first.run("stat -c '%U %a' /etc/msd/worker.key") == "root 600\n"
    assert "hosts.key" not in first.run("ls /var/lib/msd/keys")
    key = first.run("cat /etc/msd/worker.key")
    for machine in machines[1:]:
        machine.run(f"umask 077\necho '{key.strip()}' > /etc/msd/worker.key")
    for machine in machines:
        machine.run(join, KEY=found[1], EDITOR="/opt/tools/edit")
    three_hosts.wait_until_awake(3)
    for name in NAMES:
        assert name in three_hosts.as_msd("status")

    # At this rate the download takes 20 s, and the upgrade less.
    link = three_hosts.as_msd("invite Star.mp4 --server5 192.0.2.1").strip()
    copy = tmp_path / "copy"
    with Download([link], "-o", str(copy), "--max-rate", "2MiB", wrapper=three_hosts.outside) as download:
        download.wait_until_verified(0.05)
        for machine in machines:
            machine.run(commands("Upgrades without a stop")[0])
            three_hosts.wait_until_awake(3)
        first.run("systemctl restart msd-broker")
        three_hosts.wait_until_awake(3)
        assert download.process.poll() is None
        download.wait_until_done()
    assert files_equal(tmp_path / "share" / "Star.mp4", copy)


def test_what_systemd_and_an_administrator_do_to_the_services(three_hosts: Hosts) -> None:
    """1. SIGKILL. 2. A backup is restored. 3. Files below /home are shared."""
    first = three_hosts.first
    install, start, make_key, join = commands("Three hosts with systemd")
    first.run(install)
    first.run(start)
    pattern = r"ready: .* --server-key ([0-9a-f]{64}) PATH"
    found = wait_for("the key in the log", lambda: re.search(pattern, first.run("journalctl -u msd-broker")))
    first.run(make_key)
    first.run(join, KEY=found[1], EDITOR="/opt/tools/edit")
    three_hosts.wait_until_awake(1)

    first.run("systemctl kill --signal=KILL msd-broker msd-worker@films")
    three_hosts.wait_until_awake(1)

    first.run("systemctl stop msd-broker\ncd /var/lib/msd\ntar -cf /root/keys keys\nrm -r keys\ntar -xf /root/keys")
    first.run("systemctl start msd-broker")
    three_hosts.wait_until_awake(1)

    first.run("mkdir -p /home/films\ncp /srv/share/* /home/films")
    changes = "s#/srv/share#/home/films#; s/21018/21019/; s/=host-1/=home/"
    first.run(f"cd /etc/msd\nsed '{changes}' worker-films.env > worker-home.env")
    text = "[Service]\\nBindReadOnlyPaths=/home/films\\n"
    folder = "/etc/systemd/system/msd-worker@home.service.d"
    first.run(f"mkdir {folder}\nprintf '{text}' > {folder}/override.conf\nsystemctl daemon-reload")
    first.run("systemctl start msd-worker@home")
    three_hosts.wait_until_awake(2)
