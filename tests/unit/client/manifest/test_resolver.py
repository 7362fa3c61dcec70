"""Which version of which file is right, whom to believe, and how its manifest is fetched."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from msd.client.manifest.resolver import (
    ANSWER_PATIENCE,
    GRACE,
    RETRY,
    VOUCHED_GRACE,
    Action,
    Answered,
    AskDescribe,
    AskDigests,
    AskNames,
    Event,
    Fail,
    Found,
    ManifestResolver,
    Vouched,
    WorkerLost,
    WorkerReady,
)
from msd.wire.errors import MsdError, NotFoundError, SourceError, UsageError
from msd.wire.protocol.messages import PROTOCOL_VERSION, CataloguePage, Described, DigestPage, Entry, Refusal, Welcome
from msd.wire.protocol.segments import DIGEST_SIZE, MAX_FILE_SIZE, Manifest, digest, segment_count, segment_size
from msd.wire.protocol.states import RefusalReason
from msd.wire.support.time_passed import TimePassed

START = 1000.0
NAME = "Star.mp4"
NEW, OLD = b"n" * 32, b"o" * 32


def version(text: str, size: int = 245, name: str = NAME) -> Manifest:
    """A version of a file; ``text`` makes it different from others."""
    digests = b"".join(digest(f"{text}{index}".encode()) for index in range(segment_count(size)))
    return Manifest.build(name, size, digests)


STAR = version("star")
STALE = version("stale")
EMPTY = version("", size=0)


def described(manifest: Manifest) -> Described:
    return Described(
        rid=1,
        epoch=1,
        name=manifest.name,
        size=manifest.size,
        mtime_ns=1,
        segment_size=segment_size(manifest.size),
        id=manifest.id,
    )


def refusal(reason: RefusalReason) -> Refusal:
    return Refusal(rid=1, epoch=1, reason=reason)


class Scene:
    """A finder, the workers' part played for it, and a clock that the test moves."""

    def __init__(
        self, name: str | None = NAME, id: bytes | None = None, workers: int = 4, guess: str | None = None
    ) -> None:
        self.finder = ManifestResolver(name, id, guess)
        self.workers = workers
        self.now = START
        self.handle(Vouched(None, workers))

    def handle(self, event: Event) -> list[Action]:
        return self.finder.handle(event, self.now)

    def ready(self, *workers: int, files: int = 1, catalogue: bytes = NEW) -> list[Action]:
        actions = []
        for worker in workers:
            welcome = Welcome(
                rid=1, version=PROTOCOL_VERSION, epoch=worker, number=worker, files=files, catalogue=catalogue
            )
            actions += self.handle(WorkerReady(worker, welcome))
        return actions

    def describe(self, worker: int, manifest: Manifest = STAR) -> list[Action]:
        return self.handle(Answered(worker, described(manifest)))

    def refuse(self, worker: int, reason: RefusalReason = RefusalReason.UNKNOWN) -> list[Action]:
        return self.handle(Answered(worker, refusal(reason)))

    def names(self, worker: int, *names: str) -> list[Action]:
        entries = [Entry(name=name, size=1, mtime_ns=1, id=NEW) for name in names]
        return self.handle(Answered(worker, CataloguePage(rid=1, epoch=1, entries=entries, more=False)))

    def digests(self, worker: int, manifest: Manifest = STAR, start: int = 0, count: int = 1 << 20) -> list[Action]:
        page = manifest.digests[DIGEST_SIZE * start : DIGEST_SIZE * (start + count)]
        return self.handle(Answered(worker, DigestPage(rid=1, epoch=1, start=start), page))

    def lose(self, worker: int) -> list[Action]:
        return self.handle(WorkerLost(worker))

    def wait_for_deadline(self) -> list[Action]:
        """Lets time pass to the deadline, which must not stay where it was (no busy loop)."""
        deadline = self.finder.next_deadline()
        assert deadline is not None
        assert deadline > self.now
        self.now = deadline
        actions = self.handle(TimePassed())
        if not any(isinstance(action, Found | Fail) for action in actions):
            after = self.finder.next_deadline()
            assert after is None or after > self.now
        return actions


def failure(actions: list[Action], kind: type[MsdError]) -> str:
    """The message of the only action, a failure of this kind."""
    (action,) = actions
    assert isinstance(action, Fail)
    assert type(action.error) is kind
    return str(action.error)


def ask(worker: int, manifest: Manifest = STAR, start: int = 0) -> list[Action]:
    return [AskDigests(worker, manifest.id, start)]


def fetching() -> Scene:
    """Workers 1 and 2 have described the file, and 1 is asked for its digests."""
    scene = Scene(workers=2)
    scene.ready(1, 2)
    scene.describe(1)
    assert scene.describe(2) == ask(1)
    return scene


# The ordinary case.


def test_every_worker_that_is_ready_is_asked() -> None:
    assert Scene().ready(1, 3) == [AskDescribe(1, NAME), AskDescribe(3, NAME)]


def test_a_file_is_found_once_all_agree_and_its_digests_are_here() -> None:
    scene = fetching()
    assert scene.digests(1) == [Found(STAR)]


def test_the_only_file_needs_no_name() -> None:
    scene = Scene(None, workers=1)
    assert scene.ready(1, files=1) == [AskDescribe(1, None)]
    assert scene.describe(1) == ask(1)
    assert scene.digests(1) == [Found(STAR)]


def test_an_empty_file_is_found_without_a_digest() -> None:
    scene = Scene(workers=1)
    scene.ready(1)
    assert scene.describe(1, EMPTY) == [Found(EMPTY)]


def test_digests_are_fetched_page_by_page() -> None:
    scene = fetching()
    assert scene.digests(1, start=0, count=5) == ask(1, start=5)
    assert scene.digests(1, start=5, count=5) == ask(1, start=10)
    assert scene.digests(1, start=10, count=5) == [Found(STAR)]


def test_a_page_on_its_way_is_not_asked_for_twice() -> None:
    scene = fetching()
    assert scene.handle(TimePassed()) == []
    assert scene.handle(Vouched(NEW, scene.workers)) == []
    assert scene.ready(3) == [AskDescribe(3, NAME)]
    assert scene.describe(3) == []


def test_a_page_nobody_asked_that_worker_for_is_ignored() -> None:
    scene = fetching()
    assert scene.digests(2, STALE) == []
    assert scene.digests(1) == [Found(STAR)]


# Which id is right.


def test_the_given_id_is_taken_from_whoever_has_it_first() -> None:
    scene = Scene(id=STALE.id)
    scene.handle(Vouched(NEW, scene.workers))
    scene.ready(1, 2, catalogue=OLD)
    scene.refuse(1)
    assert scene.describe(2, STALE) == ask(2, STALE)
    assert scene.digests(2, STALE) == [Found(STALE)]


def test_another_id_than_the_given_one_is_a_lie() -> None:
    scene = Scene(id=STAR.id, workers=2)
    scene.ready(1, 2)
    assert scene.describe(1, STALE) == []
    assert scene.describe(2, STAR) == ask(2)


def test_another_name_than_the_given_one_is_a_lie() -> None:
    scene = Scene(workers=2)
    scene.ready(1, 2)
    assert scene.describe(1, version("star", name="Moon.mp4")) == []
    assert scene.describe(2) == ask(2)


def test_an_id_that_nobody_has_is_named() -> None:
    scene = Scene(None, id=STAR.id, workers=1)
    scene.ready(1)
    assert scene.refuse(1) == [AskNames(1)]
    assert STAR.id.hex() in failure(scene.names(1, "Star.mp4"), NotFoundError)


def test_the_vouched_catalogue_decides_against_the_majority_and_at_once() -> None:
    scene = Scene()
    scene.handle(Vouched(NEW, scene.workers))
    scene.ready(1, 2, 3, catalogue=OLD)
    scene.ready(4, catalogue=NEW)
    for worker in (1, 2, 3):
        assert scene.describe(worker, STALE) == []
    assert scene.describe(4) == ask(4)


def test_what_was_vouched_for_when_the_version_was_chosen_is_kept() -> None:
    scene = Scene(workers=1)
    scene.handle(Vouched(NEW, 1))
    scene.ready(1, catalogue=NEW)
    assert scene.finder.catalogue == b""
    assert scene.describe(1) == ask(1)
    scene.handle(Vouched(b"\7" * 32, 1))
    assert scene.digests(1) == [Found(STAR)]
    assert scene.finder.catalogue == NEW


def test_server_5_may_vouch_late() -> None:
    scene = Scene()
    scene.ready(1, catalogue=OLD)
    scene.ready(2, catalogue=NEW)
    scene.describe(1, STALE)
    assert scene.describe(2) == []
    assert scene.handle(Vouched(NEW, scene.workers)) == ask(2)


def test_without_the_vouched_catalogue_the_majority_decides_in_the_end() -> None:
    scene = Scene()
    scene.handle(Vouched(NEW, scene.workers))
    scene.ready(1, catalogue=OLD)
    assert scene.describe(1, STALE) == []
    assert scene.finder.next_deadline() == START + VOUCHED_GRACE
    assert scene.wait_for_deadline() == ask(1, STALE)


def test_the_majority_decides_once_all_have_answered() -> None:
    scene = Scene()
    scene.ready(1, 2, 3, 4)
    assert scene.describe(1, STALE) == []
    assert scene.describe(2) == []
    assert scene.refuse(3) == []
    assert scene.describe(4) == ask(2)


def test_the_majority_of_those_that_answer_decides_after_the_grace() -> None:
    scene = Scene()
    scene.ready(1, 2, 3)
    scene.describe(1, STALE)
    scene.describe(2)
    scene.describe(3)
    assert scene.finder.next_deadline() == START + GRACE
    assert scene.wait_for_deadline() == ask(2)


def test_nobody_decides_while_nobody_has_answered() -> None:
    scene = Scene()
    scene.ready(1, 2)
    assert scene.finder.next_deadline() is None
    scene.now += 100
    assert scene.handle(TimePassed()) == []


def test_a_worker_that_left_has_no_vote() -> None:
    scene = Scene(workers=3)
    scene.ready(1, 2, 3)
    scene.describe(1, STALE)
    scene.lose(1)
    scene.describe(2)
    assert scene.describe(3) == []
    assert scene.wait_for_deadline() == ask(2)


def test_the_grace_begins_with_the_first_answer_that_still_counts() -> None:
    scene = Scene()
    scene.ready(1)
    scene.describe(1, STALE)
    scene.lose(1)
    assert scene.finder.next_deadline() is None
    scene.now += 100
    scene.ready(2)
    assert scene.describe(2) == []
    assert scene.finder.next_deadline() == scene.now + GRACE


# No such file.


def test_several_files_need_a_name() -> None:
    scene = Scene(None, workers=1)
    assert "7 files are shared: name one of them" in failure(scene.ready(1, files=7), UsageError)


def test_of_several_files_the_one_that_was_guessed_is_asked_for() -> None:
    assert Scene(None, workers=1, guess="film").ready(1, files=7) == [AskDescribe(1, "film")]


def test_the_only_file_is_taken_whatever_was_guessed() -> None:
    assert Scene(None, workers=1, guess="film").ready(1, files=1) == [AskDescribe(1, None)]


def test_a_guess_makes_nobody_a_liar_who_was_not_asked_for_it() -> None:
    """Worker 1 serves one file, worker 2 two of them by now, and each is asked for what it may have."""
    scene = Scene(None, workers=2, guess="film")
    assert scene.ready(1, files=1) == [AskDescribe(1, None)]
    assert scene.ready(2, files=2) == [AskDescribe(2, "film")]
    assert scene.describe(1) == []
    assert scene.refuse(2) == ask(1)
    assert scene.digests(1) == [Found(STAR)]


def test_another_file_than_the_one_that_was_guessed_is_a_lie_of_who_was_asked_for_it() -> None:
    scene = Scene(None, workers=1, guess="film")
    scene.ready(1, files=2)
    failure(scene.describe(1), SourceError)


def test_a_name_that_was_given_is_no_guess_though_both_are_the_same() -> None:
    scene = Scene("film", workers=1, guess="film")
    scene.ready(1, files=2)
    assert scene.refuse(1) == [AskNames(1)]
    assert failure(scene.names(1, "x"), NotFoundError) == "'film' is not shared; msd list shows what is"


def test_no_file_at_all_is_not_found() -> None:
    assert failure(Scene(None, workers=1).ready(1, files=0), NotFoundError) == "no file is shared"


def test_an_unknown_name_leads_to_the_nearest_ones() -> None:
    scene = Scene("Sta.mp4", workers=2)
    scene.ready(1, 2)
    assert scene.refuse(1) == []
    assert scene.refuse(2) == [AskNames(1)]
    told = failure(scene.names(1, "Star.mp4", "Moon.avi"), NotFoundError)
    assert told == "'Sta.mp4' is not shared; did you mean 'Star.mp4'?"


def test_without_a_near_name_the_list_is_pointed_at() -> None:
    scene = Scene("Sta.mp4", workers=1)
    scene.ready(1)
    scene.refuse(1)
    assert failure(scene.names(1, "x"), NotFoundError) == "'Sta.mp4' is not shared; msd list shows what is"


def test_waiting_for_names_is_no_busy_loop() -> None:
    scene = Scene(workers=4)
    scene.ready(1)
    scene.refuse(1)
    assert scene.wait_for_deadline() == [AskNames(1)]
    assert scene.finder.next_deadline() == scene.now + ANSWER_PATIENCE


def test_names_are_asked_for_once() -> None:
    scene = Scene(workers=2)
    scene.ready(1, 2)
    scene.refuse(1)
    assert scene.refuse(2) == [AskNames(1)]
    assert scene.handle(TimePassed()) == []


def test_names_are_asked_of_another_worker_if_the_first_is_lost() -> None:
    scene = Scene(workers=2)
    scene.ready(1, 2)
    scene.refuse(1)
    scene.refuse(2)
    assert scene.lose(1) == []
    assert scene.wait_for_deadline() == [AskNames(2)]


def test_names_that_are_refused_end_it_too() -> None:
    scene = Scene(workers=1)
    scene.ready(1)
    assert scene.refuse(1) == [AskNames(1)]
    assert "is not shared" in failure(scene.refuse(1, RefusalReason.SLEEPING), NotFoundError)


def test_names_that_come_after_the_file_was_found_are_ignored() -> None:
    scene = Scene(workers=1)
    scene.ready(1, catalogue=OLD)
    assert scene.refuse(1) == [AskNames(1)]
    scene.handle(Vouched(NEW, scene.workers))
    scene.ready(2, catalogue=NEW)
    assert scene.describe(2) == ask(2)
    assert scene.names(1, "Moon.avi") == []
    assert scene.digests(2) == [Found(STAR)]


# Liars and losses.


@pytest.mark.parametrize(
    "lie",
    [
        replace(described(STAR), segment_size=22),
        replace(described(STAR), size=MAX_FILE_SIZE + 1, segment_size=64 << 20),
        replace(described(STAR), name="Star\x1b[31m.mp4"),
        replace(described(EMPTY), id=STAR.id),
    ],
    ids=["segment size", "file size", "name", "empty"],
)
def test_an_impossible_description_counts_for_nothing(lie: Described) -> None:
    scene = Scene(None, workers=2)
    scene.ready(1, 2)
    assert scene.handle(Answered(1, lie)) == []
    assert scene.finder.next_deadline() is None
    assert scene.describe(2) == ask(2)


def test_a_liar_is_not_listened_to_even_when_it_comes_again() -> None:
    scene = Scene(workers=2)
    scene.ready(1, 2)
    scene.handle(Answered(1, replace(described(STAR), segment_size=1)))
    scene.lose(1)
    assert scene.ready(1) == []
    assert scene.describe(1) == []
    assert scene.finder.next_deadline() is None
    assert scene.describe(2) == ask(2)


def test_if_everyone_lies_that_is_the_end() -> None:
    scene = Scene(workers=2)
    scene.ready(1, 2)
    lie = replace(described(STAR), segment_size=1)
    assert scene.handle(Answered(1, lie)) == []
    assert "msd status" in failure(scene.handle(Answered(2, lie)), SourceError)


@pytest.mark.parametrize("page", [b"", b"x" * 33], ids=["empty", "torn"])
def test_an_impossible_page_sends_elsewhere(page: bytes) -> None:
    scene = fetching()
    assert scene.handle(Answered(1, DigestPage(rid=1, epoch=1, start=0), page)) == ask(2)
    assert scene.digests(2) == [Found(STAR)]


@pytest.mark.parametrize("count", [12, 13], ids=["as many", "too many"])
def test_digests_that_do_not_hash_to_the_id_are_fetched_elsewhere(count: int) -> None:
    scene = fetching()
    assert scene.handle(Answered(1, DigestPage(rid=1, epoch=1, start=0), b"x" * DIGEST_SIZE * count)) == ask(2)
    assert scene.digests(2) == [Found(STAR)]


def test_digests_of_several_senders_that_do_not_fit_are_all_fetched_again_from_one() -> None:
    scene = fetching()
    scene.handle(Answered(1, DigestPage(rid=1, epoch=1, start=0), b"x" * DIGEST_SIZE))
    assert scene.lose(1) == ask(2, start=1)
    assert scene.digests(2, start=1) == ask(2)
    assert scene.digests(2) == [Found(STAR)]


def test_if_nobody_has_the_digests_of_the_id_that_is_the_end() -> None:
    scene = fetching()
    scene.digests(1, STALE)
    failure(scene.digests(2, STALE), SourceError)


def test_a_source_lost_half_way_goes_on_elsewhere() -> None:
    scene = fetching()
    scene.digests(1, start=0, count=7)
    assert scene.lose(1) == ask(2, start=7)
    assert scene.digests(2, start=7) == [Found(STAR)]


def test_a_source_that_denies_its_own_file_twice_is_a_liar() -> None:
    scene = fetching()
    assert scene.refuse(1, RefusalReason.UNKNOWN) == [AskDescribe(1, NAME)]
    assert scene.describe(1) == ask(2)
    assert scene.lose(2) == ask(1)
    assert scene.refuse(1, RefusalReason.UNKNOWN) == []
    assert scene.ready(1) == []


def test_a_source_whose_file_has_changed_describes_it_anew() -> None:
    """Its digests of the version before are worth nothing; it is not asked for more of them."""
    scene = Scene(workers=1)
    scene.ready(1)
    scene.describe(1, STALE)
    assert scene.digests(1, STALE, count=5) == ask(1, STALE, start=5)
    assert scene.refuse(1, RefusalReason.UNKNOWN) == [AskDescribe(1, NAME)]
    assert scene.handle(TimePassed()) == []
    assert scene.describe(1) == ask(1)
    assert scene.digests(1) == [Found(STAR)]


def test_while_a_source_describes_its_file_anew_the_others_are_sources() -> None:
    scene = fetching()
    scene.digests(1, start=0, count=7)
    assert scene.refuse(1, RefusalReason.UNKNOWN) == [AskDescribe(1, NAME)]
    assert scene.handle(TimePassed()) == ask(2)
    assert scene.describe(1, STALE) == []
    assert scene.digests(2) == [Found(STAR)]


def test_a_file_that_changes_on_all_sources_is_found_in_its_new_version() -> None:
    scene = fetching()
    assert scene.refuse(1, RefusalReason.UNKNOWN) == [AskDescribe(1, NAME)]
    assert scene.describe(1, STALE) == ask(2)
    assert scene.refuse(2, RefusalReason.UNKNOWN) == [AskDescribe(2, NAME)]
    assert scene.describe(2, STALE) == ask(1, STALE)
    assert scene.digests(1, STALE) == [Found(STALE)]


def test_a_source_whose_file_is_gone_says_so_when_it_is_asked_anew() -> None:
    scene = Scene(workers=1)
    scene.ready(1)
    scene.describe(1)
    assert scene.refuse(1, RefusalReason.UNKNOWN) == [AskDescribe(1, NAME)]
    assert scene.refuse(1, RefusalReason.UNKNOWN) == [AskNames(1)]


def test_a_source_that_refuses_for_now_is_not_pestered() -> None:
    scene = fetching()
    scene.digests(1, start=0, count=7)
    assert scene.refuse(1, RefusalReason.BUSY) == []
    assert scene.finder.next_deadline() == START + RETRY
    assert scene.wait_for_deadline() == ask(2, start=7)
    assert scene.finder.next_deadline() == scene.now + ANSWER_PATIENCE
    assert scene.digests(2, start=7) == [Found(STAR)]


def test_a_source_that_says_nothing_is_not_waited_for() -> None:
    """Worker 1 froze after its description: the next page comes from worker 2, a late one is ignored."""
    scene = fetching()
    scene.digests(1, start=0, count=7)
    assert scene.wait_for_deadline() == ask(2, start=7)
    assert scene.digests(1, start=7) == []
    assert scene.digests(2, start=7) == [Found(STAR)]


def test_if_whoever_is_asked_for_names_says_nothing_another_one_is() -> None:
    scene = Scene(workers=2)
    scene.ready(1, 2)
    scene.refuse(1)
    assert scene.refuse(2) == [AskNames(1)]
    assert scene.wait_for_deadline() == [AskNames(2)]


def test_the_only_source_is_asked_again_after_a_refusal() -> None:
    scene = Scene(workers=1)
    scene.ready(1)
    scene.describe(1)
    for _ in range(3):
        assert scene.refuse(1, RefusalReason.SLEEPING) == []
        assert scene.wait_for_deadline() == ask(1)


def test_when_all_sources_are_lost_it_starts_over_with_whoever_comes() -> None:
    scene = fetching()
    scene.digests(1, start=0, count=7)
    scene.lose(1)
    assert scene.lose(2) == []
    assert scene.finder.next_deadline() is None
    scene.ready(3)
    assert scene.describe(3, STALE) == []
    assert scene.wait_for_deadline() == ask(3, STALE)


def test_when_all_sources_are_lost_the_others_get_another_grace() -> None:
    scene = Scene(workers=3)
    scene.handle(Vouched(NEW, scene.workers))
    scene.ready(1, catalogue=NEW)
    scene.ready(2, catalogue=OLD)
    assert scene.describe(2, STALE) == []
    assert scene.describe(1) == ask(1)
    scene.now += 100
    assert scene.lose(1) == []
    assert scene.finder.next_deadline() == scene.now + VOUCHED_GRACE
    assert scene.wait_for_deadline() == ask(2, STALE)


# Anything in any order.

_ANSWERS: dict[str, Answered] = {
    "star": Answered(0, described(STAR)),
    "stale": Answered(0, described(STALE)),
    "lie": Answered(0, replace(described(STAR), segment_size=1)),
    "unknown": Answered(0, refusal(RefusalReason.UNKNOWN)),
    "busy": Answered(0, refusal(RefusalReason.BUSY)),
    "names": Answered(0, CataloguePage(rid=1, epoch=1, entries=[], more=False)),
    "digests": Answered(0, DigestPage(rid=1, epoch=1, start=0), STAR.digests),
    "stale digests": Answered(0, DigestPage(rid=1, epoch=1, start=0), STALE.digests),
    "page": Answered(0, DigestPage(rid=1, epoch=1, start=0), STAR.digests[: 5 * DIGEST_SIZE]),
    "nonsense": Answered(0, DigestPage(rid=1, epoch=1, start=0), b"x" * DIGEST_SIZE * 12),
}
_STEPS = st.tuples(st.integers(1, 3), st.sampled_from([*_ANSWERS, "ready", "lost", "vouched", "time", "deadline"]))


@settings(max_examples=300)
@given(
    name=st.sampled_from([None, NAME]),
    id=st.sampled_from([None, STAR.id]),
    workers=st.integers(0, 3),
    steps=st.lists(_STEPS, max_size=30),
)
def test_whatever_happens_only_the_truth_is_found_and_no_deadline_stays(
    name: str | None, id: bytes | None, workers: int, steps: list[tuple[int, str]]
) -> None:
    scene = Scene(name, id, workers)
    scene.ready(1, 2)
    ready = {1, 2}
    for worker, step in steps:
        actions: list[Action] = []
        match step:
            case "ready" if worker not in ready:
                ready.add(worker)
                actions = scene.ready(worker, catalogue=NEW if worker == 1 else OLD)
            case "lost" if worker in ready:
                ready.discard(worker)
                actions = scene.lose(worker)
            case "vouched":
                actions = scene.handle(Vouched(NEW if worker == 1 else None, scene.workers))
            case "time":
                scene.now += 0.25 * worker
            case "deadline" if (deadline := scene.finder.next_deadline()) is not None:
                scene.now = max(scene.now, deadline)
            case answer if answer in _ANSWERS and worker in ready:
                actions = scene.handle(Answered(worker, _ANSWERS[answer].reply, _ANSWERS[answer].payload))
        actions += scene.handle(TimePassed())
        for action in actions:
            match action:
                case Found(manifest):
                    assert manifest in (STAR, STALE)
                    assert id in (None, manifest.id)
                    return
                case Fail():
                    return
                case AskDescribe(asked) | AskDigests(asked) | AskNames(asked):
                    assert asked in ready
        after = scene.finder.next_deadline()
        assert after is None or after > scene.now, "no busy loop"
