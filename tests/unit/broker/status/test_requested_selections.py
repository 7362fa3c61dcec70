"""The selections that clients have asked for: counted, and bounded."""

from __future__ import annotations

from msd.broker.status.requested_selections import MAX_SELECTIONS, RequestedSelections
from msd.wire.protocol.messages import RequestedSelection


def test_downloads_and_bytes_of_a_selection_are_counted() -> None:
    selections = RequestedSelections()
    for selection, size in (("film.mkv", 5), ("photos/", 0), ("film.mkv", 2)):
        selections.on_download(selection)
        selections.on_received(selection, size)
    assert selections.latest() == [RequestedSelection("film.mkv", 2, 7), RequestedSelection("photos/", 1, 0)]


def test_the_selection_requested_longest_ago_is_forgotten() -> None:
    selections = RequestedSelections()
    for number in range(MAX_SELECTIONS):
        selections.on_download(str(number))
    selections.on_download("0")
    selections.on_download("new")
    names = [each.selection for each in selections.latest()]
    assert len(names) == MAX_SELECTIONS
    assert names[:2] == ["new", "0"]
    assert "1" not in names
    selections.on_received("1", 5)
    assert len(selections.latest()) == MAX_SELECTIONS, "bytes of a forgotten selection do not bring it back"


def test_a_sum_that_hostile_clients_invent_fits_into_a_message() -> None:
    selections = RequestedSelections()
    selections.on_download("film.mkv")
    for _ in range(3):
        selections.on_received("film.mkv", 2**63 - 1)
    assert selections.latest()[0].received == 2**63 - 1
