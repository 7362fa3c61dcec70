"""The panels fill the screen without gaps, whatever its size, and the focused one is always there."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import pytest

from msd.broker.views.panel_layout import Panel, Place, Screen, Wish, arrange

ROWS = (Panel.WORKERS, Panel.CLIENTS, Panel.FILES, Panel.EVENTS)


def wishes(workers: int = 4, clients: int = 300, command: int = 1) -> Mapping[Panel, Wish]:
    return {
        Panel.WORKERS: Wish(2, workers + 1),
        Panel.CLIENTS: Wish(2, clients + 1),
        Panel.FILES: Wish(2, 9),
        Panel.RATE: Wish(2, 12),
        Panel.EVENTS: Wish(1, 30),
        Panel.COMMAND: Wish(command, command),
        Panel.DETAILS: Wish(4, 4),
    }


def covered(places: Mapping[Panel, Place]) -> set[tuple[int, int]]:
    """The lines and columns of the panels; fails if two panels overlap."""
    cells = [(x, y) for p in places.values() for x in range(p.x, p.x + p.width) for y in range(p.y, p.y + p.height)]
    assert len(cells) == len(set(cells))
    return set(cells)


@pytest.mark.parametrize("size", [(80, 22), (120, 38), (150, 31), (200, 58), (240, 68)])
@pytest.mark.parametrize("workers", [1, 4, 64])
def test_every_panel_has_a_place_and_the_screen_is_filled(size: tuple[int, int], workers: int) -> None:
    screen = Screen(*size)
    for focused in ROWS:
        places = arrange(screen, wishes(workers), focused)
        assert {*places} == {*screen.columns}
        gaps = 0 if screen.is_framed else 2 * max(places[Panel.FILES].height, 0)
        assert len(covered(places)) >= size[0] * size[1] - max(gaps, 2 * size[1] if size[0] >= 150 else 0)
        for panel, place in places.items():
            assert screen.inner_height(place) >= wishes(workers)[panel].least


def test_on_the_smallest_screens_the_focused_panel_stays() -> None:
    for width, height, focused in product((10, 40, 80, 200), range(1, 24), ROWS):
        places = arrange(Screen(width, height), wishes(), focused)
        assert focused in places
        assert all(0 <= y < height for _, y in covered(places))


def test_the_focused_panel_gets_more_lines_than_when_another_one_has_the_focus() -> None:
    screen = Screen(80, 22)
    for panel in (Panel.WORKERS, Panel.CLIENTS, Panel.EVENTS):
        focused = arrange(screen, wishes(64), panel)[panel].height
        assert focused > min(arrange(screen, wishes(64), other)[panel].height for other in ROWS)


def test_no_panel_grows_while_another_one_cannot_show_all_its_rows() -> None:
    places = arrange(Screen(120, 38), wishes(workers=4, clients=300), Panel.CLIENTS)
    assert places[Panel.WORKERS].height == 2 + 5


def test_a_panel_below_an_alarm_begins_one_line_lower() -> None:
    assert {place.y for place in arrange(Screen(80, 20, top=1), wishes(), Panel.WORKERS).values()} >= {1}


def test_the_neighbour_of_the_focused_panel_does_not_take_lines_from_others() -> None:
    wanted = {**wishes(workers=4, clients=4), Panel.FILES: Wish(2, 3)}
    places = arrange(Screen(80, 22), wanted, Panel.FILES)
    assert places[Panel.FILES].height <= 1 + 5
    assert places[Panel.WORKERS].height >= places[Panel.FILES].height - 1
