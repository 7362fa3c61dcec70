"""When the shared files are looked at, and which of them are indexed then."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from msd.workers.indexing.rescan_policy import ALERT, CALM, LOOK_SHARE, RETRY_FIRST, RETRY_LAST, Watch

#: Any moment but 0; a sum of it and the times of the module is exact.
START = 1024.0

Files = dict[str, int]


class Scene:
    """A watch, and a clock that jumps from look to look. Files are indexed as wanted, unless ``broken``."""

    def __init__(self, **files: int) -> None:
        self.watch: Watch[int] = Watch({})
        self.now = START
        self.broken: set[str] = set()
        assert self.look(**files) == files

    def look(self, took: float = 0.0, **seen: int) -> Files | None:
        """Looks as soon as that is due; what is to be indexed."""
        self.now = max(self.now, self.watch.next_look) + took
        wanted = self.watch.looked(seen, took, self.now)
        if wanted is None:
            return None
        held = {name: version for name, version in wanted.items() if name not in self.broken}
        self.watch.indexed(held, self.now)
        return dict(wanted)

    @property
    def pause(self) -> float:
        """The seconds to the next look."""
        return self.watch.next_look - self.now


# Looks.


def test_the_first_look_takes_all_it_sees_to_stand_still_and_is_indexed_in_any_case() -> None:
    watch = Watch({"a": 1, "gone": 1})
    assert watch.looked({"a": 1, "b": 2}, 0.0, START) == {"a": 1, "b": 2}
    assert Watch({"a": 1}).looked({"a": 1}, 0.0, START) == {"a": 1}
    assert Watch[int]({}).looked({}, 0.0, START) == {}


def test_while_nothing_happens_there_is_a_look_now_and_then_and_nothing_to_index() -> None:
    scene = Scene(a=1)
    for _ in range(3):
        assert scene.look(a=1) is None
        assert scene.pause == CALM


def test_looks_take_at_most_their_share_of_the_time() -> None:
    scene = Scene(a=1)
    scene.look(a=1, took=4.0)
    assert scene.pause == 4.0 * LOOK_SHARE
    scene.watch.nudge()
    assert scene.pause == 4.0 * LOOK_SHARE
    scene.look(a=2, took=4.0)
    assert scene.pause == 4.0 * LOOK_SHARE
    scene.look(a=3)
    assert scene.pause == ALERT


def test_any_number_of_nudges_leads_to_one_look_at_a_time() -> None:
    scene = Scene(a=1)
    for _ in range(5):
        assert scene.look(a=1) is None
        for _ in range(100):
            scene.watch.nudge()
        assert scene.pause == ALERT


def test_a_nudge_puts_no_look_off() -> None:
    scene = Scene(a=1)
    scene.look(a=2)
    due = scene.watch.next_look
    scene.now += ALERT / 2
    scene.watch.nudge()
    assert scene.watch.next_look == due


# Changes.


def test_a_change_is_indexed_once_two_looks_have_seen_the_same() -> None:
    scene = Scene(a=1, b=1, c=1)
    after = {"a": 1, "b": 2, "d": 1}
    assert scene.look(**after) is None
    assert scene.pause == ALERT
    assert scene.look(**after) == after
    assert scene.pause == ALERT
    assert scene.look(**after) is None
    assert scene.pause == CALM


def test_a_change_that_is_taken_back_is_none() -> None:
    scene = Scene(a=1)
    scene.look(a=2)
    assert scene.look(a=1) is None
    assert scene.pause == CALM
    assert scene.look(a=2) is None, "what stood still before does not count"
    assert scene.look(a=2) == {"a": 2}


def test_a_file_that_never_stands_still_delays_no_other_and_stays_as_it_is_indexed() -> None:
    scene = Scene(log=1)
    assert scene.look(log=2, new=100, a=1) is None
    assert scene.look(log=3, new=101, a=1) == {"log": 1, "a": 1}
    for version in range(4, 100):
        assert scene.look(log=version, new=98 + version, a=1) is None
        assert scene.pause == ALERT
    assert scene.look(log=99, new=200, a=1) == {"log": 99, "a": 1}


def test_a_file_away_for_one_look_is_not_missed() -> None:
    scene = Scene(a=1, b=1)
    assert scene.look(b=1) is None
    assert scene.look(a=1, b=1) is None
    assert scene.look(b=1) is None
    assert scene.look(b=1) == {"b": 1}


# Failures.


def test_what_could_not_be_indexed_is_tried_again_ever_less_often() -> None:
    scene = Scene(a=1)
    scene.broken = {"b"}
    scene.look(a=1, b=1)
    attempts: list[float] = []
    while len(attempts) < 8:
        if scene.look(a=1, b=1) is not None:
            attempts.append(scene.now)
        assert scene.pause <= CALM
    waits = [later - earlier for earlier, later in pairwise(attempts)]
    expected = [min(RETRY_FIRST * 2**count, RETRY_LAST) for count in range(7)]
    assert all(0 <= wait - least <= CALM for wait, least in zip(waits, expected, strict=True))
    scene.broken = set()
    scene.now += RETRY_LAST
    assert scene.look(a=1, b=1) == {"a": 1, "b": 1}
    assert scene.look(a=1, b=1) is None


def test_what_waits_for_another_attempt_holds_up_no_other() -> None:
    scene = Scene(a=1)
    scene.broken = {"b"}
    scene.look(a=1, b=1)
    scene.look(a=1, b=1)
    assert scene.look(a=2, b=1) is None
    assert scene.look(a=2, b=1) == {"a": 2}


def test_the_wait_after_a_failure_is_forgotten_once_the_file_is_gone() -> None:
    scene = Scene(a=1)
    scene.broken = {"b"}
    scene.look(a=1, b=1)
    assert scene.look(a=1, b=1) is not None
    scene.look(a=1)
    scene.look(a=1, b=1)
    assert scene.look(a=1, b=1) is not None


def test_where_nothing_could_be_indexed_it_all_is_tried_again() -> None:
    """The disk is full; what has gone is still in the old edition."""
    watch = Watch({"a": 1, "b": 1})
    assert watch.looked({"a": 2}, 0.0, START) == {"a": 2}
    watch.indexed({"a": 1, "b": 1}, START)
    assert watch.looked({"a": 2}, 0.0, START + RETRY_FIRST / 2) is None
    assert watch.looked({"a": 2}, 0.0, START + RETRY_FIRST) == {"a": 2}


_SEEN = st.dictionaries(st.sampled_from("abc"), st.integers(0, 2))


@given(st.lists(st.tuples(_SEEN, st.sets(st.sampled_from("abc")), st.floats(0, 5), st.booleans())), _SEEN)
def test_whatever_happens_looks_keep_their_distance_and_in_the_end_all_is_indexed(
    looks: list[tuple[Files, set[str], float, bool]], last: Files
) -> None:
    scene = Scene()
    for seen, broken, took, nudged in looks:
        if nudged:
            scene.watch.nudge()
        before, scene.broken = scene.watch.held, broken
        wanted = scene.look(took, **seen)
        assert wanted is None or wanted != before
        assert scene.pause >= 0.999 * max(ALERT, LOOK_SHARE * took)
    scene.broken = set()
    scene.look(**last)
    scene.now += RETRY_LAST
    scene.look(**last)
    assert scene.watch.held == last
