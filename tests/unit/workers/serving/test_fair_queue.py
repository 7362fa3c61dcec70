"""Whose request is answered next. The clock is virtual: every ``now`` here is an argument."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from msd.workers.serving.fair_queue import BUDGET, CATCH_UP, GREEDY, GREEDY_SHARE, MAX_QUEUED, REPLIES_INSIDE, FairQueue

MIB = 1 << 20


def filled(*clients: str, jobs: int = 10, rate: int = 0) -> FairQueue[str, int]:
    """FairQueue in which each of these clients waits with jobs 0, 1, 2, …"""
    turns: FairQueue[str, int] = FairQueue(rate)
    for job in range(jobs):
        for client in clients:
            assert turns.add(client, job)
    turns.check_invariants()
    return turns


def take(turns: FairQueue[str, int], size: int = MIB, now: float = 0.0) -> tuple[str, int] | None:
    """Takes the next job and hands its reply to ZeroMQ."""
    turn = turns.next(now)
    if turn is not None:
        turns.sent(turn[0], size, now)
    turns.check_invariants()
    return turn


def take_all(turns: FairQueue[str, int], size: int = MIB) -> list[tuple[str, int]]:
    """Takes jobs as long as there are some; nothing leaves ZeroMQ."""
    taken = []
    while (turn := take(turns, size)) is not None:
        taken.append(turn)
    return taken


def left(turns: FairQueue[str, int], client: str, size: int = MIB) -> None:
    turns.left(client, size)
    turns.check_invariants()


def serve(turns: FairQueue[str, int], turn_count: int) -> list[tuple[str, int]]:
    """Takes that many jobs, of which each leaves at once."""
    taken = []
    for _ in range(turn_count):
        turn = take(turns)
        assert turn is not None
        left(turns, turn[0])
        taken.append(turn)
    return taken


def test_where_nothing_waits_nothing_is_next() -> None:
    turns: FairQueue[str, int] = FairQueue()
    assert turns.next(0.0) is None
    assert turns.next_deadline(0.0) is None
    assert turns.clear() == []
    turns.forget("nobody")
    turns.check_invariants()


def test_the_jobs_of_one_client_are_done_in_order() -> None:
    assert serve(filled("a", jobs=100), 100) == [("a", job) for job in range(100)]


def test_only_jobs_that_are_queued_wait_for_something() -> None:
    turns = filled("a", jobs=REPLIES_INSIDE + 1)
    assert turns.waits
    take_all(turns)
    assert turns.waits, "the last one waits for a reply to leave"
    left(turns, "a")
    take(turns)
    assert not turns.waits, "whatever is inside"
    turns.forget("a")
    assert not turns.waits


def test_clients_take_turns() -> None:
    taken = serve(filled("a", "b", "c"), 30)
    assert taken == [(client, job) for job in range(10) for client in "abc"]


def test_one_who_asks_for_much_does_not_delay_one_who_asks_for_little() -> None:
    turns = filled("greedy", jobs=MAX_QUEUED)
    serve(turns, 3)
    turns.add("modest", 0)
    assert ("modest", 0) in serve(turns, 2)


def test_asking_again_and_again_does_not_move_a_client_forward() -> None:
    turns = filled("a", "b", "c", jobs=1)
    for job in range(1, 100):
        turns.add("c", job)
    assert [client for client, _ in serve(turns, 5)] == ["a", "b", "c", "c", "c"]


def test_a_client_has_few_replies_inside() -> None:
    turns = filled("a")
    assert take_all(turns) == [("a", job) for job in range(REPLIES_INSIDE)]
    left(turns, "a")
    assert take_all(turns) == [("a", REPLIES_INSIDE)]


def test_one_who_does_not_read_does_not_stop_the_others() -> None:
    turns = filled("deaf", "a", jobs=20)
    for _ in range(REPLIES_INSIDE):
        take(turns)
        turn = take(turns)
        assert turn is not None
        left(turns, "a")
    assert serve(turns, 20 - REPLIES_INSIDE) == [("a", job) for job in range(REPLIES_INSIDE, 20)]
    assert take(turns) is None


def test_a_client_with_too_many_requests_is_refused_and_no_other_is() -> None:
    turns = filled("a", jobs=MAX_QUEUED)
    assert not turns.add("a", MAX_QUEUED)
    turns.check_invariants()
    assert turns.is_full("a")
    assert turns.add("b", 0)
    assert not turns.is_full("b")
    # The one who asks for so much comes after the others.
    assert serve(turns, 2) == [("b", 0), ("a", 0)]
    assert turns.add("a", MAX_QUEUED)
    assert not turns.add("a", MAX_QUEUED + 1)


def test_the_greedy_get_a_tenth_of_the_turns_while_others_wait() -> None:
    greedy = [f"greedy {number}" for number in range(20)]
    turns = filled(*greedy, jobs=MAX_QUEUED)
    for job in range(GREEDY):
        assert turns.add("modest", job)
    served = [key for key, _ in serve(turns, 60)]
    assert served.count("modest") == 60 - 60 // GREEDY_SHARE
    # When the modest one has all it wanted, they get every turn, each as often as the others.
    assert {key for key, _ in serve(turns, 60) if key != "modest"} == {*greedy}


def test_one_who_becomes_greedy_while_he_waits_gives_way() -> None:
    turns = filled("a", "b", jobs=GREEDY)
    for job in range(GREEDY, 2 * GREEDY):
        turns.add("a", job)
    turns.check_invariants()
    assert [key for key, _ in serve(turns, 5)] == ["b"] * 5


def test_a_reply_that_is_dropped_takes_no_room() -> None:
    turns = filled("a", jobs=100)
    for job in range(100):
        assert turns.next(0.0) == ("a", job)
        turns.check_invariants()
        turns.dropped("a")
        turns.check_invariants()
    assert turns.next(0.0) is None


def test_the_replies_of_one_that_is_forgotten_before_they_are_sent_are_dropped() -> None:
    turns = filled("a", "b", jobs=2)
    assert turns.next(0.0) == ("a", 0)
    turns.forget("a")
    turns.dropped("a")
    turns.check_invariants()
    assert [turns.next(0.0), turns.next(0.0)] == [("b", 0), ("b", 1)]
    assert turns.next(0.0) is None


def test_the_budget_bounds_what_all_clients_hold_together() -> None:
    clients = [f"client {number}" for number in range(BUDGET // MIB // REPLIES_INSIDE)]
    turns = filled(*clients, jobs=REPLIES_INSIDE + 1)
    assert len(take_all(turns)) * MIB == BUDGET


def test_a_client_with_nothing_inside_has_one_reply_past_the_budget() -> None:
    clients = [f"client {number}" for number in range(2 * BUDGET // MIB // REPLIES_INSIDE)]
    turns = filled(*clients)
    taken = take_all(turns)
    assert len(taken) == BUDGET // MIB, "each has two of its four"
    turns.add("newcomer", 0)
    turns.add("newcomer", 1)
    assert take_all(turns) == [("newcomer", 0)]
    left(turns, "newcomer")
    assert take_all(turns) == [("newcomer", 1)], "those who do not read cannot starve it"


def test_the_budget_counts_bytes_and_not_replies() -> None:
    turns = filled("a", "b")
    # One reply of each is not counted, whatever its size.
    assert take(turns, BUDGET) == ("a", 0)
    assert take(turns, 1) == ("b", 0)
    assert take(turns, 1) == ("a", 1)
    assert take(turns) is None
    left(turns, "a", BUDGET)
    assert take_all(turns, BUDGET // 2) == [("b", 1), ("a", 2)]


def test_one_who_is_over_the_budget_is_no_reason_to_wake_up() -> None:
    turns = filled("a", rate=BUDGET)
    take(turns, BUDGET)
    assert turns.next_deadline(0.0) is not None
    take(turns, BUDGET, now=2.0)
    assert take(turns, now=4.0) is None
    assert turns.next_deadline(4.0) is None


def test_the_jobs_of_a_client_that_is_gone_are_not_done() -> None:
    turns = filled("a", "b")
    serve(turns, 2)
    turns.forget("a")
    turns.check_invariants()
    assert serve(turns, 9) == [("b", job) for job in range(1, 10)]
    assert turns.next(0.0) is None


def test_what_a_client_that_is_gone_has_inside_counts_until_it_has_left() -> None:
    turns = filled("a", "b")
    take(turns, BUDGET)
    take(turns, 1)
    take(turns, BUDGET)
    turns.forget("a")
    assert take(turns) is None
    left(turns, "a", BUDGET)
    assert take(turns) == ("b", 1)


@pytest.mark.parametrize("how", ["forget", "clear"])
def test_one_who_comes_back_still_has_inside_what_has_not_left(how: str) -> None:
    turns = filled("a")
    assert len(take_all(turns)) == REPLIES_INSIDE
    if how == "forget":
        turns.forget("a")
    else:
        turns.clear()
    for job in range(100, 110):
        turns.add("a", job)
    assert take_all(turns) == []
    for job in range(100, 106):
        left(turns, "a")
        assert take_all(turns) == [("a", job)]


def test_clearing_takes_every_job_that_waits() -> None:
    turns = filled("a", "b", jobs=3)
    take(turns)
    assert sorted(turns.clear()) == [("a", 1), ("a", 2), ("b", 0), ("b", 1), ("b", 2)]
    turns.check_invariants()
    assert turns.next(0.0) is None
    assert turns.add("b", 7)
    assert take(turns) == ("b", 7)


def test_those_who_have_nothing_here_are_not_remembered() -> None:
    turns: FairQueue[str, int] = FairQueue()
    for number in range(1000):
        turns.add(f"client {number}", 0)
        serve(turns, 1)
    turns.forget("client 7")
    assert turns._clients == {}


# The rate limit.

RATE = 25 * MIB


def drive(turns: FairQueue[str, int], *, until: float, late: float, size: int = MIB, now: float = 0.0) -> list[float]:
    """A loop that wakes up ``late`` seconds after each deadline: the times at which it sent."""
    times = []
    while now < until:
        turn = turns.next(now)
        if turn is None:
            deadline = turns.next_deadline(now)
            assert deadline is not None
            assert deadline > now
            now = deadline + late
        else:
            client, _ = turn
            turns.sent(client, size, now)
            times.append(now)
            turns.left(client, size)
            turns.add(client, 0)
        turns.check_invariants()
    return times


@pytest.mark.parametrize("late", [0.0, 0.001, 0.002])
def test_a_rate_is_kept_exactly_by_a_loop_that_is_late(late: float) -> None:
    times = drive(filled("a", "b", rate=RATE), until=10.0, late=late)
    assert len(times) * MIB == pytest.approx(10 * RATE, rel=0.01)


@pytest.mark.parametrize("size", [1, 100_000, MIB])
def test_a_rate_is_exceeded_by_no_more_than_what_is_caught_up_and_one_reply(size: int) -> None:
    times = drive(filled("a", rate=RATE), until=min(1.0, 5000 * size / RATE), late=0.0002, size=size)
    for first in range(0, len(times), 50):
        sent = 0
        for time in times[first:]:
            assert sent <= RATE * (time - times[first] + CATCH_UP) + size
            sent += size


def test_an_idle_worker_saves_nothing_for_a_burst() -> None:
    turns = filled("a", rate=RATE)
    assert take(turns, now=0.0) == ("a", 0)
    left(turns, "a")
    times = drive(turns, now=3600.0, until=3601.0, late=0.0)
    assert len(times) <= 26


def test_after_a_reply_the_next_one_has_a_time() -> None:
    turns = filled("a", rate=RATE)
    assert turns.next_deadline(100.0) is None
    take(turns, now=100.0)
    deadline = turns.next_deadline(100.0)
    assert deadline is not None
    assert deadline == pytest.approx(100.0 + MIB / RATE - CATCH_UP)
    assert turns.next(deadline - 1e-6) is None
    assert turns.next(deadline) == ("a", 1)


def test_with_nothing_to_do_there_is_no_time_to_wake_up_at() -> None:
    turns = filled("a", jobs=1, rate=RATE)
    take(turns, now=100.0)
    assert turns.next(100.0) is None
    assert turns.next_deadline(100.0) is None


def test_without_a_rate_nothing_waits_for_the_clock() -> None:
    turns = filled("a", "b", jobs=4)
    assert len(take_all(turns)) == 8
    assert turns.next_deadline(0.0) is None


# Whatever happens in whatever order.

CLIENTS = st.sampled_from("abcde")
SIZES = st.sampled_from([0, 1, MIB, 20 * MIB, BUDGET])


class AnyOrder(RuleBasedStateMachine):
    """``FairQueue`` beside a model that knows all queues, and all replies that have not left yet."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = 0
        self.turns: FairQueue[str, int] = FairQueue()
        self.jobs = count()
        self.queues: defaultdict[str, deque[int]] = defaultdict(deque)
        self.inside: list[tuple[str, int]] = []
        self.sent = 0
        self.now = self.start = 1000.0
        #: How often each other client had a turn while this one could have had one.
        self.passed: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.ever_greedy: set[str] = set()

    def replies(self, client: str) -> int:
        return sum(owner == client for owner, _ in self.inside)

    def able(self) -> set[str]:
        """Those who may have a turn now, but for the rate limit."""
        full = sum(size for client, size in self.inside if self.replies(client) > 1) >= BUDGET
        limit = 1 if full else REPLIES_INSIDE
        return {
            client
            for client, queue in self.queues.items()
            if queue and self.replies(client) < (1 if self.is_greedy(client) else limit)
        }

    def is_greedy(self, client: str) -> bool:
        return len(self.queues[client]) > GREEDY

    @precondition(lambda self: self.turns.next_deadline(self.now) is None and not self.sent)
    @rule(rate=st.sampled_from([MIB, 100 * MIB]))
    def limit_the_rate(self, rate: int) -> None:
        self.rate = rate
        self.turns = FairQueue(rate)
        self.queues.clear()
        self.inside.clear()
        self.passed.clear()

    @rule(client=CLIENTS, jobs=st.integers(1, 3) | st.just(MAX_QUEUED))
    def add(self, client: str, jobs: int) -> None:
        for job in (next(self.jobs) for _ in range(jobs)):
            accepted = self.turns.add(client, job)
            assert accepted == (len(self.queues[client]) < MAX_QUEUED)
            if accepted:
                self.queues[client].append(job)
        if self.is_greedy(client):
            self.ever_greedy.add(client)

    @rule(size=SIZES, readable=st.booleans())
    def next(self, size: int, readable: bool) -> None:
        able = self.able()
        turn = self.turns.next(self.now)
        if turn is None:
            deadline = self.turns.next_deadline(self.now)
            assert not able or (deadline is not None and deadline > self.now), "nobody waits for nothing"
            return
        client, job = turn
        assert client in able
        assert job == self.queues[client].popleft()
        for other in self.queues:
            if other == client or other not in able:
                self.passed[other].clear()
            else:
                self.passed[other][client] += 1
                # Those who were or are greedy have a line, and a share, of their own.
                if not self.ever_greedy & {client, other}:
                    assert self.passed[other][client] == 1, f"{client} had two turns before {other} had one"
        if self.rate:
            assert self.sent <= self.rate * (self.now - self.start + CATCH_UP) + 1
        if readable:
            self.turns.sent(client, size, self.now)
            self.inside.append((client, size))
            self.sent += size
        else:
            self.turns.dropped(client)

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def left(self, data: st.DataObject) -> None:
        client, size = self.inside.pop(data.draw(st.integers(0, len(self.inside) - 1)))
        self.turns.left(client, size)

    @rule(client=CLIENTS)
    def forget(self, client: str) -> None:
        self.turns.forget(client)
        self.queues[client].clear()
        self.passed[client].clear()

    @rule()
    def clear(self) -> None:
        expected = [(client, job) for client, queue in self.queues.items() for job in queue]
        assert sorted(self.turns.clear()) == sorted(expected)
        self.queues.clear()
        self.passed.clear()

    @rule(seconds=st.sampled_from([0.001, 0.05, 1.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def holds(self) -> None:
        self.turns.check_invariants()
        assert all(self.replies(client) <= REPLIES_INSIDE for client in "abcde")


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(deadline=None, max_examples=100, stateful_step_count=50)
