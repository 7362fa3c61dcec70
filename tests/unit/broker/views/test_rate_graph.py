"""The graph fills its panel, and the highest bar is the highest rate."""

from __future__ import annotations

import pytest

from msd.broker.views.rate_graph import SHOWN, rate_panel

MIB = 1 << 20


def test_the_newest_rate_is_at_the_right_and_the_highest_bar_is_full() -> None:
    text = rate_panel([1.0 * MIB, 2.0 * MIB, 4.0 * MIB], 4.0 * MIB, SHOWN + 1, 3)
    assert [line.text[-3:] for line in text.lines] == ["  █", " ▄█", "▆██"]
    assert text.titles[0] == "Rate: 4.0 MiB/s, at most 4.0 MiB/s in the last 5 minutes"


@pytest.mark.parametrize(("width", "height"), [(39, 2), (39, 8), (80, 4), (118, 12), (240, 3), (400, 20), (1, 1)])
def test_the_graph_fits_its_panel(width: int, height: int) -> None:
    text = rate_panel([float(rate) for rate in range(1, 400)], 1.0, width, height)
    assert text.height == height
    if width > 20:
        assert max(len(line.text) for line in text.lines) <= width
        assert max(len(line.text) for line in text.lines) > width * 0.45
    assert (text.lines[-1].text.split() == ["5:00", "ago", "2:30", "now"]) is (height >= 4 and width > 20)


def test_the_smallest_rate_is_visible() -> None:
    assert rate_panel([1000.0 * MIB, 1.0], 1.0, SHOWN + 1, 1).lines[0].text.endswith("█▁")


def test_without_traffic_the_panel_says_so() -> None:
    assert "nothing was sent" in rate_panel([0.0] * 9, 0.0, 60, 8).lines[0].text
    assert "nothing was sent" in rate_panel([], 0.0, 60, 8).lines[0].text
