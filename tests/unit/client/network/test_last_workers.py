"""The workers that server 5 listed last are kept for the next client, and nothing is lost without them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from msgspec.structs import replace

from msd.client.network.last_workers import MAX_FILES, LastWorker, LastWorkers
from msd.wire.config.servers import Servers
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.messages import Status
from msd.wire.security.keys import Credentials, KeyPair
from tests.unit.snapshots import snapshot, with_worker

SERVERS = Servers(Endpoint("192.0.2.1", 39223), {}, pinned=False)


def status() -> Status:
    hosted = with_worker(snapshot(), 3, name="attic", host="192.0.2.7", key=b"k" * 32, endpoint="tcp://192.0.2.7:9")
    return replace(hosted, workers=hosted.workers[1:3])


KEPT = {
    2: LastWorker("tcp://127.0.0.1:27215", epoch=702),
    3: LastWorker("tcp://192.0.2.7:9", b"k" * 32, 703, "attic, 192.0.2.7"),
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "msd" / "last-workers"


def test_the_next_client_knows_the_workers_of_the_last_snapshot(cache: Path) -> None:
    assert LastWorkers(SERVERS).workers == {}
    LastWorkers(SERVERS).keep(status())
    assert LastWorkers(SERVERS).workers == KEPT
    (path,) = cache.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


def test_only_other_workers_are_written(cache: Path) -> None:
    LastWorkers(SERVERS).keep(status())
    (path,) = cache.iterdir()
    before = path.stat().st_ino
    last = LastWorkers(SERVERS)
    last.keep(replace(status(), clients=7))
    last.keep(replace(status(), workers=[]))
    assert path.stat().st_ino == before
    last.keep(replace(status(), workers=status().workers[:1]))
    assert LastWorkers(SERVERS).workers == {2: KEPT[2]}


def test_servers_are_told_apart_by_the_address_and_the_key_of_server_5(cache: Path) -> None:
    credentials = Credentials(KeyPair.generate(), b"s" * 32)
    for servers in (SERVERS, replace(SERVERS, credentials=credentials), replace(SERVERS, status=Endpoint("host", 1))):
        assert LastWorkers(servers).workers == {}
        LastWorkers(servers).keep(status())
    assert len([*cache.iterdir()]) == 3


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"x" * 100_000])
def test_a_damaged_file_is_like_none_and_replaced(cache: Path, content: bytes) -> None:
    LastWorkers(SERVERS).keep(status())
    (path,) = cache.iterdir()
    path.write_bytes(content)
    assert LastWorkers(SERVERS).workers == {}
    LastWorkers(SERVERS).keep(status())
    assert LastWorkers(SERVERS).workers == KEPT


def test_the_number_of_files_is_limited(cache: Path) -> None:
    for port in range(1, MAX_FILES + 4):
        LastWorkers(replace(SERVERS, status=Endpoint("host", port))).keep(status())
        for path in cache.iterdir():
            os.utime(path, (path.stat().st_mtime - 1,) * 2)
    assert len([*cache.iterdir()]) == MAX_FILES
    assert LastWorkers(replace(SERVERS, status=Endpoint("host", 1))).workers == {}
    assert LastWorkers(replace(SERVERS, status=Endpoint("host", MAX_FILES + 3))).workers == KEPT


def test_a_cache_that_cannot_be_written_is_no_error(cache: Path) -> None:
    cache.parent.parent.write_bytes(b"a file")
    last = LastWorkers(SERVERS)
    last.keep(status())
    assert last.workers == KEPT
    assert LastWorkers(SERVERS).workers == {}


def test_a_user_without_a_home_folder_has_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Path:
        raise RuntimeError

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", fail)
    LastWorkers(SERVERS).keep(status())
    assert LastWorkers(SERVERS).workers == {}
