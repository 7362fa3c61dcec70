"""The pods of the chart as real processes: their arguments, variables, files, users and probes lead to a download."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from msd.wire.security.keys import KeyPair
from tests.engine.charts import Helm, Object, documented_values, pick
from tests.engine.pods import Image, Pod, need_pods
from tests.environments.recipes import Wrapper, hosts
from tests.processes import MIB, MSD, TIMEOUT, Process, files_equal, make_file, run_msd, wait_for

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("runtime_folder")]

#: The nodes of the workers, that of the broker, and a machine outside of the cluster.
WORKERS, BROKER, CLIENT = (1, 2, 3), 4, 5


class Cluster:
    """Runs pods on machines in one network. A context manager."""

    def __init__(self, folder: Path, machines: list[Wrapper], share: Path) -> None:
        self._folder = folder
        self._machines = machines
        self._share = share
        self._image = Image(folder / "image")
        self._stack = ExitStack()
        self._count = 0

    def start(self, objects: list[Object], component: str, number: int, *, kind: str = "StatefulSet") -> Pod:
        """Starts the pod of a component on this node. Its lasting volumes are those of the pod before."""
        owner = pick(objects, kind, component)
        self._count += 1
        claims = {}
        for claim in owner["spec"].get("volumeClaimTemplates", []):
            name = claim["metadata"]["name"]
            claims[name] = self._folder / f"{component}-{number}-{name}"
            claims[name].mkdir(exist_ok=True)
        service = pick(objects, "Service", "broker")["metadata"]["name"]
        node = f"node-{number}"
        pod = Pod(
            self._folder / f"pod-{self._count}",
            self._image,
            objects,
            owner["spec"]["template"],
            machine=self._machines[number - 1],
            fields={
                "status.podIP": f"192.0.2.{number}",
                "spec.nodeName": node,
                "metadata.name": f"{owner['metadata']['name']}-{self._count}",
            },
            hosts={service: f"192.0.2.{BROKER}"},
            folders={"/srv/share": self._share, **claims},
        )
        return self._stack.enter_context(pod)

    def run_outside(self, *command: str) -> str:
        """Runs a command on the machine outside of the cluster. Returns its output."""
        words = [*self._machines[CLIENT - 1], *command]
        ended = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def download(self, broker: Pod, folder: Path, port: int = 39223) -> None:
        """Downloads everything with a link that the broker makes."""
        (link,) = broker.exec("msd", "invite", ".", "--server5", f"192.0.2.{BROKER}:{port}").split()
        self.run_outside(*MSD, "download", link, "-o", f"{folder}/")

    @contextmanager
    def web_server(self, port: int) -> Iterator[None]:
        """Runs a web server with the shared files on the machine outside of the cluster."""
        if (program := shutil.which("nginx")) is None:
            pytest.skip("nginx is not installed: make test-stores installs it")
        config = self._folder / "nginx.conf"
        config.write_text(
            f"daemon off; user root; pid {self._folder}/nginx.pid; error_log stderr; events {{}}"
            f" http {{ access_log off; server {{ listen {port}; root {self._share}; }} }}"
        )
        command = [program, "-c", str(config), "-p", str(self._folder)]
        with Process(command, wrapper=self._machines[CLIENT - 1]):
            check = f"import socket; socket.create_connection(('192.0.2.{CLIENT}', {port}))"
            wait_for("the web server", lambda: self._succeeds(sys.executable, "-c", check))
            yield

    def _succeeds(self, *command: str) -> bool:
        words = [*self._machines[CLIENT - 1], *command]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *details: Any) -> None:
        self._stack.__exit__(*details)


@pytest.fixture
def cluster(tmp_path: Path, rng: random.Random) -> Iterator[Cluster]:
    need_pods()
    make_file(tmp_path / "share" / "films" / "one.bin", 5 * MIB, rng)
    make_file(tmp_path / "share" / "two.bin", MIB, rng)
    with hosts(CLIENT) as machines, Cluster(tmp_path, machines, tmp_path / "share") as cluster:
        yield cluster


@pytest.fixture
def worker_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The value ``workerKey``, with a key that the administrator has made."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "admin"))
    assert run_msd("keys", "new", "workers").returncode == 0
    folder = tmp_path / "admin" / "msd" / "keys"
    return {"public": (folder / "workers.pub").read_text(), "secret": (folder / "workers.key").read_text()}


def wait_for_states(broker: Pod, *states: str) -> list[dict[str, Any]]:
    def reached() -> list[dict[str, Any]] | None:
        workers: list[dict[str, Any]] = json.loads(broker.exec("msd", "status", "--json"))["workers"]
        return workers if [worker["state"] for worker in workers] == [*states] else None

    return wait_for(f"{states}", reached)


def all_equal(first: Path, second: Path) -> bool:
    return all(files_equal(first / name, second / name) for name in ("films/one.bin", "two.bin"))


def test_from_nothing_to_a_download_as_the_document_says(
    helm: Helm, cluster: Cluster, worker_key: dict[str, str], tmp_path: Path
) -> None:
    """1. Server 5 alone. 2. Workers with its key. 3. A link. 4. A worker that sleeps, stops, and is replaced."""
    values = documented_values()
    with cluster.start(helm.render(values), "broker", BROKER) as broker:
        (server_key,) = [line.split()[2] for line in broker.exec("msd", "keys", "list").splitlines() if "own" in line]
        assert broker.stop() == 143

    values |= {"serverKey": {"public": server_key}, "workerKey": worker_key}
    objects = helm.render(values)
    broker = cluster.start(objects, "broker", BROKER)
    assert broker.probe("readinessProbe")
    assert broker.probe("livenessProbe")
    workers = [cluster.start(objects, "worker", number, kind="DaemonSet") for number in WORKERS]
    wait_for("workers that are ready", lambda: all(worker.probe("readinessProbe") for worker in workers))
    states = wait_for_states(broker, "awake", "awake", "awake")
    assert sorted(worker["name"] for worker in states) == [f"node-{number}" for number in WORKERS]
    assert {worker["host"] for worker in states} == {f"192.0.2.{number}" for number in WORKERS}

    cluster.download(broker, tmp_path / "copy", port=values["broker"]["port"])
    assert all_equal(tmp_path / "share", tmp_path / "copy")

    number = next(worker["number"] for worker in states if worker["name"] == "node-1")
    broker.exec("msd", "toggle", "--sleep", "node-1")
    wait_for("the worker that was put to sleep", lambda: not workers[0].probe("readinessProbe"))
    assert workers[0].probe("livenessProbe")
    broker.exec("msd", "toggle", "--wake", "node-1")
    wait_for("the worker that was woken up", lambda: workers[0].probe("readinessProbe"))

    workers[0].signal(signal.SIGSTOP)
    assert not workers[0].probe("livenessProbe")
    workers[0].signal(signal.SIGCONT)
    assert workers[0].stop() == 0
    with cluster.start(objects, "worker", 1, kind="DaemonSet"):
        states = wait_for_states(broker, "awake", "awake", "awake")
        assert {worker["name"]: worker["number"] for worker in states}["node-1"] == number


def test_the_pods_of_these_tests_are_confined(helm: Helm, cluster: Cluster) -> None:
    broker = cluster.start(helm.render(), "broker", BROKER)
    assert broker.exec("id", "-u").strip() == broker.exec("stat", "-c", "%u", "/proc/1").strip() == "10001"
    lines = broker.exec("grep", "-E", "CapBnd|NoNewPrivs", "/proc/1/status").split("\n")
    assert [line.split(":\t")[1].strip("0") for line in lines if line] == ["", "1"]
    broker.exec("touch", "/tmp/file", "/var/lib/msd/file")
    for path in ("/file", "/etc/msd/file", "/opt/checkout/file"):
        with pytest.raises(AssertionError, match="Read-only file system"):
            broker.exec("touch", path)


def test_metrics_are_where_the_annotations_say(helm: Helm, cluster: Cluster) -> None:
    objects = helm.render()
    annotations = pick(objects, "StatefulSet", "broker")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/scrape"] == "true"
    cluster.start(objects, "broker", BROKER)
    url = f"http://192.0.2.{BROKER}:{annotations['prometheus.io/port']}{annotations['prometheus.io/path']}"
    code = f"import urllib.request; print(urllib.request.urlopen('{url}').read().decode())"
    assert "msd_clients 0.0" in cluster.run_outside(sys.executable, "-c", code)


def test_keys_stay_private_on_a_volume_that_opens_its_files_to_a_group(
    helm: Helm, cluster: Cluster, tmp_path: Path
) -> None:
    objects = helm.render()
    with cluster.start(objects, "broker", BROKER) as broker:
        keys = broker.exec("msd", "keys", "list")
        assert broker.stop() == 143
    for path in (tmp_path / f"broker-{BROKER}-keys").rglob("*"):
        path.chmod(path.stat().st_mode | 0o660)
    with cluster.start(objects, "broker", BROKER) as broker:
        assert broker.exec("msd", "keys", "list") == keys


def test_volumes_are_filled_by_the_workers_of_another_release(
    helm: Helm, cluster: Cluster, worker_key: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The servers' key is given, so that nothing of server 5 needs a volume; workers use the networks of the nodes."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "servers"))
    assert run_msd("keys", "init").returncode == 0
    secret = (tmp_path / "servers" / "msd" / "keys" / "server.key").read_text()
    public = KeyPair.from_secret(bytes.fromhex(secret)).public.hex()
    values: Object = {
        "serverKey": {"public": public, "secret": secret},
        "workerKey": worker_key,
        "broker": {"persistence": {"enabled": False}},
    }
    objects = helm.render(values)
    with cluster.start(objects, "broker", BROKER) as broker, cluster.start(objects, "worker", 2, kind="DaemonSet"):
        wait_for_states(broker, "awake")
        (link,) = broker.exec("msd", "invite", ".", "--server5", f"192.0.2.{BROKER}").split()
        fill = {
            "name": "fill",
            "args": ["download", "-o", "/srv/share/"],
            "env": [{"name": "MSD_LINK", "valueFrom": {"secretKeyRef": {"name": "films", "key": "link"}}}],
            "volumeMounts": [{"name": "share", "mountPath": "/srv/share"}, {"name": "tmp", "mountPath": "/tmp"}],
        }
        workers = {"kind": "StatefulSet", "hostNetwork": True, "initContainers": [fill], "args": ["--exclude=two.*"]}
        objects = helm.render({**values, "workers": workers})
        objects.append({"kind": "Secret", "metadata": {"name": "films", "labels": {}}, "stringData": {"link": link}})
        cluster.start(objects, "worker", 3)
    assert all_equal(tmp_path / "share", tmp_path / "worker-3-share")

    # The broker has lost its folder, but not its key: the worker joins it again.
    broker = cluster.start(objects, "broker", BROKER)
    (worker,) = wait_for_states(broker, "awake")
    assert worker["name"].startswith("films-msd-worker-")
    cluster.download(broker, tmp_path / "copy")
    assert files_equal(tmp_path / "share" / "films" / "one.bin", tmp_path / "copy" / "films" / "one.bin")
    assert not (tmp_path / "copy" / "two.bin").exists()


def test_workers_share_a_file_of_a_web_server(
    helm: Helm, cluster: Cluster, worker_key: dict[str, str], tmp_path: Path
) -> None:
    """They have no volume with files, and variables from a Secret of the user."""
    with cluster.start(helm.render(), "broker", BROKER) as broker, cluster.web_server(8080):
        (server_key,) = [line.split()[2] for line in broker.exec("msd", "keys", "list").splitlines() if "own" in line]
        assert broker.stop() == 143
        workers = {
            "kind": "StatefulSet",
            "share": {"url": f"http://192.0.2.{CLIENT}:8080/two.bin"},
            "envFrom": [{"secretRef": {"name": "films-store"}}],
        }
        objects = helm.render({"serverKey": {"public": server_key}, "workerKey": worker_key, "workers": workers})
        rate = {"MSD_RATE": "5MiB"}
        objects.append({"kind": "Secret", "metadata": {"name": "films-store", "labels": {}}, "stringData": rate})
        broker = cluster.start(objects, "broker", BROKER)
        worker = cluster.start(objects, "worker", 1)
        assert worker.exec("sh", "-c", "echo $MSD_RATE") == "5MiB\n"
        wait_for_states(broker, "awake")
        cluster.download(broker, tmp_path / "copy")
    assert files_equal(tmp_path / "share" / "two.bin", tmp_path / "copy" / "two.bin")
