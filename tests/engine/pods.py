"""Runs the pods of rendered manifests on this machine, as the kubelet of a node would: without Kubernetes, but with its
rules for users, volumes, variables, root file systems and probes.

Scheduling, services, name servers, seccomp, resources and restarts are missing. The image is this checkout with the
variables, the entry point and the current folder that the ``Dockerfile`` sets.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.engine.charts import ROOT, Object
from tests.engine.installation import installed_msd
from tests.environments.recipes import Wrapper
from tests.processes import TIMEOUT, Process, wait_for

#: What the image has of a Debian system. Libraries for HTTP need the certificates.
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/ssl")
DEVICES = ("null", "zero", "random", "urandom")
#: What the kubelet adds to the modes of files and folders in volumes that belong to the group of a pod.
READABLE, WRITABLE, FOLDER = 0o440, 0o660, 0o2110


class Image:
    """What the ``Dockerfile`` says, with this checkout installed in ``folder``."""

    def __init__(self, folder: Path) -> None:
        text = (ROOT / "Dockerfile").read_text()
        self.workdir = re.findall(r"^WORKDIR (.*)$", text, re.MULTILINE)[-1]
        self.entrypoint: list[str] = json.loads(re.findall(r"^ENTRYPOINT (.*)$", text, re.MULTILINE)[-1])
        words = shlex.split(" ".join(re.findall(r"^ENV (.*)$", text, re.MULTILINE)))
        variables = dict(word.split("=", 1) for word in words)
        self.env = {name: value.replace("$PATH", "/usr/bin:/bin") for name, value in variables.items()}
        self.installed = installed_msd(folder)

    def mounts(self) -> dict[str, Path]:
        """Returns the folder of this machine for each read-only folder of the image."""
        system = {path: Path(path) for path in SYSTEM if Path(path).is_dir() and not Path(path).is_symlink()}
        return system | self.installed


class Pod:
    """A pod of a template on ``machine``, with the containers of the chart. A context manager: leaving it ends the pod.

    ``fields`` are what a pod may ask about itself, such as ``status.podIP``. ``hosts`` are the names that it can look
    up. ``folders`` are those of volumes that last longer than the pod: of claims by their name, of the node by path.
    """

    def __init__(
        self,
        folder: Path,
        image: Image,
        objects: list[Object],
        template: Object,
        *,
        machine: Wrapper,
        fields: Mapping[str, str],
        hosts: Mapping[str, str],
        folders: Mapping[str, Path],
    ) -> None:
        self._folder = folder
        self._image = image
        self._objects = objects
        self._spec: Object = template["spec"]
        self._machine = machine
        self._fields = fields
        self._hosts = hosts
        self._volumes = {volume["name"]: self._make_volume(volume, folders) for volume in self._spec["volumes"]}
        self._volumes |= {name: path for name, path in folders.items() if not name.startswith("/")}
        for name in folders.keys() & self._volumes.keys():
            self._give_to_group(self._volumes[name], recursive=False)
        self.init_output = ""
        for container in self._spec.get("initContainers", []):
            ended = _run(self._start(container))
            self.init_output += ended.stdout + ended.stderr
            assert ended.returncode == 0, self.init_output
        (self._container,) = self._spec["containers"]
        self.process = Process(self._start(self._container))
        try:
            wait_for("the start of the pod", lambda: self.probe("startupProbe"))
        except BaseException:
            self.stop()
            print(self.log)
            raise

    def exec(self, *command: str) -> str:
        """Runs a command in the container, as ``kubectl exec`` does. Returns its output."""
        ended = self._exec(command)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def probe(self, name: str) -> bool:
        """True if the container passes this probe now."""
        probe = self._container[name]
        if "exec" in probe:
            return self._exec(probe["exec"]["command"]).returncode == 0
        ports = {port["name"]: port["containerPort"] for port in self._container["ports"]}
        address = (self._fields["status.podIP"], ports[probe["tcpSocket"]["port"]])
        code = f"import socket; socket.create_connection({address}, 1).close()"
        return _run([*self._machine, sys.executable, "-c", code]).returncode == 0

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the first process of the container."""
        if (pid := self._pid) is not None:
            os.kill(pid, number)

    def stop(self) -> int:
        """Ends the container as Kubernetes does. Returns its exit code, that of SIGKILL after the grace period."""
        self.signal(signal.SIGTERM)
        try:
            return self.process.wait(self._spec["terminationGracePeriodSeconds"])
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            return self.process.wait()

    @property
    def log(self) -> str:
        return self.process.out.text + self.process.err.text

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.stop()
        if error is not None:
            print(f"log of {self._fields['metadata.name']}:\n{self.init_output}{self.log}")

    @property
    def _pid(self) -> int | None:
        """The first process of the container, the only child of ``unshare``; None if there is none (any more)."""
        pid = self.process.pid
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:
            return None
        return int(children[0]) if children else None

    def _exec(self, command: list[str] | tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        pid = self._pid
        if pid is None or not Path(f"/proc/{pid}/root/srv").exists():
            return subprocess.CompletedProcess([*command], 1, "", "the container does not run")
        enter = ["nsenter", f"--target={pid}", "--mount", "--net", "--pid", "--root"]
        return _run([*enter, *self._as_user(self._container), *command])

    def _start(self, container: Object) -> list[str]:
        """Returns the command that starts a container: it makes the root file system, and enters it."""
        root = self._folder / "root"
        root.mkdir(parents=True, exist_ok=True)
        folders = "srv etc dev/shm proc sys tmp var/lib/msd var/cache/msd"
        lines = [f"mount -t tmpfs -o mode=755 none {root}", f"cd {root}", f"mkdir -p {folders}"]
        lines += [f"ln -s {os.readlink(path)} .{path}" for path in SYSTEM if Path(path).is_symlink()]
        lines += [f"touch dev/{name} && mount --bind /dev/{name} dev/{name}" for name in DEVICES]
        lines += ["mount -t tmpfs -o mode=1777 none dev/shm", "mount -t proc none proc"]
        lines += [_bind(path, source, read_only=True) for path, source in self._image.mounts().items()]
        hosts = "".join(f"{address} {name}\n" for name, address in {"localhost": "127.0.0.1", **self._hosts}.items())
        lines += [f"mkdir -p .{self._image.workdir}", f"cp {ROOT}/deploy/config.toml .{self._image.workdir}"]
        lines += [f"printf %s {shlex.quote(hosts)} > etc/hosts"]
        for mount in container["volumeMounts"]:
            source = self._volumes[mount["name"]]
            lines.append(_bind(mount["mountPath"], source, read_only=mount.get("readOnly", False)))
        if container.get("securityContext", {}).get("readOnlyRootFilesystem"):
            lines.append("mount -o remount,ro .")
        command = container.get("command", self._image.entrypoint) + container.get("args", [])
        lines.append(f"exec chroot . {shlex.join([*self._as_user(container), *command])}")
        isolate = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        return [*self._machine, *isolate, "sh", "-ec", "\n".join(lines)]

    def _as_user(self, container: Object) -> list[str]:
        """Returns the words in front of a command in a container: its user, its rights, its variables, its folder."""
        context = self._spec["securityContext"]
        own = container.get("securityContext", {})
        rights = ["--bounding-set=-all", "--inh-caps=-all"] if own.get("capabilities") == {"drop": ["ALL"]} else []
        rights += [] if own.get("allowPrivilegeEscalation", True) else ["--no-new-privs"]
        user = [f"--reuid={context['runAsUser']}", f"--regid={context['runAsGroup']}", f"--groups={context['fsGroup']}"]
        env = self._image.env | self._variables(container)
        variables = [f"{name}={value}" for name, value in env.items()]
        return ["setpriv", *user, *rights, "env", "-i", "-C", self._image.workdir, *variables]

    def _variables(self, container: Object) -> dict[str, str]:
        env: dict[str, str] = {}
        for source in container.get("envFrom", []):
            env |= self._data("Secret", source["secretRef"]["name"], "stringData")
        for variable in container.get("env", []):
            value = variable.get("value")
            if value is None:
                source = variable["valueFrom"]
                if "fieldRef" in source:
                    value = self._fields[source["fieldRef"]["fieldPath"]]
                else:
                    reference = source["secretKeyRef"]
                    value = self._data("Secret", reference["name"], "stringData")[reference["key"]]
            env[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda match: env[match[1]], value)
        return env

    def _data(self, kind: str, name: str, key: str) -> dict[str, str]:
        found = [o for o in self._objects if (o["kind"], o["metadata"]["name"]) == (kind, name)]
        assert len(found) == 1, (kind, name)
        data: dict[str, str] = found[0][key]
        return data

    def _make_volume(self, volume: Object, folders: Mapping[str, Path]) -> Path:
        if "hostPath" in volume:
            return folders[volume["hostPath"]["path"]]
        path = self._folder / "volumes" / str(volume["name"])
        path.mkdir(parents=True)
        if "emptyDir" in volume:
            path.chmod(0o777)
        elif "configMap" in volume:
            _publish(path, self._data("ConfigMap", volume["configMap"]["name"], "data"), 0o644)
        else:
            source = volume["secret"]
            data = self._data("Secret", source["secretName"], "stringData")
            chosen = {item["path"]: data[item["key"]] for item in source["items"]}
            _publish(path, chosen, source["defaultMode"])
        self._give_to_group(path, recursive=True)
        return path

    def _give_to_group(self, path: Path, *, recursive: bool) -> None:
        """Gives a volume to the group of the pod as the kubelet does; with ``OnRootMismatch`` only once."""
        group = self._spec["securityContext"]["fsGroup"]
        for one in [path, *(path.rglob("*") if recursive else ())]:
            os.chown(one, -1, group, follow_symlinks=False)
            if not one.is_symlink():
                one.chmod(one.stat().st_mode | (WRITABLE | FOLDER if one.is_dir() else READABLE))


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    stdin = subprocess.DEVNULL
    return subprocess.run(command, stdin=stdin, capture_output=True, text=True, timeout=TIMEOUT, check=False)


def _bind(path: str, source: Path, *, read_only: bool) -> str:
    """Returns a line that mounts a folder of this machine below the current folder."""
    line = f"mkdir -p .{path} && mount --bind {source} .{path}"
    return f"{line} && mount -o remount,bind,ro .{path}" if read_only else line


def _publish(path: Path, files: Mapping[str, str], mode: int) -> None:
    """Writes the files of a ConfigMap or Secret: links to a folder that can be exchanged at once."""
    data = path / "..2026_11_29"
    data.mkdir()
    (path / "..data").symlink_to(data.name)
    for name, text in files.items():
        (data / name).write_text(text)
        (data / name).chmod(mode)
        (path / name).symlink_to(f"..data/{name}")


def need_pods() -> None:
    """Skips the test where pods cannot be run."""
    missing = [name for name in ("ip", "unshare", "nsenter", "setpriv", "chroot") if shutil.which(name) is None]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"pods cannot be run: this needs root{' and ' + ', '.join(missing) if missing else ''}")
    ended = _run(["unshare", "--mount", "--pid", "--fork", "mount", "-t", "tmpfs", "none", "/mnt"])
    if ended.returncode != 0:
        pytest.skip(f"pods cannot be run: {ended.stderr.strip()}")
