"""Which version of a file is chosen, which workers are banned, and how the manifest is fetched."""

from __future__ import annotations

import weakref

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from msd.client.manifest.awaited_workers import Majority
from msd.client.manifest.resolver import (
    MAJORITY_TIMEOUT_S,
    MAX_CHANGES,
    PUBLISHED_TIMEOUT_S,
    REPLY_TIMEOUT_S,
    RETRY_DELAY_S,
    TRANSITIONS,
    Action,
    DeletedError,
    Event,
    Fail,
    Found,
    ManifestResolver,
    Phase,
    Request,
)
from msd.client.network_events import ConnectionClosed, ReplyReceived, SnapshotReceived
from msd.wire.errors import MsdError, NotFoundError, SourceError, UsageError
from msd.wire.protocol.messages import (
    CataloguePage,
    Correlated,
    DataReply,
    Describe,
    Described,
    DigestPage,
    Digests,
    Entry,
    List,
    Refusal,
)
from msd.wire.protocol.segments import DIGEST_SIZE, MAX_FILE_SIZE, Manifest, digest, segment_count, segment_size
from msd.wire.protocol.states import RefusalReason, WorkerState
from msd.wire.support.core import TimePassed
from tests.connections import opened
from tests.unit.snapshots import snapshot

START = 1000.0
NAME = "Star.mp4"
NEW, OLD = b"n" * 32, b"o" * 32


def version(text: str, size: int = 245, name: str = NAME) -> Manifest:
    """A version of a file; ``text`` distinguishes it from other versions."""
    digests = b"".join(digest(f"{text}{index}".encode()) for index in range(segment_count(size)))
    return Manifest.build(name, size, digests, mtime_ns=1, mode=0o644)


STAR = version("star")
STALE = version("stale")
EMPTY = version("", size=0)


def described(manifest: Manifest) -> Described:
    return Described(
        rid=1,
        epoch=1,
        name=manifest.name,
        size=manifest.size,
        mtime_ns=manifest.mtime_ns,
        mode=manifest.mode,
        segment_size=segment_size(manifest.size),
        id=manifest.id,
    )


def refusal(reason: RefusalReason) -> Refusal:
    return Refusal(rid=1, epoch=1, reason=reason)


def published(catalogue: bytes, workers: int = 4) -> SnapshotReceived:
    """A snapshot with this catalogue and this number of workers."""
    known = snapshot(*[WorkerState.AWAKE] * workers).workers[:workers]
    return SnapshotReceived(snapshot(catalogue=catalogue, workers=known))


def hosts(*states: WorkerState, catalogue: bytes = b"") -> SnapshotReceived:
    """A snapshot of workers in these states that have joined from other hosts, each with a catalogue of its own."""
    status = snapshot(*states, catalogue=catalogue)
    joined = [replace(w, host=f"192.0.2.{w.number}", catalogue=bytes([w.number]) * 32) for w in status.workers]
    return SnapshotReceived(replace(status, workers=joined))


AWAKE = WorkerState.AWAKE


class Scene:
    """A resolver, replies from its workers, and a clock that the test controls."""

    def __init__(
        self, name: str | None = NAME, id: bytes | None = None, workers: int = 4, fallback_name: str | None = None
    ) -> None:
        self.resolver = ManifestResolver(name, id, range(1, workers + 1), fallback_name)
        self.now = START
        #: The last request to each worker.
        self.requests: dict[int, Correlated] = {}

    def handle(self, event: Event) -> list[Action]:
        """Returns the actions, with 0 instead of the ids of the requests."""
        actions = self.resolver.handle(event, self.now)
        self.resolver.check_invariants()
        self.requests |= {action.worker: action.message for action in actions if isinstance(action, Request)}
        return [
            Request(action.worker, replace(action.message, rid=0)) if isinstance(action, Request) else action
            for action in actions
        ]

    def received(self, worker: int, reply: DataReply, data: bytes | None = None) -> ReplyReceived:
        """A reply to the last request to the worker, with ``data`` as its payload."""
        request = self.requests.get(worker, Describe(rid=0))
        return ReplyReceived(worker, request, reply, zmq.Frame(data) if data is not None else None)

    def connect(self, *workers: int, files: int = 1, catalogue: bytes = NEW) -> list[Action]:
        actions = []
        for worker in workers:
            actions += self.handle(opened(worker, files=files, catalogue=catalogue))
        return actions

    def describe(self, worker: int, manifest: Manifest = STAR) -> list[Action]:
        return self.handle(self.received(worker, described(manifest)))

    def refuse(self, worker: int, reason: RefusalReason = RefusalReason.UNKNOWN) -> list[Action]:
        return self.handle(self.received(worker, refusal(reason)))

    def list_names(self, worker: int, *names: str) -> list[Action]:
        entries = [Entry(name=name, size=1, mtime_ns=1, id=NEW) for name in names]
        return self.handle(
            self.received(worker, CataloguePage(rid=1, epoch=1, catalogue=b"", entries=entries, more=False))
        )

    def send_digests(
        self, worker: int, manifest: Manifest = STAR, start: int = 0, count: int = 1 << 20
    ) -> list[Action]:
        page = manifest.digests[DIGEST_SIZE * start : DIGEST_SIZE * (start + count)]
        return self.handle(self.received(worker, DigestPage(rid=1, epoch=1, start=start), page))

    def disconnect(self, worker: int) -> list[Action]:
        return self.handle(ConnectionClosed(worker))

    def wait_for_deadline(self) -> list[Action]:
        """Moves the clock to the deadline, and checks that the next deadline is later (no busy loop)."""
        deadline = self.resolver.next_deadline(self.now)
        assert deadline is not None
        assert deadline > self.now
        self.now = deadline
        actions = self.handle(TimePassed())
        if not any(isinstance(action, Found | Fail) for action in actions):
            after = self.resolver.next_deadline(self.now)
            assert after is None or after > self.now
        return actions


def failure(actions: list[Action], kind: type[MsdError]) -> str:
    """Checks that the only action is a failure of this kind, and returns the error message."""
    (action,) = actions
    assert isinstance(action, Fail)
    assert type(action.error) is kind
    return str(action.error)


def request_digests(worker: int, manifest: Manifest = STAR, start: int = 0) -> list[Action]:
    return [Request(worker, Digests(rid=0, id=manifest.id, start=start))]


def request_description(worker: int, name: str | None) -> Request:
    return Request(worker, Describe(rid=0, name=name))


def request_names(worker: int) -> Request:
    return Request(worker, List(rid=0))


def scene_with_request() -> Scene:
    """A scene in which workers 1 and 2 have described the file, and its digests are requested from worker 1."""
    scene = Scene(workers=2)
    scene.connect(1, 2)
    scene.describe(1)
    assert scene.describe(2) == request_digests(1)
    return scene


# The table of phases.


def test_every_phase_can_end_and_the_end_is_final() -> None:
    assert {start for start, _ in TRANSITIONS} == {*Phase} - {Phase.DONE}
    assert {start for start, end in TRANSITIONS if end is Phase.DONE} == {*Phase} - {Phase.DONE}


def test_the_phases_follow_the_requests() -> None:
    scene = Scene(workers=1)
    phases = [scene.resolver.phase]
    for step in (scene.connect, scene.refuse, scene.disconnect, scene.connect, scene.describe, scene.send_digests):
        step(1)
        phases.append(scene.resolver.phase)
    collecting, names, digests = Phase.COLLECTING, Phase.NAMES, Phase.DIGESTS
    assert phases == [collecting, collecting, names, collecting, collecting, digests, Phase.DONE]
    assert scene.connect(1) == []


# The ordinary case.


def test_every_connected_worker_is_asked_for_a_description() -> None:
    assert Scene().connect(1, 3) == [request_description(1, NAME), request_description(3, NAME)]


def test_a_file_is_found_once_all_workers_agree_and_its_digests_arrived() -> None:
    scene = scene_with_request()
    assert scene.send_digests(1) == [Found(STAR)]


def test_the_only_file_needs_no_name() -> None:
    scene = Scene(None, workers=1)
    assert scene.connect(1, files=1) == [request_description(1, None)]
    assert scene.describe(1) == request_digests(1)
    assert scene.send_digests(1) == [Found(STAR)]


def test_an_empty_file_needs_no_digests() -> None:
    scene = Scene(workers=1)
    scene.connect(1)
    assert scene.describe(1, EMPTY) == [Found(EMPTY)]


def test_digests_are_fetched_page_by_page() -> None:
    scene = scene_with_request()
    assert scene.send_digests(1, start=0, count=5) == request_digests(1, start=5)
    assert scene.send_digests(1, start=5, count=5) == request_digests(1, start=10)
    assert scene.send_digests(1, start=10, count=5) == [Found(STAR)]


def test_an_outstanding_page_is_not_requested_twice() -> None:
    scene = scene_with_request()
    assert scene.handle(TimePassed()) == []
    assert scene.handle(published(NEW)) == []
    assert scene.connect(3) == [request_description(3, NAME)]
    assert scene.describe(3) == []


def test_a_page_that_was_not_requested_is_ignored() -> None:
    scene = scene_with_request()
    assert scene.send_digests(2, STALE) == []
    assert scene.send_digests(1) == [Found(STAR)]


# Choosing the version.


def test_the_given_id_is_fetched_from_the_first_worker_that_has_it() -> None:
    scene = Scene(id=STALE.id)
    scene.handle(published(NEW))
    scene.connect(1, 2, catalogue=OLD)
    scene.refuse(1)
    assert scene.describe(2, STALE) == request_digests(2, STALE)
    assert scene.send_digests(2, STALE) == [Found(STALE)]


def test_a_worker_that_describes_another_id_is_banned() -> None:
    scene = Scene(id=STAR.id, workers=2)
    scene.connect(1, 2)
    assert scene.describe(1, STALE) == []
    assert scene.describe(2, STAR) == request_digests(2)


def test_a_worker_that_describes_another_name_is_banned() -> None:
    scene = Scene(workers=2)
    scene.connect(1, 2)
    assert scene.describe(1, version("star", name="Moon.mp4")) == []
    assert scene.describe(2) == request_digests(2)


def test_the_error_names_an_id_that_no_worker_has() -> None:
    scene = Scene(None, id=STAR.id, workers=1)
    scene.connect(1)
    assert scene.refuse(1) == [request_names(1)]
    assert STAR.id.hex() in failure(scene.list_names(1, "Star.mp4"), NotFoundError)


def test_the_id_of_another_file_is_not_that_of_the_named_file() -> None:
    scene = Scene("Star.mp4", id=NEW, workers=1)
    scene.connect(1)
    scene.refuse(1)
    entries = [Entry(name=name, size=1, mtime_ns=1, id=id) for name, id in (("Moon.avi", NEW), ("Star.mp4", OLD))]
    page = CataloguePage(rid=1, epoch=1, catalogue=b"", entries=entries, more=False)
    message = failure(scene.handle(scene.received(1, page)), NotFoundError)
    assert message == f"the id {NEW.hex()} is that of 'Moon.avi', not of 'Star.mp4': give one of them"


def test_the_published_catalogue_decides_at_once_and_against_the_majority() -> None:
    scene = Scene()
    scene.handle(published(NEW))
    scene.connect(1, 2, 3, catalogue=OLD)
    scene.connect(4, catalogue=NEW)
    for worker in (1, 2, 3):
        assert scene.describe(worker, STALE) == []
    assert scene.describe(4) == request_digests(4)


def test_the_catalogue_is_the_one_published_when_the_version_was_chosen() -> None:
    scene = Scene(workers=1)
    scene.handle(published(NEW))
    scene.connect(1, catalogue=NEW)
    assert scene.resolver.catalogue == b""
    assert scene.describe(1) == request_digests(1)
    scene.handle(published(b"\7" * 32))
    assert scene.send_digests(1) == [Found(STAR)]
    assert scene.resolver.catalogue == NEW


def test_server_5_may_publish_its_catalogue_late() -> None:
    scene = Scene()
    scene.connect(1, catalogue=OLD)
    scene.connect(2, catalogue=NEW)
    scene.describe(1, STALE)
    assert scene.describe(2) == []
    assert scene.handle(published(NEW)) == request_digests(2)


def test_the_majority_decides_if_no_worker_serves_the_published_catalogue() -> None:
    scene = Scene()
    scene.handle(published(NEW))
    scene.connect(1, catalogue=OLD)
    assert scene.describe(1, STALE) == []
    assert scene.resolver.next_deadline(scene.now) == START + PUBLISHED_TIMEOUT_S
    assert scene.wait_for_deadline() == request_digests(1, STALE)


def test_the_majority_decides_once_all_workers_answered() -> None:
    scene = Scene()
    scene.connect(1, 2, 3, 4)
    assert scene.describe(1, STALE) == []
    assert scene.describe(2) == []
    assert scene.refuse(3) == []
    assert scene.describe(4) == request_digests(2)


def test_a_worker_that_is_known_only_from_a_snapshot_counts() -> None:
    scene = Scene(workers=0)
    scene.handle(published(b"", workers=2))
    scene.connect(1)
    assert scene.describe(1) == []
    scene.connect(2)
    assert scene.describe(2) == request_digests(1)


def test_the_majority_of_the_answers_decides_after_the_timeout() -> None:
    scene = Scene()
    scene.connect(1, 2, 3)
    scene.describe(1, STALE)
    scene.describe(2)
    scene.describe(3)
    assert scene.resolver.next_deadline(scene.now) == START + MAJORITY_TIMEOUT_S
    assert scene.wait_for_deadline() == request_digests(2)


# Versions for which server 5 does not vouch.


def test_without_a_published_catalogue_most_workers_decide_once_all_that_are_awake_have_answered() -> None:
    scene = Scene(workers=0)
    others = [state for state in WorkerState if state not in (AWAKE, WorkerState.SILENT)]
    scene.handle(hosts(AWAKE, AWAKE, AWAKE, *others))
    scene.connect(1, 2, 3)
    scene.describe(1, STALE)
    scene.describe(2)
    assert scene.describe(3) == request_digests(2)
    assert scene.resolver.majority == Majority(2, 3)


@pytest.mark.parametrize("has_third", [True, False], ids=["three have it", "one lacks it"])
def test_nothing_is_said_if_all_workers_that_have_the_file_agree(has_third: bool) -> None:
    scene = Scene(workers=0)
    scene.handle(hosts(AWAKE, AWAKE, AWAKE))
    scene.connect(1, 2, 3)
    scene.describe(1)
    scene.describe(2)
    assert (scene.describe(3) if has_third else scene.refuse(3)) == request_digests(1)
    assert scene.resolver.majority is None


def test_the_agreement_of_those_that_answer_in_time_is_said() -> None:
    scene = Scene(workers=0)
    scene.handle(hosts(AWAKE, AWAKE, AWAKE))
    scene.connect(1, 2, 3)
    scene.describe(1)
    scene.describe(2)
    assert scene.wait_for_deadline() == request_digests(1)
    assert scene.resolver.majority == Majority(2, 2)


def test_a_silent_worker_may_just_be_busy_and_has_a_moment() -> None:
    scene = Scene(workers=0)
    scene.handle(hosts(AWAKE, WorkerState.SILENT))
    scene.connect(1)
    assert scene.describe(1) == []
    assert scene.resolver.next_deadline(scene.now) == scene.now + MAJORITY_TIMEOUT_S
    assert scene.wait_for_deadline() == request_digests(1)


def test_a_worker_to_which_the_client_cannot_connect_is_not_waited_for() -> None:
    scene = Scene(workers=0)
    scene.handle(hosts(AWAKE, AWAKE))
    scene.connect(1)
    assert scene.describe(1) == []
    assert scene.disconnect(2) == request_digests(1)
    assert scene.resolver.majority == Majority(1, 1)


def test_a_file_that_one_worker_shares_is_found_although_most_do_not() -> None:
    scene = Scene(workers=0)
    scene.handle(hosts(AWAKE, AWAKE, AWAKE))
    scene.connect(1, 2, 3)
    scene.refuse(1)
    scene.refuse(2)
    assert scene.describe(3) == request_digests(3)
    assert scene.resolver.majority == Majority(1, 3)


def test_a_file_that_is_not_in_the_published_catalogue_may_be_shared_by_another_host() -> None:
    scene = Scene(workers=0)
    scene.handle(hosts(AWAKE, AWAKE, AWAKE, catalogue=NEW))
    scene.connect(1, catalogue=NEW)
    scene.connect(2, 3, catalogue=OLD)
    assert scene.describe(2) == []
    assert scene.refuse(1) == []
    assert scene.refuse(3) == request_digests(2)
    assert scene.resolver.majority == Majority(1, 3)


def test_the_other_hosts_have_a_moment_if_the_published_catalogue_lacks_the_file() -> None:
    scene = Scene(workers=0)
    scene.handle(hosts(AWAKE, AWAKE, catalogue=NEW))
    scene.connect(1, catalogue=NEW)
    assert scene.refuse(1) == []
    assert scene.resolver.next_deadline(scene.now) == scene.now + MAJORITY_TIMEOUT_S
    assert scene.wait_for_deadline() == [request_names(1)]


def test_a_file_that_the_broker_does_not_share_is_at_once_unknown_if_all_workers_are_its_own() -> None:
    scene = Scene(workers=0)
    scene.handle(published(NEW))
    scene.connect(1, 2, catalogue=NEW)
    assert scene.refuse(1) == [request_names(1)]


def test_server_5_vouches_for_the_published_version() -> None:
    scene = Scene(workers=0)
    scene.handle(hosts(AWAKE, AWAKE, catalogue=NEW))
    scene.connect(1, catalogue=NEW)
    assert scene.describe(1) == request_digests(1)
    assert scene.resolver.majority is None


@pytest.mark.parametrize("has_server_5", [False, True])
def test_without_the_word_of_server_5_nothing_is_said_about_it(has_server_5: bool) -> None:
    """Server 5 is away, or no worker that serves the published catalogue answers."""
    scene = Scene(workers=2)
    if has_server_5:
        scene.handle(hosts(AWAKE, AWAKE, catalogue=NEW))
    scene.connect(1, 2, catalogue=OLD)
    scene.describe(1)
    scene.describe(2)
    assert scene.resolver.phase is Phase.DIGESTS
    assert scene.resolver.majority is None


def test_the_user_vouches_for_an_id() -> None:
    scene = Scene(id=STAR.id, workers=0)
    scene.handle(hosts(AWAKE, AWAKE))
    scene.connect(1)
    assert scene.describe(1) == request_digests(1)
    assert scene.resolver.majority is None


def test_nothing_is_decided_before_the_first_answer() -> None:
    scene = Scene()
    scene.connect(1, 2)
    assert scene.resolver.next_deadline(scene.now) is None
    scene.now += 100
    assert scene.handle(TimePassed()) == []


def test_a_lost_worker_has_no_vote() -> None:
    scene = Scene(workers=3)
    scene.connect(1, 2, 3)
    scene.describe(1, STALE)
    scene.disconnect(1)
    scene.describe(2)
    assert scene.describe(3) == []
    assert scene.wait_for_deadline() == request_digests(2)


def test_the_timeout_starts_with_the_first_answer_of_a_connected_worker() -> None:
    scene = Scene()
    scene.connect(1)
    scene.describe(1, STALE)
    scene.disconnect(1)
    assert scene.resolver.next_deadline(scene.now) is None
    scene.now += 100
    scene.connect(2)
    assert scene.describe(2) == []
    assert scene.resolver.next_deadline(scene.now) == scene.now + MAJORITY_TIMEOUT_S


# No such file.


def test_several_files_need_a_name() -> None:
    scene = Scene(None, workers=1)
    assert "7 files are shared: name one of them" in failure(scene.connect(1, files=7), UsageError)


def test_the_fallback_name_is_requested_if_several_files_are_shared() -> None:
    assert Scene(None, workers=1, fallback_name="film").connect(1, files=7) == [request_description(1, "film")]


def test_the_only_file_is_requested_whatever_the_fallback_name() -> None:
    assert Scene(None, workers=1, fallback_name="film").connect(1, files=1) == [request_description(1, None)]


def test_a_worker_that_was_not_asked_for_the_fallback_name_may_describe_another_file() -> None:
    """Worker 1 shares one file, worker 2 already shares two: only worker 2 gets a request for the fallback name."""
    scene = Scene(None, workers=2, fallback_name="film")
    assert scene.connect(1, files=1) == [request_description(1, None)]
    assert scene.connect(2, files=2) == [request_description(2, "film")]
    assert scene.describe(1) == []
    assert scene.refuse(2) == request_digests(1)
    assert scene.send_digests(1) == [Found(STAR)]


def test_a_worker_that_was_asked_for_the_fallback_name_must_describe_it() -> None:
    scene = Scene(None, workers=1, fallback_name="film")
    scene.connect(1, files=2)
    failure(scene.describe(1), SourceError)


def test_a_given_name_takes_precedence_over_an_equal_fallback_name() -> None:
    scene = Scene("film", workers=1, fallback_name="film")
    scene.connect(1, files=2)
    assert scene.refuse(1) == [request_names(1)]
    assert failure(scene.list_names(1, "x"), NotFoundError) == "'film' is not shared"


def test_no_shared_file_is_a_not_found_error() -> None:
    assert failure(Scene(None, workers=1).connect(1, files=0), NotFoundError) == "no file is shared"


def test_the_error_for_an_unknown_name_has_the_shared_names() -> None:
    scene = Scene("Sta.mp4", workers=2)
    scene.connect(1, 2)
    assert scene.refuse(1) == []
    assert scene.refuse(2) == [request_names(1)]
    (action,) = scene.list_names(1, "Star.mp4", "Moon.avi")
    assert isinstance(action, Fail)
    assert isinstance(action.error, NotFoundError)
    assert str(action.error) == "'Sta.mp4' is not shared"
    assert (action.error.name, action.error.names) == ("Sta.mp4", ["Star.mp4", "Moon.avi"])


def test_the_error_for_the_name_of_a_folder_has_that_folder() -> None:
    scene = Scene("photos", workers=1)
    scene.connect(1)
    scene.refuse(1)
    folders = [Entry(name=name, size=0, mtime_ns=0, id=None) for name in ("music/", "photos/")]
    page = CataloguePage(rid=1, epoch=1, catalogue=b"", entries=folders, more=False)
    (action,) = scene.handle(scene.received(1, page))
    assert isinstance(action, Fail)
    assert isinstance(action.error, NotFoundError)
    assert action.error.names == ["photos/"]


def test_waiting_for_names_is_no_busy_loop() -> None:
    scene = Scene(workers=4)
    scene.connect(1)
    scene.refuse(1)
    assert scene.wait_for_deadline() == [request_names(1)]
    assert scene.resolver.next_deadline(scene.now) == scene.now + REPLY_TIMEOUT_S


def test_names_are_requested_once() -> None:
    scene = Scene(workers=2)
    scene.connect(1, 2)
    scene.refuse(1)
    assert scene.refuse(2) == [request_names(1)]
    assert scene.handle(TimePassed()) == []


def test_names_are_requested_from_another_worker_if_the_first_is_lost() -> None:
    scene = Scene(workers=2)
    scene.connect(1, 2)
    scene.refuse(1)
    scene.refuse(2)
    assert scene.disconnect(1) == []
    assert scene.wait_for_deadline() == [request_names(2)]


def test_refused_names_end_the_resolution_without_names() -> None:
    scene = Scene(workers=1)
    scene.connect(1)
    assert scene.refuse(1) == [request_names(1)]
    assert "is not shared" in failure(scene.refuse(1, RefusalReason.SLEEPING), NotFoundError)


@pytest.mark.parametrize("reason", [RefusalReason.OTHER, RefusalReason.BAD_REQUEST])
def test_a_worker_that_refuses_to_describe_the_file_for_another_reason_does_not_share_it(reason: RefusalReason) -> None:
    scene = Scene(workers=2)
    scene.connect(1, 2)
    scene.refuse(1, reason)
    scene.describe(2)
    assert scene.wait_for_deadline() == request_digests(2)


def test_names_that_come_after_the_file_was_found_are_ignored() -> None:
    scene = Scene(workers=1)
    scene.connect(1, catalogue=OLD)
    assert scene.refuse(1) == [request_names(1)]
    scene.handle(published(NEW))
    scene.connect(2, catalogue=NEW)
    assert scene.describe(2) == request_digests(2)
    assert scene.list_names(1, "Moon.avi") == []
    assert scene.send_digests(2) == [Found(STAR)]


# Invalid replies and lost workers.


@pytest.mark.parametrize(
    "impossible",
    [
        replace(described(STAR), segment_size=22),
        replace(described(STAR), size=MAX_FILE_SIZE + 1, segment_size=64 << 20),
        replace(described(STAR), name="Star\x1b[31m.mp4"),
        replace(described(EMPTY), id=STAR.id),
    ],
    ids=["segment size", "file size", "name", "empty"],
)
def test_an_impossible_description_is_ignored(impossible: Described) -> None:
    scene = Scene(None, workers=2)
    scene.connect(1, 2)
    assert scene.handle(scene.received(1, impossible)) == []
    assert scene.resolver.next_deadline(scene.now) is None
    assert scene.describe(2) == request_digests(2)


def test_a_banned_worker_is_ignored_even_after_it_reconnects() -> None:
    scene = Scene(workers=2)
    scene.connect(1, 2)
    scene.handle(scene.received(1, replace(described(STAR), segment_size=1)))
    scene.disconnect(1)
    assert scene.connect(1) == []
    assert scene.describe(1) == []
    assert scene.resolver.next_deadline(scene.now) is None
    assert scene.describe(2) == request_digests(2)


def test_the_resolution_fails_if_all_workers_are_banned() -> None:
    scene = Scene(workers=2)
    scene.connect(1, 2)
    impossible = replace(described(STAR), segment_size=1)
    assert scene.handle(scene.received(1, impossible)) == []
    assert "msd status" in failure(scene.handle(scene.received(2, impossible)), SourceError)


@pytest.mark.parametrize("page", [b"", b"x" * 33], ids=["empty", "truncated"])
def test_after_an_impossible_page_the_digests_are_requested_from_another_worker(page: bytes) -> None:
    scene = scene_with_request()
    assert scene.handle(scene.received(1, DigestPage(rid=1, epoch=1, start=0), page)) == request_digests(2)
    assert scene.send_digests(2) == [Found(STAR)]


@pytest.mark.parametrize("count", [12, 13], ids=["right count", "too many"])
def test_digests_that_do_not_hash_to_the_id_are_requested_from_another_worker(count: int) -> None:
    scene = scene_with_request()
    assert scene.handle(
        scene.received(1, DigestPage(rid=1, epoch=1, start=0), b"x" * DIGEST_SIZE * count)
    ) == request_digests(2)
    assert scene.send_digests(2) == [Found(STAR)]


def test_payloads_are_not_kept_in_the_history_of_decisions() -> None:
    scene = scene_with_request()
    page = scene.received(1, DigestPage(rid=1, epoch=1, start=9), bytes(1000))
    payload = weakref.ref(page.payload)
    scene.handle(page)
    del page
    assert payload() is None


def test_wrong_digests_of_several_workers_are_all_refetched_from_one() -> None:
    scene = scene_with_request()
    scene.handle(scene.received(1, DigestPage(rid=1, epoch=1, start=0), b"x" * DIGEST_SIZE))
    assert scene.disconnect(1) == request_digests(2, start=1)
    assert scene.send_digests(2, start=1) == request_digests(2)
    assert scene.send_digests(2) == [Found(STAR)]


def test_the_resolution_fails_if_no_worker_has_valid_digests() -> None:
    scene = scene_with_request()
    scene.send_digests(1, STALE)
    failure(scene.send_digests(2, STALE), SourceError)


def test_digests_continue_from_another_worker_if_their_source_is_lost() -> None:
    scene = scene_with_request()
    scene.send_digests(1, start=0, count=7)
    assert scene.disconnect(1) == request_digests(2, start=7)
    assert scene.send_digests(2, start=7) == [Found(STAR)]


def test_a_source_that_refuses_its_own_file_again_and_again_is_banned() -> None:
    scene = Scene(workers=1)
    scene.connect(1)
    for reason in (RefusalReason.UNKNOWN, RefusalReason.OTHER, *[RefusalReason.UNKNOWN] * (MAX_CHANGES - 3)):
        assert scene.describe(1) == request_digests(1)
        assert scene.refuse(1, reason) == [request_description(1, NAME)]
    scene.describe(1)
    failure(scene.refuse(1, RefusalReason.UNKNOWN), SourceError)


def test_a_file_that_changes_again_and_again_while_its_digests_are_fetched_is_found() -> None:
    scene = Scene(workers=1)
    scene.connect(1)
    for number in range(MAX_CHANGES - 1):
        manifest = version(f"version {number}")
        assert scene.describe(1, manifest) == request_digests(1, manifest)
        assert scene.refuse(1, RefusalReason.UNKNOWN) == [request_description(1, NAME)]
    assert scene.describe(1) == request_digests(1)
    assert scene.send_digests(1) == [Found(STAR)]


def test_the_digests_of_a_known_version_are_not_fetched_again() -> None:
    for described_version, actions in ((STAR, [Found(STAR)]), (STALE, request_digests(1, STALE))):
        scene = Scene(workers=1)
        scene.resolver = ManifestResolver(NAME, None, (1,), known=STAR)
        scene.connect(1)
        scene.handle(published(NEW))
        assert scene.describe(1, described_version) == actions
        assert scene.resolver.catalogue == NEW


def test_a_source_whose_file_changed_is_asked_for_a_new_description() -> None:
    """The digests of the old version are discarded, and no more of them are requested."""
    scene = Scene(workers=1)
    scene.connect(1)
    scene.describe(1, STALE)
    assert scene.send_digests(1, STALE, count=5) == request_digests(1, STALE, start=5)
    assert scene.refuse(1, RefusalReason.UNKNOWN) == [request_description(1, NAME)]
    assert scene.handle(TimePassed()) == []
    assert scene.describe(1) == request_digests(1)
    assert scene.send_digests(1) == [Found(STAR)]


def test_the_other_workers_are_sources_while_one_describes_its_file_again() -> None:
    scene = scene_with_request()
    scene.send_digests(1, start=0, count=7)
    assert scene.refuse(1, RefusalReason.UNKNOWN) == [request_description(1, NAME), *request_digests(2)]
    assert scene.describe(1, STALE) == []
    assert scene.send_digests(2) == [Found(STAR)]


def test_a_file_that_changed_on_all_sources_is_found_in_its_new_version() -> None:
    scene = scene_with_request()
    assert scene.refuse(1, RefusalReason.UNKNOWN) == [request_description(1, NAME), *request_digests(2)]
    assert scene.describe(1, STALE) == []
    assert scene.refuse(2, RefusalReason.UNKNOWN) == [request_description(2, NAME)]
    assert scene.describe(2, STALE) == request_digests(1, STALE)
    assert scene.send_digests(1, STALE) == [Found(STALE)]


def test_a_source_whose_file_is_gone_is_asked_for_names() -> None:
    scene = Scene(workers=1)
    scene.connect(1)
    scene.describe(1)
    assert scene.refuse(1, RefusalReason.UNKNOWN) == [request_description(1, NAME)]
    assert scene.refuse(1, RefusalReason.UNKNOWN) == [request_names(1)]
    failure(scene.list_names(1, "other"), DeletedError)


def test_a_source_that_refuses_temporarily_is_not_asked_again_at_once() -> None:
    scene = scene_with_request()
    scene.send_digests(1, start=0, count=7)
    assert scene.refuse(1, RefusalReason.BUSY) == []
    assert scene.resolver.next_deadline(scene.now) == START + RETRY_DELAY_S
    assert scene.wait_for_deadline() == request_digests(2, start=7)
    assert scene.resolver.next_deadline(scene.now) == scene.now + REPLY_TIMEOUT_S
    assert scene.send_digests(2, start=7) == [Found(STAR)]


def test_a_silent_source_is_replaced_after_the_timeout() -> None:
    """Worker 1 freezes after its first page, so worker 2 gets a request. A late page from worker 1 is ignored."""
    scene = scene_with_request()
    scene.send_digests(1, start=0, count=7)
    assert scene.wait_for_deadline() == request_digests(2, start=7)
    assert scene.send_digests(1, start=7) == []
    assert scene.send_digests(2, start=7) == [Found(STAR)]


def test_a_worker_that_does_not_send_names_is_replaced_after_the_timeout() -> None:
    scene = Scene(workers=2)
    scene.connect(1, 2)
    scene.refuse(1)
    assert scene.refuse(2) == [request_names(1)]
    assert scene.wait_for_deadline() == [request_names(2)]


def test_the_only_source_is_asked_again_after_a_refusal() -> None:
    scene = Scene(workers=1)
    scene.connect(1)
    scene.describe(1)
    for _ in range(3):
        assert scene.refuse(1, RefusalReason.SLEEPING) == []
        assert scene.wait_for_deadline() == request_digests(1)


def test_when_all_sources_are_lost_the_resolution_starts_over_with_new_workers() -> None:
    scene = scene_with_request()
    scene.send_digests(1, start=0, count=7)
    scene.disconnect(1)
    assert scene.disconnect(2) == []
    assert scene.resolver.next_deadline(scene.now) is None
    scene.connect(3)
    assert scene.describe(3, STALE) == []
    assert scene.wait_for_deadline() == request_digests(3, STALE)


def test_when_all_sources_are_lost_the_other_workers_get_a_new_timeout() -> None:
    scene = Scene(workers=3)
    scene.handle(published(NEW, workers=3))
    scene.connect(1, catalogue=NEW)
    scene.connect(2, catalogue=OLD)
    assert scene.describe(2, STALE) == []
    assert scene.describe(1) == request_digests(1)
    scene.now += 100
    assert scene.disconnect(1) == []
    assert scene.resolver.next_deadline(scene.now) == scene.now + PUBLISHED_TIMEOUT_S
    assert scene.wait_for_deadline() == request_digests(2, STALE)


# Arbitrary sequences of events.

_REPLIES: dict[str, tuple[DataReply, bytes | None]] = {
    "star": (described(STAR), None),
    "stale": (described(STALE), None),
    "impossible": (replace(described(STAR), segment_size=1), None),
    "unknown": (refusal(RefusalReason.UNKNOWN), None),
    "busy": (refusal(RefusalReason.BUSY), None),
    "names": (CataloguePage(rid=1, epoch=1, catalogue=b"", entries=[], more=False), None),
    "digests": (DigestPage(rid=1, epoch=1, start=0), STAR.digests),
    "stale digests": (DigestPage(rid=1, epoch=1, start=0), STALE.digests),
    "page": (DigestPage(rid=1, epoch=1, start=0), STAR.digests[: 5 * DIGEST_SIZE]),
    "invalid digests": (DigestPage(rid=1, epoch=1, start=0), b"x" * DIGEST_SIZE * 12),
}
_STEPS = st.tuples(st.integers(1, 3), st.sampled_from([*_REPLIES, "connect", "lose", "publish", "wait", "deadline"]))


@settings(max_examples=300)
@given(
    name=st.sampled_from([None, NAME]),
    id=st.sampled_from([None, STAR.id]),
    workers=st.integers(0, 3),
    steps=st.lists(_STEPS, max_size=30),
)
def test_any_sequence_of_events_finds_a_valid_manifest_and_moves_the_deadline(
    name: str | None, id: bytes | None, workers: int, steps: list[tuple[int, str]]
) -> None:
    scene = Scene(name, id, workers)
    scene.connect(1, 2)
    connected = {1, 2}
    for worker, step in steps:
        actions: list[Action] = []
        match step:
            case "connect" if worker not in connected:
                connected.add(worker)
                actions = scene.connect(worker, catalogue=NEW if worker == 1 else OLD)
            case "lose" if worker in connected:
                connected.discard(worker)
                actions = scene.disconnect(worker)
            case "publish":
                actions = scene.handle(published(NEW if worker == 1 else b""))
            case "wait":
                scene.now += 0.25 * worker
            case "deadline" if (deadline := scene.resolver.next_deadline(scene.now)) is not None:
                scene.now = max(scene.now, deadline)
            case reply if reply in _REPLIES and worker in connected:
                actions = scene.handle(scene.received(worker, *_REPLIES[reply]))
        actions += scene.handle(TimePassed())
        for action in actions:
            match action:
                case Found(manifest):
                    assert manifest in (STAR, STALE)
                    assert id in (None, manifest.id)
                    return
                case Fail():
                    return
                case Request(target):
                    assert target in connected
        after = scene.resolver.next_deadline(scene.now)
        assert after is None or after > scene.now, "no busy loop"
