"""When the shared files are scanned, and which of them are indexed after a scan."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from msd.wire.support.core import TimePassed
from msd.workers.indexing.rescan_policy import (
    CHECK_INTERVAL_S,
    MAX_BACKOFF_S,
    MIN_BACKOFF_S,
    PAUSE_PER_SCAN,
    SCAN_INTERVAL_S,
    CheckFiles,
    ContentChanged,
    FilesChecked,
    IndexFiles,
    IndexingEnded,
    RescanPolicy,
    Scanned,
    ScanRequested,
    StartScan,
)

#: An arbitrary time other than 0. Adding the module's constants to it causes no rounding errors.
START = 1024.0

Files = dict[str, int]


def scan(policy: RescanPolicy[int], seen: Files, duration: float, now: float) -> Files | None:
    """Reports a scan that ended at ``now``; returns the files to be indexed, None if no edition is needed."""
    actions = policy.handle(Scanned(seen, duration), now)
    policy.check_invariants()
    if not actions:
        return None
    (action,) = actions
    assert isinstance(action, IndexFiles)
    return dict(action.versions)


class Bench:
    """A policy, and a clock that jumps from scan to scan. All wanted files are indexed, except those in ``broken``."""

    def __init__(self, **files: int) -> None:
        self.policy: RescanPolicy[int] = RescanPolicy({})
        self.now = START
        self.broken: set[str] = set()
        assert self.scan(**files) == files

    def scan(self, duration: float = 0.0, **seen: int) -> Files | None:
        """Scans as soon as a scan is due, without the checks before it; returns the files to be indexed."""
        next_scan = self.policy._next_scan
        assert next_scan is not None
        self.now = max(self.now, next_scan)
        assert self.policy.handle(TimePassed(), self.now) == [StartScan()]
        assert self.policy.next_deadline(self.now) is None, "nothing may be due while a scan is running"
        self.now += duration
        return self._index(self.policy.handle(Scanned(seen, duration), self.now))

    def check(self, duration: float = 0.0, **seen: int) -> Files | None:
        """Looks at the changed files as soon as that is due; returns the files to be indexed."""
        self.now = max(self.now, self.next_deadline)
        (action,) = self.policy.handle(TimePassed(), self.now)
        assert isinstance(action, CheckFiles)
        self.checked = action.names
        self.now += duration
        found = {name: version for name, version in seen.items() if name in action.names}
        return self._index(self.policy.handle(FilesChecked(found, duration), self.now))

    def _index(self, actions: list[StartScan | CheckFiles | IndexFiles[int]]) -> Files | None:
        self.policy.check_invariants()
        if not actions:
            return None
        (action,) = actions
        assert isinstance(action, IndexFiles)
        indexed = {name: version for name, version in action.versions.items() if name not in self.broken}
        self.policy.handle(IndexingEnded(indexed), self.now)
        self.policy.check_invariants()
        return dict(action.versions)

    def request_scan(self) -> None:
        assert self.policy.handle(ScanRequested(), self.now) == []
        self.policy.check_invariants()

    @property
    def next_deadline(self) -> float:
        deadline = self.policy.next_deadline(self.now)
        assert deadline is not None
        return deadline

    @property
    def pause(self) -> float:
        """Seconds until the next scan or check."""
        return self.next_deadline - self.now


# Scans.


def test_all_files_of_the_first_scan_are_indexed_immediately() -> None:
    policy = RescanPolicy({"a": 1, "deleted": 1})
    assert scan(policy, {"a": 1, "b": 2}, 0.0, START) == {"a": 1, "b": 2}
    assert scan(RescanPolicy({"a": 1}), {"a": 1}, 0.0, START) == {"a": 1}
    assert scan(RescanPolicy[int]({}), {}, 0.0, START) == {}


def test_while_nothing_changes_scans_are_rare_and_nothing_is_indexed() -> None:
    bench = Bench(a=1)
    for _ in range(3):
        assert bench.scan(a=1) is None
        assert bench.pause == SCAN_INTERVAL_S


def test_the_pause_after_a_scan_grows_with_its_duration() -> None:
    bench = Bench(a=1)
    bench.scan(a=1, duration=4.0)
    assert bench.pause == 4.0 * PAUSE_PER_SCAN
    bench.request_scan()
    assert bench.pause == 4.0 * PAUSE_PER_SCAN
    bench.scan(a=2, duration=4.0)
    assert bench.pause == CHECK_INTERVAL_S, "changed files are looked at soon"
    assert bench.check(a=3, duration=1.0) is None
    assert bench.pause == 1.0 * PAUSE_PER_SCAN


def test_many_requests_for_a_scan_lead_to_one_scan() -> None:
    bench = Bench(a=1)
    for _ in range(5):
        assert bench.scan(a=1) is None
        for _ in range(100):
            bench.request_scan()
        assert bench.pause == CHECK_INTERVAL_S


def test_a_request_for_a_scan_does_not_postpone_a_scan() -> None:
    bench = Bench(a=1)
    bench.scan(a=1)
    bench.request_scan()
    due = bench.next_deadline
    bench.now += CHECK_INTERVAL_S / 2
    bench.request_scan()
    assert bench.next_deadline == due


# Changes.


def test_a_change_is_indexed_once_it_was_seen_twice_in_the_same_version() -> None:
    bench = Bench(a=1, b=1, c=1)
    after = {"a": 1, "b": 2, "d": 1}
    assert bench.scan(**after) is None
    assert bench.pause == CHECK_INTERVAL_S
    assert bench.check(**after) == after
    assert bench.checked == {"b", "c", "d"}, "only the changed files are looked at again"
    assert bench.policy._next_scan == START + 2 * SCAN_INTERVAL_S, "the next scan is not earlier"
    assert bench.scan(**after) is None
    assert bench.pause == SCAN_INTERVAL_S


def test_two_scans_are_as_good_as_a_scan_and_a_check() -> None:
    bench = Bench(a=1)
    bench.scan(a=2, duration=4.0)
    assert bench.scan(a=2) == {"a": 2}


def test_a_change_that_is_reverted_is_not_indexed() -> None:
    bench = Bench(a=1)
    bench.scan(a=2)
    assert bench.check(a=1) is None
    assert bench.check(a=1) is None
    assert bench.check(a=2) is None, "looks before the revert must not count"
    assert bench.scan(a=1) is None
    assert bench.pause == SCAN_INTERVAL_S
    assert bench.scan(a=2) is None
    assert bench.check(a=2) == {"a": 2}


def test_a_file_that_keeps_changing_keeps_its_old_entry_and_does_not_delay_others() -> None:
    bench = Bench(log=1)
    assert bench.scan(log=2, new=100, a=1) is None
    assert bench.check(log=3, new=101, a=1) == {"log": 1, "a": 1}
    for version in range(4, 100):
        look = bench.check if version % 4 else bench.scan
        assert look(log=version, new=98 + version, a=1) is None
        assert bench.pause == CHECK_INTERVAL_S
    assert bench.scan(log=99, new=200, a=1) == {"log": 99, "a": 1}


def test_a_file_missing_from_one_look_is_not_removed() -> None:
    bench = Bench(a=1, b=1)
    assert bench.scan(b=1) is None
    assert bench.check(a=1, b=1) is None
    assert bench.scan(a=1, b=1) is None
    assert bench.scan(b=1) is None
    assert bench.check(b=1) == {"b": 1}


# Failures.


def test_a_file_that_could_not_be_indexed_is_retried_with_backoff() -> None:
    bench = Bench(a=1)
    bench.broken = {"b"}
    bench.scan(a=1, b=1)
    attempts: list[float] = []
    while len(attempts) < 8:
        if bench.scan(a=1, b=1) is not None:
            attempts.append(bench.now)
        assert bench.pause <= SCAN_INTERVAL_S
    waits = [later - earlier for earlier, later in pairwise(attempts)]
    expected = [min(MIN_BACKOFF_S * 2**count, MAX_BACKOFF_S) for count in range(7)]
    assert all(0 <= wait - minimum <= SCAN_INTERVAL_S for wait, minimum in zip(waits, expected, strict=True))
    bench.broken = set()
    bench.now += MAX_BACKOFF_S
    assert bench.scan(a=1, b=1) == {"a": 1, "b": 1}
    assert bench.scan(a=1, b=1) is None


def test_a_file_that_waits_for_a_retry_does_not_delay_others() -> None:
    bench = Bench(a=1)
    bench.broken = {"b"}
    bench.scan(a=1, b=1)
    assert bench.check(a=1, b=1) == {"a": 1, "b": 1}
    bench.request_scan()
    assert bench.scan(a=2, b=1) is None
    assert bench.check(a=2, b=1) == {"a": 2}
    assert bench.checked == {"a"}


def test_deleting_a_file_resets_its_backoff() -> None:
    bench = Bench(a=1)
    bench.broken = {"b"}
    bench.scan(a=1, b=1)
    assert bench.scan(a=1, b=1) is not None
    bench.scan(a=1)
    bench.scan(a=1, b=1)
    assert bench.scan(a=1, b=1) is not None


def test_an_edition_that_could_not_be_written_is_retried_completely() -> None:
    """Writing fails if the disk is full, for example. The old edition then still contains the deleted file."""
    policy = RescanPolicy({"a": 1, "b": 1})
    assert scan(policy, {"a": 2}, 0.0, START) == {"a": 2}
    policy.handle(IndexingEnded({"a": 1, "b": 1}), START)
    assert scan(policy, {"a": 2}, 0.0, START + MIN_BACKOFF_S / 2) is None
    assert scan(policy, {"a": 2}, 0.0, START + MIN_BACKOFF_S) == {"a": 2}


_SEEN = st.dictionaries(st.sampled_from("abc"), st.integers(0, 2))


@given(st.lists(st.tuples(_SEEN, st.sets(st.sampled_from("abc")), st.floats(0, 5), st.sampled_from("src"))), _SEEN)
def test_after_any_history_pauses_are_kept_and_the_last_state_is_indexed(
    looks: list[tuple[Files, set[str], float, str]], last: Files
) -> None:
    """Of scans, requested scans and checks."""
    bench = Bench()
    for seen, broken, duration, kind in looks:
        if kind == "r":
            bench.request_scan()
        before, bench.broken = bench.policy.indexed, broken
        is_check = kind == "c" and bench.next_deadline < (bench.policy._next_scan or 0.0)
        wanted = bench.check(duration, **seen) if is_check else bench.scan(duration, **seen)
        assert wanted is None or wanted != before
        shortest = 0.999 * max(CHECK_INTERVAL_S, PAUSE_PER_SCAN * duration)
        assert (bench.policy._next_check if is_check else bench.policy._earliest_scan) - bench.now >= shortest
        assert bench.pause >= 0.999 * CHECK_INTERVAL_S or is_check
    bench.broken = set()
    bench.scan(**last)
    bench.now += MAX_BACKOFF_S
    bench.scan(**last)
    assert bench.policy.indexed == last


# Files whose content changed although their version did not.


def actions_of(policy: RescanPolicy[int], seen: Files) -> list[IndexFiles[int]]:
    actions = policy.handle(Scanned(seen, 0.0), START)
    policy.check_invariants()
    return [action for action in actions if isinstance(action, IndexFiles)]


def test_a_file_whose_content_changed_is_read_again_once() -> None:
    bench = Bench(a=1, b=2)
    bench.policy.handle(ContentChanged("a"), bench.now)
    assert actions_of(bench.policy, {"a": 1, "b": 2}) == [IndexFiles({"a": 1, "b": 2}, {"a"})]
    bench.policy.handle(IndexingEnded({"a": 1, "b": 2}), START)
    assert actions_of(bench.policy, {"a": 1, "b": 2}) == []


def test_a_file_whose_content_and_version_change_is_indexed_once_it_stops_changing() -> None:
    bench = Bench(a=1)
    bench.policy.handle(ContentChanged("a"), bench.now)
    assert actions_of(bench.policy, {"a": 2}) == []
    assert actions_of(bench.policy, {"a": 2}) == [IndexFiles({"a": 2}, {"a"})]


def test_a_deleted_file_whose_content_changed_is_forgotten() -> None:
    bench = Bench(a=1, b=2)
    bench.policy.handle(ContentChanged("a"), bench.now)
    assert actions_of(bench.policy, {"b": 2}) == []
    assert actions_of(bench.policy, {"b": 2}) == [IndexFiles({"b": 2}, set())]
