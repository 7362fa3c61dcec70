"""The listing of shared files on connections that are already open."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from msd.client.manifest.listing import fetch_listing, is_file
from msd.client.network.session import Session
from msd.wire.protocol.messages import List, Refusal
from msd.wire.protocol.states import RefusalReason
from tests.memory_worker import MemoryWorker

FILES = {"a*": b"", "b/": b"", "b/1": b"1", "b/2": b"2", "c": b"3"}


def session(worker: MemoryWorker) -> Session:
    pool: Any = worker
    return Session(pool)


def test_all_files_are_listed_without_folders() -> None:
    worker = MemoryWorker({**FILES}, page_size=2)
    assert [entry.name for entry in fetch_listing(session(worker))] == ["a*", "b/1", "b/2", "c"]
    assert [request.after for request in worker.requests if isinstance(request, List)] == ["", "b/", "b/2"]


def test_a_glob_is_not_listed_to_find_out_whether_it_is_the_name_of_a_file() -> None:
    for name, expected in {"a*": True, "b/*": False, "b*": False, "*": False}.items():
        worker = MemoryWorker({**FILES}, page_size=1)
        assert is_file(session(worker), name) is expected
        # One of a glob: the second one is sent before it is known that the listing ends.
        assert len(worker.requests) <= 3


class ForgetfulWorker(MemoryWorker):
    """Does not have its catalogue any more when a second page is requested, but lists it from the beginning."""

    refusals = 0

    def _answer(self, request: Any) -> tuple[Any, bytes | None]:
        if isinstance(request, List) and request.after and self.refusals < 3:
            self.refusals += 1
            return Refusal(rid=request.rid, epoch=7, reason=RefusalReason.UNKNOWN), None
        return super()._answer(request)


def test_a_listing_that_begins_again_makes_no_progress_until_it_has_more_files() -> None:
    worker, progress = ForgetfulWorker({**FILES}, page_size=3), []
    worker.progress_timeout = SimpleNamespace(handle=lambda event, now: progress.append(event))
    assert len(fetch_listing(session(worker))) == 4
    assert len(progress) == 2
