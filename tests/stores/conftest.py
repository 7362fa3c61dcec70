"""Fixtures of ``make test-stores``: real stores, which all tests of a session share, and a proxy before each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.processes import free_ports
from tests.stores.failing_proxy import FailingProxy
from tests.stores.servers import BUCKET, CREDENTIALS, S3Server, SeaweedFs


@pytest.fixture(scope="session")
def seaweed_fs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFs]:
    with SeaweedFs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


class Bucket:
    """The objects of one test: those below a prefix of ``BUCKET``, behind a proxy."""

    def __init__(self, server: S3Server, proxy: FailingProxy, prefix: str) -> None:
        self.server = server
        self.proxy = proxy
        self.prefix = prefix
        self._store: Any = server.client(prefix)

    def url(self, name: str = "") -> str:
        return f"s3://{BUCKET}/{self.prefix}/{name}"

    def put(self, name: str, content: bytes) -> None:
        import obstore

        obstore.put(self._store, name, content)

    def put_all(self, files: Mapping[str, bytes]) -> None:
        with ThreadPoolExecutor(16) as pool:
            for _ in pool.map(self.put, files, files.values()):
                pass

    @property
    def env(self) -> dict[str, str]:
        """The environment of processes that find the store through the proxy."""
        return {**os.environ, **environment(self.proxy)}

    def delete(self, name: str) -> None:
        import obstore

        obstore.delete(self._store, name)


def port_flags() -> list[str]:
    """Ports for servers that a test starts without the fixture ``serve``."""
    return ["-p", *map(str, free_ports())]


def environment(proxy: FailingProxy) -> dict[str, str]:
    """The variables with which msd finds the store behind a proxy."""
    return {**CREDENTIALS, "AWS_ENDPOINT_URL": proxy.url}


@pytest.fixture
def open_bucket(runtime_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A function that puts a proxy before a server, and sets the environment of msd."""
    for name in [*os.environ]:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    with ExitStack() as stack:

        def start(server: S3Server) -> Bucket:
            proxy = stack.enter_context(FailingProxy(server.port))
            for name, value in environment(proxy).items():
                monkeypatch.setenv(name, value)
            return Bucket(server, proxy, tmp_path.name)

        yield start


@pytest.fixture
def bucket(seaweed_fs: SeaweedFs, open_bucket: Any) -> Bucket:
    opened: Bucket = open_bucket(seaweed_fs)
    return opened
