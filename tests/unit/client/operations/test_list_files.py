"""The list of shared files: the pages of one worker are joined."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from msd.client.network_events import NetworkEvent, ReplyReceived
from msd.client.operations import list_files as list_module
from msd.client.operations.list_files import list_files
from msd.wire.config.servers import locate_servers
from msd.wire.config.settings import Config
from msd.wire.errors import NoAnswerError
from msd.wire.protocol.messages import CataloguePage, Entry, List
from tests.connections import opened

SERVERS = locate_servers(Config(), host=None, ports=None, server5=None)


class FakePool:
    """A connection pool. ``reply`` returns the page for a worker and a name, None if the worker does not reply."""

    def __init__(self, workers: int, reply: Callable[[int, str], CataloguePage | None]) -> None:
        self._reply = reply
        self._events: list[NetworkEvent] = [opened(number) for number in range(1, workers + 1)]
        self.requests: list[tuple[int, str]] = []
        self.is_closed = False
        self.stalled_seconds = 0.0
        self.progress: list[object] = []
        self.progress_timeout = SimpleNamespace(handle=lambda event, now: self.progress.append(event))

    def current_state(self) -> list[NetworkEvent]:
        return []

    def wait(self, deadline: float) -> None:
        pass

    def events(self) -> list[NetworkEvent]:
        """Returns the next events. If there are none, the timeout expires."""
        if not self._events:
            raise NoAnswerError("gave up")
        events, self._events = self._events, []
        return events

    def request(self, worker: int, request: List) -> None:
        self.requests.append((worker, request.after))
        if (page := self._reply(worker, request.after)) is not None:
            self._events.append(ReplyReceived(worker, request, page, None))

    def open_again(self, worker: int) -> None:
        self._events.append(opened(worker))

    def close(self) -> None:
        self.is_closed = True


def entry(name: str) -> Entry:
    return Entry(name=name, size=5, mtime_ns=0, id=b"i" * 32)


def page(*names: str, more: bool = False) -> CataloguePage:
    return CataloguePage(rid=1, epoch=7, catalogue=b"", entries=[entry(name) for name in names], more=more)


@pytest.fixture
def use_pool(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakePool]:
    def use(workers: int, reply: Callable[[int, str], CataloguePage | None]) -> FakePool:
        pool = FakePool(workers, reply)
        monkeypatch.setattr(list_module, "ConnectionPool", lambda *_, **__: pool)
        return pool

    return use


def names_of(files: list[Entry]) -> list[str]:
    return [file.name for file in files]


def test_the_pages_of_a_worker_are_joined(use_pool: Any) -> None:
    pages = {"": page("a", "b", more=True), "b": page("c", more=True), "c": page("d")}
    pool = use_pool(1, lambda worker, after: pages[after])
    assert names_of(list_files(SERVERS)) == ["a", "b", "c", "d"]
    assert pool.requests == [(1, ""), (1, "b"), (1, "c")]
    assert len(pool.progress) == 2, "each page but the last extends the time"
    assert pool.is_closed


def test_the_first_complete_list_wins(use_pool: Any) -> None:
    """Worker 1 sends one page and then stops replying; worker 2 sends all its pages."""
    pages = {(1, ""): page("a", more=True), (2, ""): page("x", more=True), (2, "x"): page("y")}
    use_pool(2, lambda worker, after: pages.get((worker, after)))
    assert names_of(list_files(SERVERS)) == ["x", "y"]


def test_a_page_that_is_sent_again_on_a_new_connection_is_no_progress(use_pool: Any) -> None:
    def reply(worker: int, after: str) -> CataloguePage | None:
        if not after:
            return page("a", more=True)
        if len(pool.requests) < 10:
            pool.open_again(worker)
        return None

    pool = use_pool(1, reply)
    with pytest.raises(NoAnswerError, match="gave up"):
        list_files(SERVERS)
    assert pool.requests == [(1, ""), (1, "a")] * 5
    assert len(pool.progress) == 1
    assert pool.is_closed
