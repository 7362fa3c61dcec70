"""The console on a terminal is tested by ``tests/integration/test_console.py``; here are its exit codes."""

from __future__ import annotations

from typing import Any

import pytest

from msd.broker.operator import run_console
from msd.wire.config.servers import Servers
from msd.wire.errors import MsdError
from msd.wire.net.endpoints import Endpoint

SERVERS = Servers(Endpoint("127.0.0.1", 39223), {}, pinned=False)


class FakeFeed:
    def __init__(self, servers: Servers) -> None:
        assert servers is SERVERS

    def close(self) -> None:
        pass


class FakeConsole:
    """Ends with ``code``."""

    code: int | None = 0
    return_code = 3
    _exception: BaseException | None = None

    def __init__(self, *arguments: object, **settings: object) -> None:
        pass

    def run(self) -> int | None:
        return self.code


@pytest.fixture(autouse=True)
def console(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(run_console, "StatusFeed", FakeFeed)
    monkeypatch.setattr(run_console, "ConsoleApp", FakeConsole)
    monkeypatch.setattr(run_console.signal, "pthread_sigmask", lambda how, signals: None)  # type: ignore[attr-defined]
    return monkeypatch


@pytest.mark.parametrize(("code", "returned"), [(0, 0), (130, 130), (None, 3)])
def test_the_exit_code_is_that_of_the_application(console: Any, code: int | None, returned: int) -> None:
    console.setattr(FakeConsole, "code", code)
    assert run_console.run(SERVERS) == returned


def test_the_end_of_msd_serve_is_an_error(console: Any) -> None:
    console.setattr(FakeConsole, "code", run_console.EXIT_SERVERS_GONE)
    with pytest.raises(MsdError, match="start msd serve again"):
        run_console.run(SERVERS)


def test_an_error_of_the_application_is_raised(console: Any) -> None:
    console.setattr(FakeConsole, "_exception", ValueError("broken"))
    with pytest.raises(ValueError, match="broken"):
        run_console.run(SERVERS)
