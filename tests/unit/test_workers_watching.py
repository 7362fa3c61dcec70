"""When the shared files are looked at, and when what is seen there is indexed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.watching import ALERT, CALM, INDEX_SHARE, LOOK_SHARE, RESTLESS, Watch

#: Any moment but 0; a sum of it and the times of the module is exact.
START = 1024.0


class Scene:
    """A watch over files that were indexed as ``a``, and a clock that jumps from look to look."""

    def __init__(self) -> None:
        self.watch = Watch(b"a", START)
        self.now = START

    def look(self, seen: bytes, took: float = 0.0) -> bool:
        """Looks as soon as that is due; True if what was seen is to be indexed."""
        self.now = max(self.now, self.watch.next_look) + took
        return self.watch.looked(seen, took, self.now)

    @property
    def pause(self) -> float:
        """The seconds to the next look."""
        return self.watch.next_look - self.now


def changed(scene: Scene, seen: bytes = b"b") -> Scene:
    """A change was seen, once so far."""
    assert not scene.look(seen)
    return scene


# Nothing happens.


def test_while_nothing_happens_there_is_a_look_now_and_then_and_nothing_to_index() -> None:
    scene = Scene()
    assert scene.pause == CALM
    for _ in range(3):
        assert not scene.look(b"a")
        assert scene.pause == CALM


# Something changes.


def test_a_change_is_indexed_once_two_looks_have_seen_the_same() -> None:
    scene = changed(Scene())
    assert scene.pause == ALERT
    assert scene.look(b"b")


def test_a_change_that_goes_on_is_waited_for() -> None:
    scene = changed(Scene())
    for seen in (b"c", b"d"):
        assert not scene.look(seen)
        assert scene.pause == ALERT
    assert scene.look(b"d")


def test_what_is_indexed_is_no_change_any_more() -> None:
    scene = changed(Scene())
    scene.look(b"b")
    scene.watch.indexed(b"b", 0.0)
    assert not scene.look(b"b")
    assert scene.pause == CALM
    assert not scene.look(b"a"), "that is a change now"
    assert scene.look(b"a")


def test_a_change_while_it_is_indexed_is_seen_by_the_next_look_which_is_soon() -> None:
    scene = changed(Scene())
    scene.look(b"b")
    scene.watch.indexed(b"b", 0.0)
    assert scene.pause == ALERT
    assert not scene.look(b"c")
    assert scene.look(b"c")


def test_a_change_that_is_taken_back_is_none() -> None:
    scene = changed(Scene())
    assert not scene.look(b"a")
    assert scene.pause == CALM
    assert not scene.look(b"a"), "although it stands still"


def test_what_stood_still_before_a_change_was_taken_back_does_not_count() -> None:
    scene = changed(Scene())
    scene.look(b"a")
    assert not scene.look(b"b")
    assert scene.look(b"b")


# It never stands still.


def looks_until_indexed(scene: Scene) -> float:
    """The seconds from the first look that sees something else each time to the one that has it indexed."""
    changed(scene, b"0")
    since = scene.now
    for number in range(1, 10_000):
        if scene.look(b"%d" % number):
            return scene.now - since
    pytest.fail("never indexed")


def test_what_never_stands_still_is_indexed_all_the_same() -> None:
    assert looks_until_indexed(Scene()) == RESTLESS


@pytest.mark.parametrize("took", [0.25, 8.0])
def test_what_takes_long_to_index_and_never_stands_still_is_indexed_seldom(took: float) -> None:
    scene = Scene()
    looks_until_indexed(scene)
    scene.watch.indexed(b"x", took)
    assert looks_until_indexed(scene) == max(RESTLESS, INDEX_SHARE * took)


def test_patience_with_what_never_stands_still_begins_anew_once_a_change_is_taken_back() -> None:
    scene = changed(Scene())
    scene.look(b"a")
    scene.now += 2 * RESTLESS
    assert looks_until_indexed(scene) == RESTLESS


# A nudge.


def test_a_nudge_brings_the_next_look_forward() -> None:
    scene = Scene()
    scene.watch.nudge()
    assert scene.pause == ALERT
    scene.look(b"a")
    assert scene.pause == CALM
    scene.watch.nudge()
    assert scene.pause == ALERT


def test_any_number_of_nudges_leads_to_one_look_at_a_time() -> None:
    scene = Scene()
    for _ in range(5):
        for _ in range(100):
            scene.watch.nudge()
        assert scene.pause == ALERT
        assert not scene.look(b"a")


def test_a_nudge_holds_until_the_look_however_late_it_comes() -> None:
    """It comes while the files are indexed, which takes long."""
    scene = changed(Scene())
    scene.look(b"b")
    scene.now += 100
    scene.watch.nudge()
    scene.watch.indexed(b"b", 100)
    assert scene.watch.next_look <= scene.now


def test_a_nudge_puts_no_look_off() -> None:
    scene = changed(Scene())
    due = scene.watch.next_look
    scene.now += ALERT / 2
    scene.watch.nudge()
    assert scene.watch.next_look == due


# Looking takes long.


def test_looks_take_at_most_their_share_of_the_time() -> None:
    scene = Scene()
    scene.look(b"a", took=4.0)
    assert scene.pause == 4.0 * LOOK_SHARE
    scene.watch.nudge()
    assert scene.pause == 4.0 * LOOK_SHARE
    scene.look(b"b", took=4.0)
    assert scene.pause == 4.0 * LOOK_SHARE
    scene.look(b"c")
    assert scene.pause == ALERT


def test_a_look_that_takes_a_moment_takes_nothing_from_the_alert_but_calm_hides_it() -> None:
    scene = Scene()
    scene.look(b"a", took=ALERT / 8)
    assert scene.pause == max(CALM, LOOK_SHARE * ALERT / 8)
    scene.watch.nudge()
    assert scene.pause == LOOK_SHARE * ALERT / 8


_LOOKS = st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.floats(0, 5), st.booleans())


@given(st.lists(_LOOKS, max_size=30), st.floats(0, 100))
def test_whatever_happens_looks_keep_their_distance_and_only_changes_are_indexed(
    looks: list[tuple[bytes, float, bool]], indexing: float
) -> None:
    scene, indexed = Scene(), b"a"
    for seen, took, nudged in looks:
        if nudged:
            scene.watch.nudge()
        if scene.look(seen, took):
            assert seen != indexed
            indexed = seen
            scene.watch.indexed(seen, indexing)
        assert scene.pause >= 0.999 * max(ALERT, LOOK_SHARE * took)
