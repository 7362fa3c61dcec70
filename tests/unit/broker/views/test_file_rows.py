"""The files that clients have asked for: who reads them, how often they were requested, and their order."""

from __future__ import annotations

import pytest

from msd.broker.views.file_rows import ORDERS, RequestedFile, file_details, files_panel, requested_files
from msd.broker.views.panel_text import Tone
from msd.wire.protocol.messages import RequestedSelection
from msd.wire.protocol.states import DownloadState
from tests.unit.broker.views.test_client_rows import MIB, download

FILES = [
    RequestedFile("film.mkv", readers=2, requests=3, received=5 * MIB, rate=2.0 * MIB),
    RequestedFile("photos/", readers=1, requests=9, received=4 * MIB),
    RequestedFile("old.tar", readers=0, requests=1, received=7 * MIB),
]


def names(order: str, words: str = "") -> list[object]:
    return [line.key for line in files_panel(FILES, 80, words, order).lines]


def test_a_file_joins_the_counts_of_the_broker_with_running_downloads() -> None:
    downloads = [download(), download(number=2, rate=1.0 * MIB), download(number=3, state=DownloadState.DONE)]
    counted = RequestedSelection("film.mkv", 40, 9 * MIB)
    (file,) = requested_files([counted], downloads)
    assert file == RequestedFile("film.mkv", 2, 40, 9 * MIB, 39.2 * MIB)


def test_a_file_that_the_broker_no_longer_counts_has_its_readers() -> None:
    (file,) = requested_files([], [download(received=7)])
    assert (file.readers, file.requests, file.received) == (1, 1, 7)


def test_a_file_without_readers_is_kept() -> None:
    assert requested_files([RequestedSelection("film.mkv", 1, 5)], []) == [RequestedFile("film.mkv", 0, 1, 5)]


def test_files_are_sorted() -> None:
    assert {order: names(order) for order in ORDERS} == {
        "most readers first": ["film.mkv", "photos/", "old.tar"],
        "most bytes first": ["old.tar", "film.mkv", "photos/"],
        "most requests first": ["photos/", "film.mkv", "old.tar"],
    }


def test_a_row_has_whole_words_and_figures() -> None:
    text = files_panel(FILES, 80)
    assert text.heading.split() == ["File", "Readers", "Requests", "Received", "Rate"]
    assert text.lines[0].text.split() == ["film.mkv", "2", "3", "5.0", "MiB", "2.0", "MiB/s"]
    assert [line.tone for line in text.lines] == [Tone.NORMAL, Tone.NORMAL, Tone.MUTED]


@pytest.mark.parametrize("width", [*range(20, 60), 120])
def test_every_line_fits(width: int) -> None:
    text = files_panel([RequestedFile("\x1b" * 99, 2**40, 2**40, 2**63 - 1, 9e18), *FILES], width)
    assert max(len(line.text) for line in text.lines) <= width
    assert len(text.heading) <= width


def test_without_rows_it_says_why() -> None:
    assert "no client has asked for any of 3 files yet" in files_panel([], 80, shared=3).lines[0].text
    assert "no file matches" in files_panel(FILES, 80, "nothing").lines[0].text


def test_the_details_name_the_readers() -> None:
    downloads = [download(client="anna"), download(client="ben"), download(selection="other")]
    details = " ".join(file_details(requested_files([], downloads)[0], downloads))
    assert "2 clients at 76.4 MiB/s: anna, ben" in details
    assert "not read now" in " ".join(file_details(FILES[2], []))
