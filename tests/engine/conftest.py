"""The tests of ``make test-engine`` leave this machine as they found it: its name, its interfaces, its namespaces."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator

import pytest

from tests.engine.charts import Helm


@pytest.fixture(scope="session", autouse=True)
def _machine_as_before() -> Iterator[None]:
    before = machine()
    yield
    assert machine() == before


def machine() -> dict[str, object]:
    """What engines change if they are not kept in namespaces of their own."""
    namespaces = {name: os.readlink(f"/proc/self/ns/{name}") for name in ("net", "uts", "mnt", "pid")}
    return {"name": platform.node(), "interfaces": {*os.listdir("/sys/class/net")}, **namespaces}


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(tmp_path_factory.mktemp("helm"))
