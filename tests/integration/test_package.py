"""The wheel contains every module, and installing it does not affect other packages in the environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built in a copy of the checkout so that the build leaves no files in the checkout."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("src", "broker", "client", "wire", "workers"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    out = copy / "out"
    options = ["--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", str(out)]
    subprocess.run([*PIP, "wheel", str(copy), *options], check=True, capture_output=True)
    (built,) = out.iterdir()
    return built


def test_the_wheel_contains_every_module_and_the_marker_for_type_checkers(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        contained = {name for name in archive.namelist() if name.startswith("msd/")}
    folders = [ROOT / name for name in ("broker", "client", "wire", "workers")]
    modules = {f"msd/{path.relative_to(ROOT)}" for folder in folders for path in folder.rglob("*.py")}
    assert contained == modules | {"msd/__init__.py", "msd/__main__.py", "msd/cli.py", "msd/py.typed"}


@pytest.mark.soak
def test_installing_and_removing_msd_leaves_another_package_named_client_unchanged(wheel: Path, tmp_path: Path) -> None:
    """
    1. Another package named ``client`` is installed.
    2. msd is installed and removed: ``client`` is unchanged.
    """
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    foreign = packages / "client" / "__init__.py"
    foreign.parent.mkdir()
    foreign.write_text("FOREIGN = True")
    before = {*packages.iterdir()}
    pip = [*PIP, "--python", str(environment / "bin" / "python")]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", str(wheel)], check=True)
    gained = {path.name for path in {*packages.iterdir()} - before}
    assert {name for name in gained if not name.endswith(".dist-info")} == {"msd"}
    assert foreign.read_text() == "FOREIGN = True"
    check = "import client, msd; assert client.FOREIGN; assert 'download' in dir(msd)"
    subprocess.run([environment / "bin" / "python", "-c", check], check=True, cwd=tmp_path)
    subprocess.run([*pip, "uninstall", "--yes", "multiserver-downloader"], check=True)
    assert foreign.read_text() == "FOREIGN = True"
    assert {*packages.iterdir()} == before
