"""What is guaranteed to receivers that pass on what they have, with the real cores, on a virtual clock.

Four sources, 256 units, equal links. Times are multiples of the time that one receiver alone needs.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from msd.client.network import peer_selection
from msd.client.scheduling import scheduler
from msd.client.scheduling.scheduler import MAX_CORRUPT_UNITS, Scheduler
from tests.simulation.receivers import MIB, Receiver, Settings, Swarm

#: Seconds after which the units of a holder that sends nothing are requested from others.
HEDGED_AFTER_S = 1.0
#: Seconds within which receivers join that are started at the same time.
START_S = 0.05

Setup = Callable[[Swarm, list[Receiver]], None]


def simulate(
    receivers: int,
    setup: Setup = lambda swarm, receivers: None,
    *,
    settings: Settings | None = None,
    join_within: float = START_S,
    seed: int = 1,
) -> Swarm:
    """Runs the downloads of all receivers; prints the result, and how to repeat it."""
    swarm = Swarm(settings or Settings(), seed)
    setup(swarm, [swarm.add(swarm.rng.random() * join_within) for _ in range(receivers)])
    swarm.run()
    times = sorted(receiver.seconds / alone(swarm.settings) for receiver in swarm.receivers if receiver.done_at)
    refused = sum(receiver.refused for receiver in swarm.receivers) / swarm.settings.units / receivers
    print(
        f"seed {seed}, {receivers} receivers: slowest {times[-1]:.2f}, median {times[len(times) // 2]:.2f}; "
        f"{swarm.copies:.1f} copies left the sources; {refused:.2f} refusals a unit"
    )
    return swarm


def alone(settings: Settings) -> float:
    """Seconds that one receiver alone needs."""
    return settings.units / settings.rate


def slowest(swarm: Swarm) -> float:
    return max(receiver.seconds for receiver in swarm.receivers if receiver.done_at) / alone(swarm.settings)


def finished(swarm: Swarm) -> int:
    return sum(receiver.done_at is not None for receiver in swarm.receivers)


def small(units: int = 64) -> Settings:
    """A download of fewer units at the same rate, for rules that do not need many."""
    return Settings(units=units)


def test_one_receiver_alone_is_as_fast_as_its_link() -> None:
    swarm = simulate(1)
    assert slowest(swarm) <= 1.02
    assert swarm.copies <= 1.01


def test_fifty_receivers_take_little_longer_than_one() -> None:
    swarm = simulate(50)
    assert slowest(swarm) <= 1.3
    assert swarm.copies <= 5


@pytest.mark.soak
@pytest.mark.parametrize("seed", [1, 2])
def test_a_thousand_receivers_take_little_longer_than_one(seed: int) -> None:
    swarm = simulate(1000, seed=seed)
    assert slowest(swarm) <= 1.5
    assert swarm.copies <= 6


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5))
def test_a_hundred_receivers_take_little_longer_than_one_with_any_seed(seed: int) -> None:
    swarm = simulate(100, seed=seed)
    assert slowest(swarm) <= 1.4
    assert swarm.copies <= 6


def in_order(swarm: Swarm, receivers: list[Receiver]) -> None:
    for receiver in receivers:
        receiver.scheduler = Scheduler(range(1, 5), memory=swarm.settings.memory)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("values", "settings", "setup", "least"),
    [
        pytest.param({}, Settings(), None, 1.0, id="as-it-is"),
        pytest.param({"scheduler.RUN_UNITS": 1}, Settings(), None, 1.0, id="runs-of-one"),
        pytest.param({"scheduler.RUN_UNITS": 16}, Settings(), None, 1.0, id="runs-of-sixteen"),
        pytest.param({"scheduler.RUN_UNITS": 1}, Settings(), in_order, 2.0, id="in-order"),
        pytest.param({"scheduler.MAX_BUSY_DOUBLED": 0}, Settings(), None, 1.0, id="no-back-off"),
        pytest.param({"scheduler.HOLDS_INTERVAL_S": 1.0}, Settings(), None, 1.2, id="holds-each-second"),
        pytest.param({"peer_selection.MAX_EXCHANGED": 0}, Settings(), None, 1.4, id="no-exchange"),
        pytest.param({"peer_selection.MAX_PEERS": 8}, Settings(), None, 1.0, id="eight-peers"),
        pytest.param({"peer_selection.MAX_PEERS": 24}, Settings(), None, 1.0, id="twenty-four-peers"),
        pytest.param({}, Settings(waiting=4), None, 1.0, id="four-waiting"),
        pytest.param({}, Settings(waiting=16), None, 1.0, id="sixteen-waiting"),
        pytest.param({}, Settings(waiting=None), None, 1.3, id="any-number-waiting"),
        pytest.param({}, Settings(passes_on=False, waiting=None), None, 20, id="nothing-passed-on"),
    ],
)
def test_what_was_tried(
    values: dict[str, float], settings: Settings, setup: Setup | None, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prints the figures of the table in docs/scheduler.md. The rules that matter are needed."""
    modules = {"scheduler": scheduler, "peer_selection": peer_selection}
    for name, value in values.items():
        module, constant = name.split(".")
        monkeypatch.setattr(modules[module], constant, value)
    swarm = simulate(100, setup or (lambda swarm, receivers: None), settings=settings)
    assert slowest(swarm) >= least


def check_half_unreachable(receivers: int, settings: Settings) -> None:
    def setup(swarm: Swarm, receivers: list[Receiver]) -> None:
        for receiver in receivers[::2]:
            receiver.reachable = False

    swarm = simulate(receivers, setup, settings=settings)
    assert finished(swarm) == receivers
    assert slowest(swarm) <= 3


def check_joins_over_time(receivers: int, settings: Settings) -> None:
    swarm = simulate(receivers, settings=settings, join_within=alone(settings))
    assert finished(swarm) == receivers
    assert slowest(swarm) <= 1.7


def check_leaving_and_frozen(receivers: int, settings: Settings) -> None:
    """A tenth leave as soon as they are done, a tenth freeze at any time."""

    def setup(swarm: Swarm, receivers: list[Receiver]) -> None:
        for receiver in receivers[0::10]:
            receiver.leaves_when_done = True
        for receiver in receivers[1::10]:
            swarm.at(swarm.rng.random() * alone(settings), swarm.freeze, receiver)

    swarm = simulate(receivers, setup, settings=settings)
    assert finished(swarm) >= receivers * 9 // 10
    assert all(receiver.done_at is not None for receiver in swarm.receivers if not receiver.frozen)
    assert slowest(swarm) <= 1.7


def test_half_of_the_receivers_cannot_be_reached() -> None:
    check_half_unreachable(24, small())


def test_receivers_that_join_over_time_take_little_longer_than_one() -> None:
    check_joins_over_time(24, small())


def test_receivers_that_leave_or_freeze_hold_up_no_others() -> None:
    check_leaving_and_frozen(20, small())


@pytest.mark.soak
@pytest.mark.parametrize("check", [check_half_unreachable, check_joins_over_time, check_leaving_and_frozen])
def test_a_hundred_receivers_with_faults(check: Callable[[int, Settings], None]) -> None:
    check(100, Settings())


@pytest.mark.soak
def test_half_of_a_thousand_receivers_cannot_be_reached() -> None:
    """The broker tries to reach all of them, and few at the same time."""
    check_half_unreachable(1000, Settings())


def test_killed_receivers_hold_up_no_others() -> None:
    """Half of the receivers are killed in the middle."""

    def setup(swarm: Swarm, receivers: list[Receiver]) -> None:
        for receiver in receivers[::2]:
            swarm.at(0.8 + swarm.rng.random() / 2, swarm.leave, receiver)

    swarm = simulate(24, setup, settings=small())
    assert finished(swarm) == 12
    assert slowest(swarm) <= 1.6


def test_a_frozen_receiver_delays_the_end_of_others_by_little() -> None:
    """All holders freeze when the receivers have nearly everything: the sources send the rest."""

    def setup(swarm: Swarm, receivers: list[Receiver]) -> None:
        for receiver in receivers[4:]:
            swarm.at(1.6, swarm.freeze, receiver)

    swarm = simulate(16, setup, settings=small())
    assert all(receiver.done_at is not None for receiver in swarm.receivers[:4])
    assert slowest(swarm) <= 1.4 + HEDGED_AFTER_S / alone(swarm.settings)


def test_receivers_that_send_corrupt_units_are_banned_everywhere() -> None:
    """Two of 24 send only corrupt units. All others finish, and no receiver takes many units from them."""

    def setup(swarm: Swarm, receivers: list[Receiver]) -> None:
        for receiver in receivers[:2]:
            receiver.lies = 1.0

    swarm = simulate(24, setup, settings=small())
    assert finished(swarm) == 24
    assert slowest(swarm) <= 2
    for receiver in swarm.receivers[:2]:
        assert receiver.sent / MIB <= 22 * (MAX_CORRUPT_UNITS + 2)
        state = swarm.state_of(receiver)
        assert state == "banned", state


def test_receivers_with_slow_links_do_not_hold_up_the_others() -> None:
    def setup(swarm: Swarm, receivers: list[Receiver]) -> None:
        for receiver in receivers[::6]:
            receiver.rate /= 50

    swarm = simulate(24, setup, settings=small())
    assert slowest(swarm) <= 1.4 + HEDGED_AFTER_S / alone(swarm.settings)


@pytest.mark.soak
def test_receivers_with_links_of_24_mbit() -> None:
    """A unit takes a third of a second."""
    swarm = simulate(24, settings=Settings(units=192, rate=24e6 / 8 / MIB))
    assert slowest(swarm) <= 1.4
    assert swarm.copies <= 6


def test_a_run_can_be_repeated() -> None:
    first, second = (simulate(8, settings=small(16), seed=random.Random(5).randrange(100)) for _ in range(2))
    assert [receiver.done_at for receiver in first.receivers] == [receiver.done_at for receiver in second.receivers]
