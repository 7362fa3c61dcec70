"""The downloads of the clients: whose they are, when they end, and their bounds under hostile messages."""

from __future__ import annotations

import random
import time
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from msd.broker.status import downloads as module
from msd.broker.status.downloads import (
    CHECK_INTERVAL_S,
    ENDED_KEPT_S,
    EXPIRY_S,
    LISTS_S,
    MAX_DOWNLOADS,
    MAX_NAME_BYTES,
    MAX_SELECTION_BYTES,
    SILENT_S,
    DownloadEnded,
    Downloads,
    DownloadTotals,
    ProgressReceived,
)
from msd.broker.status.event_log import MAX_TOTAL_RATES
from msd.broker.status.requested_selections import MAX_SELECTIONS
from msd.wire.protocol.codec import MAX_HEADER, decode, encode
from msd.wire.protocol.messages import (
    ControlReply,
    DownloadProgress,
    DownloadStatus,
    RequestedSelection,
    StatusReport,
)
from msd.wire.protocol.states import DownloadState
from msd.wire.support.core import Stalled, TimePassed
from tests.unit.snapshots import report, snapshot

START = 1000.0
DOWNLOADING, FINISHING, DONE, BROKEN = DownloadState
EXPIRY = EXPIRY_S[DOWNLOADING]
MIB = 1 << 20


def progress(session: int = 1, state: DownloadState = DOWNLOADING, **values: Any) -> DownloadProgress:
    settings: dict[str, Any] = {"selection": "film.mkv", "bytes": MIB, "total": 8 * MIB, "received": MIB}
    return DownloadProgress(session=session, state=state, **{**settings, **values})


def received(message: DownloadProgress, sender: object = b"a", key_name: str = "", host: str = "192.0.2.7") -> Any:
    return ProgressReceived(message, sender, key_name, host)


class Broker:
    """Passes events to ``Downloads`` and checks its invariants after each."""

    def __init__(self) -> None:
        self.downloads = Downloads()
        self.now = START

    def handle(self, event: Any, seconds: float = 0.0) -> list[DownloadEnded]:
        self.now += seconds
        actions = self.downloads.handle(event, self.now)
        self.downloads.check_invariants()
        return actions

    @property
    def statuses(self) -> list[DownloadStatus]:
        return self.downloads.statuses(self.now)


def test_a_download_is_listed_as_its_client_reports_it() -> None:
    broker = Broker()
    assert broker.handle(received(progress(rate=2.5, workers=3, peers=2, peer_bytes=9, files=4, passes_on=True))) == []
    broker.now += 1.5
    (status,) = broker.statuses
    assert status == DownloadStatus(
        number=1,
        client="192.0.2.7",
        host="192.0.2.7",
        state=DOWNLOADING,
        selection="film.mkv",
        bytes=MIB,
        total=8 * MIB,
        received=MIB,
        files=4,
        rate=2.5,
        seconds=0.0,
        workers=3,
        peers=2,
        peer_bytes=9,
        passes_on=True,
        exit_code=0,
        silent_seconds=1.5,
    )


def test_a_client_has_the_name_of_its_key_else_its_own_else_its_address() -> None:
    broker = Broker()
    broker.handle(received(progress(1, name="eve@pc"), b"a", "laptop"))
    broker.handle(received(progress(2, name="eve@pc"), "192.0.2.7"))
    broker.handle(received(progress(3), "192.0.2.7"))
    assert [status.client for status in broker.statuses] == ["laptop", "eve@pc", "192.0.2.7"]


def test_running_downloads_of_clients_with_the_same_name_are_numbered() -> None:
    """Clients that use the same link have the same key. A name does not change while the download runs."""
    broker = Broker()
    for session in (1, 2, 3):
        broker.handle(received(progress(session), b"a", "invite-1"))
    broker.handle(received(progress(4), b"b", "n" * MAX_NAME_BYTES))
    broker.handle(received(progress(5), b"b", "n" * MAX_NAME_BYTES))
    broker.handle(received(progress(2, DONE), b"a", "invite-1"))
    broker.handle(received(progress(6), b"a", "invite-1"))
    assert {status.number: status.client for status in broker.statuses} == {
        1: "invite-1",
        2: "invite-1#2",
        3: "invite-1#3",
        4: "n" * MAX_NAME_BYTES,
        5: "n" * (MAX_NAME_BYTES - 2) + "#2",
        6: "invite-1#2",
    }
    assert broker.downloads.names[3] == "invite-1#3"
    assert broker.downloads.client_of(b"a") == "invite-1", "a complaint names the key"


def test_a_client_is_found_by_its_session_and_by_its_key_or_address() -> None:
    broker = Broker()
    broker.handle(received(progress(1), b"a", "laptop"))
    broker.handle(received(progress(2, name="eve@pc"), "192.0.2.7"))
    assert broker.downloads.names == {1: "laptop", 2: "eve@pc"}
    assert [broker.downloads.client_of(sender) for sender in (b"a", "192.0.2.7", b"b")] == ["laptop", "eve@pc", ""]
    broker.handle(received(progress(3, name="bob@pc"), "192.0.2.7"))
    assert broker.downloads.client_of("192.0.2.7") == "", "one of two"
    broker.downloads.check_invariants()


def test_a_client_cannot_report_for_the_download_of_another_client() -> None:
    broker = Broker()
    broker.handle(received(progress(bytes=5), b"a", "laptop"))
    broker.handle(received(progress(state=BROKEN, bytes=0), b"b", "other"))
    assert [(s.client, s.state, s.bytes) for s in broker.statuses] == [("laptop", DOWNLOADING, 5), ("other", BROKEN, 0)]


def test_a_download_ends_once_and_later_messages_do_not_count() -> None:
    broker = Broker()
    broker.handle(received(progress()))
    (ended,) = broker.handle(received(progress(state=DONE, bytes=8 * MIB, received=8 * MIB)))
    assert (ended.download.state, ended.download.bytes, ended.is_silent) == (DONE, 8 * MIB, False)
    assert not broker.handle(received(progress(state=BROKEN)))
    assert not broker.handle(received(progress()))
    assert [status.state for status in broker.statuses] == [DONE]
    states = {DOWNLOADING: 0, FINISHING: 0}
    assert broker.downloads.totals == DownloadTotals(1, 0, 8 * MIB, 0, states)
    assert not broker.handle(TimePassed(), ENDED_KEPT_S)
    assert not broker.statuses


def test_a_short_download_sends_only_its_last_message() -> None:
    broker = Broker()
    (ended,) = broker.handle(received(progress(state=BROKEN, exit_code=6)))
    assert (ended.download.state, ended.download.exit_code) == (BROKEN, 6)
    assert broker.downloads.totals.broken == 1


def test_a_silent_download_is_broken_and_may_return() -> None:
    broker = Broker()
    broker.handle(received(progress()))
    assert broker.handle(TimePassed(), EXPIRY - 0.1) == []
    (ended,) = broker.handle(TimePassed(), CHECK_INTERVAL_S)
    assert (ended.download.state, ended.is_silent, broker.statuses) == (BROKEN, True, [])
    broker.handle(received(progress()))
    assert [status.state for status in broker.statuses] == [DOWNLOADING]


def test_a_download_that_syncs_its_disk_may_be_silent_for_longer() -> None:
    broker = Broker()
    broker.handle(received(progress(state=FINISHING)))
    assert broker.handle(TimePassed(), EXPIRY_S[FINISHING] - 1) == []
    assert len(broker.handle(TimePassed(), 1 + CHECK_INTERVAL_S)) == 1


def test_a_stall_of_the_broker_is_not_the_silence_of_its_clients() -> None:
    broker = Broker()
    broker.handle(received(progress()))
    broker.handle(Stalled(500.0), 500.0)
    assert broker.handle(TimePassed()) == []


def test_the_broker_wakes_up_for_silent_downloads_only_if_there_are_downloads() -> None:
    broker = Broker()
    broker.handle(TimePassed())
    assert broker.downloads.next_deadline(broker.now) is None
    broker.handle(received(progress()))
    assert broker.downloads.next_deadline(broker.now) == START + CHECK_INTERVAL_S


def test_the_fastest_download_is_first_and_the_ended_ones_are_last() -> None:
    broker = Broker()
    for session, state, rate in ((1, DONE, 9.0), (2, DOWNLOADING, 1.0), (3, DOWNLOADING, 4.0), (4, FINISHING, 0.0)):
        broker.handle(received(progress(session, state, rate=rate)))
    assert [status.number for status in broker.statuses] == [3, 2, 4, 1]


def test_the_last_rate_of_a_silent_client_is_stale() -> None:
    broker = Broker()
    broker.handle(received(progress(1, rate=9.0)))
    broker.handle(received(progress(2, DONE, rate=9.0)))
    broker.now += SILENT_S
    broker.handle(received(progress(3, rate=1.0)))
    assert [(status.number, status.rate) for status in broker.statuses] == [(3, 1.0), (1, 0.0), (2, 9.0)]


def rates_of(*messages: tuple[float, float, float]) -> list[float]:
    """The rates in MiB/s after messages with these seconds, MiB received and MiB/s."""
    broker, found = Broker(), []
    for seconds, mib, rate in messages:
        broker.handle(received(progress(seconds=seconds, received=int(mib * MIB), rate=rate * MIB)), 2.0)
        found.append(round(broker.statuses[0].rate / MIB, 2))
    return found


def test_a_rate_is_the_mean_of_some_seconds_and_does_not_jump() -> None:
    jumping = [(2.0 * n, 2.0 * n + (0.5 if n % 2 else 0.0), 1.5 if n % 2 else 0.5) for n in range(1, 9)]
    found = rates_of(*jumping)
    assert found[2:] == [1.08, 0.92, 1.08, 0.92, 1.08, 0.92], "the client reports 1.5 and 0.5 MiB/s"


def test_the_burst_at_the_start_of_a_download_is_no_high_rate() -> None:
    assert rates_of((0.1, 3.0, 30.0), (2.1, 5.1, 1.0)) == [1.5, 2.43]


def test_a_rate_is_that_of_the_client_if_the_broker_knows_too_little() -> None:
    assert rates_of((0.0, 3.0, 7.0), (0.0, 5.0, 8.0)) == [7.0, 8.0], "a client that reports no time"
    assert rates_of((900.0, 3000.0, 7.0), (902.0, 3012.0, 9.0)) == [7.0, 6.0], "a broker that was restarted"
    assert rates_of((2.0, 8.0, 4.0), (4.0, 0.0, 5.0)) == [4.0, 5.0], "a client that begins to count again"


def test_a_download_that_has_ended_has_the_mean_rate_that_its_client_reports() -> None:
    broker = Broker()
    broker.handle(received(progress(seconds=2.0, received=MIB)))
    broker.handle(received(progress(state=DONE, seconds=4.0, received=8 * MIB, rate=2.0 * MIB)))
    assert broker.statuses[0].rate == 2.0 * MIB


def test_a_stall_of_the_broker_changes_no_rate() -> None:
    """Messages that have arrived during the stall are read all at once."""
    broker = Broker()
    for number in range(1, 9):
        broker.handle(received(progress(seconds=2.0 * number, received=number * MIB)), 16.0 if number == 2 else 0.0)
        assert broker.statuses[0].rate == MIB / 2


def test_a_client_with_very_many_downloads_displaces_only_its_own() -> None:
    """10⁵ messages, each of another session, from one client."""
    broker = Broker()
    broker.handle(received(progress(1), b"honest", "honest"))
    began = time.process_time()
    for session in range(100_000):
        broker.downloads.handle(received(progress(session + 1), b"hostile", "hostile"), broker.now)
    seconds = time.process_time() - began
    broker.downloads.check_invariants()
    clients = [status.client for status in broker.statuses]
    assert (len(clients), clients.count("honest")) == (MAX_DOWNLOADS, 1)
    assert seconds < 10, "1.5 s expected"


def test_many_clients_displace_the_one_of_which_nothing_was_heard_for_longest() -> None:
    broker = Broker()
    for sender in range(MAX_DOWNLOADS):
        broker.handle(received(progress(), sender, str(sender)), 0.001)
    broker.downloads.handle(received(progress(), 0, "0"), broker.now + 1)
    broker.handle(received(progress(), "new", "new"), 2)
    clients = {status.client for status in broker.statuses}
    assert len(clients) == MAX_DOWNLOADS
    assert "0" in clients
    assert "1" not in clients


def test_what_clients_ask_for_is_counted_beyond_the_end_of_their_downloads() -> None:
    broker = Broker()
    broker.handle(received(progress(1, received=MIB)))
    broker.handle(received(progress(1, received=3 * MIB)))
    broker.handle(received(progress(1, received=2 * MIB)))
    broker.handle(received(progress(2, DONE, received=MIB)))
    broker.handle(received(progress(2, DONE, received=9 * MIB)))
    broker.handle(received(progress(3, selection="photos/", received=0)))
    broker.handle(TimePassed(), EXPIRY + ENDED_KEPT_S + CHECK_INTERVAL_S)
    broker.handle(TimePassed(), EXPIRY + ENDED_KEPT_S + CHECK_INTERVAL_S)
    assert broker.statuses == []
    film, photos = RequestedSelection("film.mkv", 2, 4 * MIB), RequestedSelection("photos/", 1, 0)
    assert broker.downloads.lists(broker.now) == ([], [photos, film])


def test_operators_share_lists_that_are_at_most_half_a_second_old() -> None:
    broker = Broker()
    assert broker.downloads.lists(broker.now) == ([], [])
    broker.handle(received(progress()))
    first = broker.downloads.lists(broker.now)
    assert first == (broker.statuses, [RequestedSelection("film.mkv", 1, MIB)]), "a new download is listed at once"
    broker.handle(received(progress(received=2 * MIB)))
    assert broker.downloads.lists(broker.now + LISTS_S / 2) == first
    later = broker.now + LISTS_S
    assert broker.downloads.lists(later) == (
        broker.downloads.statuses(later),
        [RequestedSelection("film.mkv", 1, 2 * MIB)],
    )


def test_a_report_of_the_largest_downloads_fits_into_a_message() -> None:
    broker = Broker()
    largest = 2**63 - 1
    values: dict[str, Any] = dict.fromkeys(
        ("bytes", "total", "received", "files", "workers", "peers", "peer_bytes"), largest
    )
    for session in range(MAX_DOWNLOADS):
        largest_progress = progress(session + 1, selection="語" * 256, name="é" * 64, exit_code=255, **values)
        event = received(largest_progress, "ffff:" * 7 + "ffff", host="ffff:" * 7 + "ffff")
        broker.downloads.handle(event, broker.now)
    broker.downloads.check_invariants()
    selections = [RequestedSelection("語" * (MAX_SELECTION_BYTES // 3), largest, largest)] * MAX_SELECTIONS
    total_rates = [9e18] * MAX_TOTAL_RATES
    message = report(snapshot(), downloads=broker.statuses, requested=selections, total_rates=total_rates)
    frame = encode(message)
    assert len(frame) < MAX_HEADER * 3 // 4, "a snapshot of 64 workers and their rates must fit, too"
    decoded = decode(frame, ControlReply)
    assert isinstance(decoded, StatusReport)
    assert decoded.downloads == broker.statuses
    assert len(decoded.downloads[0].selection.encode()) in range(MAX_SELECTION_BYTES - 3, MAX_SELECTION_BYTES + 1)
    assert len(decoded.downloads[0].client.encode()) == MAX_NAME_BYTES


class AnyMessages(RuleBasedStateMachine):
    """Clients with few sessions send any messages; the broker stalls, and time passes. There is room for six."""

    @initialize()
    def start(self) -> None:
        self.broker = Broker()
        self.ended = 0
        self.received = 0
        module.MAX_DOWNLOADS = 6

    def teardown(self) -> None:
        module.MAX_DOWNLOADS = MAX_DOWNLOADS

    @rule(
        sender=st.sampled_from("abc"),
        session=st.integers(1, 5),
        state=st.sampled_from(DownloadState),
        received_bytes=st.integers(0, 2**63 - 1),
        text=st.text(max_size=64),
    )
    def send(self, sender: str, session: int, state: DownloadState, received_bytes: int, text: str) -> None:
        before = {s.number: s.state for s in self.broker.statuses}
        message = progress(session, state, received=received_bytes, selection=text * 4, name=text)
        ended = self.broker.handle(received(message, sender, sender))
        self.ended += len(ended)
        for action in ended:
            assert (action.download.client[0], action.download.state, action.is_silent) == (sender, state, False)
            assert before.get(action.download.number) not in (DONE, BROKEN)
        for status in self.broker.statuses:
            if status.client[0] != sender and status.number in before:
                assert status.state is before[status.number]

    @rule(seconds=st.sampled_from([0.1, 2.0, EXPIRY, ENDED_KEPT_S, EXPIRY_S[FINISHING]]))
    def pass_time(self, seconds: float) -> None:
        ended = self.broker.handle(TimePassed(), seconds)
        self.ended += len(ended)
        assert all(action.is_silent and action.download.state is BROKEN for action in ended)

    @rule(seconds=st.floats(0.1, 100.0))
    def stall(self, seconds: float) -> None:
        self.broker.handle(Stalled(seconds), seconds)

    @invariant()
    def totals_agree(self) -> None:
        totals = self.broker.downloads.totals
        assert totals.done + totals.broken == self.ended
        assert totals.received_bytes >= self.received
        self.received = totals.received_bytes
        states = [status.state for status in self.broker.statuses]
        assert totals.states == {state: states.count(state) for state in (DOWNLOADING, FINISHING)}
        assert len(states) <= 6


TestAnyMessages = AnyMessages.TestCase
TestAnyMessages.settings = settings(max_examples=60, stateful_step_count=30)


def test_random_order_of_many_clients_keeps_the_bound() -> None:
    random_numbers = random.Random(0)
    broker = Broker()
    for _ in range(8_000):
        sender, session = random_numbers.randrange(3000), random_numbers.randrange(1, 4)
        broker.downloads.handle(received(progress(session), sender, str(sender)), broker.now)
        broker.now += 0.001
    broker.downloads.check_invariants()
    assert len(broker.statuses) == MAX_DOWNLOADS
