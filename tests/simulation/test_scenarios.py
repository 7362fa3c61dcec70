"""What the scheduler guarantees, on a virtual clock: the maximum duration of a download and the maximum waste.

The *ideal* duration is the size divided by the sum of the available rates. Sizes are in MiB and rates in MiB per
second, unless stated otherwise; a unit has 1 MiB.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from functools import partial
from itertools import pairwise, product

import pytest

from msd.client.network_events import BanReason
from msd.client.scheduling.scheduler_events import GroupLost, UnitState
from msd.client.scheduling.worker_pace import MIN_PART
from msd.wire.protocol.segments import Manifest
from msd.wire.protocol.states import RefusalReason
from tests.simulation.world import MIB, Link, Outcome, Reader, Worker, World

SEEDS = range(6)
UNITS = 384

#: The seconds between two arrivals from one of four workers over loopback, beside two processes that keep both
#: processors busy: quantiles of 3111 units of downloads of 12, 28 and 50 MiB.
BUSY_MACHINE = (
    *((0.0, 0.0006), (0.1, 0.0014), (0.25, 0.0027), (0.5, 0.0071), (0.75, 0.0132), (0.9, 0.0192), (0.95, 0.0238)),
    *((0.99, 0.0387), (0.995, 0.0482), (0.999, 0.0691), (1.0, 0.0894)),
)

Setup = Callable[[World], None]


def simulate(
    rates: list[float],
    setup: Setup = lambda world: None,
    *,
    units: int = UNITS,
    delay: float = 0.0005,
    max_rate: float | None = None,
    reader_rate: float | None = None,
) -> list[Outcome]:
    """Runs one download for each seed, with 5 % jitter; checks invariants in the first run."""
    outcomes = []
    for seed in SEEDS:
        workers = [Worker(rate, delay=delay, jitter=0.05) for rate in rates]
        reader = Reader(reader_rate) if reader_rate else None
        world = World(units, workers, seed, check=seed == 0, max_rate=max_rate, reader=reader)
        setup(world)
        outcome = world.run()
        assert outcome.failure is None
        outcomes.append(outcome)
    return outcomes


def max_seconds(outcomes: list[Outcome]) -> float:
    return max(outcome.seconds for outcome in outcomes)


def max_wasted(outcomes: list[Outcome], units: int = UNITS) -> float:
    return max(outcome.wasted for outcome in outcomes) / units


@pytest.mark.parametrize(
    ("rates", "total_rate", "ratio"),
    [
        pytest.param([40, 40, 40, 40], 160, 1.03, id="equal"),
        pytest.param([40, 40, 40, 4], 124, 1.05, id="one-slow"),
        pytest.param([40, 20, 10, 5], 75, 1.05, id="all-different"),
        pytest.param([40, 40, 40, 0.4], 120, 1.05, id="one-crawls"),
        pytest.param([40], 40, 1.03, id="one-alone"),
        # The last unit of a worker takes a second.
        pytest.param([1] * 64, 64, 1.1, id="sixty-four"),
    ],
)
def test_a_download_does_not_wait_for_the_slowest_worker(rates: list[float], total_rate: float, ratio: float) -> None:
    outcomes = simulate(rates)
    assert max_seconds(outcomes) <= ratio * UNITS / total_rate
    assert max_wasted(outcomes) <= 0.02


@pytest.mark.parametrize("units", [12, 28, 50])
def test_workers_that_wait_for_a_processor_are_not_taken_for_slow_ones(units: int) -> None:
    wasted = 0.0
    for seed in range(200):
        outcome = World(units, [Worker(100, quantiles=BUSY_MACHINE) for _ in range(4)], seed, check=False).run()
        assert outcome.failure is None
        wasted += outcome.wasted
    assert wasted <= 0.005 * 200 * units


def test_a_worker_that_freezes_at_the_end_costs_little() -> None:
    outcomes = simulate([40] * 4, lambda world: world.at(2.38, lambda: world.freeze(2)))
    assert max_seconds(outcomes) <= 2.4 + 0.3


def test_a_killed_worker_costs_little_more_than_its_rate() -> None:
    outcomes = simulate([40] * 4, lambda world: world.at(1.0, lambda: world.kill(2)))
    assert max_seconds(outcomes) <= 1 + (UNITS - 160) / 120 + 0.15
    assert max_wasted(outcomes) <= 0.02


def test_a_frozen_worker_costs_little_more_than_its_rate() -> None:
    outcomes = simulate([40] * 4, lambda world: world.at(1.0, lambda: world.freeze(2)))
    assert max_seconds(outcomes) <= 1 + (UNITS - 160) / 120 + 0.5
    assert max_wasted(outcomes) <= 0.02


@pytest.mark.parametrize("second", [1.05, 1.5, 2.2, 2.3])
def test_two_workers_frozen_one_after_the_other_do_not_stall_the_download(second: float) -> None:
    def setup(world: World) -> None:
        world.at(1.0, lambda: world.freeze(2))
        world.at(second, lambda: world.freeze(3))

    outcomes = simulate([40] * 4, setup)
    delivered = 160 + (second - 1.0) * 120
    assert max_seconds(outcomes) <= second + (UNITS - delivered) / 80 + 0.8


def test_three_workers_frozen_in_a_row_do_not_stall_the_download() -> None:
    def setup(world: World) -> None:
        for number, time in ((1, 2.0), (2, 2.2), (3, 2.35)):
            world.at(time, partial(world.freeze, number))

    assert max_seconds(simulate([40] * 4, setup)) <= 2.35 + (UNITS - 320 - 24 - 12) / 40 + 1.2


def test_a_worker_that_freezes_repeatedly_still_contributes() -> None:
    def setup(world: World) -> None:
        for second in range(1, 40, 2):
            world.at(second, lambda: world.freeze(2))
            world.at(second + 1, lambda: world.thaw(2))

    outcomes = simulate([40] * 4, setup, units=1600)
    assert max_seconds(outcomes) <= 1.1 * 1600 / 140
    assert max_wasted(outcomes, 1600) <= 0.05


def test_a_sleep_of_all_workers_costs_its_duration() -> None:
    def setup(world: World) -> None:
        for number in world.workers:
            world.at(1.0, partial(world.sleep, number))
            world.at(3.0, partial(world.start, number))

    assert max_seconds(simulate([40] * 4, setup)) <= 2 + UNITS / 160 + 0.3


def test_a_long_round_trip_limits_the_rate_only_at_the_start() -> None:
    outcomes = simulate([25] * 4, units=500, delay=0.05)
    round_trips_at_the_start = 4
    assert max_seconds(outcomes) <= 500 / 100 / 0.95 + round_trips_at_the_start * 0.1


def test_a_worker_that_starts_late_delivers_its_share_within_a_second() -> None:
    world = World(UNITS, [Worker(40, jitter=0.05, up=number != 4) for number in (1, 2, 3, 4)], seed=1)
    shares: list[int] = []
    world.at(1.0, lambda: world.start(4))
    for time in (1.5, 2.0):
        world.at(time, lambda: shares.append(len(world.scheduler.delivered_by(4))))
    world.run()
    assert shares[1] - shares[0] >= 0.9 * 20


# Slow links that all workers share.


def segments_of(size: int) -> list[int]:
    """The sizes in bytes of the segments of a file of ``size`` bytes."""
    return Manifest(name="", size=size, digests=b"", id=b"").lengths


def download_over(link: Link, size: int, seed: int, *, workers: int = 4, reset_every: float | None = None) -> Outcome:
    """Downloads a file of ``size`` bytes from workers behind ``link``; all connections are reset now and then."""
    world = World(
        segments_of(size),
        [Worker(link=link, delay=0.02, jitter=0.1) for _ in range(workers)],
        seed,
        check=seed == 0,
    )
    if reset_every is not None:
        for number in range(1, 100):
            for worker in world.workers:
                world.at(number * reset_every, partial(world.reset, worker))
    outcome = world.run()
    assert outcome.failure is None
    return outcome


def longest_wait(outcome: Outcome) -> float:
    """The longest time between two arrivals."""
    times = [0.0, *(time for time, _ in outcome.arrivals)]
    return max(end - start for start, end in pairwise(times))


@pytest.mark.parametrize(
    ("bits", "size", "wait"),
    [
        pytest.param(1_000_000, 2_000_000, 1.0, id="1-mbit"),
        pytest.param(1_000_000, 30_000_000, 1.0, id="1-mbit-large"),
        pytest.param(256_000, 2_000_000, 2.5, id="256-kbit"),
    ],
)
def test_a_slow_link_is_used_completely_and_something_arrives_all_the_time(bits: int, size: int, wait: float) -> None:
    for seed in range(3):
        outcome = download_over(Link(bits / 8 / MIB), size, seed)
        assert outcome.seconds <= 1.02 * 8 * size / bits + 0.2
        assert longest_wait(outcome) <= wait
        assert outcome.wasted <= 0.01 * size / MIB


@pytest.mark.parametrize("workers", [1, 4, 8])
@pytest.mark.parametrize(
    ("bits", "size", "kept"),
    [
        pytest.param(1_000_000, 30_000_000, 0.93, id="1-mbit"),
        # The smallest parts of all workers together take 4 seconds.
        pytest.param(256_000, 5_000_000, 0.8, id="256-kbit"),
        pytest.param(20_000_000, 100_000_000, 0.93, id="20-mbit"),
    ],
)
def test_resets_of_all_connections_cost_little_of_what_the_link_carried(
    bits: int, size: int, kept: float, workers: int
) -> None:
    for seed in range(3):
        link = Link(bits / 8 / MIB)
        download_over(link, size, seed, workers=workers, reset_every=20.0)
        assert size / link.carried >= kept


def test_units_are_completed_one_after_the_other_on_a_slow_link() -> None:
    """After half of the time, nearly half of the file is verified, although a segment takes 8 seconds."""
    link = Link(1_000_000 / 8 / MIB)
    world = World(segments_of(20_000_000), [Worker(link=link, delay=0.02) for _ in range(4)])
    verified: list[int] = []
    world.at(80.0, lambda: verified.append(len(world.sizes) - world.scheduler.remaining))
    world.run()
    assert verified[0] >= 8


@pytest.mark.parametrize("slow_workers", [1, 3])
def test_a_fast_worker_does_not_wait_for_slow_ones(slow_workers: int) -> None:
    """One source sends 40 MB/s, the others 128 kbit/s."""
    slow = 128_000 / 8 / MIB
    outcomes = simulate([40e6 / MIB, *[slow] * slow_workers], units=384)
    assert max_seconds(outcomes) <= 1.05 * 384 / (40e6 / MIB + slow_workers * slow)
    assert max_wasted(outcomes) <= 0.01


def test_a_frozen_worker_does_not_hold_up_a_unit_on_a_slow_link() -> None:
    """The others are slow, too: they take over what it has, part by part."""
    link = Link(1_000_000 / 8 / MIB)
    world = World(segments_of(2_000_000), [Worker(link=link, delay=0.02) for _ in range(4)])
    world.at(8.0, lambda: world.freeze(2))
    outcome = world.run()
    assert outcome.failure is None
    assert outcome.seconds <= 16.0 + 3.0
    assert longest_wait(outcome) <= 2.0


def test_a_worker_that_sends_corrupt_parts_is_not_blamed_for_parts_of_others_but_in_the_end_banned() -> None:
    link = Link(2.0)
    world = World([MIB] * 40, [Worker(link=link, corrupt=float(number == 2)) for number in (1, 2, 3, 4)], seed=1)
    assert world.run().failure is None
    corrupt = {number: pace.corrupt_count for number, pace in world.scheduler.workers.items()}
    assert [number for number, count in corrupt.items() if count] == [2]


# A limited rate.


@pytest.mark.parametrize("max_rate", [4.0, 50.0])
@pytest.mark.parametrize(
    ("rates", "delay"),
    [
        pytest.param([400.0] * 4, 0.0005, id="fast"),
        pytest.param([40, 40, 40, 4], 0.0005, id="one-slow"),
        pytest.param([40, 40, 40, 0.4], 0.0005, id="one-crawls"),
        pytest.param([40] * 4, 0.1, id="far-away"),
        pytest.param([400.0], 0.0005, id="one-alone"),
    ],
)
def test_a_limited_download_keeps_an_even_rate_and_wastes_nothing(
    rates: list[float], delay: float, max_rate: float
) -> None:
    """The rate is within 5 % of the limit (or of what the workers can send) over any 5 seconds, give or take a unit;
    in no second do more units arrive than in one second of the limit and its burst.
    """
    units = int(8 * max_rate)
    for outcome in simulate(rates, units=units, delay=delay, max_rate=max_rate):
        assert outcome.wasted == 0
        times = [time for time, _ in outcome.arrivals]
        attainable = min(max_rate, sum(rates))
        settled = 1.0 + 5 * 2 * delay
        whole = [outcome.arrived(time, time + 5) for time in times if settled <= time <= times[-1] - 5]
        assert 0.95 * 5 * attainable - 1 <= min(whole) <= max(whole) <= 1.05 * 5 * attainable + 1
        assert max(outcome.arrived(time, time + 1) for time in times) <= 1.15 * max_rate + 2
        assert outcome.seconds <= 1.05 * units / attainable + 1


def test_after_a_freeze_of_all_workers_at_most_one_second_of_the_limit_arrives_at_once() -> None:
    def setup(world: World) -> None:
        for number in world.workers:
            world.at(1.0, partial(world.freeze, number))
            world.at(6.0, partial(world.thaw, number))

    for outcome in simulate([400] * 4, setup, units=40, max_rate=4.0):
        assert outcome.arrived(6.0, 6.05) <= 4 + 1


def test_a_limited_download_takes_turns() -> None:
    world = World(80, [Worker(400) for _ in range(4)], max_rate=20.0)
    world.run()
    assert [len(world.scheduler.delivered_by(number)) for number in world.workers] == pytest.approx([20] * 4, abs=1)


@pytest.mark.parametrize("fault", ["kill", "freeze", "sleep"])
def test_a_fault_costs_a_limited_download_nothing_but_the_time_to_notice(fault: str) -> None:
    outcomes = simulate(
        [40] * 4, lambda world: world.at(1.0, lambda: getattr(world, fault)(2)), units=100, max_rate=20.0
    )
    assert max_seconds(outcomes) <= 5.7
    assert max_wasted(outcomes) == 0


def test_a_stall_of_the_client_is_not_taken_for_silent_workers() -> None:
    outcomes = simulate([40] * 4, lambda world: world.at(1.0, lambda: world.stall(5.0)))
    assert max_seconds(outcomes) <= 5 + UNITS / 160 + 0.1
    assert max_wasted(outcomes) <= 0.02


def test_a_worker_that_sends_corrupt_units_is_banned_and_the_others_deliver_the_file() -> None:
    world = World(100, [Worker(40, corrupt=1.0), Worker(40), Worker(40)])
    assert world.run().failure is None
    assert world.scheduler.workers[1].ban_reason == "corrupt"
    assert world.wasted == 3 or world.scheduler.workers[1].corrupt_count == 3


def test_the_file_is_lost_if_all_workers_send_corrupt_units() -> None:
    failure = World(100, [Worker(40, corrupt=1.0) for _ in range(4)]).run().failure
    assert failure is not None
    assert set(failure.bans) == {1, 2, 3, 4}
    assert 0 <= failure.unit < 100


# Several files: each worker may lack some of them, and a file may change.


@pytest.mark.parametrize("reason", [RefusalReason.UNKNOWN, RefusalReason.CHANGED, RefusalReason.UNREADABLE])
def test_a_worker_that_lacks_one_file_serves_the_others_at_its_full_rate(reason: RefusalReason) -> None:
    """Worker 4 lacks the first of four files. The other workers fetch it while worker 4 sends the other files."""
    for seed in SEEDS:
        workers = [Worker(40, jitter=0.05, lacks={0: reason} if number == 4 else {}) for number in (1, 2, 3, 4)]
        world = World(UNITS // 4, workers, seed, check=seed == 0, further_files=[UNITS // 4] * 3)
        outcome = world.run()
        assert outcome.failure is None
        assert outcome.seconds <= 1.05 * UNITS / 160
        assert outcome.wasted <= 0.02 * UNITS
        assert min(world.scheduler.delivered_by(4)) >= UNITS // 4


def test_a_worker_of_another_broker_that_lacks_most_files_costs_nothing() -> None:
    """A thousand files of one unit: worker 4 refuses all but every tenth, each of them once, and is asked no more."""
    lacks = {file: RefusalReason.UNKNOWN for file in range(1000) if file % 10}
    for seed in SEEDS:
        workers = [Worker(40, jitter=0.05) for _ in range(3)] + [Worker(40, lacks=lacks, is_foreign=True)]
        outcome = World(1, workers, seed, check=False, further_files=[1] * 999).run()
        assert outcome.failure is None
        assert outcome.seconds <= 1.05 * 1000 / 120


def test_a_file_that_changes_is_replaced_while_the_others_go_on() -> None:
    """The second of three files changes; the workers load its new version one after the other, within a second."""
    for seed in SEEDS:
        workers = [Worker(40, jitter=0.05, load_s=number / 3) for number in range(4)]
        world = World(128, workers, seed, check=seed == 0, further_files=[128, 128], follows=True)
        world.at(1.2, partial(world.change, 1))
        outcome = world.run()
        assert outcome.failure is None
        # At most what had arrived of the old version is received again.
        assert outcome.seconds <= 1.05 * (UNITS + 128) / 160 + 0.5
        states = [{world.scheduler.state_of(unit) for unit in units} for units, _ in world.groups]
        assert states[1] == {UnitState.VERIFIED, UnitState.REMOVED}
        assert states[0] == states[2] == {UnitState.VERIFIED}
        assert states[3] == {UnitState.VERIFIED, UnitState.REUSED}


def test_a_file_that_no_worker_has_does_not_hold_up_the_others() -> None:
    workers = [Worker(40, lacks={1: RefusalReason.CHANGED}) for _ in range(4)]
    world = World(50, workers, further_files=[50, 50])
    outcome = world.run()
    assert outcome.failure is None
    assert outcome.seconds <= 1.05 * 100 / 160
    assert world.lost == [GroupLost(1, dict.fromkeys((1, 2, 3, 4), BanReason.CHANGED), 50)]


# Streams, which take the units in order.

#: A reader that is never the bottleneck, in units per second.
FAST = 10_000.0


@pytest.mark.parametrize(
    ("rates", "total_rate", "ratio"),
    [
        pytest.param([40, 40, 40, 40], 160, 1.03, id="equal"),
        pytest.param([40, 20, 10, 5], 75, 1.05, id="all-different"),
        pytest.param([40, 40, 40, 0.4], 120, 1.05, id="one-crawls"),
        pytest.param([40], 40, 1.03, id="one-alone"),
    ],
)
def test_a_stream_does_not_wait_for_the_slowest_worker(rates: list[float], total_rate: float, ratio: float) -> None:
    outcomes = simulate(rates, reader_rate=FAST)
    assert max_seconds(outcomes) <= ratio * UNITS / total_rate
    assert max_wasted(outcomes) <= 0.02


def test_a_slow_reader_sets_the_pace_and_nothing_is_received_twice() -> None:
    outcomes = simulate([40] * 4, reader_rate=10)
    assert max_seconds(outcomes) <= (UNITS - 64) / 10 + 0.5
    assert max_wasted(outcomes) == 0


def test_a_reader_that_pauses_costs_no_more_than_its_pause() -> None:
    outcomes = simulate([40] * 4, lambda world: world.at(1.0, lambda: world.pause_reader(5.0)), reader_rate=FAST)
    assert max_seconds(outcomes) <= 5 + UNITS / 160 + 0.1
    assert max_wasted(outcomes) <= 0.02


def test_a_frozen_worker_costs_a_stream_little_more_than_its_rate() -> None:
    outcomes = simulate([40] * 4, lambda world: world.at(1.0, lambda: world.freeze(2)), reader_rate=FAST)
    assert max_seconds(outcomes) <= 1 + (UNITS - 160) / 120 + 0.5
    assert max_wasted(outcomes) <= 0.02


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_a_stream_with_little_memory_is_complete(ahead: int) -> None:
    world = World(100, [Worker(40, jitter=0.5), Worker(4), Worker(40, corrupt=0.1)], reader=Reader(FAST, ahead))
    world.at(1.0, lambda: world.kill(1))
    assert world.run().failure is None


# Random faults.

#: Sizes of units in bytes: smaller and larger than the smallest part.
SIZES = [1, 1000, MIN_PART, MIN_PART + 1, 100_000, 300_000, MIB]

#: Why a worker does not send a file.
LACKING = [RefusalReason.UNKNOWN, RefusalReason.CHANGED, RefusalReason.UNREADABLE, RefusalReason.OTHER]


def random_world(seed: int, *, check: bool = True) -> World:
    """A world with random faults, and with files that some workers lack and that change. Some workers may share a slow
    link. At least one worker has no faults after the first 20 seconds.
    """
    rng = random.Random(seed)
    link = rng.choice([None, None, Link(0.05), Link(0.3), Link(2.0)])
    is_slow = link is not None and link.rate < 1
    workers = [
        Worker(
            rate=rng.choice([0.5, 4, 40, 400]),
            link=rng.choice([link, link, None]),
            delay=rng.choice([0.0, 0.0005, 0.05]),
            jitter=rng.choice([0.0, 0.1, 0.5]),
            corrupt=rng.choice([0, 0, 0, 0.02, 1]),
            up=rng.random() < 0.8,
        )
        for _ in range(rng.randint(1, 6))
    ]
    reliable = rng.randint(1, len(workers))
    workers[reliable - 1].corrupt = 0
    units = random_units(rng, [0, 1, 3] if is_slow else [0, 1, 2, 5, 5, 12, 12, 30, 30, 100])
    max_rate = rng.choice([None, None, 0.1 if is_slow else 1.0, 20.0])
    reader = rng.choice([None, Reader(rng.choice([1.0, 20.0, FAST]), ahead=rng.choice([1, 2, 5, 64]))])
    further = 0 if reader is not None else rng.choice([0, 0, 1, 4])
    further_files = [random_units(rng, [0, 1, 3] if is_slow else [0, 1, 5, 12, 30]) for _ in range(further)]
    for number, worker in enumerate(workers, 1):
        worker.load_s = rng.choice([0.0, 0.3, 1.5])
        worker.reads_store = rng.random() < 0.3
        if number != reliable:
            worker.is_foreign = rng.random() < 0.2
            lacking = [file for file in range(1 + len(further_files)) if rng.random() < 0.2]
            worker.lacks = {file: rng.choice(LACKING) for file in lacking}
    world = World(
        units,
        workers,
        seed,
        check=check,
        max_rate=max_rate,
        reader=reader,
        further_files=further_files,
        follows=True,
        lateness=rng.choice([0.0, 0.05, 0.2, 0.2]),
    )
    if reader is None:
        for _ in range(rng.choice([0, 0, 1, 3])):
            world.at(rng.uniform(0, 20), partial(world.change, rng.randint(0, len(further_files))))
        # A worker that was ready since the change may have the version that the others lack: the client waits for it.
        for number, step in product(world.workers, (world.thaw, world.kill, world.start)):
            world.at(30.0, partial(step, number))
    faults = [world.kill, world.start, world.freeze, world.thaw, world.sleep, world.reset]
    for _ in range(rng.randint(0, 30)):
        time, fault, number = rng.uniform(0, 20), rng.choice(faults), rng.randint(1, len(workers))
        world.at(time, partial(fault, number))
    for _ in range(rng.randint(0, 3)):
        world.at(rng.uniform(0, 20), lambda: world.stall(rng.uniform(0.1, 3)))
        world.at(rng.uniform(0, 20), lambda: world.pause_reader(rng.uniform(0.1, 10)))
    for _ in range(rng.choice([0, 0, 1, 5])):
        time = rng.uniform(0, 20)
        for number in world.workers:
            world.at(time, partial(world.reset, number))
    for step in (world.thaw, world.kill, world.start):
        world.at(20.0, partial(step, reliable))
    return world


def random_units(rng: random.Random, counts: list[int]) -> list[int]:
    """The sizes of units in bytes: of a large file, or of files and bundles of all sizes."""
    count = rng.choice(counts)
    return [MIB] * count if rng.random() < 0.5 else [rng.choice(SIZES) for _ in range(count)]


def run_all(seeds: range) -> None:
    for seed in seeds:
        try:
            # Checking invariants takes most of the time, so only one run in thirty does it.
            outcome = random_world(seed, check=seed % 30 == 0).run()
        except AssertionError as error:
            raise AssertionError(f"replay with random_world({seed}).run(): {error}") from error
        assert outcome.failure is None, f"seed {seed}: {outcome}"


def test_downloads_survive_hundreds_of_random_fault_sequences(rng: random.Random) -> None:
    first = rng.randrange(10**9)
    run_all(range(first, first + 500))


@pytest.mark.soak
def test_downloads_survive_a_million_random_fault_sequences(rng: random.Random) -> None:
    first = rng.randrange(10**9)
    run_all(range(first, first + int(os.environ.get("MSD_SOAK_SEEDS", "1000000"))))
