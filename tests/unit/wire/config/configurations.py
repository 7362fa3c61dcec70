"""Builds configurations for tests."""

from __future__ import annotations

from pathlib import Path

from msd.wire.config.settings import Config, WorkerConfig, load
from msd.wire.net.endpoints import Endpoint
from msd.wire.security.keys import KeyPair

PORTS = (5001, 5002, 5003, 5004, 5005)
KEY = "ab" * 32


def read(folder: Path, text: str) -> Config:
    """The configuration in a file with this text in ``folder``."""
    file = folder / "config.toml"
    file.write_text(text, encoding="utf-8")
    return load(str(file))


def workers(*ports: int, host: str = "127.0.0.1", rate: int = 0) -> tuple[WorkerConfig, ...]:
    return tuple(WorkerConfig(Endpoint(host, port), rate) for port in ports)


def create_server_pair(folder: Path) -> KeyPair:
    """Creates the servers' own key pair in ``folder``."""
    return Config(keys=folder).key_folder.init()
