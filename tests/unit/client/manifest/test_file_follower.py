"""Which version a download fetches when the file changes, and when and how it gives up."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msd.client.manifest.file_follower import (
    INDEXING_RATE,
    INDEXING_TIME_S,
    LOOKUP_INTERVAL_S,
    MAX_COUNTED_S,
    MAX_VERSIONS,
    TRANSITIONS,
    Action,
    Event,
    Fail,
    Fetch,
    FileFollower,
    FollowState,
    LookUp,
    LookUpFailed,
    VersionFound,
    VersionLost,
)
from msd.client.manifest.resolver import DeletedError
from msd.client.network_events import SnapshotReceived
from msd.wire.errors import MsdError, NotFoundError, SourceError, UsageError
from msd.wire.support.core import TimePassed
from tests.unit.snapshots import snapshot

OLD, NEW = b"old", b"new"
REFUSED = "every worker failed (worker 1: changed)"
LOST = VersionLost(SourceError(REFUSED))
NOT_SHARED = LookUpFailed(NotFoundError("'film' is not shared"), OLD)
FIRST, CONTINUE = [Fetch(is_new=True)], [Fetch(is_new=False)]


class Scene:
    """A follower of the file ``film``, and a clock that the test controls."""

    def __init__(self, pinned_by: str | None = None) -> None:
        self.follower = FileFollower("film", pinned_by)
        self.now = 100.0

    def feed(self, event: Event, later: float = 0.0) -> list[Action]:
        self.now += later
        actions = self.follower.handle(event, self.now)
        self.follower.check_invariants()
        return actions

    def find(self, version: int, catalogue: bytes = OLD, size: int = 0) -> list[Action]:
        return self.feed(VersionFound("film", bytes([version]), size, catalogue))

    def publish(self, catalogue: bytes) -> list[Action]:
        return self.feed(SnapshotReceived(snapshot(catalogue=catalogue, workers=[])))

    def wait_for_deadline(self) -> list[Action]:
        deadline = self.follower.next_deadline(self.now)
        assert deadline is not None
        assert deadline > self.now
        assert self.feed(TimePassed()) == []
        self.now = deadline
        return self.feed(TimePassed())


def fetching(pinned_by: str | None = None, size: int = 0) -> Scene:
    scene = Scene(pinned_by)
    assert scene.find(0, size=size) == FIRST
    return scene


def paused() -> Scene:
    """A scene in which the version is lost, and still the current one."""
    scene = fetching()
    assert scene.feed(LOST) == [LookUp()]
    assert scene.find(0) == CONTINUE
    assert scene.feed(LOST) == []
    return scene


def failure(actions: list[Action], kind: type[MsdError]) -> str:
    """Checks that the only action is a failure of this kind, and returns the error message."""
    (action,) = actions
    assert isinstance(action, Fail)
    assert type(action.error) is kind
    return str(action.error)


def test_a_lost_version_is_looked_up_at_once_and_the_new_one_is_fetched() -> None:
    scene = fetching()
    assert scene.feed(LOST) == [LookUp()]
    assert scene.find(1) == FIRST
    assert scene.follower.versions == 2


def test_while_the_new_version_is_not_indexed_the_version_is_looked_up_again_and_again() -> None:
    """The old version is tried each time: the file may have been put back as it was."""
    scene = paused()
    assert scene.follower.waiting_reason == "film changed on the servers: waiting until they have indexed it"
    for _ in range(3):
        assert scene.wait_for_deadline() == [LookUp()]
        assert scene.find(0) == CONTINUE
        assert scene.feed(LOST) == []
    assert scene.wait_for_deadline() == [LookUp()]
    assert scene.find(1) == FIRST
    assert scene.follower.waiting_reason == ""


def test_another_catalogue_ends_the_pause() -> None:
    scene = paused()
    assert scene.publish(b"") == []
    assert scene.publish(OLD) == []
    assert scene.publish(NEW) == [LookUp()]
    assert scene.find(0, catalogue=NEW) == CONTINUE
    assert scene.feed(LOST) == []
    assert scene.publish(NEW) == []


def test_a_version_that_is_not_indexed_in_time_is_an_error() -> None:
    size = 100 * INDEXING_RATE
    scene = fetching(size=size)
    scene.feed(LOST)
    start = scene.now
    while True:
        scene.find(0, size=size)
        if actions := scene.feed(LOST):
            break
        scene.wait_for_deadline()
    assert failure(actions, SourceError).startswith(f"{REFUSED}: film changed on the servers")
    assert 0 <= scene.now - start - (INDEXING_TIME_S + 100) <= LOOKUP_INTERVAL_S


def test_segments_that_still_arrive_extend_the_wait() -> None:
    scene = paused()
    for _ in range(100):
        assert scene.wait_for_deadline() == [LookUp()]
        assert scene.find(0) == CONTINUE
        assert scene.feed(VersionLost(SourceError(REFUSED), progressed=True)) == [LookUp()]
        assert scene.find(0) == CONTINUE
        assert scene.feed(LOST) == []


def test_a_deleted_file_may_return() -> None:
    for version, action in ((0, CONTINUE), (1, FIRST)):
        scene = fetching()
        assert scene.feed(LOST) == [LookUp()]
        assert scene.feed(NOT_SHARED) == []
        assert scene.follower.waiting_reason == "film is no longer shared: waiting for it to return"
        assert scene.publish(NEW) == [LookUp()]
        assert scene.find(version) == action


def test_a_file_that_is_deleted_during_the_first_look_up_may_return() -> None:
    scene = Scene()
    assert scene.feed(LookUpFailed(DeletedError("'film' is not shared"), OLD)) == []
    assert scene.wait_for_deadline() == [LookUp()]
    assert scene.find(0) == FIRST


def test_a_file_that_stays_deleted_is_not_found() -> None:
    scene = fetching()
    scene.feed(LOST)
    start = scene.now
    while not (actions := scene.feed(NOT_SHARED)):
        scene.wait_for_deadline()
    assert failure(actions, NotFoundError) == (
        "film is no longer shared, and did not return within 15 s: msd list shows the shared files"
    )
    assert scene.now - start == INDEXING_TIME_S


@pytest.mark.parametrize("error", [NotFoundError("'film' is not shared"), SourceError("?"), UsageError("?")])
def test_an_error_of_the_first_look_up_ends_the_download(error: MsdError) -> None:
    assert Scene().feed(LookUpFailed(error, OLD)) == [Fail(error)]


def test_an_outage_of_all_servers_is_no_indexing() -> None:
    """The servers are down for an hour, and then change once more."""
    scene = paused()
    scene.wait_for_deadline()
    scene.now += 3600.0
    assert scene.find(0) == CONTINUE
    assert scene.feed(LOST) == []
    assert INDEXING_TIME_S > MAX_COUNTED_S + LOOKUP_INTERVAL_S


def test_after_five_versions_another_change_is_an_error() -> None:
    scene = fetching()
    for version in range(1, MAX_VERSIONS):
        assert scene.feed(LOST) == [LookUp()]
        assert scene.find(version % 2) == FIRST, "a version that returns counts again"
    scene.feed(LOST)
    assert "film changed on the servers 5 times" in failure(scene.find(MAX_VERSIONS), SourceError)


@pytest.mark.parametrize(("argument", "text"), [("id", "the id names a version"), ("sha256", "another SHA-256")])
def test_a_download_of_one_version_does_not_follow_the_file(argument: str, text: str) -> None:
    message = failure(actions := fetching(argument).feed(LOST), SourceError)
    assert message.startswith(f"{REFUSED}: ")
    assert text in message
    assert isinstance(actions[0], Fail)
    assert actions[0].error.arguments == (argument,)
    deleted = DeletedError("'film' is not shared")
    assert Scene(argument).feed(LookUpFailed(deleted, OLD)) == [Fail(deleted)]


def test_an_output_that_cannot_restart_ends_the_download() -> None:
    message = failure(fetching().feed(VersionLost(SourceError(REFUSED), can_restart=False)), SourceError)
    assert message.startswith(f"{REFUSED}: film changed on the servers: discard what was written")


def test_every_state_can_be_left_except_the_last() -> None:
    assert {start for start, _ in TRANSITIONS} == {*FollowState} - {FollowState.FAILED}


EVENTS = st.one_of(
    st.builds(
        VersionFound,
        st.just("film"),
        st.sampled_from([b"1", b"2"]),
        st.integers(0, 1 << 40),
        st.sampled_from([b"", OLD, NEW]),
    ),
    st.sampled_from([NOT_SHARED, LOST, VersionLost(SourceError(REFUSED), progressed=True), TimePassed()]),
    st.sampled_from([b"", OLD, NEW]).map(lambda c: SnapshotReceived(snapshot(catalogue=c, workers=[]))),
)


@settings(max_examples=300)
@given(st.lists(st.tuples(EVENTS, st.sampled_from([0.0, 0.3, 2.0, 100.0])), max_size=60))
def test_any_sequence_of_events_takes_a_listed_transition_and_leaves_something_to_wait_for(
    events: list[tuple[Event, float]],
) -> None:
    scene = Scene()
    fetches = 0
    for event, seconds in events:
        before = scene.follower.state
        actions = scene.feed(event, later=seconds)
        after = scene.follower.state
        assert before is after or type(event) in TRANSITIONS[before, after]
        assert (before is not after) == (bool(actions) or after is FollowState.PAUSED != before)
        assert (after is FollowState.PAUSED) == (scene.follower.next_deadline(scene.now) is not None)
        assert (scene.follower.next_deadline(scene.now) or math.inf) > scene.now or not isinstance(event, TimePassed)
        fetches += actions == FIRST
        assert fetches <= MAX_VERSIONS
        expected = {FollowState.LOOKING_UP: LookUp, FollowState.FETCHING: Fetch, FollowState.FAILED: Fail}
        assert not actions or [*map(type, actions)] == [expected[after]]
