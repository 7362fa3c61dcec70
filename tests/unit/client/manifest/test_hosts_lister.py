"""Which version of each file is chosen if the hosts share different files. One catalogue: test_lister.py."""

from __future__ import annotations

from msgspec.structs import replace

from msd.client.manifest.hosts_lister import HostsLister
from msd.client.manifest.lister import PUBLISHED_TIMEOUT_S, Action, Completed, Event, Listed, Request
from msd.client.network_events import ConnectionClosed, ReplyReceived, SnapshotReceived
from msd.wire.protocol.messages import Entry, Refusal
from msd.wire.protocol.states import RefusalReason, WorkerState
from msd.wire.support.core import TimePassed
from tests.connections import opened
from tests.listings import entry, page_of
from tests.unit.snapshots import snapshot


def version(name: str, text: bytes) -> Entry:
    return replace(entry(name), id=text * 32)


class Hosts:
    """Workers on other hosts, each with the entries that it shares, and a client that lists what ``names`` select."""

    def __init__(self, *shared: list[Entry], published: bytes = b"", names: tuple[str, ...] = ("d/",)) -> None:
        self.shared = dict(enumerate(shared, 1))
        #: Workers with the same entries have the same catalogue.
        self.catalogues = {number: bytes([shared.index(files) + 1]) * 32 for number, files in self.shared.items()}
        self.lister = HostsLister(names, (), ())
        self.now = 100.0
        status = snapshot(*[WorkerState.AWAKE] * len(shared), catalogue=published)
        workers = [replace(w, host="192.0.2.1", catalogue=self.catalogues[w.number]) for w in status.workers]
        self.snapshot = SnapshotReceived(replace(status, workers=workers))

    def feed(self, event: Event) -> list[Action]:
        return self.lister.handle(event, self.now)

    def run(self, lost: int | None = None) -> None:
        """Connects all workers, but not ``lost``, and answers all requests until the listing is complete."""
        actions = self.feed(self.snapshot)
        for number, catalogue in self.catalogues.items():
            actions += self.feed(ConnectionClosed(number) if number == lost else opened(number, catalogue=catalogue))
        while Completed() not in actions:
            request = next((action for action in actions if isinstance(action, Request)), None)
            if request is None:
                deadline = self.lister.next_deadline(self.now)
                assert deadline is not None
                self.now = max(self.now, deadline)
                actions = self.feed(TimePassed())
                continue
            worker = request.worker
            page = page_of(self.shared[worker], request.message, limit=1, catalogue=self.catalogues[worker])
            actions = self.feed(ReplyReceived(worker, request.message, page, None))

    @property
    def chosen(self) -> list[Entry]:
        plan = self.lister.plan
        return [plan.entry(number) for number in range(len(plan))]


A, B, C = entry("d/a"), entry("d/b"), entry("d/c")
OLD, NEW = version("d/a", b"o"), version("d/a", b"n")


def test_one_catalogue_is_passed_on_page_by_page() -> None:
    hosts = Hosts([A, B], [A, B])
    hosts.feed(hosts.snapshot)
    hosts.feed(opened(1, catalogue=hosts.catalogues[1]))
    (request,) = hosts.feed(opened(2, catalogue=hosts.catalogues[2]))
    assert isinstance(request, Request)
    page = page_of([A, B], request.message, limit=1, catalogue=hosts.catalogues[1])
    listed, following = hosts.feed(ReplyReceived(1, request.message, page, None))
    assert (type(listed), type(following)) == (Listed, Request)
    assert hosts.chosen == [A]
    assert hosts.lister.catalogue == hosts.catalogues[1]
    assert hosts.lister.warning == "", "both workers agree"


def test_one_worker_alone_is_no_agreement() -> None:
    hosts = Hosts([A, B])
    hosts.run()
    assert hosts.lister.warning.startswith("server 5 vouches for no version of these files: 1 of 1 workers has")


def test_files_about_which_all_hosts_agree_that_have_them_need_no_warning() -> None:
    """The hosts share different files, so there are several catalogues."""
    hosts = Hosts([A, B], [A, B, C], [C])
    hosts.run()
    assert hosts.chosen == [A, B, C]
    assert hosts.lister.warning == ""


def test_without_a_word_of_server_5_most_workers_decide_for_each_name() -> None:
    hosts = Hosts([OLD, B], [NEW], [NEW, C])
    hosts.run()
    assert hosts.chosen == [NEW, B, C]
    assert hosts.lister.catalogue == b""
    warning = "server 5 vouches for no version of 3 of these files: the version of each that most of 3 workers have"
    assert hosts.lister.warning.startswith(warning)


def test_server_5_decides_for_the_names_in_its_catalogue_and_the_workers_for_the_others() -> None:
    hosts = Hosts([OLD], [NEW, B], [NEW, B, entry("d/a/x")], published=bytes([1]) * 32)
    hosts.run()
    assert hosts.chosen == [OLD, B]
    assert " of 1 of these files: " in hosts.lister.warning


def test_nothing_is_said_if_server_5_vouches_for_all_names() -> None:
    hosts = Hosts([NEW, B], [OLD], published=bytes([1]) * 32)
    hosts.run()
    assert hosts.chosen == [NEW, B]
    assert hosts.lister.warning == ""


def test_a_file_in_the_place_of_a_folder_of_server_5_is_left_out() -> None:
    hosts = Hosts([entry("d/a/"), entry("d/a/x")], [entry("d/a"), B], published=bytes([1]) * 32)
    hosts.run()
    assert [found.name for found in hosts.chosen] == ["d/a/", "d/a/x", "d/b"]


def test_a_name_is_missing_if_no_host_has_it() -> None:
    hosts = Hosts([A], [entry("e/x")], names=("d/", "e/", "f"))
    hosts.run()
    assert [found.name for found in hosts.chosen] == ["d/a", "e/x"]
    assert [error.name for error in hosts.lister.not_found()] == ["f"]


def test_a_host_to_which_the_client_cannot_connect_does_not_hold_up_the_others_for_long() -> None:
    hosts = Hosts([A], [B], [C])
    began = hosts.now
    hosts.run(lost=2)
    assert hosts.chosen == [A, C]
    assert hosts.now - began == PUBLISHED_TIMEOUT_S


def test_a_host_that_has_another_catalogue_by_then_is_left_out() -> None:
    hosts = Hosts([A], [B])
    actions = [hosts.feed(hosts.snapshot)]
    actions += [hosts.feed(opened(number, catalogue=catalogue)) for number, catalogue in hosts.catalogues.items()]
    (request,) = (action for action in actions[-1] if isinstance(action, Request))
    page = page_of([A], request.message, catalogue=hosts.catalogues[1])
    (other,) = (
        action for action in hosts.feed(ReplyReceived(1, request.message, page, None)) if isinstance(action, Request)
    )
    assert (other.worker, other.message.catalogue) == (2, hosts.catalogues[2])
    refusal = Refusal(rid=1, epoch=7, reason=RefusalReason.UNKNOWN)
    assert hosts.feed(ReplyReceived(2, other.message, refusal, None))[-1] == Completed()
    assert hosts.chosen == [A]
