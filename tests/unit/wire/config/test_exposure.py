"""Which servers need keys, and the refusal to serve other machines without keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from msd.wire.config.exposure import exposed_endpoint, load_server_keys, uses_keys
from msd.wire.config.settings import Config
from msd.wire.errors import NotAllowedError
from msd.wire.net.endpoints import Endpoint
from tests.unit.wire.config.configurations import create_server_pair, workers


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_servers_on_loopback_need_no_keys(host: str) -> None:
    config = Config().with_flags(host=host)
    assert exposed_endpoint(config) is None
    assert not uses_keys(config)
    assert load_server_keys(config) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "*", "::", "192.168.1.2", "example.org"])
def test_an_exposed_host_needs_keys_or_a_security_setting(host: str, home: Path) -> None:
    config = Config().with_flags(host=host)
    assert exposed_endpoint(config) == config.status
    assert uses_keys(config)
    with pytest.raises(NotAllowedError) as caught:
        load_server_keys(config)
    assert str(caught.value).startswith(f"{host} can be reached from other machines")
    assert "msd keys init" in str(caught.value)
    assert 'security = "none"' in str(caught.value)
    pair = create_server_pair(home / ".config" / "msd" / "keys")
    assert load_server_keys(config) == pair


def test_one_exposed_worker_needs_keys() -> None:
    config = Config(workers=workers(1, 2, 3) + workers(4, host="10.0.0.1"))
    assert exposed_endpoint(config) == Endpoint("10.0.0.1", 4)
    with pytest.raises(NotAllowedError, match=r"10\.0\.0\.1 can be reached"):
        load_server_keys(config)


def test_security_none_allows_exposed_servers_without_keys(tmp_path: Path) -> None:
    create_server_pair(tmp_path / "keys")
    config = Config(host="0.0.0.0", security="none", keys=tmp_path / "keys")
    assert not uses_keys(config)
    assert load_server_keys(config) is None


@pytest.mark.parametrize("setting", ["security", "keys"])
def test_servers_on_loopback_can_use_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    folder = tmp_path / "msd" / "keys"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    config = Config(security="curve") if setting == "security" else Config(keys=folder)
    assert uses_keys(config)
    with pytest.raises(NotAllowedError) as caught:
        load_server_keys(config)
    assert str(caught.value) == f"no server key in {folder}: create it with msd keys init"
    pair = create_server_pair(folder)
    assert load_server_keys(config) == pair


def test_keys_that_other_users_can_access_are_refused(tmp_path: Path) -> None:
    create_server_pair(tmp_path / "keys")
    (tmp_path / "keys").chmod(0o755)
    with pytest.raises(NotAllowedError, match="is accessible to other users"):
        load_server_keys(Config(keys=tmp_path / "keys"))
