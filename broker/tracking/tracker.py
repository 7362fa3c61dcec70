"""Decides which receivers are told of which others: the core of the broker for downloads that pass on what they have.

A receiver *announces* itself for a *plan* and is answered with a random sample of the *holders* of this plan. A holder
is handed out only at the address from which it announces, and only after the broker itself has reached it there. Does
not know who has which unit: receivers ask one another.

The cost of an event does not grow with the number of receivers, and the memory is bounded: for each plan, for each key,
for each address, and in all. Uses no sockets and no clock.
"""

from __future__ import annotations

import enum
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Set
from itertools import islice

from msgspec import Struct

from msd.broker.tracking.announcer import Announcer
from msd.broker.tracking.complaints import Complaints
from msd.wire.errors import UsageError
from msd.wire.net.endpoints import ANY_HOSTS, Endpoint
from msd.wire.protocol.messages import MAX_HOLDERS, Announce, Holder
from msd.wire.support.core import Core, TimePassed
from msd.wire.support.windowed_rate import WindowedRate

#: Seconds until a receiver announces itself again: usually, and at most. The interval becomes longer if there would be
#: more than ``MAX_ANNOUNCES`` a second. A receiver that comes early is to return after ``EARLY_SHARE`` of it.
MIN_INTERVAL_S, MAX_INTERVAL_S, EARLY_SHARE = 3.0, 60.0, 1 / 6
MAX_ANNOUNCES = 400
#: Seconds over which the rate of the announcements is measured.
RATE_WINDOW_S = 1.0
#: A receiver that has not announced itself for this many intervals is forgotten.
INTERVALS_KEPT = 2.5
#: The maximum number of holders that are remembered: of a plan, with the same announcing key, at the same address (of
#: IPv6: in the same /64 network), and in all. Further ones are answered, but not handed out.
_BOUNDS = {"plan": 4096, "key": 8192, "network": 256}
MAX_RECORDS = 16384
#: The maximum number of attempts to reach holders at the same time: in all, and at the same address. Each has six
#: descriptors, and a process may often have only 1024.
MAX_PROBES, MAX_PROBES_OF_HOST = 48, 4
#: Seconds that an attempt may take; and the first attempt while more holders wait than may be tried at the same time.
#: Those that cannot be reached would delay all others: if they are half of 1,000, by 10 s.
PROBE_S, HURRIED_PROBE_S = 1.0, 0.25
#: The maximum number of holders of each queue that wait for an attempt and are looked at after each event.
MAX_LOOKED_AT = 16
#: Seconds until another attempt to reach a holder that was not reached, or that did not answer others: doubled each
#: time.
MIN_RETRY_S, MAX_RETRY_S = 2.0, 60.0
#: How many reports that a holder does not answer count from one network, in each period of this many seconds: more than
#: an honest receiver makes, which is left without an answer by 16 holders at most each second.
MAX_SILENT_REPORTS, SILENT_PERIOD_S = 64, 60.0
#: The number of networks whose reports are counted at the same time.
MAX_NETWORKS = 16384


class Announced(Struct, frozen=True):
    """A receiver has announced itself. ``Answer`` follows."""

    announce: Announce
    announcer: Announcer


class Probed(Struct, frozen=True):
    """An attempt to reach a holder has ended: ``is_reached`` is True if a receiver with its key answered there."""

    plan: bytes
    holder: Holder
    is_reached: bool


class Complained(Struct, frozen=True):
    """A receiver says that a holder has sent it a corrupt unit."""

    plan: bytes
    holder: Holder
    announcer: Announcer


class Answer(Struct, frozen=True):
    """Answer the announcement with these holders, and ask for the next one after ``seconds``."""

    holders: list[Holder]
    seconds: float


class Banned(Struct, frozen=True):
    """The holder, which belongs to ``owner``, is not handed out any more: several receivers have complained of it."""

    holder: Holder
    owner: Announcer


class Probe(Struct, frozen=True):
    """Try to reach the holder for this number of ``seconds``. ``Probed`` must follow."""

    plan: bytes
    holder: Holder
    seconds: float


Event = Announced | Probed | Complained | TimePassed
Action = Answer | Probe | Banned


class HolderState(enum.StrEnum):
    """The state of a holder. Only those that are reached are handed out."""

    WAITING = "waiting"  #: the broker has not tried to reach it yet, or tries again
    PROBED = "probed"  #: the broker tries to reach it
    REACHED = "reached"  #: the broker has reached it
    FAILED = "failed"  #: the broker could not reach it
    BANNED = "banned"  #: several receivers have received corrupt units from it


#: The allowed transitions, and the events that cause them.
TRANSITIONS: dict[tuple[HolderState, HolderState], tuple[type[Event], ...]] = {
    (HolderState.WAITING, HolderState.PROBED): (Announced, Probed, Complained, TimePassed),
    (HolderState.PROBED, HolderState.REACHED): (Probed,),
    (HolderState.PROBED, HolderState.FAILED): (Probed,),
    (HolderState.REACHED, HolderState.FAILED): (Probed,),
    # Both in one step, if it need not wait.
    (HolderState.FAILED, HolderState.WAITING): (Announced,),
    (HolderState.FAILED, HolderState.PROBED): (Announced,),
    # After the end of the ban.
    (HolderState.BANNED, HolderState.WAITING): (Announced,),
    (HolderState.BANNED, HolderState.PROBED): (Announced,),
    # An announcement, if the holder was banned in another plan.
    **{
        (state, HolderState.BANNED): (Complained, Announced) for state in HolderState if state is not HolderState.BANNED
    },
}


#: A plan and a holder.
_Place = tuple[bytes, Holder]


#: The states in which the broker may try to reach a holder.
TRIED = (HolderState.WAITING, HolderState.REACHED)


class _Record(Struct, eq=False):
    """What is known of a holder."""

    announcer: Announcer
    network: str
    expires_at: float
    state: HolderState = HolderState.WAITING
    #: Its index in the list of the plan, if it is reached.
    index: int = -1
    #: How often it failed, and when it may be tried again.
    failures: int = 0
    retry_at: float = 0.0
    #: The network from which a receiver says that it did not answer since it was probed, empty if none does.
    accuser: str = ""


class Tracker(Core[Event, Action]):
    """``choose`` returns a random number from 0 to below its argument."""

    def __init__(self, choose: Callable[[int], int]) -> None:
        super().__init__()
        self._choose = choose
        #: In the order of the last announcements.
        self._records: OrderedDict[_Place, _Record] = OrderedDict()
        #: The holders of each plan that are reached, in any order.
        self._reached: dict[bytes, list[_Place]] = {}
        #: The number of records of each plan, key and network.
        self._counts: Counter[tuple[str, object]] = Counter()
        #: The records that wait for the first attempt, and those that wait for another one: each queue in this order,
        #: and the first queue before the second one.
        self._untried: OrderedDict[_Place, None] = OrderedDict()
        self._retries: OrderedDict[_Place, None] = OrderedDict()
        #: The attempts in progress, each with the network, and their number for each network.
        self._probes: dict[_Place, str] = {}
        self._probes_of_network: Counter[str] = Counter()
        self._complaints = Complaints()
        #: The number of reports of each network in this period that a holder does not answer, and its end.
        self._silent_reports: Counter[str] = Counter()
        self._silent_period_end = 0.0
        self._interval = MIN_INTERVAL_S
        self._announces = 0
        self._rate = WindowedRate(RATE_WINDOW_S)

    @property
    def receivers(self) -> int:
        """The number of receivers that are known at present and pass on what they have."""
        return len(self._records)

    def next_deadline(self, now: float) -> float | None:  # noqa: ARG002
        first = next(iter(self._records.values()), None)
        return None if first is None else first.expires_at

    def _decide(self, event: Event, now: float) -> list[Action]:
        self._forget_expired(now)
        actions: list[Action] = []
        match event:
            case Announced(announce, announcer):
                actions.append(self._on_announced(announce, announcer, now))
            case Probed(plan, holder, is_reached):
                self._on_probed((plan, holder), now, is_reached=is_reached)
            case Complained(plan, holder, announcer):
                actions += self._on_complained((plan, holder), announcer, now)
        return [*actions, *self._start_probes()]

    def _assert_invariants(self) -> None:
        assert len(self._records) <= MAX_RECORDS
        counts: Counter[tuple[str, object]] = Counter()
        for place, record in self._records.items():
            counts.update(_bounded_by(place, record.announcer))
            is_reached = record.state is HolderState.REACHED
            assert (record.index >= 0) == is_reached, (place, record)
            assert not is_reached or self._reached[place[0]][record.index] == place, (place, record)
            is_waiting = place in self._untried or place in self._retries
            assert record.state is not HolderState.WAITING or is_waiting, (place, record)
            assert not is_waiting or record.state in TRIED, (place, record)
            assert record.state is not HolderState.PROBED or place in self._probes, (place, record)
        assert counts == self._counts
        for bound, count in counts.items():
            assert count <= _BOUNDS[bound[0]], bound
        reached = [place for places in self._reached.values() for place in places]
        assert {*reached} == {place for place, r in self._records.items() if r.state is HolderState.REACHED}
        assert len(reached) == len({*reached})
        assert all(self._reached.values())
        assert self._untried.keys() | self._retries.keys() <= self._records.keys()
        assert not self._untried.keys() & self._retries.keys()
        assert len(self._probes) <= MAX_PROBES
        assert Counter(self._probes.values()) == self._probes_of_network
        assert max(self._probes_of_network.values(), default=0) <= MAX_PROBES_OF_HOST
        assert len(self._silent_reports) <= MAX_NETWORKS
        assert max(self._silent_reports.values(), default=0) <= MAX_SILENT_REPORTS
        self._complaints.check_invariants()

    # Announcements.

    def _on_announced(self, announce: Announce, announcer: Announcer, now: float) -> Answer:
        self._announces += 1
        if self._rate.update(self._announces, now) is not None:
            # The number of receivers is the rate times the interval.
            interval = self._interval * self._rate.rate / MAX_ANNOUNCES
            self._interval = min(MAX_INTERVAL_S, max(MIN_INTERVAL_S, interval))
        own = _holder_of(announce, announcer)
        is_new = own is not None and (announce.plan, own) not in self._records
        if own is not None:
            self._update((announce.plan, own), announcer, now)
        for holder in announce.silent:
            self._accuse((announce.plan, holder), announcer, now)
        holders = self._sample(announce.plan, {own, *announce.silent})
        # A receiver that comes early is told of few holders, or of the same ones as many others that come with it.
        is_early = is_new or len(holders) < MAX_HOLDERS
        return Answer(holders, self._interval * (EARLY_SHARE if is_early else 1))

    def _update(self, place: _Place, announcer: Announcer, now: float) -> None:
        """Records that the holder is there, unless there are too many."""
        record = self._records.get(place)
        if record is None:
            bounds = _bounded_by(place, announcer)
            if len(self._records) >= MAX_RECORDS or any(self._counts[bound] >= _BOUNDS[bound[0]] for bound in bounds):
                return
            record = self._records[place] = _Record(announcer, announcer.network, now)
            self._counts.update(bounds)
            self._untried[place] = None
        if self._complaints.is_banned(_identity_of(place[1]), now):
            self._ban(place, record)
        elif record.state is HolderState.BANNED or (record.state is HolderState.FAILED and now >= record.retry_at):
            record.state = HolderState.WAITING
            self._retries[place] = None
        record.expires_at = now + INTERVALS_KEPT * self._interval
        self._records.move_to_end(place)

    def _sample(self, plan: bytes, left_out: Set[Holder | None]) -> list[Holder]:
        """Returns random holders of the plan that are reached. Moves them to the beginning of the list."""
        places = self._reached.get(plan, [])
        holders: list[Holder] = []
        for index in range(min(len(places), MAX_HOLDERS + len(left_out))):
            other = index + self._choose(len(places) - index)
            places[index], places[other] = places[other], places[index]
            self._records[places[other]].index = other
            self._records[places[index]].index = index
            if len(holders) < MAX_HOLDERS and places[index][1] not in left_out:
                holders.append(places[index][1])
        return holders

    def _forget_expired(self, now: float) -> None:
        while self._records and (record := self._records[place := next(iter(self._records))]).expires_at <= now:
            self._leave_reached(place, record)
            self._leave_queues(place)
            for bound in _bounded_by(place, record.announcer):
                self._counts[bound] -= 1
                if not self._counts[bound]:
                    del self._counts[bound]
            del self._records[place]

    # Who can be reached.

    def _start_probes(self) -> Iterator[Probe]:
        looked_at = [
            (queue, place) for queue in (self._untried, self._retries) for place in islice(queue, MAX_LOOKED_AT)
        ]
        for queue, place in looked_at:
            record = self._records[place]
            if len(self._probes) >= MAX_PROBES:
                return
            if place in self._probes or self._probes_of_network[record.network] >= MAX_PROBES_OF_HOST:
                queue.move_to_end(place)
                continue
            is_hurried = not record.failures and len(self._untried) + len(self._retries) > MAX_PROBES
            del queue[place]
            if record.state is HolderState.WAITING:
                record.state = HolderState.PROBED
            self._probes[place] = record.network
            self._probes_of_network[record.network] += 1
            # A holder that is handed out gets the full time.
            seconds = HURRIED_PROBE_S if is_hurried and record.state is HolderState.PROBED else PROBE_S
            yield Probe(*place, seconds)

    def _on_probed(self, place: _Place, now: float, *, is_reached: bool) -> None:
        network = self._probes.pop(place, None)
        if network is None:
            return
        self._probes_of_network[network] -= 1
        if not self._probes_of_network[network]:
            del self._probes_of_network[network]
        record = self._records.get(place)
        if record is None or record.state not in (HolderState.PROBED, HolderState.REACHED):
            return  # It was forgotten or banned meanwhile.
        if not is_reached:
            self._leave_reached(place, record)
            record.state = HolderState.FAILED
            self._postpone(record, now)
        elif record.state is HolderState.PROBED:
            places = self._reached.setdefault(place[0], [])
            record.state, record.index = HolderState.REACHED, len(places)
            places.append(place)

    def _accuse(self, place: _Place, announcer: Announcer, now: float) -> None:
        """Records that the holder did not answer the announcer. If receivers in two networks say so, the broker tries
        to reach it again. It decides itself, so receivers that accuse all others change nothing.
        """
        record, network = self._records.get(place), announcer.network
        if record is None or record.state is not HolderState.REACHED or now < record.retry_at:
            return
        if network == record.accuser or not self._counts_silent(network, now):
            return
        if not record.accuser:
            record.accuser = network
            return
        self._retries[place] = None
        self._postpone(record, now)

    def _counts_silent(self, network: str, now: float) -> bool:
        """True if a report of this network that a holder does not answer counts. Counts it."""
        if now >= self._silent_period_end:
            self._silent_reports.clear()
            self._silent_period_end = now + SILENT_PERIOD_S
        reports = self._silent_reports[network]
        if reports >= MAX_SILENT_REPORTS or (not reports and len(self._silent_reports) >= MAX_NETWORKS):
            return False
        self._silent_reports[network] += 1
        return True

    def _postpone(self, record: _Record, now: float) -> None:
        """Determines when the broker may try to reach the holder again."""
        record.accuser = ""
        record.retry_at = now + min(MAX_RETRY_S, MIN_RETRY_S * 2**record.failures)
        record.failures += 1

    def _on_complained(self, place: _Place, announcer: Announcer, now: float) -> Iterator[Banned]:
        record, holder = self._records.get(place), place[1]
        if record is None or record.state is HolderState.BANNED:
            return
        # All receivers on loopback have the same address there: a program may use any address of 127.0.0.0/8.
        address = Endpoint.parse(holder.endpoint).host
        if self._complaints.add(_identity_of(holder), address, announcer, now):
            self._ban(place, record)
            yield Banned(holder, record.announcer)

    def _ban(self, place: _Place, record: _Record) -> None:
        self._leave_reached(place, record)
        self._leave_queues(place)
        record.state = HolderState.BANNED

    def _leave_queues(self, place: _Place) -> None:
        self._untried.pop(place, None)
        self._retries.pop(place, None)

    def _leave_reached(self, place: _Place, record: _Record) -> None:
        """Takes a holder from the list of those that are handed out, if it is there."""
        if record.index < 0:
            return
        places = self._reached[place[0]]
        last = places.pop()
        if last != place:
            places[record.index] = last
            self._records[last].index = record.index
        if not places:
            del self._reached[place[0]]
        record.index = -1


def _holder_of(announce: Announce, announcer: Announcer) -> Holder | None:
    """Returns the holder as it is handed out. None if the receiver passes nothing on, or names another address than the
    one from which it announces.
    """
    if not announce.endpoint or bool(announcer.key) != bool(announce.key):
        return None
    try:
        endpoint = Endpoint.parse(announce.endpoint)
    except UsageError:
        return None
    host = announcer.host
    # The scope of a link-local address names an interface of the receiver's machine.
    if endpoint.host not in ANY_HOSTS and endpoint.host.partition("%")[0] != host.partition("%")[0]:
        return None
    seen = Endpoint(host, endpoint.port)
    # Receivers replace a wildcard by the address of server 5.
    return Holder(Endpoint("*", endpoint.port).url if seen.is_loopback else seen.url, announce.key)


def _bounded_by(place: _Place, announcer: Announcer) -> tuple[tuple[str, object], ...]:
    return ("plan", place[0]), ("key", announcer.key), ("network", announcer.network)


def _identity_of(holder: Holder) -> bytes | str:
    return holder.key or holder.endpoint
