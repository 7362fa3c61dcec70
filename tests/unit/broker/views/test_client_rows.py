"""The table of the clients: it fits, folds many clients, and says why one has no rate."""

from __future__ import annotations

from typing import Any

import pytest

from msd.broker.status.history import History
from msd.broker.views.client_rows import (
    FASTEST,
    ORDERS,
    client_details,
    clients_panel,
    downloads_table,
    receivers_line,
    recent_use,
)
from msd.broker.views.panel_text import Tone
from msd.wire.protocol.messages import DownloadStatus
from msd.wire.protocol.states import DownloadState
from msd.wire.support.units import format_time
from tests.unit.snapshots import report, snapshot

MIB, GIB = 1 << 20, 1 << 30
WIDTH = 80


def download(**values: Any) -> DownloadStatus:
    defaults: dict[str, Any] = {
        "number": 1,
        "client": "laptop",
        "host": "192.0.2.7",
        "state": DownloadState.DOWNLOADING,
        "selection": "film.mkv",
        "bytes": 3 * GIB,
        "total": 8 * GIB,
        "received": 3 * GIB,
        "files": 1,
        "rate": 38.2 * MIB,
        "seconds": 61.0,
        "workers": 4,
        "peers": 0,
        "peer_bytes": 0,
        "passes_on": False,
        "exit_code": 0,
        "silent_seconds": 1.0,
    }
    return DownloadStatus(**{**defaults, **values})


def cell(text: str, **values: Any) -> bool:
    """True if the line of a download with these values contains ``text``."""
    return text in downloads_table([download(**values)], WIDTH, 10)[1]


def test_a_line_says_who_downloads_what_how_far_and_from_how_many() -> None:
    assert downloads_table([download()], WIDTH, 10) == [
        "Client Downloads          Verified         Rate     For Workers",
        "laptop film.mkv    37 % of 8.0 GiB   38.2 MiB/s    1:02       4",
    ]


def test_peers_are_shown_if_there_are_any() -> None:
    first, second = download(peers=2, passes_on=True), download(client="attic")
    assert downloads_table([first, second], 120, 10) == [
        "Client Downloads          Verified         Rate     For Workers Peers Passes on",
        "laptop film.mkv    37 % of 8.0 GiB   38.2 MiB/s    1:02       4     2       yes",
        "attic  film.mkv    37 % of 8.0 GiB   38.2 MiB/s    1:02       4     0        no",
    ]


def test_instead_of_a_rate_it_says_why_there_is_none() -> None:
    assert cell("silent 0:12", silent_seconds=12.0)
    assert cell("finishing", state=DownloadState.FINISHING, silent_seconds=12.0)
    assert cell(" waiting ", rate=0.0)


@pytest.mark.parametrize(("verified", "total", "text"), [(9, 4, "100 %"), (999, 1000, "99 %")])
def test_only_a_complete_download_has_100_percent(verified: int, total: int, text: str) -> None:
    assert cell(text, bytes=verified, total=total)


def test_a_download_that_has_just_begun_does_not_know_its_size() -> None:
    """A listing has not arrived yet, so the client does not know what it wants; an empty file is complete."""
    assert cell("size not known", bytes=0, total=0)
    assert "size not known · since" in client_details(download(bytes=0, total=0), 1e6)[2]
    assert cell("100 % of 0 B", bytes=0, total=0, state=DownloadState.FINISHING)


def test_many_clients_are_folded_into_a_line() -> None:
    downloads = [download(number=n, client=f"c{n}", rate=1.0 * MIB) for n in range(300)]
    lines = downloads_table(downloads, WIDTH, 10)
    assert [line.split()[0] for line in lines[1:-1]] == [f"c{n}" for n in range(10)]
    assert lines[-1] == "290 other clients, together at 290 MiB/s"
    assert len(downloads_table(downloads[:11], WIDTH, 10)) == 12, "the last line would be no shorter"


def test_downloads_that_have_ended_are_not_shown() -> None:
    ended = [download(state=DownloadState.DONE), download(state=DownloadState.BROKEN)]
    assert downloads_table(ended, WIDTH, 10) == []
    assert len(downloads_table([download(), *ended], WIDTH, 10)) == 2


@pytest.mark.parametrize("width", [*range(30, 130), 200, 240])
def test_every_line_fits(width: int) -> None:
    largest = dict.fromkeys(("bytes", "total", "workers", "peers"), 2**63 - 1)
    longest = download(
        client="n" * 64, selection="\x1b" * 99, rate=9e18, seconds=1e9, passes_on=True, silent_seconds=1e9, **largest
    )
    lines = downloads_table([longest, *[download(peers=1)] * 20], width, 10)
    assert len(lines) == 12
    assert max(map(len, lines)) <= width
    assert "\x1b" not in "".join(lines)
    assert lines[1].startswith("nnnnnnn")


def keys(order: str = FASTEST, words: str = "", *downloads: DownloadStatus) -> list[object]:
    return [line.key for line in clients_panel(downloads, WIDTH, words, order).lines]


def test_the_console_sorts_clients_and_puts_ended_ones_last() -> None:
    fast = download(number=1, client="b", rate=9.0 * MIB, received=1, seconds=5.0)
    big = download(number=2, client="c", rate=1.0 * MIB, received=9, seconds=1.0)
    old = download(number=3, client="a", rate=2.0 * MIB, received=2, seconds=9.0)
    done = download(number=4, client="A", rate=99.0 * MIB, received=99, seconds=99.0, state=DownloadState.DONE)
    expected = {"fastest first": [1, 3, 2, 4], "most bytes first": [2, 3, 1, 4]}
    expected |= {"longest first": [3, 1, 2, 4], "by name": [3, 1, 2, 4]}
    assert {order: keys(order, "", fast, big, old, done) for order in ORDERS} == expected


def test_the_console_filters_clients_by_all_that_a_row_says() -> None:
    first, second = download(number=1), download(number=2, client="attic", selection="photos/", host="192.0.2.9")
    for words in ("attic", "PHOTOS", "192.0.2.9"):
        assert keys(FASTEST, words, first, second) == [2]


def test_the_console_says_why_it_shows_no_client() -> None:
    assert "no client downloads at present" in clients_panel([], WIDTH).lines[0].text
    assert "2 clients served, but none says" in clients_panel([], WIDTH, served=2).lines[0].text
    assert "no client matches" in clients_panel([download()], WIDTH, "x").lines[0].text


def test_the_title_of_the_console_counts_the_clients_that_pass_on() -> None:
    texts = [clients_panel([download()], WIDTH, receivers=number).titles[0] for number in (0, 1, 2)]
    assert texts == [
        "Clients: 1 download, fastest first",
        "Clients: 1 download, 1 passes on, fastest first",
        "Clients: 1 download, 2 pass on, fastest first",
    ]


def test_the_end_of_a_download_is_a_word_and_not_only_a_colour() -> None:
    done, broken = download(state=DownloadState.DONE), download(state=DownloadState.BROKEN)
    text = clients_panel([done, broken], WIDTH)
    assert [line.text.split()[-3] for line in text.lines] == ["done", "broken"]
    assert [line.tone for line in text.lines] == [Tone.MUTED, Tone.BAD]
    assert text.titles[-1] == "Clients: 0 downloads"


def test_the_details_say_everything_about_a_download() -> None:
    text = " ".join(client_details(download(peers=2, peer_bytes=GIB, passes_on=True, silent_seconds=2.0), 1000.0))
    for part in (
        "Client laptop at 192.0.2.7: 38.2 MiB/s",
        "downloads film.mkv (1 file)",
        "37 % of 8.0 GiB verified (3,221,225,472 bytes)",
        f"since {format_time(937.0)}, for 1:03",
        "from 4 workers and 2 peers",
        "3.0 GiB received, 1.0 GiB of them from peers",
        "passes on what it has to other clients",
    ):
        assert part in text


def test_the_time_of_a_download_that_has_ended_stands_still() -> None:
    ended = download(state=DownloadState.DONE, seconds=9.9, silent_seconds=25.1, peers=1, passes_on=True)
    row = clients_panel([download(number=2, passes_on=True), ended], 120).lines[-1].text
    assert row.split()[-4:] == ["0:10", "4", "1", "-"], "whether it still passes on is not known"
    text = " ".join(client_details(ended, 1000.0))
    assert f"from {format_time(965.0)} to {format_time(974.9)}, for 0:10" in text
    assert "passed on what it had to other clients" in text


def test_running_downloads_count_before_clients_that_were_connected() -> None:
    """Downloads that have ended are in the report for 30 s; the clients of a snapshot include refused attempts."""

    def use(clients: int, *downloads: DownloadStatus) -> str:
        history = History()
        history.on_report(report(snapshot(clients=clients), downloads=[*downloads]), 0.0)
        return recent_use(history)

    ended = download(number=2, state=DownloadState.DONE)
    assert use(2, download(), ended) == "1 download is running."
    assert use(0, ended) == "1 client was connected in the last 30 s."
    assert use(2, ended) == "2 clients were connected in the last 30 s."
    assert use(0) == recent_use(History()) == ""


def test_the_number_of_receivers_and_how_far_they_are_is_one_line() -> None:
    downloads = [
        download(passes_on=True, bytes=size, total=100, state=state)
        for size, state in ((20, DownloadState.DOWNLOADING), (60, DownloadState.FINISHING), (100, DownloadState.DONE))
    ]
    assert receivers_line([*downloads, download()], 0) == ""
    line = receivers_line([*downloads, download()], 1200)
    assert line == "1,200 receivers pass on: 2 still downloading, 40 % verified on average (20 to 60 %)"
    assert receivers_line([download()], 1) == "1 receiver passes on a complete download"
    assert receivers_line([download(passes_on=True, total=0)], 3).endswith("100 % verified on average (100 to 100 %)")
