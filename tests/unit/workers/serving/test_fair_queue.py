"""The order in which requests are answered. The clock is virtual: every ``now`` is an argument."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from msd.workers.serving.fair_queue import (
    GREEDY_ABOVE,
    GREEDY_TURN_INTERVAL,
    IN_FLIGHT_BUDGET,
    MAX_CATCH_UP_S,
    MAX_IN_FLIGHT,
    MAX_QUEUED,
    MAX_TRACKED_CLIENTS,
    PROVEN_AFTER,
    FairQueue,
)

MIB = 1 << 20


def filled(*clients: str, requests: int = 10, rate: int = 0) -> FairQueue[str, int]:
    """Returns a queue that holds the requests 0, 1, 2, … of each of these clients."""
    queue: FairQueue[str, int] = FairQueue(rate)
    for request in range(requests):
        for client in clients:
            assert queue.add(client, request)
    queue.check_invariants()
    return queue


def take(queue: FairQueue[str, int], size: int = MIB, now: float = 0.0) -> tuple[str, int] | None:
    """Takes the next request and reports its reply as sent. Returns None if no request can be served now."""
    entry = queue.next(now)
    if entry is not None:
        queue.on_sent(entry[0], size, now)
    queue.check_invariants()
    return entry


def take_all(queue: FairQueue[str, int], size: int = MIB) -> list[tuple[str, int]]:
    """Takes requests until the queue returns None. No reply completes."""
    taken = []
    while (entry := take(queue, size)) is not None:
        taken.append(entry)
    return taken


def complete(queue: FairQueue[str, int], client: str, size: int = MIB) -> None:
    queue.on_completed(client, size)
    queue.check_invariants()


def serve(queue: FairQueue[str, int], turn_count: int) -> list[tuple[str, int]]:
    """Takes ``turn_count`` requests. Each reply completes immediately."""
    taken = []
    for _ in range(turn_count):
        entry = take(queue)
        assert entry is not None
        complete(queue, entry[0])
        taken.append(entry)
    return taken


def test_an_empty_queue_has_no_next_request() -> None:
    queue: FairQueue[str, int] = FairQueue()
    assert queue.next(0.0) is None
    assert queue.next_deadline(0.0) is None
    assert queue.clear() == []
    queue.discard("unknown")
    queue.check_invariants()


def test_the_requests_of_a_client_are_answered_in_order() -> None:
    assert serve(filled("a", requests=100), 100) == [("a", request) for request in range(100)]


def test_replies_in_flight_do_not_count_as_queued() -> None:
    queue = filled("a", requests=MAX_IN_FLIGHT + 1)
    assert queue.queued
    take_all(queue)
    assert queue.queued, "the last request must still be queued"
    complete(queue, "a")
    take(queue)
    assert not queue.queued, "replies in flight must not count as queued"
    queue.discard("a")
    assert not queue.queued


def test_clients_take_turns() -> None:
    taken = serve(filled("a", "b", "c"), 30)
    assert taken == [(client, request) for request in range(10) for client in "abc"]


def test_clients_that_ask_for_parts_get_as_many_bytes_as_others() -> None:
    queue = filled("parts", "whole", requests=PROVEN_AFTER)
    sent = dict.fromkeys(("parts", "whole"), 0)
    for _ in range(PROVEN_AFTER):
        entry = queue.next(0.0)
        assert entry is not None
        size = MIB if entry[0] == "whole" else MIB // 16
        queue.on_sent(entry[0], size, 0.0)
        complete(queue, entry[0], size)
        sent[entry[0]] += size
    assert abs(sent["parts"] - sent["whole"]) <= MIB


def test_a_client_that_asks_for_one_small_part_at_a_time_waits_for_one_reply_of_another_client() -> None:
    queue = filled("a", "b", "c", requests=GREEDY_ABOVE)
    turns = []
    for number in range(20):
        queue.add("parts", number)
        for turn in range(4):
            entry = queue.next(0.0)
            assert entry is not None
            size = 1000 if entry[0] == "parts" else MIB
            queue.on_sent(entry[0], size, 0.0)
            complete(queue, entry[0], size)
            if entry[0] == "parts":
                turns.append(turn)
                break
    assert len(turns) == 20
    assert sum(turns) <= 20 + 3


def test_an_idle_client_cannot_make_up_for_the_time() -> None:
    queue = filled("a", requests=40)
    queue.add("b", 0)
    serve(queue, 30)
    for request in range(1, 10):
        queue.add("b", request)
    assert [client for client, _ in serve(queue, 6)].count("b") == 3


def test_a_client_with_many_requests_does_not_delay_a_client_with_few() -> None:
    queue = filled("greedy", requests=MAX_QUEUED)
    serve(queue, 3)
    queue.add("modest", 0)
    assert ("modest", 0) in serve(queue, 2)


def test_further_requests_do_not_move_a_client_forward() -> None:
    queue = filled("a", "b", "c", requests=1)
    for request in range(1, 100):
        queue.add("c", request)
    assert [client for client, _ in serve(queue, 5)] == ["a", "b", "c", "c", "c"]


def test_the_replies_in_flight_of_a_client_are_limited() -> None:
    queue = filled("a")
    assert take_all(queue) == [("a", request) for request in range(MAX_IN_FLIGHT)]
    complete(queue, "a")
    assert take_all(queue) == [("a", MAX_IN_FLIGHT)]


def test_a_client_that_does_not_read_does_not_stop_the_others() -> None:
    queue = filled("stalled", "a", requests=20)
    for _ in range(MAX_IN_FLIGHT):
        take(queue)
        entry = take(queue)
        assert entry is not None
        complete(queue, "a")
    assert serve(queue, 20 - MAX_IN_FLIGHT) == [("a", request) for request in range(MAX_IN_FLIGHT, 20)]
    assert take(queue) is None


def test_only_the_client_with_a_full_queue_is_refused() -> None:
    queue = filled("a", requests=MAX_QUEUED)
    assert not queue.add("a", MAX_QUEUED)
    queue.check_invariants()
    assert queue.is_full("a")
    assert queue.add("b", 0)
    assert not queue.is_full("b")
    # The greedy client is served after the others.
    assert serve(queue, 2) == [("b", 0), ("a", 0)]
    assert queue.add("a", MAX_QUEUED)
    assert not queue.add("a", MAX_QUEUED + 1)


def test_greedy_clients_get_a_tenth_of_the_turns_while_others_wait() -> None:
    greedy = [f"greedy {number}" for number in range(20)]
    queue = filled(*greedy, requests=MAX_QUEUED)
    for request in range(GREEDY_ABOVE):
        assert queue.add("modest", request)
    served = [key for key, _ in serve(queue, 60)]
    assert served.count("modest") == 60 - 60 // GREEDY_TURN_INTERVAL
    # Once the modest client's queue is empty, the greedy clients share all turns.
    assert {key for key, _ in serve(queue, 60) if key != "modest"} == {*greedy}


def test_a_client_that_becomes_greedy_while_it_waits_is_served_later() -> None:
    queue = filled("a", "b", requests=GREEDY_ABOVE)
    for request in range(GREEDY_ABOVE, 2 * GREEDY_ABOVE):
        queue.add("a", request)
    queue.check_invariants()
    assert [key for key, _ in serve(queue, 5)] == ["b"] * 5


def test_new_and_proven_clients_alternate_while_both_wait() -> None:
    """New clients may never read their replies. Even if they are many, the proven client gets half of the turns."""
    queue = filled("proven", requests=PROVEN_AFTER)
    serve(queue, PROVEN_AFTER)
    new = [f"new {number}" for number in range(20)]
    for client in new:
        queue.add(client, 0)
    for request in range(20):
        queue.add("proven", request)
    served = [client for client, _ in serve(queue, 20)]
    assert served.count("proven") >= 10
    assert len({client for client in served if client != "proven"}) >= 20 // 2 - 20 // GREEDY_TURN_INTERVAL


def test_the_number_of_tracked_clients_is_limited() -> None:
    queue: FairQueue[str, int] = FairQueue()
    for number in range(MAX_TRACKED_CLIENTS + 10):
        assert queue.add(f"client {number}", 0)
        assert queue.next(0.0) is not None
        queue.on_sent(f"client {number}", 1, 0.0)
        queue.on_completed(f"client {number}", 1)
    assert len(queue._histories) == MAX_TRACKED_CLIENTS
    assert "client 9" not in queue._histories
    assert "client 10" in queue._histories


def test_a_dropped_reply_is_not_in_flight() -> None:
    queue = filled("a", requests=100)
    for request in range(100):
        assert queue.next(0.0) == ("a", request)
        queue.check_invariants()
        queue.on_dropped("a")
        queue.check_invariants()
    assert queue.next(0.0) is None


def test_a_client_may_be_discarded_before_its_reply_is_dropped() -> None:
    queue = filled("a", "b", requests=2)
    assert queue.next(0.0) == ("a", 0)
    queue.discard("a")
    queue.on_dropped("a")
    queue.check_invariants()
    assert take_all(queue) == [("b", 0), ("b", 1)]


def test_the_budget_limits_the_replies_in_flight_of_all_clients_together() -> None:
    clients = [f"client {number}" for number in range(IN_FLIGHT_BUDGET // MIB // MAX_IN_FLIGHT)]
    queue = filled(*clients, requests=MAX_IN_FLIGHT + 1)
    assert len(take_all(queue)) * MIB == IN_FLIGHT_BUDGET


def test_a_client_with_nothing_in_flight_may_exceed_the_budget_by_one_reply() -> None:
    clients = [f"client {number}" for number in range(2 * IN_FLIGHT_BUDGET // MIB // MAX_IN_FLIGHT)]
    queue = filled(*clients)
    taken = take_all(queue)
    assert len(taken) == IN_FLIGHT_BUDGET // MIB, (
        "half of the replies that the clients may have in flight must use up the budget"
    )
    queue.add("newcomer", 0)
    queue.add("newcomer", 1)
    assert take_all(queue) == [("newcomer", 0)]
    complete(queue, "newcomer")
    assert take_all(queue) == [("newcomer", 1)], "clients that do not read must not starve the newcomer"


def test_the_budget_counts_bytes_and_not_replies() -> None:
    queue = filled("a")
    # A client's only reply in flight does not count towards the budget, whatever its size.
    assert take(queue, IN_FLIGHT_BUDGET) == ("a", 0)
    assert take(queue, 1) == ("a", 1)
    assert take(queue) is None
    complete(queue, "a", IN_FLIGHT_BUDGET)
    assert take_all(queue, IN_FLIGHT_BUDGET // 2) == [("a", 2), ("a", 3)]


def test_a_client_that_waits_for_the_budget_has_no_deadline() -> None:
    queue = filled("a", rate=IN_FLIGHT_BUDGET)
    take(queue, IN_FLIGHT_BUDGET)
    assert queue.next_deadline(0.0) is not None
    take(queue, IN_FLIGHT_BUDGET, now=2.0)
    assert take(queue, now=4.0) is None
    assert queue.next_deadline(4.0) is None


def test_discarded_requests_are_not_answered() -> None:
    queue = filled("a", "b")
    serve(queue, 2)
    queue.discard("a")
    queue.check_invariants()
    assert serve(queue, 9) == [("b", request) for request in range(1, 10)]
    assert queue.next(0.0) is None


def test_replies_in_flight_of_a_discarded_client_count_until_they_complete() -> None:
    queue = filled("a", "b")
    for size in (IN_FLIGHT_BUDGET // 2, IN_FLIGHT_BUDGET // 2 + 1, IN_FLIGHT_BUDGET // 2):
        take(queue, size)
    queue.discard("a")
    assert take(queue) is None
    complete(queue, "a", IN_FLIGHT_BUDGET // 2)
    assert take(queue) == ("b", 1)


@pytest.mark.parametrize("method", ["discard", "clear"])
def test_a_client_that_returns_still_has_its_replies_in_flight(method: str) -> None:
    queue = filled("a")
    assert len(take_all(queue)) == MAX_IN_FLIGHT
    if method == "discard":
        queue.discard("a")
    else:
        queue.clear()
    for request in range(100, 110):
        queue.add("a", request)
    assert take_all(queue) == []
    for request in range(100, 106):
        complete(queue, "a")
        assert take_all(queue) == [("a", request)]


def test_clear_returns_all_queued_requests() -> None:
    queue = filled("a", "b", requests=3)
    take(queue)
    assert sorted(queue.clear()) == [("a", 1), ("a", 2), ("b", 0), ("b", 1), ("b", 2)]
    queue.check_invariants()
    assert queue.next(0.0) is None
    assert queue.add("b", 7)
    assert take(queue) == ("b", 7)


def test_clients_with_nothing_queued_or_in_flight_are_not_kept() -> None:
    queue: FairQueue[str, int] = FairQueue()
    for number in range(1000):
        queue.add(f"client {number}", 0)
        serve(queue, 1)
    queue.discard("client 7")
    assert queue._clients == {}


# The rate limit.

RATE = 25 * MIB


def drive(queue: FairQueue[str, int], *, until: float, late: float, size: int = MIB, now: float = 0.0) -> list[float]:
    """Runs a loop that wakes up ``late`` seconds after each deadline; returns the times at which it sent a reply."""
    times = []
    while now < until:
        entry = queue.next(now)
        if entry is None:
            deadline = queue.next_deadline(now)
            assert deadline is not None
            assert deadline > now
            now = deadline + late
        else:
            client, _ = entry
            queue.on_sent(client, size, now)
            times.append(now)
            queue.on_completed(client, size)
            queue.add(client, 0)
        queue.check_invariants()
    return times


@pytest.mark.parametrize("late", [0.0, 0.001, 0.002])
def test_a_loop_that_wakes_up_late_still_reaches_the_rate(late: float) -> None:
    times = drive(filled("a", "b", rate=RATE), until=10.0, late=late)
    assert len(times) * MIB == pytest.approx(10 * RATE, rel=0.01)


@pytest.mark.parametrize("size", [1, 100_000, MIB])
def test_the_rate_is_exceeded_by_at_most_the_catch_up_and_one_reply(size: int) -> None:
    times = drive(filled("a", rate=RATE), until=min(1.0, 5000 * size / RATE), late=0.0002, size=size)
    for first in range(0, len(times), 50):
        sent = 0
        for time in times[first:]:
            assert sent <= RATE * (time - times[first] + MAX_CATCH_UP_S) + size
            sent += size


def test_an_idle_worker_accumulates_no_credit_for_a_burst() -> None:
    queue = filled("a", rate=RATE)
    assert take(queue, now=0.0) == ("a", 0)
    complete(queue, "a")
    times = drive(queue, now=3600.0, until=3601.0, late=0.0)
    assert len(times) <= 26


def test_after_a_reply_the_rate_limit_sets_the_next_deadline() -> None:
    queue = filled("a", rate=RATE)
    assert queue.next_deadline(100.0) is None
    take(queue, now=100.0)
    deadline = queue.next_deadline(100.0)
    assert deadline is not None
    assert deadline == pytest.approx(100.0 + MIB / RATE - MAX_CATCH_UP_S)
    assert queue.next(deadline - 1e-6) is None
    assert queue.next(deadline) == ("a", 1)


def test_an_empty_queue_has_no_deadline() -> None:
    queue = filled("a", requests=1, rate=RATE)
    take(queue, now=100.0)
    assert queue.next(100.0) is None
    assert queue.next_deadline(100.0) is None


def test_without_a_rate_limit_there_is_no_deadline() -> None:
    queue = filled("a", "b", requests=4)
    assert len(take_all(queue)) == 8
    assert queue.next_deadline(0.0) is None


# Random interleavings.

CLIENTS = st.sampled_from("abcde")
SIZES = st.sampled_from([1, 1000, MIB, 20 * MIB, IN_FLIGHT_BUDGET])


class FairQueueMachine(RuleBasedStateMachine):
    """Compares ``FairQueue`` with a model that holds all queues and all replies in flight."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = 0
        self.queue: FairQueue[str, int] = FairQueue()
        self.requests = count()
        self.model_queues: defaultdict[str, deque[int]] = defaultdict(deque)
        self.in_flight: list[tuple[str, int]] = []
        self.sent_bytes = 0
        self.now = self.start = 1000.0
        #: For each client that can be served: the bytes sent to every other client since it was last served, and the
        #: size of its last reply.
        self.passed: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.last_size: Counter[str] = Counter()
        self.ever_greedy: set[str] = set()

    def replies(self, client: str) -> int:
        return sum(owner == client for owner, _ in self.in_flight)

    def servable(self) -> set[str]:
        """Returns the clients that may be served now, ignoring the rate limit."""
        over_budget = sum(size for client, size in self.in_flight if self.replies(client) > 1) >= IN_FLIGHT_BUDGET
        limit = 1 if over_budget else MAX_IN_FLIGHT
        return {
            client
            for client, queue in self.model_queues.items()
            if queue and self.replies(client) < (1 if self.is_greedy(client) else limit)
        }

    def is_greedy(self, client: str) -> bool:
        return len(self.model_queues[client]) > GREEDY_ABOVE

    @precondition(lambda self: self.queue.next_deadline(self.now) is None and not self.sent_bytes)
    @rule(rate=st.sampled_from([MIB, 100 * MIB]))
    def set_rate_limit(self, rate: int) -> None:
        self.rate = rate
        self.queue = FairQueue(rate)
        self.model_queues.clear()
        self.in_flight.clear()
        self.passed.clear()

    @rule(client=CLIENTS, requests=st.integers(1, 3) | st.just(MAX_QUEUED))
    def add(self, client: str, requests: int) -> None:
        for request in (next(self.requests) for _ in range(requests)):
            accepted = self.queue.add(client, request)
            assert accepted == (len(self.model_queues[client]) < MAX_QUEUED)
            if accepted:
                self.model_queues[client].append(request)
        if self.is_greedy(client):
            self.ever_greedy.add(client)

    @rule(size=SIZES, sent=st.booleans())
    def next(self, size: int, sent: bool) -> None:
        servable = self.servable()
        entry = self.queue.next(self.now)
        if entry is None:
            deadline = self.queue.next_deadline(self.now)
            assert not servable or (deadline is not None and deadline > self.now), (
                "a client that could be served has to wait"
            )
            return
        client, request = entry
        assert client in servable
        assert request == self.model_queues[client].popleft()
        for other in self.model_queues:
            if other == client or other not in servable:
                self.passed[other].clear()
            else:
                # A client that is or was greedy may be in another ready list, which has its own share of turns.
                if not self.ever_greedy & {client, other}:
                    is_fair = self.passed[other][client] <= self.last_size[other]
                    assert is_fair, f"{client} got more than its share before {other} was served again"
                self.passed[other][client] += size if sent else 0
        if self.rate:
            assert self.sent_bytes <= self.rate * (self.now - self.start + MAX_CATCH_UP_S) + 1
        if sent:
            self.last_size[client] = size
            self.queue.on_sent(client, size, self.now)
            self.in_flight.append((client, size))
            self.sent_bytes += size
        else:
            self.queue.on_dropped(client)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        client, size = self.in_flight.pop(data.draw(st.integers(0, len(self.in_flight) - 1)))
        self.queue.on_completed(client, size)

    @rule(client=CLIENTS)
    def discard(self, client: str) -> None:
        self.queue.discard(client)
        self.model_queues[client].clear()
        self.passed[client].clear()

    @rule()
    def clear(self) -> None:
        expected = [(client, request) for client, queue in self.model_queues.items() for request in queue]
        assert sorted(self.queue.clear()) == sorted(expected)
        self.model_queues.clear()
        self.passed.clear()

    @rule(seconds=st.sampled_from([0.001, 0.05, 1.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def invariants_hold(self) -> None:
        self.queue.check_invariants()
        assert all(self.replies(client) <= MAX_IN_FLIGHT for client in "abcde")


TestFairQueueMachine = FairQueueMachine.TestCase
TestFairQueueMachine.settings = settings(max_examples=100, stateful_step_count=50)


def test_the_requests_of_all_clients_together_are_limited_until_their_replies_have_left() -> None:
    queue: FairQueue[str, int] = FairQueue(max_unfinished=3)
    assert [queue.add(client, 0) for client in "abcd"] == [True, True, True, False]
    assert take(queue) == ("a", 0)
    assert not queue.add("d", 0)
    complete(queue, "a")
    assert queue.add("d", 0)
    entry = queue.next(0.0)
    assert entry is not None
    queue.on_dropped(entry[0])
    assert queue.add("e", 0)
    queue.discard("c")
    queue.check_invariants()
    assert [queue.add(client, 0) for client in "fg"] == [True, False]
